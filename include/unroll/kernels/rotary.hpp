#pragma once

#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/kernels/rotary_table.hpp"

namespace unroll::kernels {

namespace detail {

template <int sign, class T>
void turn_neighbours(const T* cosine, const T* sine, T* x, index_t half) {
  for (index_t i = 0; i < half; ++i) {
    const T a = x[2 * i], b = x[2 * i + 1], s = T(sign) * sine[i];
    x[2 * i] = a * cosine[i] - b * s;
    x[2 * i + 1] = b * cosine[i] + a * s;
  }
}
template <int sign, class T>
void turn_halves(const T* cosine, const T* sine, T* x, T* y, index_t half) {
  constexpr int N = simd::width<T>;
  index_t i = 0;
  const auto turned = [](auto a, auto b, auto c, auto s, auto& u, auto& v) {
    u = a * c - b * (s * T(sign));
    v = b * c + a * (s * T(sign));
  };
  simd::vec<T> u, v;
  for (; i + N <= half; i += N) {
    turned(simd::load<N>(x + i), simd::load<N>(y + i), simd::load<N>(cosine + i), simd::load<N>(sine + i), u,
           v);
    simd::store(u, x + i);
    simd::store(v, y + i);
  }
  if (i < half) {
    const auto last = [&](const T* from) { return simd::load_first<N>(from + i, half - i); };
    turned(last(x), last(y), last(cosine), last(sine), u, v);
    simd::store_first(u, x + i, half - i);
    simd::store_first(v, y + i, half - i);
  }
}

}  // namespace detail

/// Turns every head of every column in place; x has a multiple of table.head rows, column j has the position
/// at[j % at.size()], which is not checked.
template <turn way, class T>
void rotate(const rotary_table<T>& table, std::span<const index_t> at, matrix<T> x) {
  constexpr int sign = way == turn::forward ? 1 : -1;
  const index_t half = table.head / 2, period = index_t(at.size());
  for (index_t j = 0; j < x.cols; ++j) {
    const index_t p = at[std::size_t(j % period)];
    UNROLL_ASSERT(p >= 0 && p < table.positions);
    const T* cosine = table.data + p * table.head;
    for (index_t h = 0; h < x.rows; h += table.head) {
      T* head = x.data + h + j * x.stride;
      if (table.neighbours)
        detail::turn_neighbours<sign>(cosine, cosine + half, head, half);
      else
        detail::turn_halves<sign>(cosine, cosine + half, head, head + half, half);
    }
  }
}

/// Rotary positions (Su et al. 2021, arXiv 2104.09864): pair i of every head turns by the angle
///   position / scale * base^(-2i / head).
/// A pair are the elements i and i + head / 2, or 2i and 2i + 1 where `neighbours`. Cosines and sines of all
/// positions are tabled, computed in double: positions x head numbers, which copies share.
template <class T>
class rotary final {
 public:
  rotary() = default;
  /// Throws unroll::error unless head is even and positive, positions >= 0, base > 0 and scale > 0.
  rotary(index_t head, double base, bool neighbours, index_t positions, double scale = 1)
      : half_(head / 2), positions_(positions), neighbours_(neighbours) {
    check_at_least("rotary", "head", head, 2);
    if (head % 2 != 0) fail("rotary", "head", "is " + std::to_string(head) + ", must be even");
    check_at_least("rotary", "positions", positions, 0);
    if (!(base > 0 && scale > 0)) fail("rotary", "base, scale", "must be positive");
    auto table = std::make_shared<std::vector<T>>(std::size_t(positions * head));
    for (index_t i = 0; i < half_; ++i) {
      const double frequency = std::pow(base, -2.0 * double(i) / double(head)) / scale;
      for (index_t p = 0; p < positions; ++p) {
        T* at = table->data() + p * head;
        at[i] = T(std::cos(double(p) * frequency));
        at[i + half_] = T(std::sin(double(p) * frequency));
      }
    }
    table_ = std::move(table);
  }

  index_t head() const { return 2 * half_; }
  rotary_table<T> table() const {
    return {table_ ? table_->data() : nullptr, head(), positions_, neighbours_};
  }
  index_t positions() const { return positions_; }  ///< those tabled are 0 .. positions() - 1

  /// Throws unroll::error, in the name of `function`, on a position outside the table.
  void check_positions(std::string_view function, std::span<const index_t> at) const {
    for (index_t p : at)
      if (p < 0 || p >= positions_)
        fail(function, "positions",
             "position " + std::to_string(p) + " is outside 0 .. " + std::to_string(positions_ - 1));
  }

  /// Turns every head of every column in place; x has a multiple of head() rows, column j has the position
  /// at[j % at.size()], which is not checked.
  void rotate(matrix<T> x, std::span<const index_t> at) const {
    kernels::rotate<turn::forward>(table(), at, x);
  }
  /// The transpose, which is the inverse: turns back. The vjp of rotate.
  void rotate_back(matrix<T> x, std::span<const index_t> at) const {
    kernels::rotate<turn::back>(table(), at, x);
  }

 private:
  index_t half_ = 0, positions_ = 0;
  bool neighbours_ = false;
  std::shared_ptr<const std::vector<T>> table_;
};

}  // namespace unroll::kernels
