#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "unroll/core/simd.hpp"
#include "unroll/io/half.hpp"

// How GGUF stores numbers: kinds of blocks, each so many numbers in so many bytes. With d, dmin and m of 11
// significant bits, scales of at most 7 and q of at most 6, every product below is exact in float; only sums
// round, so that the values are those of the package gguf 0.19.0 and of ggml, with FMA or without.
namespace unroll::gguf_blocks {

/// The number whose little-endian bytes begin at b.
template <class N>
N number_at(const unsigned char* b) {
  N n;
  std::memcpy(&n, b, sizeof n);
  return n;
}
/// The same of a half.
inline float half_at(const unsigned char* b) { return from_f16(number_at<std::uint16_t>(b)); }

/// F32 of GGUF.
struct f32 {
  static constexpr std::uint32_t id = 0;           ///< in files
  static constexpr const char* name = "F32";       ///< in messages
  static constexpr index_t values = 1, bytes = 4;  ///< of a block
  /// x[values] of the block b[bytes].
  template <class Isa>
  UNROLL_INLINE static void unpack(const unsigned char* b, float* x) {
    *x = number_at<float>(b);
  }
};

/// F16 of GGUF.
struct f16 {
  static constexpr std::uint32_t id = 1;           ///< in files
  static constexpr const char* name = "F16";       ///< in messages
  static constexpr index_t values = 1, bytes = 2;  ///< of a block
  /// x[values] of the block b[bytes].
  template <class Isa>
  UNROLL_INLINE static void unpack(const unsigned char* b, float* x) {
    *x = half_at(b);
  }
};

/// The upper half of a float.
struct bf16 {
  static constexpr std::uint32_t id = 30;          ///< in files
  static constexpr const char* name = "BF16";      ///< in messages
  static constexpr index_t values = 1, bytes = 2;  ///< of a block
  /// x[values] of the block b[bytes].
  template <class Isa>
  UNROLL_INLINE static void unpack(const unsigned char* b, float* x) {
    *x = std::bit_cast<float>(std::uint32_t(number_at<std::uint16_t>(b)) << 16);
  }
};

/// x[i] = f(q_i - offset) for the 16 bytes q of `low` and `high`, each from its lowest byte on; f is of
/// floats, one or a vector.
template <class Isa, class F>
UNROLL_INLINE inline void each_of_16(std::uint64_t low, std::uint64_t high, float offset, const F& f,
                                     float* x) {
#if defined(__GNUC__) && !defined(__CUDACC__)
  using bytes = simd::vec<std::uint8_t, 16>::raw;
  using words = simd::vec<std::uint16_t, 8>::raw;
  using whole = simd::vec<std::int32_t, 16>::raw;
  using floats = simd::vec<float, 16>;
  const auto q = __builtin_bit_cast(bytes, simd::vec<std::uint64_t, 2>::raw{low, high});
  if constexpr (Isa::bytes == 64) {
    using half_way = simd::vec<std::uint16_t, 16>::raw;
    const floats all{__builtin_convertvector(
        __builtin_convertvector(__builtin_convertvector(q, half_way), whole), floats::raw)};
    simd::store(f(all - offset), x);
  } else {  // the bits of 2^23 + q, four at a time: compilers take conversions to wider vectors apart
    const auto put = [&](const bytes& pairs, float* to) UNROLL_INLINE {
      constexpr std::uint16_t e = 0x4B00;
      const words exponent = {e, e, e, e, e, e, e, e}, w = __builtin_bit_cast(words, pairs);
      using four = simd::vec<float, 4>;
      const words first = __builtin_shufflevector(w, exponent, 0, 8, 1, 9, 2, 10, 3, 11),
                  second = __builtin_shufflevector(w, exponent, 4, 12, 5, 13, 6, 14, 7, 15);
      simd::store(f(four{__builtin_bit_cast(four::raw, first)} - (0x1p23f + offset)), to);
      simd::store(f(four{__builtin_bit_cast(four::raw, second)} - (0x1p23f + offset)), to + 4);
    };
    const bytes none = {};
    put(__builtin_shufflevector(q, none, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), x);
    put(__builtin_shufflevector(q, none, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31),
        x + 8);
  }
#else
  for (int i = 0; i < 16; ++i) x[i] = f(float((i < 8 ? low : high) >> 8 * (i % 8) & 255) - offset);
#endif
}

/// A one in each byte.
inline constexpr std::uint64_t each_byte = 0x0101010101010101;
/// Bit i of the byte as bit 4 of byte i.
UNROLL_INLINE inline std::uint64_t fifth_bits(std::uint32_t byte) {
  const std::uint64_t one_bit = byte * each_byte & 0x8040201008040201;
  return (one_bit + 0x7f * each_byte) >> 3 & 0x10 * each_byte;
}

/// 32 numbers d (q - 2^(bits - 1)), or d q + m: half d, [half m], [u32 of the fifth bits], 16 bytes with the
/// lower four bits of q_i and q_(i + 16).
template <int bits, bool has_minimum>
struct legacy_block {
  /// Of a block.
  static constexpr index_t values = 32, bytes = 2 + (has_minimum ? 2 : 0) + (bits == 5 ? 4 : 0) + 16;
  /// x[values] of the block b[bytes].
  template <class Isa>
  UNROLL_INLINE static void unpack(const unsigned char* b, float* x) {
    const float d = half_at(b), m = has_minimum ? half_at(b + 2) : 0;
    const std::uint32_t fifth = bits == 5 ? number_at<std::uint32_t>(b + bytes - 20) : 0;
    const auto first = number_at<std::uint64_t>(b + bytes - 16),
               second = number_at<std::uint64_t>(b + bytes - 8);
    const auto put = [&](std::uint64_t low, std::uint64_t high, std::uint32_t two_bytes,
                         float* to) UNROLL_INLINE {
      low &= 15 * each_byte;
      high &= 15 * each_byte;
      if constexpr (bits == 5) low |= fifth_bits(two_bytes & 255), high |= fifth_bits(two_bytes >> 8 & 255);
      if constexpr (has_minimum)
        each_of_16<Isa>(
            low, high, 0, [&](const auto& q) UNROLL_INLINE { return d * q + m; }, to);
      else
        each_of_16<Isa>(
            low, high, float(1 << (bits - 1)), [&](const auto& q) UNROLL_INLINE { return d * q; }, to);
    };
    put(first, second, fifth, x);
    put(first >> 4, second >> 4, fifth >> 16, x + 16);
  }
};

/// Q4_0 of GGUF.
struct q4_0 : legacy_block<4, false> {
  static constexpr std::uint32_t id = 2;       ///< in files
  static constexpr const char* name = "Q4_0";  ///< in messages
};
/// Q4_1 of GGUF.
struct q4_1 : legacy_block<4, true> {
  static constexpr std::uint32_t id = 3;       ///< in files
  static constexpr const char* name = "Q4_1";  ///< in messages
};
/// Q5_0 of GGUF.
struct q5_0 : legacy_block<5, false> {
  static constexpr std::uint32_t id = 6;       ///< in files
  static constexpr const char* name = "Q5_0";  ///< in messages
};
/// Q5_1 of GGUF.
struct q5_1 : legacy_block<5, true> {
  static constexpr std::uint32_t id = 7;       ///< in files
  static constexpr const char* name = "Q5_1";  ///< in messages
};

/// 32 numbers d q: half d, 32 signed bytes q.
struct q8_0 {
  static constexpr std::uint32_t id = 8;             ///< in files
  static constexpr const char* name = "Q8_0";        ///< in messages
  static constexpr index_t values = 32, bytes = 34;  ///< of a block
  /// x[values] of the block b[bytes].
  template <class Isa>
  UNROLL_INLINE static void unpack(const unsigned char* b, float* x) {
    const float d = half_at(b);
    for (int i = 0; i < 32; i += 16)
      each_of_16<Isa>(
          number_at<std::uint64_t>(b + 2 + i) ^ 0x80 * each_byte,
          number_at<std::uint64_t>(b + 10 + i) ^ 0x80 * each_byte, 128,
          [&](const auto& q) UNROLL_INLINE { return d * q; }, x + i);
  }
};

/// 256 numbers (d scale_j) q - dmin minimum_j, 32 of each j: half d, half dmin, 12 bytes of 6-bit scales and
/// minima, [32 bytes: bit j of byte i is the fifth of q_(32 j + i)], 128 bytes of nibbles, those of an even j
/// and of the next in the lower and the upper half.
template <int bits>
struct k_block {
  static constexpr index_t values = 256, bytes = 16 + (bits == 5 ? 32 : 0) + 128;  ///< of a block
  /// x[values] of the block b[bytes].
  template <class Isa>
  UNROLL_INLINE static void unpack(const unsigned char* b, float* x) {
    const float d = half_at(b), dmin = half_at(b + 2);
    const unsigned char *s = b + 4, *fifth = b + 16, *nibbles = b + bytes - 128;
    for (int j = 0; j < 8; ++j) {
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
      const int minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
      const float step = d * float(scale), least = dmin * float(minimum);
      const auto value = [&](int i, int nibble) {
        const int q = bits == 5 ? nibble | (fifth[i] >> j & 1) << 4 : nibble;
        return step * float(q) - least;
      };
      const unsigned char* pairs = nibbles + 32 * (j / 2);
      if (j % 2 == 0)
        for (int i = 0; i < 32; ++i) x[32 * j + i] = value(i, pairs[i] & 15);
      else
        for (int i = 0; i < 32; ++i) x[32 * j + i] = value(i, pairs[i] >> 4);
    }
  }
};

/// Q4_K of GGUF.
struct q4_k : k_block<4> {
  static constexpr std::uint32_t id = 12;      ///< in files
  static constexpr const char* name = "Q4_K";  ///< in messages
};
/// Q5_K of GGUF.
struct q5_k : k_block<5> {
  static constexpr std::uint32_t id = 13;      ///< in files
  static constexpr const char* name = "Q5_K";  ///< in messages
};

/// 256 numbers (d scale) (q - 32), 16 of each scale: 128 bytes of lower nibbles, 64 of upper pairs of bits,
/// 16 signed scales, half d. Of each half of 128 numbers, byte i of the pairs has those of the numbers i,
/// i + 32, i + 64, i + 96, and bytes i and i + 32 of the nibbles have i, i + 64 and i + 32, i + 96.
struct q6_k {
  static constexpr std::uint32_t id = 14;              ///< in files
  static constexpr const char* name = "Q6_K";          ///< in messages
  static constexpr index_t values = 256, bytes = 210;  ///< of a block
  /// x[values] of the block b[bytes].
  template <class Isa>
  UNROLL_INLINE static void unpack(const unsigned char* b, float* x) {
    const float d = half_at(b + 208);
    for (int half = 0; half < 2; ++half, x += 128) {
      const unsigned char *nibbles = b + 64 * half, *pairs = b + 128 + 32 * half,
                          *scales = b + 192 + 8 * half;
      for (int j = 0; j < 8; ++j) {
        const int group = j / 2;
        const unsigned char *low = nibbles + 32 * (group % 2) + 16 * (j % 2), *high = pairs + 16 * (j % 2);
        const float step = d * float(std::int8_t(scales[j]));
        for (int i = 0; i < 16; ++i) {
          const int q = (low[i] >> 4 * (group / 2) & 15) | (high[i] >> 2 * group & 3) << 4;
          x[16 * j + i] = step * float(q - 32);
        }
      }
    }
  }
};

/// Calls f(Kind{}) with the kind of that id; false where it is none of those above.
template <class F>
bool with_kind(std::uint32_t id, F&& f) {
  const auto one_of = [&]<class... Kind>(Kind... kind) {
    return (... || (Kind::id == id ? (f(kind), true) : false));
  };
  return one_of(f32{}, f16{}, bf16{}, q4_0{}, q4_1{}, q5_0{}, q5_1{}, q8_0{}, q4_k{}, q5_k{}, q6_k{});
}

/// "Q2_K" for an id that ggml knows and with_kind does not, "number 99" for others.
inline std::string unread_kind(std::uint32_t id) {
  constexpr std::pair<std::uint32_t, const char*> known[] = {
      {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
      {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"},
      {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},
      {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"}};
  for (const auto& [number, name] : known)
    if (number == id) return name;
  return "number " + std::to_string(id);
}

}  // namespace unroll::gguf_blocks
