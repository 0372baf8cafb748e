// The estimators over memory models, on two-layer and three-layer Llamas.

#include "tests/support/catch.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/estimate/policy.hpp"
#include "unroll/testing/enumerate.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;
using namespace unroll::llama;
using small_memory::make;
using small_memory::pass_over;
using small_memory::shape;
using small_memory::start;
using testing::relative_error;

namespace {

struct outcome {
  std::vector<double> g;
  report r;
  replay_counts counts;
};

// One text in chunks of `chunk` segments under the policy of that name.
outcome run(const memory_llama<double>& model, params<const double> theta, std::span<const segment> text,
            const std::string& name, std::size_t chunk = 100) {
  return with_policy(parse_policy(name), model, index_t(text.size()), philox_chooser{}, [&](auto e) {
    outcome o{std::vector<double>(std::size_t(theta.size())), {}, {}};
    e.reset(key{4});
    for (std::size_t t = 0; t < text.size(); t += chunk)
      o.r += e.advance(theta, text.subspan(t, std::min(chunk, text.size() - t)), o.g);
    o.r += e.finish(theta, o.g);
    o.counts = e.counts();
    return o;
  });
}

memory_options options(bool recurrent = false) {
  memory_options o = small_memory::options();
  o.recurrent = recurrent;
  return o;
}

// TBPTT(S) as it is defined: for each loss alone, the S memories in front of it are leaves whose encoders are
// run and sent back at once.
std::vector<double> naive_tbptt(const memory_llama<double>& model, params<const double> theta,
                                const std::vector<segment>& text, index_t window) {
  const pass_over<double> p(model, theta, text, false);
  std::vector<double> g(std::size_t(theta.size())), work(std::size_t(model.workspace(index_t(text.size()))));
  for (index_t t = 1; t < index_t(text.size()); ++t)
    for (index_t s = std::max<index_t>(0, t - window); s < t; ++s) {
      std::vector<const double*> past;
      for (index_t u = 0; u < t; ++u) past.push_back(p.m[std::size_t(u)].data());
      std::vector<double> dm(p.m[0].size()), tape(std::size_t(model.size().tape)), m(dm.size());
      std::vector<double*> dpast(std::size_t(t), nullptr);
      dpast[std::size_t(s)] = dm.data();
      model.read_vjp(text[std::size_t(t)], t, theta, past, dpast, {}, work);
      model.write(text[std::size_t(s)], s, theta, {}, m, tape, work);
      model.write_vjp(text[std::size_t(s)], s, theta, {}, tape, dm, {}, g, work);
    }
  return g;
}

}  // namespace

TEST_CASE("every exact policy gives the gradient of a Llama with memories") {
  const auto ids = small_memory::text(5 * 6 - 1);
  const auto text = segments_of(ids, 6);
  for (const index_t layers : {2, 3}) {
    auto o = options();
    const auto model = make<double>(shape(layers), o);
    auto theta = start(model);
    const pass_over<double> exact(model, theta, text, true);
    for (const std::string name : {"rematerialise", "keep_all", "keep:2", "window:4", "reservoir:4",
                                   "reservoir:4:uncompensated", "proportional:4"}) {
      CAPTURE(name);
      const outcome got = run(model, theta, text, name);
      CHECK(relative_error(got.g, exact.g) < 1e-13);
      CHECK(got.r.loss == Approx(exact.loss).epsilon(1e-14));
    }
    CHECK(run(model, theta, text, "rematerialise").g == run(model, theta, text, "keep_all").g);
    CHECK(run(model, theta, text, "rematerialise").g == run(model, theta, text, "rematerialise", 1).g);

    // and that of finite differences, along random directions
    for (std::int64_t n = 0; n < 4; ++n) {
      std::vector<double> direction(std::size_t(theta.size()), 0);
      draw_normals({8}, n, view<double>(direction));
      const auto base = theta;
      double step = 0;
      const double slope = small_memory::slope(step, [&] {
        for (index_t i = 0; i < theta.size(); ++i) theta[i] = base[i] + step * direction[std::size_t(i)] / 20;
        return pass_over<double>(model, theta, text, false).loss;
      });
      theta = base;
      CHECK(linalg::dot(exact.g.data(), direction.data(), theta.size()) / 20 == Approx(slope).epsilon(1e-7));
    }
  }
}

TEST_CASE("recurrent memories are exact under rematerialisation with any number of graphs") {
  const auto ids = small_memory::text(5 * 6 + 1);
  const auto text = segments_of(ids, 6);
  for (const saved keep : {saved::activations, saved::inputs}) {
    auto o = options(true);
    o.encoder_tape = keep;
    const auto model = make<double>(shape(3), o);
    const auto theta = start(model);
    const pass_over<double> exact(model, theta, text, true);
    const auto once = run(model, theta, text, "rematerialise");
    CHECK(relative_error(once.g, exact.g) < 1e-13);
    CHECK(once.g == run(model, theta, text, "keep_all").g);
    CHECK(once.g == run(model, theta, text, "keep:2").g);
    CHECK(once.counts.live_graphs == 1);
    // the path through later memories matters, which truncation at writes would lose
    CHECK(relative_error(run(model, theta, text, "window:1").g, exact.g) > 1e-3);
    CHECK_THROWS_AS(run(model, theta, text, "proportional:2"), error);
  }
}

TEST_CASE("incremental truncation is truncation written out") {
  const auto model = make<double>(shape(), options());
  const auto theta = start(model);
  const auto ids = small_memory::text(6 * 6 + 1);
  const auto text = segments_of(ids, 6);
  for (const index_t window : {1, 2, 4}) {
    const auto got = run(model, theta, text, "window:" + std::to_string(window));
    CHECK(relative_error(got.g, naive_tbptt(model, theta, text, window)) < 1e-13);
    CHECK(got.counts.write_vjps == 5);
    CHECK(got.counts.writes == 5);  // nobody reads the last segment's memory
    CHECK(got.counts.live_graphs == window);
  }
}

TEST_CASE("the expectation over all reservoirs and over all replayed sets is the exact gradient") {
  const auto model = make<double>(shape(), options());
  const auto theta = start(model);
  const auto ids = small_memory::text(5 * 6 + 1);
  const auto text = segments_of(ids, 6);
  const pass_over<double> exact(model, theta, text, true);
  const double truncated = relative_error(run(model, theta, text, "window:1").g, exact.g);
  CHECK(truncated > 1e-2);
  for (const std::string name : {"reservoir:1", "reservoir:2", "proportional:2"}) {
    CAPTURE(name);
    enumerator all;
    with_policy(parse_policy(name), model, index_t(text.size()), enumerating_chooser(all), [&](auto e) {
      const auto r = testing::enumerate(all, e, theta, text);
      CHECK(r.outcomes > 1);
      CHECK(r.probability == Approx(1).epsilon(1e-12));
      CHECK(r.covariance_trace > 0);
      CHECK(relative_error(r.mean, exact.g) < 1e-11);
    });
  }
  enumerator all;
  reservoir_tbptt biased(model, {.segments = 5, .size = 1, .compensated = false}, enumerating_chooser(all));
  CHECK(relative_error(testing::enumerate(all, biased, theta, text).mean, exact.g) > 1e-2);
}

TEST_CASE("a Llama with memories is encoded as often as each policy says") {
  const auto model = make<double>(shape(), options());
  const auto theta = start(model);
  const auto ids = small_memory::text(7 * 6 + 1);
  const auto text = segments_of(ids, 6);
  struct claim {
    std::string name;
    index_t writes, rewrites, vjps, graphs;
  };
  for (const claim& c : {claim{"rematerialise", 6, 6, 6, 1}, claim{"keep_all", 6, 0, 6, 6},
                         claim{"keep:2", 6, 4, 6, 2}, claim{"proportional:3", 6, 3, 3, 1}}) {
    CAPTURE(c.name);
    const auto got = run(model, theta, text, c.name);
    CHECK(got.counts.writes == c.writes);
    CHECK(got.counts.rewrites == c.rewrites);
    CHECK(got.counts.write_vjps == c.vjps);
    CHECK(got.counts.live_graphs == c.graphs);
    CHECK(got.counts.reads == 7);
    CHECK(got.counts.read_vjps == 6);  // the first loss depends on nothing that is trained
  }
  const auto reservoir = run(model, theta, text, "reservoir:1");
  CHECK(reservoir.counts.writes == 6);
  CHECK(reservoir.counts.rewrites == 0);
  CHECK(reservoir.counts.write_vjps < 6);  // rejected segments are not sent back
}

TEST_CASE("a document leaves nothing behind for the next one") {
  for (const bool recurrent : {false, true}) {
    const auto model = make<double>(shape(), options(recurrent));
    const auto theta = start(model);
    const auto first = small_memory::text(4 * 6 + 1, 17, 1), second = small_memory::text(6 * 6 - 2, 17, 2);
    const auto a = segments_of(first, 6), b = segments_of(second, 6);
    rematerialise shared(model, {.segments = 8, .keep = 2});
    const auto take = [&](auto& e, const std::vector<segment>& text) {
      std::vector<double> g(std::size_t(theta.size()));
      e.reset(key{});
      e.advance(theta, text, g);
      e.finish(theta, g);
      return g;
    };
    take(shared, a);
    const auto after = take(shared, b);
    rematerialise fresh(model, {.segments = 8, .keep = 2});
    CHECK(after == take(fresh, b));
    // also when the document before was broken off
    shared.reset(key{});
    std::vector<double> ignored(std::size_t(theta.size()));
    shared.advance(theta, a, ignored);
    CHECK(take(shared, b) == after);
  }
}

TEST_CASE("auto-encoding sends the loss back through one memory") {
  const auto model = make<double>(shape(3), options());
  auto theta = start(model);
  const auto ids = small_memory::text(6);
  std::vector<token> shifted(6);
  const auto pair = autoencoding_of(ids, 1, shifted);
  REQUIRE(pair.size() == 2);
  CHECK(pair[0].scored() == 0);
  CHECK(pair[1].scored() == 6);
  CHECK(shifted[0] == 1);
  CHECK(shifted[5] == ids[4]);
  const auto got = run(model, theta, pair, "rematerialise");
  for (index_t i = 0; i < theta.size(); i += 17)
    CHECK(got.g[std::size_t(i)] ==
          Approx(small_memory::slope(theta[i],
                                     [&] { return pass_over<double>(model, theta, pair, false).loss; }))
              .epsilon(1e-7)
              .margin(1e-9));
}
