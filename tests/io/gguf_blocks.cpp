#include "unroll/io/gguf_blocks.hpp"

#include <array>
#include <cmath>
#include <map>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/io/gguf_unpack.hpp"

using namespace unroll;

namespace {

using bytes = std::vector<unsigned char>;

bytes from_hex(const std::string& hex) {
  bytes out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<unsigned char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}
// byte i is (step i + first) & 255
bytes counted(int count, int step, int first) {
  bytes out;
  for (int i = 0; i < count; ++i) out.push_back(static_cast<unsigned char>(step * i + first));
  return out;
}
bytes operator+(bytes a, const bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<float> unpacked(std::uint32_t kind, const bytes& b) {
  std::vector<float> out;
  const bool known = gguf_blocks::with_kind(kind, [&]<class Kind>(Kind) {
    REQUIRE(b.size() % std::size_t(Kind::bytes) == 0);
    const std::size_t blocks = b.size() / std::size_t(Kind::bytes);
    out.resize(blocks * std::size_t(Kind::values));
    gguf_blocks::unpack<Kind>(b.data(), index_t(blocks), out.data());
  });
  REQUIRE(known);
  return out;
}

}  // namespace

TEST_CASE("blocks of GGUF hold the numbers that ggml and the package gguf find in them") {
  FOR_EACH_INSTRUCTION_SET();
  const bytes q = from_hex("0f1e2d3c4b5a69788796a5b4c3d2e1f0"), k = counted(128, 7, 3);
  const bytes scales = from_hex("003800344182c3044586c70821436587");
  struct golden {
    std::uint32_t kind;
    bytes block;
    std::map<std::size_t, float> values;
    float sum;
  };
  const golden all[] = {
      {2, from_hex("0038") + q, {{0, 3.5f}, {1, 3}, {15, -4}, {16, -4}, {17, -3.5f}, {31, 3.5f}}, -8},
      {3, from_hex("003800bd") + q, {{0, 6.25f}, {1, 5.75f}, {15, -1.25f}, {16, -1.25f}, {31, 6.25f}}, 80},
      {6,
       from_hex("003801800240") + q,
       {{0, 7.5f}, {1, -1}, {15, 0}, {16, -8}, {17, 0.5f}, {25, -3.5f}, {30, 7}, {31, -0.5f}},
       -104},
      {7,
       from_hex("003800bd01800240") + q,
       {{0, 14.25f}, {1, 5.75f}, {15, 6.75f}, {17, 7.25f}, {30, 13.75f}, {31, 6.25f}},
       112},
      {8, from_hex("0038") + counted(32, 8, 128), {{0, -64}, {1, -60}, {16, 0}, {31, 60}}, -64},
      {12,
       scales + k,
       {{0, 0.25f},
        {31, 4.75f},
        {32, -1.5f},
        {63, 11.5f},
        {64, 2.75f},
        {96, 26},
        {128, 21},
        {160, 201},
        {192, 66},
        {224, 33},
        {255, 22.5f}},
       13160},
      {13,
       scales + counted(32, 37, 11) + k,
       {{0, 8.25f}, {32, 14.5f}, {63, 27.5f}, {96, 58}, {160, 201}, {255, 78.5f}},
       28016},
      {14,
       k + counted(64, 37, 11) + counted(16, 9, 192) + from_hex("0038"),
       {{0, -608},
        {16, -522.5f},
        {32, -69},
        {64, 448},
        {96, 90},
        {127, -5.5f},
        {128, 76},
        {192, 264},
        {255, -887.5f}},
       3112}};
  for (const golden& g : all) {
    INFO("kind " << g.kind);
    const auto x = unpacked(g.kind, g.block);
    for (const auto& [i, value] : g.values) {
      INFO("number " << i);
      CHECK(x[i] == value);
    }
    float sum = 0;
    for (const float v : x) sum += v;
    CHECK(sum == g.sum);
  }
}

// The hashes are those of benchmarks/peers/gguf_compare.py --golden, which has them from gguf 0.19.0.
TEST_CASE("8192 numbers of random blocks of each kind have the bits that the package gguf gives them") {
  FOR_EACH_INSTRUCTION_SET();
  const std::pair<std::uint32_t, std::uint64_t> all[] = {
      {0, 0xd79a9661ac774527},  {1, 0x43596b1f5c9118c8},  {30, 0x43d615f3bdf63219}, {2, 0x720a14cf32086d6f},
      {3, 0xf06c96afe5825a7f},  {6, 0x1d5cf2632cff0f55},  {7, 0xbc3ad00c3c242ef7},  {8, 0xa14acc62bcddb92c},
      {12, 0xf0f9f909495fb76e}, {13, 0x654f634dbe53a571}, {14, 0x23c283f3951a3d51}};
  for (const auto& [kind, golden] : all) {
    INFO("kind " << kind);
    std::size_t count = 0;
    gguf_blocks::with_kind(kind,
                           [&]<class Kind>(Kind) { count = std::size_t(8192 / Kind::values * Kind::bytes); });
    bytes b(count);
    std::uint64_t state = 1;
    for (unsigned char& byte : b)
      byte = static_cast<unsigned char>((state = state * 6364136223846793005u + 1442695040888963407u) >> 56);
    auto x = unpacked(kind, b);
    std::uint64_t hash = 0xcbf29ce484222325;
    for (float& v : x) {
      if (std::isnan(v)) v = 0;  // which of its bits are set, IEEE 754 leaves open
      std::array<unsigned char, 4> bits;
      std::memcpy(bits.data(), &v, 4);
      for (const auto byte : bits) hash = (hash ^ byte) * 0x100000001b3;
    }
    CHECK(x.size() == 8192);
    CHECK(hash == golden);
  }
}

TEST_CASE(
    "blocks become bfloat16 by rounding and double exactly, and one number that is not finite is seen in any "
    "of them") {
  FOR_EACH_INSTRUCTION_SET();
  for (const std::uint32_t kind : {0u, 1u, 30u, 2u, 3u, 6u, 7u, 8u, 12u, 13u, 14u})
    gguf_blocks::with_kind(kind, [&]<class Kind>(Kind) {
      INFO(Kind::name);
      const index_t blocks = Kind::values == 1 ? 67 : 3, size = blocks * Kind::values;
      const index_t scale = kind == 14 ? 208 : 0;  // the byte of d in a block
      bytes b = counted(int(blocks * Kind::bytes), 37, 5);
      for (index_t i = 0; i < blocks; ++i) {
        const auto at = std::size_t(i * Kind::bytes + scale) + (kind == 0 ? 3 : 1);
        b[at] = 0x38;
        if (kind == 12 || kind == 13 || kind == 3 || kind == 7) b[at + 2] = 0x38;  // of the minimum
      }
      std::vector<float> x(static_cast<std::size_t>(size));
      std::vector<double> wide(x.size());
      std::vector<bf16> narrow(x.size());
      CHECK(gguf_blocks::unpack<Kind>(b.data(), blocks, x.data()));
      CHECK(gguf_blocks::unpack<Kind>(b.data(), blocks, wide.data()));
      CHECK(gguf_blocks::unpack<Kind>(b.data(), blocks, narrow.data()));
      for (std::size_t i = 0; i < x.size(); ++i)
        if (wide[i] != double(x[i]) || narrow[i].bits != bf16(x[i]).bits) FAIL("number " << i);
      for (const index_t i : {index_t(0), blocks - 1}) {
        bytes bad = b;
        const auto at = std::size_t(i * Kind::bytes + scale);
        const auto is_float = std::size_t(kind == 0 ? 2 : 0);
        bad[at + is_float] = kind == 0 || kind == 30 ? 0x80 : 0;
        bad[at + is_float + 1] = kind == 0 || kind == 30 ? 0x7f : 0x7c;  // infinity
        CHECK_FALSE(gguf_blocks::unpack<Kind>(bad.data(), blocks, x.data()));
        CHECK_FALSE(gguf_blocks::unpack<Kind>(bad.data(), blocks, narrow.data()));
      }
    });
  const float almost = 3.4e38f;  // is finite, but beyond the largest bfloat16
  bf16 rounded;
  float same = 0;
  std::array<unsigned char, 4> b;
  std::memcpy(b.data(), &almost, 4);
  CHECK(gguf_blocks::unpack<gguf_blocks::f32>(b.data(), 1, &same));
  CHECK(same == almost);
  CHECK_FALSE(gguf_blocks::unpack<gguf_blocks::f32>(b.data(), 1, &rounded));
}

TEST_CASE("kinds that are not read have names") {
  for (const std::uint32_t kind : {4u, 9u, 10u, 15u, 40u, 4000000000u})
    CHECK_FALSE(gguf_blocks::with_kind(kind, [](auto) { FAIL("is read"); }));
  CHECK(gguf_blocks::unread_kind(10) == "Q2_K");
  CHECK(gguf_blocks::unread_kind(39) == "MXFP4");
  CHECK(gguf_blocks::unread_kind(4) == "number 4");
}
