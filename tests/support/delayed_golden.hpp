#pragma once

#include "tests/support/golden_rnn.hpp"
#include "unroll/rng/chooser.hpp"

// The golden network in the timing of the UORO paper: the loss of a step reads the state in front of it, so
// that an estimator cannot credit a loss to the newest state exactly and every term carries its random signs.
// The golden draws and covariances of rank-one estimators hold for this one.
namespace golden {

struct delayed_rnn {
  using scalar = double;
  struct input {
    double x = 0;
    std::array<double, 2> y{};
    bool scored = true;
  };
  unroll::dims size() const { return cell.size(); }
  void start(unroll::state<double> s) const { cell.start(s); }

  void step(const input& in, const unroll::edge<double>& e) const {
    cell.step({in.x, {}}, e);
    *e.loss = 0;
    if (in.scored)
      for (index_t i = 0; i < 2; ++i) *e.loss += 0.5 * residual(in, e.s, i) * residual(in, e.s, i);
  }
  void vjp(const input& in, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext,
           double dloss, unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    cell.vjp({in.x, {}}, e, dnext, 0, ds, dtheta);
    if (!ds.empty() && in.scored)
      for (index_t i = 0; i < 2; ++i) ds[i] += dloss * residual(in, e.s, i);
  }
  void jvp(const input& in, const unroll::const_edge<double>& e, unroll::params_tangent<const double> dtheta,
           unroll::state_tangent<const double> ds, unroll::state_tangent<double> dnext, double* dloss) const {
    double sum = 0;
    if (!ds.empty() && in.scored)
      for (index_t i = 0; i < 2; ++i) sum += ds[i] * residual(in, e.s, i);
    cell.jvp({in.x, {}}, e, dtheta, ds, dnext, nullptr);
    if (dloss) *dloss = sum;
  }

  rnn<double> cell;

 private:
  static double residual(const input& in, unroll::state<const double> s, index_t i) {
    return s[i] - in.y[std::size_t(i)];
  }
};

/// The golden sequence, one step longer: the last step only reads the last loss.
inline std::vector<delayed_rnn::input> delayed_inputs() {
  std::vector<delayed_rnn::input> xs;
  std::array<double, 2> y{};
  for (const auto& in : inputs()) {
    xs.push_back({in.x, y, !xs.empty()});
    y = in.y;
  }
  xs.push_back({0, y, true});
  return xs;
}

/// The signs (1,1), (1,-1), (-1,1) of the golden draws, then ones; `flip` negates all of them.
struct scripted_signs {
  double flip = 1;
  void reset(unroll::key) {}
  void mirror(bool) {}
  template <class T, class Space>
  void signs(std::int64_t t, unroll::view<T, Space> out) const {
    out[0] = T(t == 2 ? -flip : flip);
    out[1] = T(t == 1 ? -flip : flip);
  }
  bool coin(std::int64_t, double) const { return false; }
  index_t uniform(std::int64_t, index_t) const { return 0; }
  template <class T, class Space>
  void normals(std::int64_t, unroll::view<T, Space> out) const {
    for (T& v : out) v = 0;
  }
};

/// `count` golden networks side by side, lane l with the input x multiplied by 1 - l / 2. Without optional
/// members: an estimator has to keep the lanes apart by itself.
struct lanes_rnn {
  using scalar = double;
  using input = rnn<double>::input;
  index_t count = 2;

  unroll::dims size() const { return {8, 2 * count, 2 * count, 2, count}; }
  void start(unroll::state<double> s) const {
    for (double& v : s) v = 0.3;
  }
  void step(const input& x, const unroll::edge<double>& e) const {
    *e.loss = 0;
    for (index_t l = 0; l < count; ++l) {
      double part_loss = 0;
      cell.step(of(x, l), {e.theta, e.s.part(2 * l, 2), e.next.part(2 * l, 2), e.tape.part(2 * l, 2),
                           &part_loss, e.workspace, e.t});
      *e.loss += part_loss;
    }
  }
  void vjp(const input& x, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext,
           double dloss, unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    for (index_t l = 0; l < count; ++l)
      cell.vjp(of(x, l), lane(e, l), part(dnext, l), dloss, part(ds, l), dtheta);
  }
  void jvp(const input& x, const unroll::const_edge<double>& e, unroll::params_tangent<const double> dtheta,
           unroll::state_tangent<const double> ds, unroll::state_tangent<double> dnext, double* dloss) const {
    double sum = 0, one = 0;
    for (index_t l = 0; l < count; ++l) {
      cell.jvp(of(x, l), lane(e, l), dtheta, part(ds, l), part(dnext, l), &one);
      sum += one;
    }
    if (dloss) *dloss = sum;
  }
  static input of(input x, index_t l) {
    x.x *= 1 - 0.5 * double(l);
    return x;
  }
  static unroll::const_edge<double> lane(unroll::const_edge<double> e, index_t l) {
    e.s = e.s.part(2 * l, 2);
    e.next = e.next.part(2 * l, 2);
    e.tape = e.tape.part(2 * l, 2);
    return e;
  }
  template <class View>
  static View part(View v, index_t l) {
    return v.empty() ? v : v.part(2 * l, 2);
  }
  rnn<double> cell;
};

/// The same with every lane's parameter cotangent in one call.
struct hooked_lanes_rnn : lanes_rnn {
  void lane_vjp(const input& x, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext,
                unroll::view<double> dtheta) const {
    for (index_t l = 0; l < count; ++l)
      cell.vjp(of(x, l), lane(e, l), part(dnext, l), 0, {}, {dtheta.data() + 8 * l, 8});
  }
};

}  // namespace golden
