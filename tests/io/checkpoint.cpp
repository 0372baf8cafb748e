#include "unroll/io/checkpoint.hpp"

#include <limits>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/uoro.hpp"
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
  int read = 0, refused = 0;
  for (std::size_t i = 0; i + 8 < bytes.size(); ++i) {
    for (int value : {0x00, 0x01, 0x7f, 0xff}) {
      std::string forged = bytes;
      forged[i] = char(value);
      try {
        checkpoint::from_bytes(sealed(forged), "forged").to_bytes();
        ++read;
      } catch (const unroll::error&) {
        ++refused;
      }
    }
  }
  CHECK(read > 100);
  CHECK(refused > 100);
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

namespace {

template <class T>
struct stream {
  cells::elman<T> cell;
  parameters<T> theta{cell.size().params};
  std::vector<T> x, y;
  std::vector<cells::example<T>> xs;

  explicit stream(index_t hidden = 3, index_t lanes = 2)
      : cell({.in = 1, .hidden = hidden, .out = 1, .lanes = lanes}), x(40), y(40) {
    cell.init(theta, key{1});
    draw_normals(key{2}, 0, view<T>(x));
    draw_normals(key{3}, 0, view<T>(y));
    for (std::size_t t = 0; t < 20; ++t)
      xs.push_back({.x = &x[t * std::size_t(lanes)], .target = &y[t * std::size_t(lanes)]});
  }
  template <class E>
  std::vector<T> run(E& e, std::size_t first, std::size_t end) const {
    std::vector<T> g(std::size_t(theta.size()));
    e.advance(theta, std::span(xs).subspan(first, end - first), dparams<T>(g));
    if (end == xs.size()) e.finish(theta, dparams<T>(g));
    return g;
  }
};

// Saved after 11 inputs.
template <class E>
checkpoint cut(E e, const stream<typename E::scalar>& s) {
  e.reset(key{5});
  s.run(e, 0, 11);
  checkpoint c;
  c.save("run", e);
  return c;
}

}  // namespace

TEST_CASE("a stream and its optimiser go on from a file as if they had not been cut") {
  const folder f;
  const stream<float> s;
  uoro whole(s.cell, {.block = 4}), first(whole), second(whole);
  whole.reset(key{5});
  s.run(whole, 0, 11);
  const auto expected = s.run(whole, 11, 20);
  save_checkpoint(f.path / "run", cut(first, s));
  load_checkpoint(f.path / "run").load("run", second);
  CHECK(held_inputs(second) == 3);
  CHECK_THROWS_WITH(s.run(second, 11, 20), ContainsSubstring("must come after hold_inputs()") &&
                                               ContainsSubstring("the last 3 inputs"));
  CHECK_THROWS_WITH(hold_inputs(second, std::span(s.xs).first(2)),
                    ContainsSubstring("has size 2, expected 3"));
  auto other = s.xs;
  other[9].lanes = 1;
  CHECK_THROWS_WITH(hold_inputs(second, std::span<const cells::example<float>>(other).subspan(8, 3)),
                    "elman: x.lanes: is 1, the cell has 2");
  hold_inputs(second, std::span(s.xs).subspan(8, 3));
  std::vector<float> y(2);
  last_output(second, params<const float>(s.theta), view<float>(y));
  CHECK(s.run(second, 11, 20) == expected);
  CHECK_THROWS_WITH(hold_inputs(second, std::span(s.xs).first(1)),
                    ContainsSubstring("has size 1, expected 0"));

  // the output behind the last input, though its window had not been full
  tbptt by_one(s.cell, {.k1 = 1, .k2 = 4});
  s.run(by_one, 0, 11);
  std::vector<float> again(2);
  last_output(by_one, params<const float>(s.theta), view<float>(again));
  CHECK(std::abs(again[0] - y[0]) < 1e-6f);
  CHECK(std::abs(again[1] - y[1]) < 1e-6f);
}

TEST_CASE("a stream is resumed only by the estimator, the system and the numbers that it was saved from") {
  const stream<double> s;
  const checkpoint c = cut(uoro(s.cell, {.block = 4}), s);
  const auto refuse = [&](const checkpoint& saved, auto other, const std::string& had,
                          const std::string& expected) {
    INFO(had << " by " << expected);
    CHECK_THROWS_WITH(saved.load("run", other),
                      ContainsSubstring("is \"" + had) && ContainsSubstring("expected \"" + expected));
  };
  refuse(c, tbptt(s.cell), "uoro, block 4", "tbptt, k1 1, k2 16");
  refuse(c, uoro(s.cell, {.block = 5}), "uoro, block 4, epsilon 1e-07", "uoro, block 5, epsilon 1e-07");
  refuse(c, uoro(s.cell, {.block = 4, .balance = false}), "uoro, block 4, epsilon 1e-07",
         "uoro, block 4, epsilon 1e-07, not balanced");
  refuse(c, uoro(stream<double>(4).cell, {.block = 4}), "19 parameters, 6 of state",
         "29 parameters, 8 of state");
  refuse(c, uoro(stream<double>(3, 1).cell, {.block = 4}), "19 parameters, 6 of state, 2 of tape, 2 lanes",
         "19 parameters, 3 of state, 1 of tape, 1 lanes");
  refuse(c, uoro(stream<float>().cell, {.block = 4}), "double", "float");
  refuse(c, mean_of(uoro(s.cell, {.block = 4}), 2), "uoro, block 4", "mean_of, copies 2");
  refuse(cut(mean_of(uoro(s.cell), 2, true), s), mean_of(uoro(s.cell), 2), "mean_of, copies 2, antithetic",
         "mean_of, copies 2");
  refuse(cut(mean_of(uoro(s.cell), 2), s), mean_of(tbptt(s.cell), 2), "uoro, block 1", "tbptt, k1 1, k2 16");
  refuse(cut(artbp(s.cell, fixed_truncation(4)), s), artbp(s.cell, polynomial_truncation(4)),
         "artbp, slots 16, block 64, cuts 0.25, 0.25 ... 0.25",
         "artbp, slots 16, block 64, cuts 0.3333333333333333, 0.3 ... 0.00");
  refuse(cut(pes(s.cell, {.window = 3}), s), pes(s.cell, {.sigma = 0.2, .window = 3}), "pes, sigma 0.1",
         "pes, sigma 0.2");
}

TEST_CASE("a stream over memories is resumed only by a model of the same options and numbers") {
  using namespace unroll::llama;
  const auto over = []<class X>(std::type_identity<X>, const memory_options& o) {
    using weights = typename memory_llama<X>::weights_type;
    const config c = small_memory::shape();
    return rematerialise(memory_llama<X>(c, std::make_shared<const weights>(weight_map(c).size()), o));
  };
  const std::type_identity<float> floats;
  const memory_options o = small_memory::options();
  auto same = over(floats, o);
  checkpoint c;
  c.save("run", same);
  CHECK_NOTHROW(c.load("run", same));
  const auto refuse = [&](auto other, const std::string& had, const std::string& expected) {
    INFO(had << " by " << expected);
    CHECK_THROWS_WITH(c.load("run", other), ContainsSubstring(had) && ContainsSubstring(expected));
  };
  const auto with = [&](auto change) {
    memory_options changed = o;
    change(changed);
    return over(floats, changed);
  };
  // of equal sizes, all of them
  refuse(with([](auto& x) { x.recurrent = true; }), "\"independent, segment", "\"recurrent, segment");
  refuse(with([](auto& x) { x.mask = memory_mask::causal; }), "mask coverage", "mask causal");
  refuse(with([](auto& x) { x.positions = memory_positions::following; }), "positions coverage",
         "positions following");
  refuse(with([](auto& x) { x.encoder.alpha = 5; }), "encoder rank 2 alpha 3", "encoder rank 2 alpha 5");
  refuse(with([](auto& x) { std::swap(x.encoder.adapted[1], x.encoder.adapted[2]); }), "targets 1010000",
         "targets 1100000");
  refuse(over(std::type_identity<numbers<float, bf16>>{}, o), "4 a weight", "2 a weight");
}

TEST_CASE("no counter of a checkpoint leads out of the memory of an estimator") {
  const stream<double> s;
  int refused = 0, harmless = 0;
  const auto examine = [&](auto e) {
    const checkpoint c = cut(e, s);
    std::vector<std::string> counters;
    e.visit([&](std::string_view name, auto shown) {
      if constexpr (std::same_as<decltype(shown), view<std::int64_t>>)
        counters.push_back("run." + std::string(name));
    });
    for (const std::string& name : counters)
      for (const std::int64_t value : {-1, 0, 1, 2, 3, 5, 11, 12, 1 << 20}) {
        checkpoint forged = c;
        forged.set(name, value);
        try {
          forged.load("run", e);
        } catch (const unroll::error&) {
          ++refused;
          continue;
        }
        ++harmless;
        const auto held = std::size_t(held_inputs(e));
        if (held > s.xs.size()) continue;  // the caller cannot give them back
        hold_inputs(e, std::span(s.xs).first(held));
        try {
          s.run(e, 0, 20);
        } catch (const unroll::error&) {  // behind finish(), or longer than announced
        }
      }
  };
  examine(tbptt(s.cell, {.k1 = 3, .k2 = 8}));
  examine(uoro(s.cell, {.block = 4}));
  examine(checkpointed_bptt(s.cell, {.slots = 2, .steps = 40, .block = 2}));
  examine(checkpointed_bptt(s.cell, {.slots = 3}));
  examine(artbp(s.cell, fixed_truncation(8), {.slots = 2, .block = 2}));
  examine(pes(s.cell, {.window = 3}));
  CHECK(refused > 100);
  CHECK(harmless > 100);
}
