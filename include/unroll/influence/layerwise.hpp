#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "unroll/influence/diagonal.hpp"
#include "unroll/system/layer_of.hpp"

namespace unroll::influence {

/// Of M = ds/dtheta, in every layer of a system of layers, what a parameter does to its own unit; all else
/// counts as 0, also what it does to the layers above:
///
///     M_k <- J_kk M_k + F_k       for the units of layer k alone (influence::diagonal)
///
/// What theta_k does to a layer above within a step is in dl/ds of the step, and so in g; that those layers
/// remember it is left out. Costs and memory are those of diagonal, layer by layer. Needs: unit_layers.
template <class F>
class layerwise {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// Throws unroll::error, in the name of the estimator `who`, where units do not divide a layer's state and
  /// rows.
  layerwise(const char* who, const F& f) : lanes_(f.size().lanes), n_(f.size().state / lanes_) {
    index_t widest = 0, matrix = 0;
    for (const unit_layer& l : f.unit_layers()) {
      layers_.push_back({l, matrix, diagonal<layer_of<F>>(who, layer_of<F>(f, index_t(layers_.size())))});
      widest = std::max(widest, l.numbers);
      matrix += l.matrices;
    }
    q_ = block<T, state_cotangent_space>(lanes_ * widest);
  }

  void reset() {
    for (part& p : layers_) p.traces.reset();
  }

  /// g += q M, then M <- J M + F within the units of every layer, at the edge e. Returns the vjps: none.
  index_t propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g) {
    for (std::size_t k = 0; k < layers_.size(); ++k) {
      part& p = layers_[k];
      const index_t numbers = p.at.numbers;
      for (index_t l = 0; l < lanes_; ++l)
        std::copy_n(q.data() + l * n_ + p.at.first, numbers, q_.data() + l * numbers);
      p.traces.propagate(layer_of<F>(f, index_t(k), p.at, p.matrix), x, e, {q_.data(), lanes_ * numbers}, g);
    }
    return 0;
  }

  /// Entries of M, of one lane.
  index_t kept() const {
    index_t all = 0;
    for (const part& p : layers_) all += p.traces.kept();
    return all;
  }
  std::size_t bytes() const {
    std::size_t all = q_.bytes();
    for (const part& p : layers_) all += p.traces.bytes();
    return all;
  }
  template <class V>
  void visit(V&& v) {
    for (std::size_t k = 0; k < layers_.size(); ++k)
      visit_part(v, "layer " + std::to_string(k), layers_[k].traces);
  }

 private:
  struct part {
    unit_layer at;
    index_t matrix;  // of the system's, the first
    diagonal<layer_of<F>> traces;
  };
  index_t lanes_, n_;
  std::vector<part> layers_;
  block<T, state_cotangent_space> q_;
};

}  // namespace unroll::influence
