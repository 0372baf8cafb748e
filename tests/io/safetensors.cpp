#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/safetensors.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

safetensors parse(const std::string& bytes) {
  return safetensors(byte_source::memory(bytes, "file", "reader"));
}

template <class T>
std::vector<T> all(const safetensors& s, const std::string& name, bool allow_non_finite = false) {
  std::vector<T> out(std::size_t(s.at(name).size));
  s.read(name, 0, view<T>(out), allow_non_finite);
  return out;
}

// The value of a number of `digits` fraction bits and `bits` exponent bits, by its definition.
double value(unsigned code, int bits, int digits) {
  const int bias = (1 << (bits - 1)) - 1, exponent = int(code >> digits) & ((1 << bits) - 1);
  const double fraction = double(code & ((1u << digits) - 1)), sign = code >> (bits + digits) ? -1 : 1;
  if (exponent == (1 << bits) - 1) return fraction > 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - digits);
  return sign * std::ldexp(1 + std::ldexp(fraction, -digits), exponent - bias);
}

}  // namespace

TEST_CASE("tensors are written and come back bit by bit") {
  const folder f;
  layout names;
  names.add("matrix", 3, 2);
  names.add("norm.weight", 4);
  names.add("row", 5, 1);
  const std::vector<float> x{0.0f, -0.0f, 1e-45f, -1e-40f, 3.4028235e38f, 1 / 3.0f, 7, 8, 9.25f, 10, 11,
                             12,   13,    14,     15};
  const auto at = [&](const layout_block& b) { return x.data() + b.offset; };
  save_safetensors(f.path / "a.safetensors", names, at, {{"format", "pt"}, {"note", "a \"text\""}});
  const safetensors s(byte_source::open(f.path / "a.safetensors", "reader"));
  CHECK(s.metadata().at("note") == "a \"text\"");
  CHECK(s.tensors().size() == 3);
  CHECK(s.at("matrix").shape == std::vector<index_t>{2, 3});
  CHECK(s.at("norm.weight").shape == std::vector<index_t>{4});
  CHECK(s.at("row").shape == std::vector<index_t>{1, 5});
  CHECK(s.at("matrix").first % 8 == 0);
  for (const auto& b : names.blocks()) {
    CHECK(made::same_bits(all<float>(s, b.name), view<const float>(x).part(b.offset, b.size())));
    CHECK(all<double>(s, b.name) ==
          std::vector<double>(x.begin() + b.offset, x.begin() + b.offset + b.size()));
  }
  std::vector<float> part(2);
  s.read("matrix", 3, view<float>(part));
  CHECK(part == std::vector<float>{x[3], x[4]});
}

TEST_CASE("doubles are rounded to floats on writing, those beyond leave the old file") {
  const folder f;
  layout names;
  names.add("a", 5000, 2);
  std::vector<double> x(10000, 1 / 3.0);
  const auto at = [&](const layout_block& b) { return static_cast<const double*>(x.data()) + b.offset; };
  save_safetensors(f.path / "a", names, at);
  CHECK(all<float>(safetensors(byte_source::open(f.path / "a", "reader")), "a") ==
        std::vector<float>(10000, float(1 / 3.0)));
  const std::string before = read_file(f.path / "a");
  x[9999] = 1e39;
  CHECK_THROWS_WITH(
      save_safetensors(f.path / "a", names, at),
      ContainsSubstring("tensor \"a\" is") && ContainsSubstring("at [1, 4999], beyond the floats"));
  CHECK(read_file(f.path / "a") == before);
  CHECK(f.entries() == 1);
}

TEST_CASE("every F16 and BF16 number becomes exactly its value") {
  std::vector<std::uint16_t> codes(1 << 16);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = std::uint16_t(i);
  const std::string raw = made::raw(codes);
  const std::string bytes = made::safetensors({{"h", "F16", {65536}, raw}, {"b", "BF16", {256, 256}, raw}});
  const auto s = parse(bytes);
  const auto check = [&](const auto& got, int bits, int digits) {
    index_t wrong = 0;
    for (unsigned i = 0; i < codes.size(); ++i) {
      const double expected = value(i, bits, digits), found = double(got[i]);
      if (std::isnan(expected) ? !std::isnan(found)
                               : found != expected || std::signbit(found) != std::signbit(expected))
        ++wrong;
    }
    CHECK(wrong == 0);
  };
  check(all<float>(s, "h", true), 5, 10);
  check(all<double>(s, "h", true), 5, 10);
  check(all<float>(s, "b", true), 8, 7);
  check(all<double>(s, "b", true), 8, 7);
}

TEST_CASE("nan and infinity are refused with their position, or allowed") {
  const float inf = HUGE_VALF, nan = std::nanf("");
  const std::string bytes = made::safetensors({{"a", "F32", {2, 3}, made::raw<float>({1, 2, 3, 4, nan, inf})},
                                               {"b", "F16", {1, 1, 2}, made::raw<std::uint16_t>({0, 0xfc00})},
                                               {"c", "BF16", {2}, made::raw<std::uint16_t>({0, 0x7fc0})}});
  const auto s = parse(bytes);
  CHECK_THROWS_WITH(all<float>(s, "a"), ContainsSubstring("reader: file: tensor \"a\" is nan at [1, 1]"));
  CHECK_THROWS_WITH(all<double>(s, "a"), ContainsSubstring("tensor \"a\" is nan at [1, 1]"));
  std::vector<float> part(1);
  CHECK_THROWS_WITH(s.read("a", 5, view<float>(part)), ContainsSubstring("is inf at [1, 2]"));
  CHECK_THROWS_WITH(all<float>(s, "b"), ContainsSubstring("tensor \"b\" is -inf at [0, 0, 1]"));
  CHECK_THROWS_WITH(all<float>(s, "c"), ContainsSubstring("tensor \"c\" is nan at [1]"));
  CHECK(std::isnan(all<float>(s, "a", true)[4]));
  CHECK(all<double>(s, "b", true)[1] == -HUGE_VAL);
}

TEST_CASE("tensors lie in any order, unaligned, empty, of other types") {
  const std::string data = "\x01\x02\x03" + made::raw<float>({1.5f, -2}) + made::raw<std::int64_t>({7});
  const std::string bytes = made::with_header(R"({"z": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
    "i": {"dtype": "I64", "shape": [], "data_offsets": [11, 19]},
    "none": {"dtype": "F32", "shape": [0, 5], "data_offsets": [3, 3]},
    "a": {"data_offsets": [3, 11], "dtype": "F32", "shape": [2, 1]}, "__metadata__": {}}    )",
                                              data);
  const auto s = parse(bytes);
  CHECK(all<float>(s, "a") == std::vector<float>{1.5f, -2});
  CHECK(all<float>(s, "none").empty());
  CHECK(s.at("i").size == 1);
  CHECK_THROWS_WITH(all<float>(s, "i"),
                    ContainsSubstring("tensor \"i\" has dtype I64, expected F32, F16 or BF16"));
  CHECK_THROWS_WITH(s.at("b"), ContainsSubstring("file: lacks tensor \"b\""));
  std::vector<float> two(2);
  CHECK_THROWS_WITH(s.read("a", 1, view<float>(two)),
                    ContainsSubstring("has 2 numbers, 2 from 1 on are needed"));
  CHECK_THROWS_AS(s.read("a", -1, view<float>(two)), unroll::error);
  CHECK_THROWS_AS(s.read("a", 3, view<float>(two)), unroll::error);
  CHECK(parse(made::with_header("{}", "")).tensors().empty());
}

TEST_CASE("files that are cut or whose header does not fit are refused with both values") {
  CHECK_THROWS_WITH(parse(""), ContainsSubstring("has 0 bytes, no safetensors file has less than 8"));
  CHECK_THROWS_WITH(parse(std::string(7, '\0')), ContainsSubstring("has 7 bytes"));
  CHECK_THROWS_WITH(parse(std::string(8, '\0')), ContainsSubstring("is damaged JSON at byte"));
  CHECK_THROWS_WITH(parse(std::string(8, '\xff') + "{}"),
                    ContainsSubstring("has 10 bytes, its header alone says 18446744073709551615"));
  const std::string good = made::safetensors({{"a", "F32", {2}, made::raw<float>({1, 2})}});
  for (std::size_t n = 0; n < good.size(); ++n) {
    const std::string cut = good.substr(0, n);
    CHECK_THROWS_AS(parse(cut), unroll::error);
  }
  CHECK_THROWS_WITH(parse(good.substr(0, good.size() - 1)),
                    ContainsSubstring("tensor \"a\" lies at bytes [0, 8) of the data, which has 7"));
  CHECK_THROWS_WITH(parse(good + "x"), ContainsSubstring("has 9 bytes of data, its tensors end at 8"));

  const folder f;  // a header beyond the format's limit, without its bytes
  const std::uint64_t length = 100'000'001;
  write_file(f.path / "a", std::string(reinterpret_cast<const char*>(&length), 8));
  std::filesystem::resize_file(f.path / "a", length + 8);
  CHECK_THROWS_WITH(safetensors(byte_source::open(f.path / "a", "reader")),
                    ContainsSubstring("has a header of 100000001 bytes, at most 100000000 expected"));
}

TEST_CASE("headers that the format does not allow are refused by tensor") {
  const std::string data(16, '\0');
  struct row {
    const char *header, *message;
  };
  for (
      const row& r : std::initializer_list<row>{
          {"[]", "has a header that is no JSON object"},
          {"{", "is damaged JSON at byte"},
          {R"({"a": 3})", "tensor \"a\" is described by other members"},
          {R"({"a": {"dtype": "F32", "shape": [4]}})", "tensor \"a\" is described by other members"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], "x": 1}})", "by other members"},
          {R"({"a": {"dtype": "F32", "shape": [4], "offsets": [0, 16]}})", "by other members"},
          {R"({"a": {"dtype": 4, "shape": [4], "data_offsets": [0, 16]}})", "a dtype that is no text"},
          {R"({"a": {"dtype": "F31", "shape": [4], "data_offsets": [0, 16]}})", "unknown dtype \"F31\""},
          {R"({"a": {"dtype": "f32", "shape": [4], "data_offsets": [0, 16]}})", "unknown dtype \"f32\""},
          {R"({"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}})", "a shape that is no list"},
          {R"({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}})", "a shape that is no list"},
          {R"({"a": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}})", "a shape that is no list"},
          {R"({"a": {"dtype": "F32", "shape": ["4"], "data_offsets": [0, 16]}})", "a shape that is no list"},
          {R"({"a": {"dtype": "F32", "shape": [4,1,1,1,1,1,1,1,1], "data_offsets": [0, 16]}})", "up to 8"},
          {R"({"a": {"dtype": "F32", "shape": [[4]], "data_offsets": [0, 16]}})", "deeper than 3 levels"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}})", "data_offsets that are not two"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 16]}})", "that are not two"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}})", "that are not two"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0.0, 16.0]}})", "that are not two"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}})",
           "lies at bytes [16, 0) of the data, which has 16"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 18446744073709551615]}})",
           "lies at bytes [0, 18446744073709551615) of the data, which has 16"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [18446744073709551600, 18446744073709551615]}})",
           "of the data, which has 16"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 18446744073709551616]}})",
           "that are not two"},
          {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}})",
           "lies at bytes [0, 16), which are 16; its shape [3] of F32 needs 12"},
          {R"({"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 16]}})",
           "its shape [4] of F16 needs 8"},
          {R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}})",
           "a shape of more than 2^48 numbers"},
          {R"({"a": {"dtype": "F32", "shape": [18446744073709551615, 0], "data_offsets": [0, 0]}})",
           "a shape of more than 2^48 numbers"},
          {R"({"a": {"dtype": "F32", "shape": [0, 281474976710656, 2], "data_offsets": [0, 0]}})",
           "a shape of more than 2^48 numbers"},
          {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})",
           "has 16 bytes of data, its tensors end at 8"},
          {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [4, 16]}})",
           "tensor \"a\" begins at byte 4 of the data, the tensor before it ends at 0"},
          {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
           "tensor \"b\" begins at byte 8 of the data, the tensor before it ends at 4"},
          {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
           "tensor \"b\" begins at byte 8 of the data, the tensor before it ends at 12"},
          {R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})",
           "tensor \"b\" begins at byte 0 of the data, the tensor before it ends at 16"},
          {R"({"a": {"dtype": "F32", "shape": [0], "data_offsets": [8, 8]},
                "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})",
           "tensor \"a\" begins at byte 8 of the data"},
          {R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}})",
           "names \"a\" twice"},
          {R"({"__metadata__": 3, "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})",
           "has a __metadata__ that is no object of texts"},
          {R"({"__metadata__": {"n": 3}, "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}})",
           "has a __metadata__ whose \"n\" is no text"},
          {R"({"__metadata__": {"n": {"m": {}}}})", "deeper than 3 levels"}}) {
    INFO(r.header);
    CHECK_THAT(made::message([&] { parse(made::with_header(r.header, data)); }),
               ContainsSubstring(r.message));
  }
  CHECK_THROWS_WITH(parse(made::with_header(std::string(1 << 20, '['), "")),
                    ContainsSubstring("deeper than 3 levels"));
}

TEST_CASE("sharded files are one set, and their index must be right") {
  const folder f;
  const auto one = made::safetensors({{"a", "F32", {1}, made::raw<float>({1})}});
  const auto two = made::safetensors({{"b", "F32", {1}, made::raw<float>({2})}, {"c", "F32", {0}, ""}});
  const auto put = [&](const char* name, const std::string& bytes) { write_file(f.path / name, bytes); };
  const auto open = [&](const std::string& index) {
    put("model.safetensors.index.json", index);
    return tensor_files::open(f.path, "reader");
  };
  CHECK_THROWS_WITH(tensor_files::open(f.path, "reader"),
                    ContainsSubstring("model.safetensors\": does not exist"));
  put("one", one);
  put("two", two);
  const auto files = open(R"({"metadata": {}, "weight_map": {"a": "one", "b": "two", "c": "two"}})");
  CHECK(files.names().size() == 3);
  CHECK(all<float>(files.holding("b"), "b") == std::vector<float>{2});
  CHECK_THROWS_WITH(files.holding("d"), ContainsSubstring("and its shards lack tensor \"d\""));

  struct row {
    const char *index, *message;
  };
  for (const row& r : std::initializer_list<row>{
           {"[]", "has no \"weight_map\""},
           {R"({"weight_map": []})", "has no \"weight_map\""},
           {R"({"weight_map": {}})", "has no \"weight_map\""},
           {R"({"weight_map": {"a": 1}})", "names no file for tensor \"a\""},
           {R"({"weight_map": {"a": "../one"}})",
            "puts tensor \"a\" into \"../one\", which is no file beside it"},
           {R"({"weight_map": {"a": "/etc/passwd"}})", "which is no file beside it"},
           {R"({"weight_map": {"a": ""}})", "which is no file beside it"},
           {R"({"weight_map": {"a": ".."}})", "which is no file beside it"},
           {R"({"weight_map": {"a": "one\u0000"}})", "which is no file beside it"},
           {R"({"weight_map": {"a": "three"}})", "three\": does not exist"},
           {R"({"weight_map": {"a": "one", "b": "one"}})", "one\": lacks tensor \"b\""},
           {R"({"weight_map": {"a": "one", "b": "two"}})", "two\": tensor \"c\" is not listed for this file"},
           {R"({"weight_map": {"a": "one", "a": "two"}})", "names \"a\" twice"}}) {
    INFO(r.index);
    CHECK_THAT(made::message([&] { open(r.index); }), ContainsSubstring(r.message));
  }
  put("two", made::safetensors({{"a", "F32", {1}, made::raw<float>({2})}}));
  CHECK_THROWS_WITH(open(R"({"weight_map": {"a": "one"}, "x": {"weight_map": "two"}})").holding("b"),
                    ContainsSubstring("lacks tensor \"b\""));
  std::vector<safetensors> twice;
  twice.push_back(parse(one));
  twice.push_back(parse(one));
  CHECK_THROWS_WITH(tensor_files(std::move(twice)), ContainsSubstring("tensor \"a\" is also in file"));
}

#endif
