#include "unroll/io/checkpoint.hpp"

#include <limits>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "unroll/optim/adam.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

checkpoint example() {
  checkpoint c;
  const std::vector<float> weights{1.5f, -0.0f, std::numeric_limits<float>::infinity()};
  const std::vector<double> numbers{0.1, std::numeric_limits<double>::denorm_min()};
  c.set("weights", view<const float>(weights));
  c.set("numbers", view<const double>(numbers));
  c.set("empty", view<const double>());
  c.set("step", 41);
  c.set_text("model", "lstm \"64\"\n");
  return c;
}

}  // namespace

TEST_CASE("a checkpoint comes back bit by bit") {
  const folder f;
  save_checkpoint(f.path / "run", example());
  const checkpoint c = load_checkpoint(f.path / "run");
  std::vector<float> weights(3);
  c.get("weights", view<float>(weights));
  CHECK(weights[0] == 1.5f);
  CHECK(std::signbit(weights[1]));
  CHECK(std::isinf(weights[2]));
  std::vector<double> numbers(2);
  c.get("numbers", view<double>(numbers));
  CHECK(numbers[1] == std::numeric_limits<double>::denorm_min());
  c.get("empty", view<double>());
  CHECK(c.get_integer("step") == 41);
  CHECK(c.text("model") == "lstm \"64\"\n");
  CHECK_FALSE(c.has("other"));
  CHECK(c.to_bytes() == example().to_bytes());
  CHECK_NOTHROW(checkpoint::from_bytes(checkpoint().to_bytes(), "empty"));
}

TEST_CASE("a training run continues with the same bits") {
  const folder f;
  std::vector<double> theta{1, 2}, g{0.3, -0.7};
  adam<double> whole(2), first(2), second(2);
  for (int t = 0; t < 3; ++t) REQUIRE(first.step(theta, g) == status::ok);
  checkpoint c;
  c.save("adam", first);
  c.set("theta", view<const double>(theta));
  save_checkpoint(f.path / "run", c);
  std::vector<double> restored(2);
  const auto loaded = load_checkpoint(f.path / "run");
  loaded.load("adam", second);
  loaded.get("theta", view<double>(restored));
  for (int t = 0; t < 3; ++t) REQUIRE(second.step(restored, g) == status::ok);
  std::vector<double> through{1, 2};
  for (int t = 0; t < 6; ++t) REQUIRE(whole.step(through, g) == status::ok);
  CHECK(restored == through);
}

TEST_CASE("a checkpoint with any byte changed, cut at any byte or with more behind it is refused") {
  const std::string bytes = example().to_bytes();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (int flip : {1, 0x80, 0xff}) {
      std::string altered = bytes;
      altered[i] = char(altered[i] ^ flip);
      CHECK_THROWS_AS(checkpoint::from_bytes(altered, "altered"), unroll::error);
    }
    CHECK_THROWS_AS(checkpoint::from_bytes(bytes.substr(0, i), "cut"), unroll::error);
  }
  CHECK_THROWS_WITH(checkpoint::from_bytes(bytes + "x", "long"), ContainsSubstring("its header says"));
}

namespace {

// Rewrites the length and the hash, so that only the checks behind them are left.
std::string sealed(std::string bytes) {
  const std::uint64_t length = bytes.size();
  std::memcpy(bytes.data() + 16, &length, 8);
  const std::uint64_t h = fnv1a(bytes.data(), bytes.size() - 8);
  std::memcpy(bytes.data() + bytes.size() - 8, &h, 8);
  return bytes;
}

}  // namespace

TEST_CASE("a forged checkpoint with a right hash cannot make the reader leave the file") {
  const std::string bytes = example().to_bytes();
  CHECK(sealed(bytes) == bytes);
  // whatever byte changes, it is read without leaving the file or it is refused
  for (std::size_t i = 0; i + 8 < bytes.size(); ++i) {
    for (int value : {0x00, 0x01, 0x7f, 0xff}) {
      std::string forged = bytes;
      forged[i] = char(value);
      try {
        checkpoint::from_bytes(sealed(forged), "forged").to_bytes();
      } catch (const unroll::error&) {
      }
    }
  }
  std::string huge = bytes;
  for (std::size_t i = 29; i < 37; ++i) huge[i] = char(0xff);  // size of the first value: 2^64 - 1
  CHECK_THROWS_WITH(checkpoint::from_bytes(sealed(huge), "huge"), ContainsSubstring("ends inside entry 0"));
  std::string many = bytes;
  many[12] = char(100);
  CHECK_THROWS_AS(checkpoint::from_bytes(sealed(many), "many"), unroll::error);
  many[12] = char(1);
  CHECK_THROWS_WITH(checkpoint::from_bytes(sealed(many), "few"), ContainsSubstring("behind its last entry"));
}

TEST_CASE("errors name the file, the entry and both values") {
  const folder f;
  CHECK_THROWS_WITH(load_checkpoint(f.path / "none"),
                    ContainsSubstring("none") && ContainsSubstring("does not exist"));
  CHECK_THROWS_WITH(load_checkpoint(f.path), ContainsSubstring("not a regular file"));
  write_file(f.path / "text", "a text that is certainly no checkpoint");
  CHECK_THROWS_WITH(load_checkpoint(f.path / "text"), ContainsSubstring("is not a checkpoint"));
  std::string later = example().to_bytes();
  later[8] = 2;
  CHECK_THROWS_WITH(checkpoint::from_bytes(later, "later"),
                    ContainsSubstring("version 2") && ContainsSubstring("expected 1"));
  const checkpoint c = example();
  std::vector<double> two(2);
  CHECK_THROWS_WITH(c.get("weights", view<double>(two)),
                    ContainsSubstring("kind f") && ContainsSubstring("expected d"));
  CHECK_THROWS_WITH(c.get("missing", view<double>(two)), ContainsSubstring("none of empty, model"));
  CHECK_THROWS_WITH(c.get("numbers", view<double>(two).part(0, 1)),
                    ContainsSubstring("2 numbers, expected 1"));
  save_checkpoint(f.path / "run", c);
  const checkpoint back = load_checkpoint(f.path / "run");
  CHECK_THROWS_WITH(back.get("missing", view<double>(two)),
                    ContainsSubstring("run\", \"missing\": is none of"));
  CHECK_THROWS_WITH(back.text("weights"), ContainsSubstring("run\", \"weights\": is of kind f, expected t"));
  CHECK_THROWS_WITH(back.get("numbers", view<double>(two).part(0, 1)),
                    ContainsSubstring("run\", \"numbers\": has 2 numbers, expected 1"));
}

TEST_CASE("a save that fails leaves the previous checkpoint") {
  const folder f;
  const auto path = f.path / "run";
  save_checkpoint(path, example());
  checkpoint next = example();
  next.set("step", 42);
  {
    file_writer interrupted(path, "test");
    interrupted.append(next.to_bytes().substr(0, 30));
  }
  CHECK(load_checkpoint(path).get_integer("step") == 41);
  save_checkpoint(path, next);
  CHECK(load_checkpoint(path).get_integer("step") == 42);
}

TEST_CASE("reading a file can be bounded") {
  const folder f;
  write_file(f.path / "a", "12345");
  CHECK(read_file(f.path / "a", "test", 5) == "12345");
  CHECK_THROWS_WITH(read_file(f.path / "a", "test", 4), ContainsSubstring("5 bytes, at most 4"));
}
