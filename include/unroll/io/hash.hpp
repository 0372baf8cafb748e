#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "unroll/core/config.hpp"

namespace unroll {

/// FNV-1a of 64 bits (Fowler, Noll, Vo) of bytes, behind those whose hash is `h`. One changed byte always
/// changes it; it tells damage, not forgery.
inline std::uint64_t fnv1a(const void* bytes, std::size_t count, std::uint64_t h = 0xcbf29ce484222325u) {
  const auto* b = static_cast<const unsigned char*>(bytes);
  for (std::size_t i = 0; i < count; ++i) h = (h ^ b[i]) * 0x100000001b3u;
  return h;
}
/// Of a text.
inline std::uint64_t fnv1a(std::string_view bytes) { return fnv1a(bytes.data(), bytes.size()); }

/// Sixteen hexadecimal digits.
inline std::string hash_text(std::uint64_t h) {
  std::string out(16, '0');
  for (std::size_t i = 16; i-- > 0; h >>= 4) out[i] = "0123456789abcdef"[h & 15];
  return out;
}

}  // namespace unroll
