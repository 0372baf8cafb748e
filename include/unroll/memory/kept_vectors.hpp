#pragma once

#include <algorithm>

#include "unroll/exec/offload.hpp"

namespace unroll {

/// n vectors of `size` numbers U each, memories or their adjoints: at the place of an executor or, where the
/// model wants it, in memory of the host, with room for `together` of them at the place.
template <class E, class U>
class kept_vectors {
 public:
  kept_vectors(const E& e, index_t n, index_t size, index_t together, bool on_host)
      : e_(e),
        size_(size),
        together_(together),
        piece_(e.template allocate<U>(on_host ? together * size : 0)),
        kept_(e, n * size, on_host) {}

  bool on_host() const { return kept_.on_host(); }  ///< whether they are in memory of the host
  index_t size() const { return kept_.size() / std::max<index_t>(1, size_); }  ///< vectors
  std::size_t bytes() const { return kept_.bytes() + piece_.bytes(); }
  /// Where vector i is kept, the next ones behind it.
  U* at(index_t i) { return kept_.data() + i * size_; }

  /// Calls f with the n vectors from `kept` on, at the place of the executor. Where they are kept on the host
  /// they are copied there first, into its room from vector `slot` on; n is then at most `together`.
  template <class F>
  void read(U* kept, index_t n, F&& f, index_t slot = 0) {
    use<true, false>(kept, n, f, slot);
  }
  /// The same of vectors that f WRITES.
  template <class F>
  void write(U* kept, index_t n, F&& f) {
    use<false, true>(kept, n, f, 0);
  }
  /// The same of vectors that f changes.
  template <class F>
  void update(U* kept, index_t n, F&& f) {
    use<true, true>(kept, n, f, 0);
  }
  /// f(first, count) for the vectors i .. i + n - 1, as many at a time as the calls above take.
  template <class F>
  void for_pieces(index_t i, index_t n, F&& f) const {
    const index_t most = on_host() ? together_ : std::max<index_t>(1, n);
    for (const index_t end = i + n; i < end; i += most) f(i, std::min(most, end - i));
  }

  /// Shows the first n vectors, see core/visit.hpp.
  template <class V>
  void visit(V&& v, std::string_view name, index_t n) {
    kept_.visit(v, name, e_, n * size_);
  }

 private:
  template <bool Brings, bool Takes, class F>
  void use(U* kept, index_t n, F&& f, index_t slot) {
    if (!on_host()) return f(view<U>(kept, n * size_));
    if constexpr (exec::offloading<E>) {
      const matrix<U> there(kept, n * size_, 1), here(piece_.data() + slot * size_, n * size_, 1);
      if (Brings) {
        e_.bring(matrix<const U>(there), here);
        e_.wait_for_copies();
      }
      f(view<U>(here.data, here.rows));
      if (Takes) {
        e_.take(matrix<const U>(here), there);
        e_.wait_for_copies();
      }
    }
  }

  E e_;
  index_t size_, together_;
  typename E::template block<U> piece_;
  exec::kept_block<E, U> kept_;
};

}  // namespace unroll
