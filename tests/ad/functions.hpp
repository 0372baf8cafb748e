#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "unroll/system/concepts.hpp"

// Step functions over any number type, and one edge with random-looking numbers to try them on.
namespace ad_test {

template <class T>
struct point {
  const T* x = nullptr;
  const T* target = nullptr;
};

// A minimal gated unit (Zhou et al., 2016) with a linear readout.
template <class T>
struct mgu {
  using scalar = T;
  using input = point<T>;
  unroll::index_t h = 6;
  unroll::dims size() const { return {2 * h * (h + 2) + h, h}; }
  template <class N>
  N operator()(std::span<const N> theta, std::span<const N> s, const input& x, std::span<N> next) const {
    using std::tanh;
    const auto H = std::size_t(h);
    auto p = theta.begin();
    const auto row = [&](std::span<const N> v) {
      N a = *p++;
      for (const N& e : v) a += *p++ * e;
      return a + *p++ * N(*x.x);
    };
    std::vector<N> f(H), fs(H);
    for (std::size_t i = 0; i < H; ++i) {
      f[i] = N(0.5) + N(0.5) * tanh(row(s));
      fs[i] = f[i] * s[i];
    }
    for (std::size_t i = 0; i < H; ++i) next[i] = s[i] + f[i] * (tanh(row(fs)) - s[i]);
    N y{0};
    for (std::size_t i = 0; i < H; ++i) y += *p++ * next[i];
    return N(0.5) * (y - N(*x.target)) * (y - N(*x.target));
  }
};

// s' = tanh(w s + v x), with a start, a check of the input and no loss where x = 0.
template <class T>
struct leaky {
  using scalar = T;
  using input = point<T>;
  unroll::dims size() const { return {2, 1}; }
  void start(unroll::state<T> s) const { s[0] = T(0.25); }
  bool finite(const input& x) const { return std::isfinite(*x.x); }
  bool scored(const input& x) const { return *x.x != 0; }
  template <class N>
  N operator()(std::span<const N> theta, std::span<const N> s, const input& x, std::span<N> next) const {
    using std::tanh;
    next[0] = tanh(theta[0] * s[0] + theta[1] * N(*x.x));
    const N e = next[0] - N(*x.target);
    return scored(x) ? N(0.5) * e * e : N(0);
  }
};

// Numbers in (-1, 1) that look random.
template <class T>
std::vector<T> filled(unroll::index_t n, double seed) {
  std::vector<T> v(static_cast<std::size_t>(n));
  double a = seed;
  for (T& e : v) {
    a = std::fmod(a * 97.31 + 0.377, 1.0);
    e = T(2 * a - 1);
  }
  return v;
}

// One edge with everything that vjp and jvp take and give.
template <class T>
struct trial {
  explicit trial(const unroll::dims& d)
      : theta(filled<T>(d.params, 0.1)),
        s(filled<T>(d.state, 0.2)),
        dtheta(filled<T>(d.params, 0.3)),
        ds(filled<T>(d.state, 0.4)),
        u(filled<T>(d.state, 0.5)),
        next(s.size()),
        tangent(s.size()),
        gs(s.size()),
        g(theta.size()) {}

  unroll::edge<T> edge() {
    unroll::edge<T> e;
    e.theta = unroll::params<const T>(theta);
    e.s = unroll::state<const T>(s);
    e.next = unroll::state<T>(next);
    e.loss = &loss;
    return e;
  }
  template <class F, class X>
  void step(const F& f, const X& x) {
    f.step(x, edge());
  }
  template <class F, class X>
  void vjp(const F& f, const X& x) {
    f.vjp(x, edge(), unroll::dstate<const T>(u), v, unroll::dstate<T>(gs), unroll::dparams<T>(g));
  }
  template <class F, class X>
  void jvp(const F& f, const X& x) {
    f.jvp(x, edge(), unroll::params_tangent<const T>(dtheta), unroll::state_tangent<const T>(ds),
          unroll::state_tangent<T>(tangent), &dloss);
  }
  // (u, v) . J (dtheta, ds), multiplied from either side.
  T forward_side() const {
    T sum = v * dloss;
    for (std::size_t i = 0; i < s.size(); ++i) sum += u[i] * tangent[i];
    return sum;
  }
  T backward_side() const {
    T sum = 0;
    for (std::size_t i = 0; i < s.size(); ++i) sum += gs[i] * ds[i];
    for (std::size_t i = 0; i < theta.size(); ++i) sum += g[i] * dtheta[i];
    return sum;
  }

  std::vector<T> theta, s, dtheta, ds, u, next, tangent, gs, g;
  T v = T(0.75), loss = 0, dloss = 0;
};

}  // namespace ad_test
