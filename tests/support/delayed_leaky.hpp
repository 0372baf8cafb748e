#pragma once

#include "tests/support/golden_columns.hpp"
#include "unroll/cells/leaky.hpp"

// The golden network with units that keep half of their state, in the timing of papers on learning rules of
// single units: the loss of a step reads the state in front of it.
namespace golden {

struct delayed_leaky {
  using scalar = double;
  struct input {
    double x = 0;
    std::array<double, 2> y{};
    bool scored = true;
  };
  unroll::cells::leaky<double> cell{{.in = 1, .hidden = 2, .out = 0, .dt = 1, .tau = 2}};

  unroll::dims size() const { return cell.size(); }
  void start(unroll::state<double> s) const { s[0] = s[1] = .3; }
  static unroll::cells::example<double> inner(const input& in) { return {.x = &in.x}; }

  void step(const input& in, const unroll::edge<double>& e) const {
    cell.step(inner(in), e);
    *e.loss = 0;
    for (index_t i = 0; i < 2 && in.scored; ++i)
      *e.loss += (e.s[i] - in.y[std::size_t(i)]) * (e.s[i] - in.y[std::size_t(i)]) / 2;
  }
  void vjp(const input& in, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext,
           double dloss, unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
    cell.vjp(inner(in), e, dnext, 0, ds, dtheta);
    for (index_t i = 0; i < 2 && in.scored && !ds.empty(); ++i)
      ds[i] += dloss * (e.s[i] - in.y[std::size_t(i)]);
  }
  index_t units() const { return cell.units(); }
  bool units_apart() const { return cell.units_apart(); }
  std::vector<unroll::weight_matrix> weight_matrices() const { return cell.weight_matrices(); }
  void diag_jacobian(const input& in, const unroll::const_edge<double>& e, unroll::view<double> j) const {
    cell.diag_jacobian(inner(in), e, j);
  }
  void diag_factors(const input& in, const unroll::const_edge<double>& e, unroll::view<double> a,
                    unroll::view<double> d) const {
    cell.diag_factors(inner(in), e, a, d);
  }
};

/// The golden sequence, one step longer: the last step only reads the last loss.
inline std::vector<delayed_leaky::input> delayed_leaky_inputs() {
  std::vector<delayed_leaky::input> xs;
  std::array<double, 2> y{};
  for (const auto& in : inputs()) {
    xs.push_back({in.x, y, !xs.empty()});
    y = in.y;
  }
  xs.push_back({0, y, true});
  return xs;
}

/// Of that network: the exact gradient, row by row.
inline constexpr std::array<double, 8> leaky_gradient{.281352708672, -.006331107958, .004983105984,
                                                      .718486022391, -.139559614103, .022041363506,
                                                      .068344720695, -.325220471359};

}  // namespace golden
