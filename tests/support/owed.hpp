#pragma once

#include <Eigen/Dense>
#include <cmath>
#include <span>
#include <vector>

#include "unroll/rng/draw.hpp"
#include "unroll/system/concepts.hpp"

// Systems of which it is known in closed form what later losses owe to a state.
namespace support {

/// s' = theta s + x, loss s'^2 / 2, from 1. At theta = 1/2 and x = 0 later losses owe s / 3 to the state s.
struct halving {
  using scalar = double;
  using input = double;
  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
  void start(unroll::state<double> s) const { s[0] = 1; }
  void step(double x, const unroll::edge<double>& e) const {
    e.next[0] = e.theta[0] * e.s[0] + x;
    *e.loss = e.next[0] * e.next[0] / 2;
  }
  void vjp(double, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext, double dloss,
           unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    const double d = (dnext.empty() ? 0 : dnext[0]) + dloss * e.next[0];
    if (!ds.empty()) ds[0] += d * e.theta[0];
    if (!dtheta.empty()) dtheta[0] += d * e.s[0];
  }
  void jacobian(double, const unroll::const_edge<double>& e, unroll::view<double> j) const {
    j[0] = e.theta[0];
  }
  void immediate(double, const unroll::const_edge<double>& e, unroll::view<double> m, unroll::index_t p0,
                 unroll::index_t p1) const {
    if (p0 < p1) m[0] += e.s[0];
  }
};

/// s' = A s + x + (theta, 0), loss |s' - y|^2 / 2. With theta = 0 and x of mean zero later losses owe
/// sum_k gamma^(k-1) (A^k)' (A^k s - y) on average, each times gamma for every step that it is further off.
struct driven {
  using scalar = double;
  using input = Eigen::Vector2d;
  static Eigen::Matrix2d A() { return (Eigen::Matrix2d() << .6, .3, -.2, .5).finished(); }
  static Eigen::Vector2d y() { return {.2, -.3}; }
  static Eigen::Map<const Eigen::Vector2d> of(const double* s) {
    return Eigen::Map<const Eigen::Vector2d>(s);
  }

  unroll::dims size() const { return {1, 2, 0, 0, 1}; }
  void step(const input& x, const unroll::edge<double>& e) const {
    const Eigen::Vector2d next = A() * of(e.s.data()) + x;
    e.next[0] = next[0] + e.theta[0];
    e.next[1] = next[1];
    *e.loss = (of(e.next.data()) - y()).squaredNorm() / 2;
  }
  void vjp(const input&, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext,
           double dloss, unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    Eigen::Vector2d d = dloss * (of(e.next.data()) - y());
    if (!dnext.empty()) d += of(dnext.data());
    const Eigen::Vector2d before = A().transpose() * d;
    for (unroll::index_t i = 0; i < ds.size(); ++i) ds[i] += before[i];
    if (!dtheta.empty()) dtheta[0] += d[0];
  }
  void jacobian(const input&, const unroll::const_edge<double>&, unroll::view<double> j) const {
    Eigen::Map<Eigen::Matrix2d>(j.data()) = A();
  }
  void immediate(const input&, const unroll::const_edge<double>&, unroll::view<double> m, unroll::index_t p0,
                 unroll::index_t p1) const {
    if (p0 < p1) m[0] += 1;
  }
  /// (W, b) with W s + b what is owed on average.
  static Eigen::Matrix<double, 2, 3> owed(double gamma) {
    Eigen::Matrix<double, 2, 3> phi = Eigen::Matrix<double, 2, 3>::Zero();
    Eigen::Matrix2d power = A();
    for (int k = 0; k < 200; ++k, power = A() * power) {
      phi.leftCols<2>() += std::pow(gamma, k) * power.transpose() * power;
      phi.col(2) -= std::pow(gamma, k) * power.transpose() * y();
    }
    return phi;
  }
  /// Steps with x of mean zero.
  static std::vector<input> inputs() {
    std::vector<double> x(24000 * 2);
    unroll::draw_normals(unroll::key{4}, 0, unroll::view<double>(x));
    std::vector<input> xs;
    for (std::size_t t = 0; t < 24000; ++t) xs.push_back(of(x.data() + 2 * t));
    return xs;
  }
  /// The mean of the (W, b) that the estimator has learned, over the second half of them.
  template <class E>
  static Eigen::Matrix<double, 2, 3> learned(E est) {
    const auto xs = inputs();
    std::vector<double> theta{0}, g(1);
    Eigen::Matrix<double, 2, 3> mean = Eigen::Matrix<double, 2, 3>::Zero();
    for (std::size_t t = 0; t < xs.size(); ++t) {
      est.advance(theta, std::span(xs).subspan(t, 1), unroll::dparams<double>(g));
      if (t >= xs.size() / 2)
        mean += Eigen::Map<const Eigen::Matrix<double, 2, 3>>(est.synthesiser_numbers().data());
    }
    return mean / double(xs.size() / 2);
  }
  /// The gradient by theta of all but the first 4000, as the estimator has it then.
  template <class E>
  static double late_gradient(E est) {
    const auto xs = inputs();
    std::vector<double> theta{0}, early(1), g(1);
    est.advance(theta, std::span(xs).first(4000), unroll::dparams<double>(early));
    est.advance(theta, std::span(xs).subspan(4000), unroll::dparams<double>(g));
    return g[0];
  }
};

}  // namespace support
