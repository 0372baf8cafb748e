#pragma once

#include <vector>

#include "unroll/system/concepts.hpp"

namespace unroll {

/// Layer k of a system with unit_layers, as a system of units (has_diag_jacobian) whose state is the layer's.
/// It refers to the system, and takes no steps. Inputs and edges are those of the system.
template <class F>
class layer_of {
 public:
  using scalar = typename F::scalar;  ///< of its numbers
  using input = typename F::input;    ///< of the system

  layer_of(const F& f, index_t k) : layer_of(f, k, {}, 0) {
    const std::vector<unit_layer> all = f.unit_layers();
    for (index_t i = 0; i < k; ++i) first_matrix_ += all[std::size_t(i)].matrices;
    layer_ = all[std::size_t(k)];
  }
  /// The same of a layer that was looked at before, which allocates nothing: layer k of unit_layers(), whose
  /// matrices begin at number `first_matrix`.
  layer_of(const F& f, index_t k, const unit_layer& layer, index_t first_matrix)
      : f_(f), k_(k), first_matrix_(first_matrix), layer_(layer) {}

  dims size() const {
    const dims d = f_.size();
    return {.params = d.params, .state = layer_.numbers * d.lanes, .lanes = d.lanes};
  }
  bool begins(const input& x, index_t lane) const { return lane_begins(f_, x, lane); }
  index_t units() const { return layer_.units; }
  bool units_apart() const { return layer_.apart; }
  /// Those of the layer, where they stand in the theta of the system.
  std::vector<weight_matrix> weight_matrices() const {
    const std::vector<weight_matrix> all = f_.weight_matrices();
    return {all.begin() + first_matrix_, all.begin() + first_matrix_ + layer_.matrices};
  }
  void diag_jacobian(const input& x, const const_edge<scalar>& e, view<scalar> J) const {
    f_.layer_diag_jacobian(k_, x, e, J);
  }
  void diag_factors(const input& x, const const_edge<scalar>& e, view<scalar> a, view<scalar> d) const {
    f_.layer_diag_factors(k_, x, e, a, d);
  }

 private:
  const F& f_;
  index_t k_, first_matrix_;
  unit_layer layer_;
};

}  // namespace unroll
