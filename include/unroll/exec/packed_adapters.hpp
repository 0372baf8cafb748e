#pragma once

#include <algorithm>
#include <span>
#include <type_traits>

#include "unroll/core/arena.hpp"
#include "unroll/exec/kept_cast.hpp"
#include "unroll/exec/operations.hpp"

// Adapters of one x whose first factors side by side are one matrix, as executors have them in common:
//
//   z = scale [a_1 a_2 ..]' x,    y_m += b_m' z_m,    z_m: the rows of z that are adapter m's
namespace unroll::exec {

/// The ranks of several adapters (adapted, adapted_adjoint) together.
template <class Of>
index_t total_rank(std::span<Of> of) {
  index_t rank = 0;
  for (const auto& one : of) rank += one.l.a.cols;
  return rank;
}
/// Whether one product of them has the bits of one by one: several, of one scale, with at most `most` ranks
/// together, none of more than a slice or of one, since a single row is summed in another order.
template <class Of>
bool can_pack(std::span<Of> of, index_t most, index_t slice) {
  return of.size() > 1 && total_rank(of) <= most && std::all_of(of.begin(), of.end(), [&](const auto& one) {
           return one.l.scale == of[0].l.scale && one.l.a.cols > 1 && one.l.a.cols <= slice;
         });
}

/// Packed products of adapters with operands T, by the copies of executor e and product(oa, a, ob, b, alpha,
/// add, c), which is c = alpha op(a) op(b), or c += where `add`.
template <class T, class E, class Product>
class packed_adapters {
 public:
  /// workspace: workspace_size().
  packed_adapters(const E& e, view<T> workspace, Product product)
      : e_(e), space_(workspace), product_(std::move(product)) {}

  /// For up to `rank` ranks together; in: rows of x, out: of the tallest y; casts: factors are of another
  /// kind.
  static index_t workspace_size(index_t rank, index_t in, index_t out, index_t tokens, bool vjp, bool casts) {
    return arena<T>::rounded(rank * in) + (vjp ? 2 : 1) * arena<T>::rounded(rank * tokens) +
           (casts ? arena<T>::rounded(rank * out) : 0);
  }

  /// adapt_all: x: in x n.
  template <class N>
  void add(std::span<const adapted<N>> of, matrix<const T> x) {
    const matrix<T> z = inner(of, x, first_factors(of, x.rows));
    for_each(of, [&](const auto& one, index_t r) {
      product_(op::transpose, second_factor(one.l), op::none, part_of(z, one, r), 1, true, one.y);
    });
  }
  /// adapt_all_vjp: x, dx: in x n; dx.data null: not wanted.
  template <class N>
  void add_vjp(std::span<const adapted_adjoint<N>> of, matrix<const T> x, matrix<T> dx, index_t sequences) {
    const matrix<T> a = first_factors(of, x.rows), dz = space_.cut(total_rank(of), x.cols);
    for_each(of, [&](const auto& one, index_t r) {
      const matrix<T> own = rows_of(dz, r, one.l.a.cols);
      product_(op::none, second_factor(one.l), op::none, one.dy, one.l.scale, false, own);
      if (dx.data)
        product_(op::none, matrix<const T>(columns_of(a, r, own.rows)), op::none, matrix<const T>(own), 1,
                 true, dx);
    });
    if (std::none_of(of.begin(), of.end(), [](const auto& one) { return wanted(one); })) return;
    const matrix<T> z = inner(of, x, a);
    const index_t n = x.cols / sequences;
    for_each(of, [&](const auto& one, index_t r) {
      const auto& [da, db] = one.gradient;
      for (index_t s = 0; s < sequences; ++s) {
        const auto own = [&](const auto& m) { return columns_of(m, s * n, n); };
        if (db.data) product_(op::none, own(part_of(z, one, r)), op::transpose, own(one.dy), 1, true, db);
        if (da.data) product_(op::none, own(x), op::transpose, own(part_of(dz, one, r)), 1, true, da);
      }
    });
  }

 private:
  template <class One>
  static bool wanted(const One& one) {
    return one.gradient.a.data || one.gradient.b.data;
  }
  /// f(one of them, its first row of z).
  template <class Of, class F>
  static void for_each(std::span<Of> of, F&& f) {
    index_t r = 0;
    for (const auto& one : of) {
      f(one, r);
      r += one.l.a.cols;
    }
  }
  template <class One>
  static matrix<const T> part_of(const matrix<T>& z, const One& one, index_t r) {
    return rows_of(z, r, one.l.a.cols);
  }
  /// [a_1 a_2 ..], in x ranks.
  template <class Of>
  matrix<T> first_factors(std::span<Of> of, index_t in) {
    const matrix<T> a = space_.cut(in, total_rank(of));
    for_each(of, [&](const auto& one, index_t r) {
      const matrix<T> to = columns_of(a, r, one.l.a.cols);
      const matrix<const T> kept = kept_as<T>(e_, one.l.a);
      kept.data ? e_.copy(kept, to) : e_.copy(one.l.a, to);
    });
    return a;
  }
  /// z, ranks x n.
  template <class Of>
  matrix<T> inner(std::span<Of> of, matrix<const T> x, matrix<const T> a) {
    const matrix<T> z = space_.cut(a.cols, x.cols);
    product_(op::transpose, a, op::none, x, of[0].l.scale, false, z);
    return z;
  }
  /// b, rank x out, until the next one is asked for.
  template <class P>
  matrix<const T> second_factor(const adapter<P>& l) {
    arena<T> rest(space_.rest());
    return as_kind<T>(e_, l.b, rest);
  }

  const E& e_;
  arena<T> space_;
  Product product_;
};

}  // namespace unroll::exec
