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

/// Turns (x[2 i], x[2 i + 1]); x: 2 half numbers, cosine, sine: `half`.
template <int sign, class T>
inline void turn_neighbours(const T* cosine, const T* sine, T* x, index_t half) {
  for (index_t i = 0; i < half; ++i) {
    const T a = x[2 * i], b = x[2 * i + 1], s = T(sign) * sine[i];
    x[2 * i] = a * cosine[i] - b * s;
    x[2 * i + 1] = b * cosine[i] + a * s;
  }
}
/// cosine, sine: `half` numbers, as many as x and y have. By vectors of N elements, what is left by narrower
/// ones: half a head is often less than the widest vector.
template <int N, int sign, class T>
UNROLL_INLINE inline void turn_halves(const T* cosine, const T* sine, T* x, T* y, index_t half) {
  using vec = simd::vec<T, N>;
  index_t i = 0;
  for (; i + N <= half; i += N) {
    const vec a = simd::load<N>(x + i), b = simd::load<N>(y + i);
    const vec c = simd::load<N>(cosine + i), s = simd::load<N>(sine + i) * T(sign);
    simd::store(a * c - b * s, x + i);
    simd::store(b * c + a * s, y + i);
  }
  if constexpr (N > 1)
    if (i < half) turn_halves<N / 2, sign>(cosine + i, sine + i, x + i, y + i, half - i);
}

template <turn way>
struct rotate_kernel {
  template <class Isa, class T>
  UNROLL_INLINE static void run(const rotary_table<T>& table, const index_t* at, index_t period,
                                const matrix<T>& x) {
    constexpr int sign = way == turn::forward ? 1 : -1;
    const index_t half = table.head_dim / 2;
    for (index_t j = 0; j < x.cols; ++j) {
      const index_t p = at[j % period];
      UNROLL_ASSERT(p >= 0 && p < table.positions);
      const T* cosine = table.data + p * table.head_dim;
      for (index_t h = 0; h < x.rows; h += table.head_dim) {
        T* head = x.data + h + j * x.stride;
        if (table.neighbours)
          turn_neighbours<sign>(cosine, cosine + half, head, half);
        else
          turn_halves<simd::width<Isa, T>, sign>(cosine, cosine + half, head, head + half, half);
      }
    }
  }
};

}  // namespace detail

/// Turns every head of every column in place; x has a multiple of table.head_dim rows, column j has the
/// position at[j % at.size()], which is not checked.
template <turn way, class T>
void rotate(const rotary_table<T>& table, std::span<const index_t> at, matrix<T> x) {
  simd::dispatch<detail::rotate_kernel<way>, const rotary_table<T>&, const index_t*, index_t,
                 const matrix<T>&>(table, at.data(), index_t(at.size()), x);
}

/// By which angle pair i of a head turns from one position to the next: base^(-2i / head_dim) / scale, i from
/// 0 to head_dim / 2 - 1. Throws unroll::error unless head_dim is even and positive, base > 0 and scale > 0.
inline std::vector<double> inverse_frequencies(index_t head_dim, double base, double scale = 1) {
  check_at_least("rotary", "head_dim", head_dim, 2);
  if (head_dim % 2 != 0) fail("rotary", "head_dim", "is " + std::to_string(head_dim) + ", must be even");
  if (!(base > 0 && scale > 0))
    fail("rotary", "base, scale",
         "are " + std::to_string(base) + ", " + std::to_string(scale) + ", must be positive");
  std::vector<double> inverse(std::size_t(head_dim / 2));
  for (std::size_t i = 0; i < inverse.size(); ++i)
    inverse[i] = std::pow(base, -2.0 * double(i) / double(head_dim)) / scale;
  return inverse;
}

/// Rotary positions (Su et al. 2021, arXiv 2104.09864): pair i of every head turns by the angle
///   position * inverse[i]
/// and grows by the factor `attention` (Peng et al. 2023, arXiv 2309.00071, section 3.4), so that products of
/// queries and keys grow by its square. A pair are the elements i and i + head_dim / 2, or 2i and 2i + 1
/// where `neighbours`. Cosines and sines of all positions, times the factor, are tabled, computed in double:
/// positions x head_dim numbers, which copies share.
template <class T>
class rotary final {
 public:
  rotary() = default;
  /// inverse: head_dim / 2 numbers. Throws unroll::error unless there is one, positions >= 0 and attention >
  /// 0.
  rotary(std::span<const double> inverse, double attention, bool neighbours, index_t positions)
      : half_(index_t(inverse.size())),
        positions_(positions),
        neighbours_(neighbours),
        attention_(attention) {
    check_at_least("rotary", "inverse", half_, 1);
    check_at_least("rotary", "positions", positions, 0);
    if (!(attention > 0))
      fail("rotary", "attention", "is " + std::to_string(attention) + ", must be positive");
    auto table = std::make_shared<std::vector<T>>(std::size_t(positions * head_dim()));
    for (index_t i = 0; i < half_; ++i)
      for (index_t p = 0; p < positions; ++p) {
        const double angle = double(p) * inverse[std::size_t(i)];
        T* at = table->data() + p * head_dim();
        at[i] = T(attention * std::cos(angle));
        at[i + half_] = T(attention * std::sin(angle));
      }
    table_ = std::move(table);
  }
  rotary(index_t head_dim, double base, bool neighbours, index_t positions, double scale = 1)
      : rotary(inverse_frequencies(head_dim, base, scale), 1, neighbours, positions) {}

  index_t head_dim() const { return 2 * half_; }  ///< numbers in a head
  /// A view of the cosines and sines.
  rotary_table<T> table() const {
    return {table_ ? table_->data() : nullptr, head_dim(), positions_, neighbours_};
  }
  index_t positions() const { return positions_; }  ///< those tabled are 0 .. positions() - 1
  double attention() const { return attention_; }

  /// Throws unroll::error, in the name of `function`, on a position outside the table.
  void check_positions(std::string_view function, std::span<const index_t> at) const {
    for (index_t p : at)
      if (p < 0 || p >= positions_)
        fail(function, "positions",
             "position " + std::to_string(p) + " is outside 0 .. " + std::to_string(positions_ - 1));
  }

  /// Turns every head of every column in place; x has a multiple of head_dim() rows, column j has the
  /// position at[j % at.size()], which is not checked.
  void rotate(matrix<T> x, std::span<const index_t> at) const {
    kernels::rotate<turn::forward>(table(), at, x);
  }
  /// The transpose, of the same x: turns back. The vjp of rotate, and its inverse but for the square of
  /// attention().
  void rotate_back(matrix<T> x, std::span<const index_t> at) const {
    kernels::rotate<turn::back>(table(), at, x);
  }

 private:
  index_t half_ = 0, positions_ = 0;
  bool neighbours_ = false;
  double attention_ = 1;
  std::shared_ptr<const std::vector<T>> table_;
};

#if defined(UNROLL_INSTANCE)
#define UNROLL_ROTATE_OF(T)                                                                       \
  UNROLL_INSTANCE void rotate<turn::forward, T>(const rotary_table<T>&, std::span<const index_t>, \
                                                matrix<T>);                                       \
  UNROLL_INSTANCE void rotate<turn::back, T>(const rotary_table<T>&, std::span<const index_t>, matrix<T>);
UNROLL_ROTATE_OF(float)
UNROLL_ROTATE_OF(double)
#undef UNROLL_ROTATE_OF
#endif

}  // namespace unroll::kernels
