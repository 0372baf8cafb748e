#pragma once

#include <cstring>
#include <type_traits>
#include <vector>

#include "unroll/core/visit.hpp"

namespace unroll {

/// Shows the first n numbers of a block that lies at the place of `e` (core/visit.hpp), in the same form
/// whatever the place: floats and doubles as they are, of others the bytes. Where the host cannot look at
/// them they are brought to it, and back.
template <class V, class Name, class E, class Block>
void visit_block(V&& v, const Name& name, const E& e, Block& block, index_t n) {
  using U = std::remove_cvref_t<decltype(*block.data())>;
  constexpr bool as_numbers = std::is_floating_point_v<U>;
  if (n == 0) return;
  if constexpr (requires { block[0]; } && as_numbers) {
    v(name, view<U>(block.data(), n));
  } else {
    std::vector<U> numbers(static_cast<std::size_t>(n));
    e.download(block.data(), n, numbers.data());
    e.synchronise();
    if constexpr (as_numbers) {
      v(name, view<U>(numbers));
    } else {
      const std::size_t bytes = std::size_t(n) * sizeof(U);
      std::vector<std::int64_t> words((bytes + 7) / 8);
      std::memcpy(words.data(), numbers.data(), bytes);
      v(name, view<std::int64_t>(words));
      std::memcpy(static_cast<void*>(numbers.data()), words.data(), bytes);
    }
    e.upload(numbers.data(), n, block.data());
    e.synchronise();
  }
}

}  // namespace unroll
