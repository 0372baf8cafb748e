#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "unroll/core/arena.hpp"
#include "unroll/exec/executor.hpp"

namespace unroll::exec {

/// Which numbers P at the place of an executor, and of its copies, are kept in kind T, too: see kept_cast.
template <class P, class T>
struct kept_casts {
  /// One that is kept.
  struct range {
    const P* from;           ///< n numbers
    T* to;                   ///< as many
    index_t n;               ///< numbers
    bool holds = false;      ///< whether `to` has what is at `from` now
    std::int64_t times = 0;  ///< that all were cast
  };

  /// The range that all of m lies in; null: none.
  range* of(matrix<const P> m) const {
    if (m.rows == 0 || m.cols == 0) return nullptr;
    for (range* const r : ranges)
      if (touch(m.data, sizeof(P), *r) && (m.data - r->from) + (m.cols - 1) * m.stride + m.rows <= r->n)
        return r;
    return nullptr;
  }
  /// The bytes behind p were written.
  void changed(const void* p, std::size_t bytes) const {
    for (range* const r : ranges)
      if (touch(p, bytes, *r)) r->holds = false;
  }
  /// A body, which writes what it calls theta, x, y or to, unless that is const.
  template <class Body>
  void written_by(const Body& body) const {
    if constexpr (requires { body.theta; }) written(body, body.theta);
    if constexpr (requires { body.x; }) written(body, body.x);
    if constexpr (requires { body.y; }) written(body, body.y);
    if constexpr (requires { body.to; }) written(body, body.to);
  }
  /// All may be others, such as those of operations that never happened.
  void all_changed() const {
    for (range* const r : ranges) r->holds = false;
  }

  std::vector<range*> ranges;  ///< of those who have a kept_cast

 private:
  template <class Body, class At>
  void written(const Body& body, const At& at) const {
    if constexpr (std::is_same_v<At, matrix<P>>)
      changed(at.data, std::size_t(at.stride * at.cols) * sizeof(P));
    else if constexpr (std::is_same_v<At, P*> && requires { body.n; })
      changed(at, std::size_t(body.n) * sizeof(P));
  }
  static bool touch(const void* p, std::size_t bytes, const range& r) {
    const auto first = reinterpret_cast<std::uintptr_t>(p), from = reinterpret_cast<std::uintptr_t>(r.from);
    return first < from + std::size_t(r.n) * sizeof(P) && from < first + bytes;
  }
};

/// Keeps the n numbers theta at the place of an executor in the kind of its activations as well, so that
/// adapters in theta are cast once after a change, all n at once, and not in every product; the bits are the
/// same. The first product behind a change casts. What the executor writes to theta is noticed: uploads,
/// optimisers, vector operations, copies and draws; whatever else writes it says changed(), such as a kernel
/// of the caller, another stream, or bring() of exec/offload.hpp. theta must outlive this and stay where it
/// is.
///
/// Memory: n activations; none, and it does nothing, where products take parameters as they are: of
/// exec::host, and where both are of one kind.
template <class E>
class kept_cast {
  using P = typename E::numbers::parameter;
  using T = typename E::numbers::activation;
  using casts = kept_casts<P, T>;
  static constexpr bool needed = !std::is_same_v<P, T> && requires(const E& e) { e.casts(); };

 public:
  kept_cast(const E& e, params<const P> theta) {
    if constexpr (needed) {
      of_ = e.casts();
      cast_ = e.template allocate<T>(theta.size());
      range_ = std::make_unique<range>(range{theta.data(), cast_.data(), theta.size()});
      of_->ranges.push_back(range_.get());
    }
  }
  kept_cast(kept_cast&&) noexcept = default;
  kept_cast& operator=(kept_cast&&) = delete;
  ~kept_cast() {
    if (range_) std::erase(of_->ranges, range_.get());
  }

  /// theta was written by something that the executor does not notice.
  void changed() {
    if (range_) range_->holds = false;
  }
  std::int64_t times() const { return range_ ? range_->times : 0; }  ///< that theta was cast
  std::size_t bytes() const { return cast_.bytes(); }

 private:
  using range = typename casts::range;
  std::shared_ptr<casts> of_;
  typename E::template block<T> cast_;
  std::unique_ptr<range> range_;
};

/// m as it is kept in kind T, cast before where it has changed; null data where it is not kept, or is not
/// aligned to 16 bytes, which fast products want: its place in theta is then no multiple of 8.
template <class T, class E, class P>
matrix<const T> kept_as(const E& e, matrix<const P> m) {
  if constexpr (!std::is_same_v<T, P> && requires { e.casts(); }) {
    auto* const r = e.casts()->of(m);
    if (!r) return {};
    const T* const at = r->to + (m.data - r->from);
    if (reinterpret_cast<std::uintptr_t>(at) % 16 != 0) return {};
    if (!r->holds) {
      e.copy(matrix<const P>(r->from, r->n, 1), matrix<T>(r->to, r->n, 1));
      r->holds = true;
      ++r->times;
    }
    return {at, m.rows, m.cols, m.stride};
  }
  return {};
}
/// m in kind T: as it is, as it is kept, or cast into `room`.
template <class T, class E, class P>
matrix<const T> as_kind(const E& e, matrix<const P> m, arena<T>& room) {
  if constexpr (std::is_same_v<T, P>) {
    return m;
  } else {
    if (const matrix<const T> kept = kept_as<T>(e, m); kept.data) return kept;
    const matrix<T> cast = room.cut(m.rows, m.cols);
    e.copy(m, cast);
    return cast;
  }
}

}  // namespace unroll::exec
