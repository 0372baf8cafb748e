#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "unroll/system/window.hpp"

// A system that has every optional member, and can be told to get one of them wrong.
namespace support {

using unroll::index_t;

enum class fault {
  none,
  step_adds_loss,         ///< loss is added, not written
  step_reads_tape,        ///< the new state depends on what was in the tape
  step_overruns,          ///< writes one number past the tape
  step_remembers,         ///< hidden state: every call differs
  vjp_overwrites,         ///< ds is written, not added to
  vjp_dtheta_overwrites,  ///< the same for dtheta
  vjp_wrong_factor,       ///< the gradient of b is 1 % too large
  vjp_needs_dnext,        ///< an empty dnext is taken for ones
  vjp_drops_loss,
  vjp_reads_latest,  ///< reads the state of the latest step instead of the tape
  vjp_mixes_lanes,
  jvp_adds,
  jvp_ignores_dtheta,
  jvp_drops_loss,
  forward_stops_early,  ///< the last step of a window is not taken
  backward_ignores_carry,
  backward_ignores_weight,
  backward_overwrites,
  jacobian_transposed,
  immediate_overwrites,
  immediate_ignores_range,
  row_norms_squared,
  jacobian_mask_misses,
  immediate_mask_misses,
  jacobian_mask_only_ones,   ///< entries that are 0 are not written
  immediate_mask_only_ones,  ///< likewise
  jacobian_mask_overruns,
  factors_add,
  factors_read_workspace,
  factors_overrun,
  units_no_divisor,        ///< a unit too many
  units_apart_lie,         ///< says that no unit listens to another
  diag_jacobian_of_other,  ///< in the place of every unit what its neighbour does to it
  diag_jacobian_overruns,
  diag_factors_of_first,  ///< the first unit's for all
  diag_factors_overrun,
  lane_vjp_all_lanes,  ///< every lane gets the sum over the lanes
  not_finite_at_zero,
  nothing_scored,  ///< says that no lane has a loss
};

/// s'_i = tanh(a_i s_i + c_i s_{i+1} + b_i x), i = 0 .. n-1 cyclic, in every lane; loss = 1/2 sum s'^2.
/// theta = (a, c, b).
template <class T>
struct complete {
  using scalar = T;
  using input = T;

  index_t n = 2;
  index_t lanes = 1;
  fault wrong = fault::none;
  mutable T memory = 0;

  bool is(fault f) const { return wrong == f; }

  unroll::dims size() const { return {3 * n, n * lanes, n * lanes, 2 * n * lanes, lanes}; }
  void start(unroll::state<T> s) const { std::fill(s.begin(), s.end(), T(0.25)); }
  bool finite(T x) const { return std::isfinite(x); }
  index_t scored(T) const { return is(fault::nothing_scored) ? 0 : lanes; }
  index_t neighbour(index_t i) const { return i / n * n + (i + 1) % n; }

  void step(T x, const unroll::edge<T>& e) const {
    T loss = is(fault::step_adds_loss) ? *e.loss : T(0);
    for (index_t i = 0; i < n * lanes; ++i) {
      const index_t k = i % n;
      T z = e.theta[k] * e.s[i] + e.theta[n + k] * e.s[neighbour(i)] + e.theta[2 * n + k] * x;
      if (is(fault::not_finite_at_zero)) z += std::sqrt(std::abs(e.theta[k])) / e.theta[k];
      if (is(fault::step_reads_tape)) z += T(1e-3) * e.tape[i];
      if (is(fault::step_remembers)) z += (memory += T(1e-4));
      e.next[i] = std::tanh(z);
      e.tape[i] = 1 - e.next[i] * e.next[i];
      loss += e.next[i] * e.next[i] / 2;
    }
    if (is(fault::step_overruns)) e.tape.data()[n * lanes] = 0;
    if (is(fault::vjp_reads_latest)) memory = e.next[0];
    *e.loss = loss;
  }

  // dz of the whole state, from the cotangent of s'
  void dz(const unroll::const_edge<T>& e, unroll::dstate<const T> dnext, T dloss, T* z) const {
    for (index_t i = 0; i < n * lanes; ++i) {
      z[i] = is(fault::vjp_drops_loss) ? T(0) : dloss * e.next[i];
      if (!dnext.empty())
        z[i] += dnext[i];
      else if (is(fault::vjp_needs_dnext))
        z[i] += 1;
      z[i] *= e.tape[i];
      if (is(fault::vjp_reads_latest)) z[i] *= 1 + memory / 100;
    }
  }
  // ADDS the gradient of one lane
  void add_theta(T x, const unroll::const_edge<T>& e, const T* z, index_t lane, T* dtheta) const {
    for (index_t i = lane * n; i < (lane + 1) * n; ++i) {
      dtheta[i % n] += z[i] * e.s[i];
      dtheta[n + i % n] += z[i] * e.s[neighbour(i)];
      dtheta[2 * n + i % n] += z[i] * x * (is(fault::vjp_wrong_factor) ? T(1.01) : T(1));
    }
  }
  void vjp(T x, const unroll::const_edge<T>& e, unroll::dstate<const T> dnext, T dloss, unroll::dstate<T> ds,
           unroll::dparams<T> dtheta) const {
    T* z = e.workspace.data();
    dz(e, dnext, dloss, z);
    if (is(fault::vjp_overwrites)) std::fill(ds.begin(), ds.end(), T(0));
    if (is(fault::vjp_dtheta_overwrites)) std::fill(dtheta.begin(), dtheta.end(), T(0));
    if (!ds.empty())
      for (index_t i = 0; i < n * lanes; ++i) {
        ds[i] += z[i] * e.theta[i % n];
        const index_t to = is(fault::vjp_mixes_lanes) ? (i + 1) % (n * lanes) : neighbour(i);
        ds[to] += z[i] * e.theta[n + i % n];
      }
    if (!dtheta.empty())
      for (index_t l = 0; l < lanes; ++l) add_theta(x, e, z, l, dtheta.data());
  }

  void jvp(T x, const unroll::const_edge<T>& e, unroll::params_tangent<const T> dtheta,
           unroll::state_tangent<const T> ds, unroll::state_tangent<T> dnext, T* dloss) const {
    T sum = 0;
    T* out = e.workspace.data();
    for (index_t i = 0; i < n * lanes; ++i) {
      const index_t k = i % n;
      T z = 0;
      if (!ds.empty()) z += e.theta[k] * ds[i] + e.theta[n + k] * ds[neighbour(i)];
      if (!dtheta.empty() && !is(fault::jvp_ignores_dtheta))
        z += dtheta[k] * e.s[i] + dtheta[n + k] * e.s[neighbour(i)] + dtheta[2 * n + k] * x;
      out[i] = e.tape[i] * z + (is(fault::jvp_adds) ? dnext[i] : T(0));
      sum += e.next[i] * out[i];
    }
    std::copy_n(out, n * lanes, dnext.begin());
    if (dloss) *dloss = is(fault::jvp_drops_loss) ? T(0) : sum;
  }

  index_t window_workspace(index_t) const { return 4 * n * lanes; }
  void forward(std::span<const T> xs, const unroll::window<T>& w) const {
    const index_t steps = w.steps - (is(fault::forward_stops_early) ? 1 : 0);
    for (index_t i = 0; i < steps; ++i) step(xs[std::size_t(i)], unroll::edge_of(*this, w, i));
  }
  void backward(std::span<const T> xs, const unroll::window<T>& w, const unroll::injection<T>& in,
                unroll::dstate<T> ds, unroll::dparams<T> dtheta) const {
    if (is(fault::backward_overwrites)) std::fill(dtheta.begin(), dtheta.end(), T(0));
    unroll::dstate<T> before{w.workspace.data() + 2 * n * lanes, n * lanes};
    for (index_t i = w.steps - 1; i >= 0; --i) {
      if (in.carry && !is(fault::backward_ignores_carry))
        for (T& v : ds) v = in.carry[i] == T(0) ? T(0) : in.carry[i] * v;
      std::fill(before.begin(), before.end(), T(0));
      const T weight = in.loss_weight && !is(fault::backward_ignores_weight) ? in.loss_weight[i] : T(1);
      vjp(xs[std::size_t(i)], unroll::edge_of(*this, w, i), unroll::dstate<const T>(ds), weight, before,
          dtheta);
      std::copy(before.begin(), before.end(), ds.begin());
    }
  }

  void jacobian(T, const unroll::const_edge<T>& e, unroll::view<T> j) const {
    std::fill(j.begin(), j.end(), T(0));
    const bool turned = is(fault::jacobian_transposed);
    for (index_t i = 0; i < n * lanes; ++i) {
      const index_t r = i % n, c = (r + 1) % n, block = i / n * n * n;
      j[block + r + r * n] += e.tape[i] * e.theta[r];
      j[block + (turned ? c + r * n : r + c * n)] += e.tape[i] * e.theta[n + r];
    }
  }
  void immediate(T x, const unroll::const_edge<T>& e, unroll::view<T> m, index_t p0, index_t p1) const {
    if (is(fault::immediate_ignores_range)) p0 = 0, p1 = 3 * n;
    for (index_t i = 0; i < n * lanes; ++i)
      for (index_t p = p0; p < p1; ++p) {
        T& to = m[i / n * n * 3 * n + i % n + p * n];
        if (is(fault::immediate_overwrites)) to = 0;
        if (p % n == i % n) to += e.tape[i] * (p < n ? e.s[i] : p < 2 * n ? e.s[neighbour(i)] : x);
      }
  }
  void row_norms(T x, const unroll::const_edge<T>& e, unroll::view<T> out) const {
    for (index_t i = 0; i < n * lanes; ++i) {
      const T square =
          e.tape[i] * e.tape[i] * (e.s[i] * e.s[i] + e.s[neighbour(i)] * e.s[neighbour(i)] + x * x);
      out[i] = is(fault::row_norms_squared) ? square : std::sqrt(square);
    }
  }
  void jacobian_mask(unroll::view<std::uint8_t> j) const {
    if (!is(fault::jacobian_mask_only_ones)) std::fill(j.begin(), j.end(), std::uint8_t(0));
    if (is(fault::jacobian_mask_overruns)) j.data()[n * n] = 1;
    for (index_t i = 0; i < n; ++i) {
      j[i * n + i] = 1;
      if (!is(fault::jacobian_mask_misses)) j[(i + 1) % n * n + i] = 1;
    }
  }
  void immediate_mask(unroll::view<std::uint8_t> f, index_t p0, index_t p1) const {
    if (!is(fault::immediate_mask_only_ones)) std::fill(f.begin(), f.end(), std::uint8_t(0));
    for (index_t p = p0; p < p1; ++p)
      f[(p - p0) * n + p % n] = p < 2 * n || !is(fault::immediate_mask_misses);
  }
  // a, c and b are matrices of one column, which multiply 1
  std::vector<unroll::weight_matrix> weight_matrices() const {
    std::vector<unroll::weight_matrix> matrices;
    for (index_t b = 0; b < 3; ++b)
      matrices.push_back({.first = b * n, .rows = n, .columns = 1, .stride = n});
    return matrices;
  }
  void factors(T x, const unroll::const_edge<T>& e, unroll::view<T> a, unroll::view<T> d) const {
    if (!is(fault::factors_add)) std::fill(d.begin(), d.end(), T(0));
    if (is(fault::factors_overrun)) d.data()[3 * n * n * lanes] = 0;
    std::fill(a.begin(), a.end(), T(1));
    for (index_t i = 0; i < n * lanes; ++i)
      for (index_t b = 0; b < 3; ++b)
        d[(i / n * 3 * n + b * n + i % n) * n + i % n] +=
            e.tape[i] *
            (multiplied(x, e, b, i) + (is(fault::factors_read_workspace) && b == 2 ? e.workspace[0] : 0));
  }
  // what a, c or b multiplies in entry i
  T multiplied(T x, const unroll::const_edge<T>& e, index_t b, index_t i) const {
    return b == 0 ? e.s[i] : b == 1 ? e.s[neighbour(i)] : x;
  }
  index_t units() const { return n + (is(fault::units_no_divisor) ? 1 : 0); }
  bool units_apart() const { return is(fault::units_apart_lie); }
  void diag_jacobian(T, const unroll::const_edge<T>& e, unroll::view<T> j) const {
    for (index_t i = 0; i < n * lanes; ++i)
      j[i] = e.tape[i] * e.theta[i % n + (is(fault::diag_jacobian_of_other) ? n : 0)];
    if (is(fault::diag_jacobian_overruns)) j.data()[n * lanes] = 0;
  }
  void diag_factors(T x, const unroll::const_edge<T>& e, unroll::view<T> a, unroll::view<T> d) const {
    std::fill(a.begin(), a.end(), T(1));
    for (index_t i = 0; i < n * lanes; ++i)
      for (index_t b = 0; b < 3; ++b) {
        const index_t from = is(fault::diag_factors_of_first) ? i / n * n : i;
        d[i / n * 3 * n + b * n + i % n] = e.tape[from] * multiplied(x, e, b, from);
      }
    if (is(fault::diag_factors_overrun)) d.data()[3 * n * lanes] = 0;
  }
  // one layer, said of it what is true whatever is wrong above
  std::vector<unroll::unit_layer> unit_layers() const {
    return {{.first = 0, .numbers = n, .units = n, .matrices = 3, .apart = false}};
  }
  void layer_diag_jacobian(index_t, T x, const unroll::const_edge<T>& e, unroll::view<T> j) const {
    complete{n, lanes}.diag_jacobian(x, e, j);
  }
  void layer_diag_factors(index_t, T x, const unroll::const_edge<T>& e, unroll::view<T> a,
                          unroll::view<T> d) const {
    complete{n, lanes}.diag_factors(x, e, a, d);
  }
  void lane_vjp(T x, const unroll::const_edge<T>& e, unroll::dstate<const T> dnext,
                unroll::view<T> dtheta) const {
    T* z = e.workspace.data();
    dz(e, dnext, T(0), z);
    for (index_t l = 0; l < lanes; ++l)
      for (index_t from = 0; from < lanes; ++from)
        if (from == l || is(fault::lane_vjp_all_lanes)) add_theta(x, e, z, from, dtheta.data() + l * 3 * n);
  }
};

static_assert(unroll::has_window<complete<double>> && unroll::has_jvp<complete<float>> &&
              unroll::has_jacobian<complete<float>> && unroll::has_row_norms<complete<double>> &&
              unroll::has_lane_vjp<complete<double>> && unroll::has_masks<complete<float>> &&
              unroll::has_factors<complete<double>> && unroll::has_diag_jacobian<complete<float>> &&
              unroll::has_unit_layers<complete<double>>);

/// Three lanes that have a loss only where the input is positive.
struct masked {
  using scalar = double;
  using input = double;
  unroll::dims size() const { return {.params = 1, .state = 3, .lanes = 3}; }
  bool scored(double x) const { return x > 0; }
  void step(double x, const unroll::edge<double>& e) const {
    *e.loss = 0;
    for (index_t l = 0; l < 3; ++l) {
      e.next[l] = e.theta[0] * e.s[l] + x;
      if (scored(x)) *e.loss += e.next[l];
    }
  }
};

/// The parameters (.5, -.3, .4, ...) and inputs sin(1), sin(2), ... that the tests use.
template <class T>
std::vector<T> complete_theta(index_t n = 2) {
  std::vector<T> theta;
  for (index_t i = 0; i < 3 * n; ++i) theta.push_back(T(0.6 * std::cos(2.0 * double(i) + 0.5)));
  return theta;
}
template <class T>
std::vector<T> complete_inputs(index_t steps) {
  std::vector<T> xs;
  for (index_t t = 1; t <= steps; ++t) xs.push_back(T(std::sin(double(t))));
  return xs;
}

}  // namespace support
