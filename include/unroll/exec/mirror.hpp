#pragma once

#include "unroll/core/block.hpp"
#include "unroll/exec/executor.hpp"

namespace unroll::exec {

/// A few numbers at an executor's place that the host wants to read: with memory on the host too, where that
/// is another place.
template <class E, class U>
class mirror {
 public:
  mirror() = default;
  mirror(const E& e, index_t n) : here_(e.template allocate<U>(n)), host_(E::where == place::host ? 0 : n) {}

  U* data() { return here_.data(); }
  index_t size() const { return here_.size(); }
  std::size_t bytes() const { return here_.bytes(); }

  /// Brings n numbers to the host, where this returns them; waits for everything before.
  view<const U> fetch(const E& e, index_t n) {
    if constexpr (E::where == place::host) {
      return {here_.data(), n};
    } else {
      e.download(here_.data(), n, host_.data());
      e.synchronise();
      return {host_.data(), n};
    }
  }
  /// What the last fetch brought.
  view<const U> fetched() const {
    if constexpr (E::where == place::host)
      return {here_.data(), here_.size()};
    else
      return {host_.data(), host_.size()};
  }

 private:
  typename E::template block<U> here_;
  buffer<U> host_;
};

/// n numbers at the place of an executor for the host to read: where they are, or a block that they were
/// brought to, which waits.
template <class E, class U, class Space>
auto on_host(const E& e, view<const U, Space> here) {
  if constexpr (E::where == place::host) {
    return here;
  } else {
    unroll::block<U, Space> host(here.size(), unwritten());
    e.download(here.data(), here.size(), host.data());
    e.synchronise();
    return host;
  }
}

}  // namespace unroll::exec
