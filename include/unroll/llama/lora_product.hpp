#pragma once

#include <array>
#include <span>
#include <utility>

#include "unroll/exec/operations.hpp"
#include "unroll/llama/lora.hpp"

namespace unroll::llama {

/// What the adapters of one layer add to its products with frozen matrices, and the vjp of it. A view of all
/// it needs, made for one call.
template <class E>
struct lora_product {
  using A = typename E::numbers::activation;
  using P = typename E::numbers::parameter;

  const E& e;         ///< whose operations it takes
  adapters<P> a;      ///< the set
  index_t layer = 0;  ///< number of the layer
  view<A> workspace;  ///< E::adapter_workspace(in + out, tokens, vjp) numbers

  /// Whether matrix m has an adapter.
  bool has(layer_matrix m) const { return a.map && a.map->at(layer, m).a >= 0; }
  /// y += scale (B' (A' x) + b) where matrix m has an adapter; x: in x tokens, y: out x tokens.
  template <class Y>
  void add(layer_matrix m, matrix<const A> x, matrix<Y> y) const {
    if (!has(m)) return;
    e.adapt(factors(m), x, y, workspace);
    add_bias(m, y);
  }
  /// The same of several matrices that take the same x.
  template <std::size_t n>
  void add_all(const std::array<std::pair<layer_matrix, matrix<A>>, n>& of, matrix<const A> x) const {
    std::array<exec::adapted<typename E::numbers>, n> all;
    std::size_t count = 0;
    for (const auto& [m, y] : of)
      if (has(m)) all[count++] = {factors(m), y};
    e.adapt_all(std::span<const exec::adapted<typename E::numbers>>(all.data(), count), x, workspace);
    for (const auto& [m, y] : of) add_bias(m, y);
  }
  /// From dy, out x tokens, the cotangent of y, with z = scale B dy:
  ///
  ///   dx += A z,    dA += x z',    dB += scale (A' x) dy',    db += scale sum_j dy_j
  ///
  /// ADDS to dx, in x tokens (null data: not wanted), and to the gradient `da` of the whole set (null: not
  /// wanted), one sequence after another.
  void add_vjp(layer_matrix m, matrix<const A> x, matrix<const A> dy, matrix<A> dx, P* da,
               index_t sequences) const {
    if (!has(m)) return;
    exec::adapter_gradient<P> d;
    if (da) d = {first(da, m), second(da, m)};
    e.adapt_vjp(factors(m), {x, dy, dx, d, sequences}, workspace);
    add_bias_vjp(m, dy, da);
  }
  /// The same of several matrices, by their dy.
  template <std::size_t n>
  void add_all_vjp(const std::array<std::pair<layer_matrix, matrix<const A>>, n>& of, matrix<const A> x,
                   matrix<A> dx, P* da, index_t sequences) const {
    std::array<exec::adapted_adjoint<typename E::numbers>, n> all;
    std::size_t count = 0;
    for (const auto& [m, dy] : of) {
      if (!has(m)) continue;
      auto& one = all[count++];
      one = {factors(m), dy};
      if (da) one.gradient = {first(da, m), second(da, m)};
    }
    e.adapt_all_vjp(std::span<const exec::adapted_adjoint<typename E::numbers>>(all.data(), count), x, dx,
                    sequences, workspace);
    for (const auto& [m, dy] : of) add_bias_vjp(m, dy, da);
  }

 private:
  /// y, out x tokens, += scale b in every column.
  template <class Y>
  void add_bias(layer_matrix m, matrix<Y> y) const {
    if (!has(m)) return;
    const auto at = a.map->at(layer, m);
    if (at.bias < 0) return;
    if constexpr (std::same_as<Y, P>)
      for (index_t j = 0; j < y.cols; ++j) e.axpy(at.scale, a.theta + at.bias, y.data + j * y.stride, at.out);
    else
      refuse_bias();
  }
  /// Its vjp from dy, out x tokens.
  void add_bias_vjp(layer_matrix m, matrix<const A> dy, P* da) const {
    if (!has(m) || !da) return;
    const auto at = a.map->at(layer, m);
    if (at.bias < 0) return;
    if constexpr (std::same_as<A, P>)
      for (index_t j = 0; j < dy.cols; ++j) e.axpy(at.scale, dy.data + j * dy.stride, da + at.bias, at.out);
    else
      refuse_bias();
  }
  /// A, in x rank, and B, rank x out, of matrix m in `of`, the whole set.
  template <class U>
  matrix<U> first(U* of, layer_matrix m) const {
    const auto at = a.map->at(layer, m);
    return {of + at.a, at.in, at.rank};
  }
  template <class U>
  matrix<U> second(U* of, layer_matrix m) const {
    const auto at = a.map->at(layer, m);
    return {of + at.b, at.rank, at.out};
  }
  exec::adapter<P> factors(layer_matrix m) const {
    return {first(a.theta, m), second(a.theta, m), a.map->at(layer, m).scale};
  }
  [[noreturn]] static void refuse_bias() {
    fail("lora_product", "bias", "of adapters is implemented where all numbers have the type of parameters");
  }
};

}  // namespace unroll::llama
