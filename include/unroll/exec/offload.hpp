#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>

#include "unroll/core/error.hpp"
#include "unroll/exec/executor.hpp"
#include "unroll/exec/visit_block.hpp"

namespace unroll::exec {

/// An executor E of another place that also keeps numbers in memory of the host, for what does not fit, and
/// copies them while operations run. Beside the operations of executor.hpp:
///
///   host_block                   a template of U, the kind: owns numbers in memory of the host: data(),
///                                size(), bytes(); a copy has memory of its own
///   host_allocate<U>(n)          a host_block of n zeros U
///   bring(from, here)            here = from; from: of a host_block, here: at this place, of equal shape
///   take(here, to)               the other way
///   wait_for_copies()            operations called later happen after all copies called before
///
/// Each copy happens after all operations called before it, and beside those called after it, until
/// wait_for_copies(). Those of one direction happen in the order of their calls, those of the two beside each
/// other, but where they touch the same numbers at this place, in the order of their calls: who brings what
/// was taken from elsewhere waits in between. synchronise() waits for all of them, too: the host then finds
/// in a host_block what was taken.
template <class E>
concept offloading = executor<E> && requires(const E e, typename E::numbers::parameter* p, index_t n) {
  e.template host_allocate<typename E::numbers::memory>(n);
  typename E::template host_block<typename E::numbers::parameter>;
  e.bring(matrix<const typename E::numbers::parameter>(p, n, n),
          matrix<typename E::numbers::parameter>(p, n, n));
  e.take(matrix<const typename E::numbers::parameter>(p, n, n),
         matrix<typename E::numbers::parameter>(p, n, n));
  e.wait_for_copies();
};

/// Throws unroll::error, in the name of `function`, where numbers are to be kept on the host by an executor
/// that cannot.
template <class E>
void check_offloading(std::string_view function, bool on_host) {
  if (on_host && !offloading<E>)
    fail(function, "memories_on_host",
         "is true, this executor keeps no numbers apart from its own place: cuda::stream and testing::simt "
         "do");
}

namespace detail {

struct no_host_block {};  // where there is nothing to keep
template <class E, class U>
struct host_block_of {
  using type = no_host_block;
};
template <class E, class U>
requires requires { typename E::template host_block<U>; }
struct host_block_of<E, U> {
  using type = typename E::template host_block<U>;
};

}  // namespace detail

/// n numbers U, zeroed, at the place of an executor or, of one that is `offloading`, in memory of the host.
template <class E, class U>
class kept_block {
 public:
  kept_block(const E& e, index_t n, bool on_host) : on_host_(on_host) {
    check_offloading<E>("exec::kept_block", on_host);
    if constexpr (offloading<E>)
      if (on_host) there_ = e.template host_allocate<U>(n);
    if (!on_host) here_ = e.template allocate<U>(n);
  }

  bool on_host() const { return on_host_; }  ///< whether they are in memory of the host
  U* data() {
    if constexpr (offloading<E>)
      if (on_host_) return there_.data();
    return here_.data();
  }
  index_t size() const {
    if constexpr (offloading<E>)
      if (on_host_) return there_.size();
    return here_.size();
  }
  std::size_t bytes() const { return std::size_t(size()) * sizeof(U); }

  /// Shows the first n numbers, in either place as visit_block shows those of E's own. In memory of the host
  /// they are shown where they are, without a copy, where they are floats or fill words of 8 bytes.
  template <class V>
  void visit(V&& v, std::string_view name, const E& e, index_t n) {
    if (!on_host_) return visit_block(v, std::string(name), e, here_, n);
    e.synchronise();
    if (n == 0) return;
    if constexpr (std::is_floating_point_v<U>) {
      v(std::string(name), view<U>(data(), n));
    } else {
      const std::size_t word = sizeof(std::int64_t), bytes = std::size_t(n) * sizeof(U);
      if (bytes % word != 0 || reinterpret_cast<std::uintptr_t>(data()) % word != 0)
        return visit_block(v, std::string(name), host_memory{}, *this, n);
      v(std::string(name),
        view<std::int64_t>(begin_lifetime<std::int64_t>(data(), bytes), index_t(bytes / word)));
      begin_lifetime<U>(data(), bytes);
    }
  }

 private:
  // std::start_lifetime_as_array of C++23, by its definition: a copy onto itself makes objects T of the
  // bytes. g++ drops the copy before it looks at types, so it is also told that anything may have been
  // written.
  template <class T>
  static T* begin_lifetime(void* at, std::size_t bytes) {
    T* const made = static_cast<T*>(std::memmove(at, at, bytes));
    asm volatile("" : : "r"(made) : "memory");
    return std::launder(made);
  }
  // What visit_block asks of an executor, of numbers that the host can touch.
  struct host_memory {
    static void download(const U* from, index_t n, U* to) { std::copy_n(from, n, to); }
    static void upload(const U* from, index_t n, U* to) { std::copy_n(from, n, to); }
    static void synchronise() {}
  };

  bool on_host_;
  typename E::template block<U> here_;
  [[no_unique_address]] typename detail::host_block_of<E, U>::type there_;
};

}  // namespace unroll::exec
