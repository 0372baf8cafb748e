#include "unroll/io/gguf.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/gguf_files.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

gguf parse(const std::string& bytes) { return gguf(byte_source::memory(bytes, "file", "reader")); }

template <class T>
std::vector<T> all(const gguf& g, const std::string& name, bool allow_non_finite = false) {
  std::vector<T> out(std::size_t(g.at(name).size));
  g.read(name, 0, view<T>(out), allow_non_finite);
  return out;
}

// One key of every type, tensors of three kinds.
made::gguf_file sample() {
  using made::bytes_of;
  made::gguf_file f;
  const auto plain = [&](const char* name, std::uint32_t type, const std::string& value) {
    f.key(name, bytes_of(type) + value);
  };
  plain("a.u8", 0, "\xff");
  plain("a.i8", 1, "\xff");
  plain("a.u16", 2, bytes_of(std::uint16_t{40000}));
  plain("a.i16", 3, bytes_of(std::int16_t{-3}));
  f.u32("a.u32", 4000000000u);
  plain("a.i32", 5, bytes_of(std::int32_t{-5}));
  f.f32("a.f32", 1.5f).truth("a.bool", true).text("a.text", "one\ntwo");
  plain("a.u64", 10, bytes_of(std::uint64_t{1} << 40));
  plain("a.i64", 11, bytes_of(std::int64_t{-1} << 40));
  plain("a.f64", 12, bytes_of(0.1));
  f.texts("a.texts", {"", "x", "yz"}).array("a.numbers", 6, 2, bytes_of(1.0f) + bytes_of(2.0f));
  f.add("matrix", {3, 2}, {1, 2, 3, 4, 5, 6});
  f.add("row", {2}, 30, bytes_of(std::uint32_t{0xbf803f80}));
  std::string q8 = bytes_of(std::uint16_t{0x3800});
  for (int i = 0; i < 32; ++i) q8 += char(i);
  f.add("blocks", {32, 1, 2}, 8, q8 + q8);
  return f;
}

void refuses(const std::string& bytes, const std::string& message) {
  CHECK_THROWS_WITH(parse(bytes), ContainsSubstring("reader: file: ") && ContainsSubstring(message));
}
void refuses(const made::gguf_file& f, const std::string& message) { refuses(f.bytes(), message); }

}  // namespace

TEST_CASE("keys and tensors of a GGUF file are read as they were written") {
  for (const std::uint32_t version : {2u, 3u}) {
    auto f = sample();
    f.version = version;
    const std::string bytes = f.bytes();
    const gguf g = parse(bytes);
    CHECK(g.keys().size() == 14);
    CHECK(g.get<std::uint16_t>("a.u16") == 40000);
    CHECK(g.get<std::int16_t>("a.i16") == -3);
    CHECK(g.get<std::uint32_t>("a.u32") == 4000000000u);
    CHECK(g.get<std::int32_t>("a.i32") == -5);
    CHECK(g.get<float>("a.f32") == 1.5f);
    CHECK(g.get<bool>("a.bool"));
    CHECK(g.get<std::string>("a.text") == "one\ntwo");
    CHECK(g.get<std::uint64_t>("a.u64") == std::uint64_t{1} << 40);
    CHECK(g.get<std::int64_t>("a.i64") == std::int64_t{-1} * (std::int64_t{1} << 40));
    CHECK(g.get<double>("a.f64") == 0.1);
    CHECK(g.get<std::uint32_t>("none", 7) == 7);
    CHECK(g.list<std::string>("a.texts") == std::vector<std::string>{"", "x", "yz"});
    CHECK(g.list<float>("a.numbers") == std::vector<float>{1, 2});
    CHECK(g.at("matrix").shape == std::vector<index_t>{2, 3});
    CHECK(g.at("blocks").shape == std::vector<index_t>{2, 1, 32});
    CHECK(all<float>(g, "matrix") == std::vector<float>{1, 2, 3, 4, 5, 6});
    CHECK(all<double>(g, "row") == std::vector<double>{1, -1});
    const auto blocks = all<float>(g, "blocks");
    for (int i = 0; i < 64; ++i) CHECK(blocks[std::size_t(i)] == 0.5f * float(i % 32));
    std::vector<float> short_of(5);
    g.read("matrix", 1, view<float>(short_of));
    CHECK(short_of == std::vector<float>{2, 3, 4, 5, 6});
    CHECK_THROWS_WITH(g.read("matrix", 2, view<float>(short_of)),
                      ContainsSubstring("tensor \"matrix\" has 6 numbers, 5 from 2 on are needed"));
    std::vector<float> block(32);
    g.read("blocks", 32, view<float>(block));
    CHECK(block[31] == 15.5f);
    CHECK_THROWS_WITH(
        g.read("blocks", 1, view<float>(block)),
        ContainsSubstring("tensor \"blocks\" has blocks of 32 numbers, 32 from 1 on are needed"));
    CHECK_THROWS_WITH(g.read("blocks", 0, view<float>(short_of)), ContainsSubstring("5 from 0 on"));
  }
}

TEST_CASE("a mapped file reads as its bytes, and an empty one is refused") {
  const folder f;
  const std::string bytes = sample().bytes();
  write_file(f.path / "a.gguf", bytes);
  const gguf g = gguf::open(f.path / "a.gguf", "reader");
  CHECK(g.source().read(0, g.source().size()) == bytes);
  CHECK(all<float>(g, "matrix") == std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK_THROWS_WITH(g.source().read(bytes.size(), 1), ContainsSubstring("1 from byte"));
  write_file(f.path / "empty.gguf", "");
  CHECK_THROWS_WITH(gguf::open(f.path / "empty.gguf", "reader"), ContainsSubstring("has 0 bytes"));
  CHECK_THROWS_WITH(gguf::open(f.path / "none.gguf", "reader"), ContainsSubstring("does not exist"));
}

TEST_CASE("keys of another type, or absent, are refused with both types") {
  const std::string bytes = sample().bytes();
  const gguf g = parse(bytes);
  CHECK_THROWS_WITH(g.get<float>("a.u64"),
                    ContainsSubstring("\"a.u64\" is of type u64, expected of type f32"));
  CHECK_THROWS_WITH(g.get<std::string>("a.texts"),
                    ContainsSubstring("\"a.texts\" is an array of string, expected of type string"));
  CHECK_THROWS_WITH(g.list<float>("a.texts"), ContainsSubstring("expected an array of f32"));
  CHECK_THROWS_WITH(g.get<bool>("none"), ContainsSubstring("lacks key \"none\""));
  CHECK_THROWS_WITH(g.at("none"), ContainsSubstring("lacks tensor \"none\""));
  const std::string odd = sample().key("b", made::bytes_of(std::uint32_t{7}) + "\2").bytes();
  CHECK_THROWS_WITH(parse(odd).get<bool>("b"), ContainsSubstring("\"b\" is 2, expected 0 or 1"));
}

TEST_CASE("alignment is read from the file, order and gaps of the data are free") {
  using made::bytes_of;
  made::gguf_file f;
  f.alignment = 64;
  f.u32("general.alignment", 64).add("a", {1}, {1}).add("b", {1}, {2}).add("c", {1}, {3});
  CHECK(f.tensors[1].offset == 64);
  f.tensors[2].offset = 256;
  std::swap(f.tensors[0], f.tensors[1]);
  std::swap(f.tensors[0].offset, f.tensors[1].offset);
  const std::string bytes = f.bytes();
  const gguf g = parse(bytes);
  CHECK(all<float>(g, "a")[0] == 1);
  CHECK(all<float>(g, "b")[0] == 2);
  CHECK(all<float>(g, "c")[0] == 3);
  f.tensors[2].offset = 160;
  refuses(f, "tensor \"c\" has offset 160, no multiple of the alignment 64");
  for (const std::uint32_t n : {0u, 48u})
    refuses(f.with("general.alignment", made::u32_value(n)),
            "\"general.alignment\" is " + std::to_string(n) + ", expected a power of two");
  refuses(f.with("general.alignment", bytes_of(std::uint32_t{10}) + bytes_of(std::uint64_t{64})),
          "\"general.alignment\" is of type u64, expected of type u32");
}

TEST_CASE("GGUF files that lie are refused with what they say and what there is") {
  using made::bytes_of;
  const std::string good = sample().bytes();
  const auto patched = [&](std::size_t at, const std::string& bytes) {
    return std::string(good).replace(at, bytes.size(), bytes);
  };
  refuses("GGUF", "has 4 bytes, no GGUF file has less than 24");
  refuses(std::string(40, 'x'), "does not begin with \"GGUF\"");
  refuses("PK\x03\x04" + std::string(40, 'x'), "is a zip archive");
  refuses(patched(4, bytes_of(std::uint32_t{1})), "is a GGUF file of version 1, expected 2 or 3");
  refuses(patched(4, bytes_of(std::uint32_t{4})), "is a GGUF file of version 4, expected 2 or 3");
  refuses(patched(4, bytes_of(std::uint32_t{50331648})), "is a big-endian GGUF file");
  refuses(patched(8, bytes_of(std::uint64_t{100})), "says that it has 100 tensors");
  refuses(patched(16, bytes_of(std::uint64_t{100})), "says that it has 100 keys");
  for (const std::uint64_t n : {std::uint64_t{1000}, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    const std::string number = std::to_string(n);
    refuses(patched(8, bytes_of(n)), "says that it has " + number + " tensors");
    refuses(patched(16, bytes_of(n)), "says that it has " + number + " keys");
    refuses(patched(24, bytes_of(n)), "has a name of " + number + " bytes at byte 32");
    const auto key = [&](const std::string& value) {
      made::gguf_file f;
      f.key("k", value);
      return f;
    };
    refuses(key(bytes_of(std::uint32_t{8}) + bytes_of(n)), "has a text of " + number + " bytes");
    refuses(key(bytes_of(std::uint32_t{9}) + bytes_of(std::uint32_t{6}) + bytes_of(n)),
            number + " elements in \"k\"");
    refuses(key(bytes_of(std::uint32_t{9}) + bytes_of(std::uint32_t{8}) + bytes_of(n)),
            number + " elements in \"k\"");
  }
  auto f = sample();
  f.array("nested", 9, 1, bytes_of(std::uint32_t{4}) + bytes_of(std::uint64_t{0}));
  refuses(f, "has \"nested\", an array of arrays, which is not read");
  f = sample();
  f.key("k", bytes_of(std::uint32_t{13}));
  refuses(f, "has \"k\" of the unknown type 13");
  f = sample();
  f.u32("a.u32", 1);
  refuses(f, "names key \"a.u32\" twice");

  const auto tensor = [](auto change) {
    auto file = sample();
    change(file.tensors[0]);
    return file;
  };
  refuses(tensor([](auto& t) { t.name = "row"; }), "tensor \"row\" comes twice");
  refuses(tensor([](auto& t) { t.extents = {}; }), "tensor \"matrix\" has 0 extents, expected 1 to 4");
  refuses(tensor([](auto& t) { t.extents = {1, 1, 1, 1, 1}; }), "has 5 extents");
  refuses(tensor([](auto& t) { t.extents = {3, 0}; }), "has extent 0");
  refuses(tensor([](auto& t) {
            t.extents = {std::uint64_t{1} << 40, std::uint64_t{1} << 40};
          }),
          "has extent 1099511627776, a tensor has 1 to 2^48 numbers");
  refuses(tensor([](auto& t) { t.kind = 10; }), "tensor \"matrix\" is of kind Q2_K, expected F32, F16");
  refuses(tensor([](auto& t) { t.kind = 99; }), "is of kind number 99");
  refuses(tensor([](auto& t) { t.kind = 2; }), "has rows of 3 numbers, Q4_0 has blocks of 32");
  refuses(tensor([](auto& t) {
            t.extents = {300, 2};
          }),
          "tensor \"matrix\" of shape [2, 300] has 2400 bytes from offset 0 on, the data has 160");
  refuses(tensor([](auto& t) { t.offset = std::uint64_t{1} << 62; }), "from offset 4611686018427387904 on");
  refuses(tensor([](auto& t) { t.offset = ~std::uint64_t{31}; }), "tensor \"matrix\" of shape [2, 3]");
  f = sample();
  f.tensors[1].offset = 0;
  refuses(f, ", inside tensor ");
  f = sample();
  f.tensors[0].offset = 96;  // blocks has 68 bytes from 64 on
  refuses(f, "tensor \"matrix\" begins at byte 640, inside tensor \"blocks\" of bytes 608 to 676");
}

TEST_CASE("numbers that are not finite are refused with their place, unless allowed") {
  made::gguf_file f;
  f.add("m", {2, 2}, {1, 2, INFINITY, 4});
  const std::string bytes = f.bytes();
  CHECK_THROWS_WITH(all<float>(parse(bytes), "m"), ContainsSubstring("tensor \"m\" is inf at [1, 0]"));
  CHECK(all<float>(parse(bytes), "m", true)[2] == INFINITY);
  made::gguf_file large;
  large.add("m", {1}, {3.4e38f});
  const std::string rounded = large.bytes();
  CHECK(all<double>(parse(rounded), "m")[0] == double(3.4e38f));
  CHECK_THROWS_WITH(all<bf16>(parse(rounded), "m"), ContainsSubstring("tensor \"m\" is inf at [0]"));
}

TEST_CASE("a GGUF file cut at any byte, or with any byte changed, is read or refused") {
  const std::string good = sample().bytes();
  const auto survives = [](const std::string& bytes) {
    try {
      const gguf g = parse(bytes);
      for (const auto& [name, t] : g.tensors()) all<float>(g, name, true);
      for (const auto& [key, v] : g.keys())
        if (v.is_array && v.type == gguf_type::text) g.list<std::string>(key);
      return true;
    } catch (const error&) {
      return false;
    }
  };
  std::size_t cut = 0, changed = 0;
  for (std::size_t n = 0; n < good.size(); ++n) cut += survives(good.substr(0, n));
  CHECK(cut == 28);  // behind the last tensor, whose padding may be missing
  for (std::size_t i = 0; i < good.size(); ++i)
    for (const char c : {'\0', '\1', '\x7f', '\xff'}) {
      std::string bytes = good;
      bytes[i] = c;
      changed += survives(bytes);
    }
  CHECK(changed > 0);
  CHECK(changed < 4 * good.size());
}
