#include "unroll/io/gguf_blocks.hpp"

#include <array>
#include <cmath>
#include <map>
#include <vector>

#include "tests/support/catch.hpp"

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
    for (std::size_t i = 0; i < blocks; ++i)
      Kind::unpack(b.data() + i * std::size_t(Kind::bytes), out.data() + i * std::size_t(Kind::values));
  });
  REQUIRE(known);
  return out;
}

}  // namespace

TEST_CASE("blocks of GGUF hold the numbers that ggml and the package gguf find in them") {
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

TEST_CASE("kinds that are not read have names") {
  for (const std::uint32_t kind : {4u, 9u, 10u, 15u, 40u, 4000000000u})
    CHECK_FALSE(gguf_blocks::with_kind(kind, [](auto) { FAIL("is read"); }));
  CHECK(gguf_blocks::unread_kind(10) == "Q2_K");
  CHECK(gguf_blocks::unread_kind(39) == "MXFP4");
  CHECK(gguf_blocks::unread_kind(4) == "number 4");
}
