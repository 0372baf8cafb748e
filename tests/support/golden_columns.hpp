#pragma once

#include "tests/support/delayed_golden.hpp"

namespace golden {

/// The golden network in the paper's timing, with W column by column as one matrix that multiplies [s; x; 1].
struct golden_columns {
  using scalar = double;
  using input = delayed_rnn::input;
  unroll::dims size() const { return {8, 2, 2, 0, 1}; }
  void start(unroll::state<double> s) const { s[0] = s[1] = .3; }
  static double a(const input& in, unroll::state<const double> s, index_t j) {
    return j < 2 ? s[j] : j == 2 ? in.x : 1;
  }

  void step(const input& in, const unroll::edge<double>& e) const {
    *e.loss = 0;
    for (index_t i = 0; i < 2; ++i) {
      double z = 0;
      for (index_t j = 0; j < 4; ++j) z += e.theta[2 * j + i] * a(in, e.s, j);
      e.next[i] = std::tanh(z);
      e.tape[i] = 1 - e.next[i] * e.next[i];
      if (in.scored) *e.loss += (e.s[i] - in.y[std::size_t(i)]) * (e.s[i] - in.y[std::size_t(i)]) / 2;
    }
  }
  void vjp(const input& in, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext,
           double dloss, unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    for (index_t i = 0; i < 2; ++i) {
      const double d = dnext.empty() ? 0 : dnext[i] * e.tape[i];
      for (index_t j = 0; j < 4; ++j) {
        if (!ds.empty() && j < 2) ds[j] += d * e.theta[2 * j + i];
        if (!dtheta.empty()) dtheta[2 * j + i] += d * a(in, e.s, j);
      }
      if (!ds.empty() && in.scored) ds[i] += dloss * (e.s[i] - in.y[std::size_t(i)]);
    }
  }
  void jvp(const input& in, const unroll::const_edge<double>& e, unroll::params_tangent<const double> dtheta,
           unroll::state_tangent<const double> ds, unroll::state_tangent<double> dnext, double* dloss) const {
    if (dloss) *dloss = 0;
    for (index_t i = 0; i < 2; ++i) {
      dnext[i] = 0;
      for (index_t j = 0; j < 4; ++j) {
        if (!ds.empty() && j < 2) dnext[i] += e.tape[i] * e.theta[2 * j + i] * ds[j];
        if (!dtheta.empty()) dnext[i] += e.tape[i] * dtheta[2 * j + i] * a(in, e.s, j);
      }
      if (dloss && !ds.empty() && in.scored) *dloss += (e.s[i] - in.y[std::size_t(i)]) * ds[i];
    }
  }
  void jacobian(const input&, const unroll::const_edge<double>& e, unroll::view<double> j) const {
    for (index_t k = 0; k < 4; ++k) j[k] = e.tape[k % 2] * e.theta[k];
  }
  void immediate(const input& in, const unroll::const_edge<double>& e, unroll::view<double> m, index_t p0,
                 index_t p1) const {
    for (index_t p = p0; p < p1; ++p) m[2 * p + p % 2] += e.tape[p % 2] * a(in, e.s, p / 2);
  }
  std::vector<unroll::weight_matrix> weight_matrices() const { return {{0, 2, 4, 2}}; }
  void factors(const input& in, const unroll::const_edge<double>& e, unroll::view<double> out,
               unroll::view<double> d) const {
    for (index_t j = 0; j < 4; ++j) {
      out[j] = a(in, e.s, j);
      d[j] = j % 3 == 0 ? e.tape[j / 2] : 0;
    }
  }
};

/// A vector over the golden matrix, row by row, column by column.
inline std::vector<double> by_columns(const auto& by_rows) {
  std::vector<double> v(8);
  for (std::size_t k = 0; k < 8; ++k) v[k] = by_rows[k % 2 * 4 + k / 2];
  return v;
}
inline std::vector<double> columns_theta() {
  const auto rows = theta();
  return by_columns(std::vector<double>(rows.begin(), rows.end()));
}

}  // namespace golden
