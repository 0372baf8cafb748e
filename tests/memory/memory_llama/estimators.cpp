// The estimators over memory models, on two-layer and three-layer Llamas.

#include "tests/mutants/replay_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
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

constexpr key draws{4};

// One text in chunks of `chunk` segments under the policy of that name.
template <class M>
outcome run(const M& model, params<const double> theta, std::span<const segment> text,
            const std::string& name, std::size_t chunk = 100) {
  return with_policy(parse_policy(name), model, index_t(text.size()), philox_chooser{}, [&](auto e) {
    outcome o{std::vector<double>(std::size_t(theta.size())), {}, {}};
    e.reset(draws);
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

// Two layers and a text of so many whole segments.
struct problem {
  memory_llama<double> model;
  parameters<double> theta;
  std::vector<token> ids;
  std::vector<segment> xs;

  explicit problem(index_t segments, const config& c = shape())
      : model(make<double>(c, options())),
        theta(start(model)),
        ids(small_memory::text(segments * 6 + 1)),
        xs(segments_of(ids, 6)) {}
  problem(const problem&) = delete;
  problem& operator=(const problem&) = delete;
};

// TBPTT(S) as it is defined: for each loss alone, the S memories in front of it are leaves whose encoders are
// run and sent back at once.
std::vector<double> naive_tbptt(const memory_llama<double>& model, params<const double> theta,
                                const std::vector<segment>& text, index_t window) {
  const pass_over<double> p(model, theta, text, false);
  std::vector<double> g(std::size_t(theta.size())),
      workspace(std::size_t(model.workspace(index_t(text.size()))));
  for (index_t t = 1; t < index_t(text.size()); ++t)
    for (index_t s = std::max<index_t>(0, t - window); s < t; ++s) {
      std::vector<const double*> past;
      for (index_t u = 0; u < t; ++u) past.push_back(p.m[std::size_t(u)].data());
      std::vector<double> dm(p.m[0].size()), tape(std::size_t(model.size().tape)), m(dm.size());
      std::vector<double*> dpast(std::size_t(t), nullptr);
      dpast[std::size_t(s)] = dm.data();
      model.read_vjp(text[std::size_t(t)], t, theta, past, {.dpast = dpast}, workspace);
      model.write(text[std::size_t(s)], s, theta, {}, m, tape, workspace);
      model.write_vjp(text[std::size_t(s)], s, theta, {}, {.tape = tape, .dm = dm}, {.dtheta = g}, workspace);
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
      CHECK(got.r.losses == 5 * 6 - 2);  // tokens: all but the first
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
  const problem k(5);
  const pass_over<double> exact(k.model, k.theta, k.xs, true);
  const double truncated = relative_error(run(k.model, k.theta, k.xs, "window:1").g, exact.g);
  CHECK(truncated > 1e-2);

  const auto parts = memory_task::every_part(k);
  std::vector<double> norms, p(4);
  for (std::size_t s = 0; s < 4; ++s)
    norms.push_back(linalg::norm(exact.dm[s].data(), k.model.size().memory));
  inclusion_probabilities(norms, 2, p);
  struct claim {
    std::string name;
    double variance;
  };
  for (const claim& c : {claim{"reservoir:1", memory_task::variance_by_formula(parts, reservoir(1))},
                         claim{"reservoir:2", memory_task::variance_by_formula(parts, reservoir(2))},
                         claim{"proportional:2", memory_task::variance_by_formula(parts, p)},
                         claim{"proportional:2:random_order",
                               memory_task::variance_by_formula(parts, p, sampling_design::random_order)},
                         claim{"proportional:2:independent",
                               memory_task::variance_by_formula(parts, p, sampling_design::independent)}}) {
    CAPTURE(c.name);
    testing::enumerator all;
    with_policy(parse_policy(c.name), k.model, 5, testing::enumerating_chooser(all), [&](auto e) {
      const auto r = testing::enumerate(all, e, k.theta, k.xs);
      CHECK(r.outcomes > 1);
      CHECK(r.probability == Approx(1).epsilon(1e-12));
      CHECK(relative_error(r.mean, exact.g) < 1e-11);
      CHECK(r.covariance_trace > 0);
      CHECK(r.covariance_trace == Approx(c.variance).epsilon(1e-11));
    });
  }
  testing::enumerator all;
  const uncompensated_reservoir<memory_llama<double>, testing::enumerating_chooser> biased(
      k.model, {.segments = 5, .size = 1}, testing::enumerating_chooser(all));
  CHECK(relative_error(testing::enumerate(all, biased, k.theta, k.xs).mean, exact.g) > 1e-2);
}

TEST_CASE("roulette replay of a Llama whose encoders read has the exact gradient as its mean") {
  const auto ids = small_memory::text(5 * 6 + 1);
  const auto text = segments_of(ids, 6);
  const auto model = make<double>(shape(), options(true));
  const auto theta = start(model);
  const pass_over<double> exact(model, theta, text, true);
  CHECK(run(model, theta, text, "roulette:4").g == run(model, theta, text, "rematerialise").g);
  for (const std::string name : {"roulette:2", "roulette:2:by_distance", "roulette:1:constant"}) {
    CAPTURE(name);
    testing::enumerator all;
    with_policy(parse_policy(name), model, 5, testing::enumerating_chooser(all), [&](auto e) {
      const auto r = testing::enumerate(all, e, theta, text);
      CHECK(r.outcomes > 4);
      CHECK(relative_error(r.mean, exact.g) < 1e-11);
      CHECK(r.covariance_trace > 0);
      CHECK(e.counts().live_graphs <= 1);
    });
  }
}

TEST_CASE("attention of a Llama's reads may be cut, unbiased and with the same bits in batches") {
  const problem k(5);
  const pass_over<double> exact(k.model, k.theta, k.xs, true);
  const auto by = [&](double pairs, std::uint64_t seed, index_t batch = 1) {
    std::vector<double> g(std::size_t(k.theta.size()));
    roulette_replay e(k.model, {.segments = 5, .budget = 5, .batch = batch, .attention_pairs = pairs});
    e.reset(key{seed});
    e.advance(k.theta, k.xs, g);
    e.finish(k.theta, g);
    return g;
  };
  CHECK(relative_error(by(1e9, 1), exact.g) < 1e-12);
  CHECK(by(3, 1) == by(3, 1, 4));
  const double length = linalg::norm(exact.g.data(), k.theta.size());
  double sum = 0, squares = 0;
  const int count = 60;
  for (int i = 0; i < count; ++i) {
    const auto g = by(3, std::uint64_t(i));
    const double along = linalg::dot(g.data(), exact.g.data(), k.theta.size()) / (length * length) - 1;
    sum += along;
    squares += along * along;
  }
  CHECK(squares / count > 1e-6);
  CHECK(std::abs(sum) < 4.5 * std::sqrt(squares));
}

TEST_CASE("every mistake in a replay shows in the exact expectation on a Llama") {
  using mutants::replay_mistake;
  config c = shape();
  c.context = 128;  // memories that a reset forgot need positions
  const problem k(5, c);
  const pass_over<double> exact(k.model, k.theta, k.xs, true);
  for (const auto mistake :
       {replay_mistake::none, replay_mistake::no_compensation, replay_mistake::compensates_accumulated,
        replay_mistake::drops_last_window, replay_mistake::stale_memory}) {
    CAPTURE(int(mistake));
    testing::enumerator all;
    const mutants::reservoir_replay mutant(k.model, 2, mistake, testing::enumerating_chooser(all));
    const double bias = relative_error(testing::enumerate(all, mutant, k.theta, k.xs).mean, exact.g);
    if (mistake == replay_mistake::none)
      CHECK(bias < 1e-11);
    else
      CHECK(bias > 1e-3);
  }
}

TEST_CASE("a Llama with memories is encoded as often as each policy says") {
  const problem k(7);
  const auto accepted = [](index_t size) {  // by the draws that the documentation names
    philox_chooser draw;
    draw.reset(draws);
    index_t n = 0;
    for (index_t s = 0; s < 6; ++s) n += s < size || draw.uniform(s, s + 1) < size;
    return n;
  };
  const index_t one = accepted(1), two = accepted(2);
  CHECK(one < 6);  // some segments are rejected
  struct claim {
    std::string name;
    index_t bare_writes, graphs, vjps, peak;
  };
  for (const claim& c :
       {claim{"rematerialise", 6, 6, 6, 1}, claim{"keep_all", 0, 6, 6, 6}, claim{"keep:2", 0, 10, 6, 2},
        claim{"window:3", 0, 6, 6, 3}, claim{"reservoir:1", 6 - one, one, one, 1},
        claim{"reservoir:2", 6 - two, two, two, 2}, claim{"proportional:3", 6, 3, 3, 1}}) {
    CAPTURE(c.name);
    memory_task::tally calls;
    const auto got = run(memory_task::counted_memory(k.model, calls), k.theta, k.xs, c.name);
    CHECK(calls.bare_writes == c.bare_writes);
    CHECK(calls.graphs == c.graphs);
    CHECK(calls.write_vjps == c.vjps);
    CHECK(calls.peak == c.peak);
    CHECK(calls.live.empty());  // every graph was sent back
    CHECK(calls.writes_of.size() == 6);
    CHECK(calls.writes_of.count(6) == 0);  // nobody reads the last segment's memory
    CHECK(calls.reads == 7);
    CHECK(calls.read_vjps == 6);  // the first loss depends on nothing that is trained
    CHECK(got.counts.writes == 6);
    CHECK(got.counts.rewrites == c.bare_writes + c.graphs - 6);
    CHECK(got.counts.write_vjps == calls.write_vjps);
    CHECK(got.counts.live_graphs == calls.peak);
    CHECK(got.counts.reads == calls.reads);
    CHECK(got.counts.read_vjps == calls.read_vjps);
  }
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
    rematerialise other(model, {.segments = 8, .keep = 2});
    CHECK(after == take(other, b));
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

TEST_CASE("batches of segments of a Llama have the bits of one by one") {
  const auto check = [](const auto& model, index_t tokens) {
    using T = typename std::remove_cvref_t<decltype(model)>::scalar;
    const auto theta = start(model);
    const auto ids = small_memory::text(tokens);
    auto text = segments_of(ids, model.options().segment);
    std::vector<token> silent(text[3].targets.size(), -1);  // a segment in the middle that scores nothing
    text[3].targets = silent;
    const auto by = [&](const char* name, index_t chunk = 100) {
      std::vector<T> g(std::size_t(theta.size()));
      with_policy(parse_policy(name), model, index_t(text.size()), philox_chooser(draws), [&](auto e) {
        report r;
        e.reset(draws);
        for (index_t t = 0; t < index_t(text.size()); t += chunk)
          r += e.advance(theta,
                         std::span(text).subspan(std::size_t(t),
                                                 std::min(text.size() - std::size_t(t), std::size_t(chunk))),
                         g);
        r += e.finish(theta, g);
        if (chunk >= index_t(text.size())) g.push_back(T(r.loss));
      });
      return g;
    };
    const auto exact = by("rematerialise"), some = by("proportional:4");
    for (const char* name :
         {"rematerialise/2", "rematerialise/3", "rematerialise/100", "keep:3/2", "keep_all/4"}) {
      CAPTURE(name);
      CHECK(by(name) == exact);
      CHECK(by(name, 2) == std::vector<T>(exact.begin(), exact.end() - 1));
    }
    CHECK(by("proportional:4/3") == some);
  };
  config c = shape(3);
  c.context = 400;
  auto o = options();
  check(make<double>(c, o), 8 * 6 - 1);
  check(make<float>(c, o), 8 * 6 - 1);
  o.ratio = 6;  // one memory token
  check(make<double>(c, o), 8 * 6 - 1);
  o.ratio = 3;
  o.separate_tokens = true;
  o.encoder_tape = o.decoder_tape = saved::inputs;
  check(make<float>(c, o), 8 * 6 + 1);
  c.hidden = 64;
  c.intermediate_size = 172;
  c.head_dim = 16;
  o.segment = 32;
  o.ratio = 8;
  o.encoder.rank = o.transfer_head.rank = 8;
  check(make<float>(c, o), 8 * 32 - 5);
}

TEST_CASE("graphs that lie where reads work end with a read and have the same bits") {
  const problem p(4);
  const auto one = [&](std::size_t s) { return std::span<const segment>(p.xs).subspan(s, 1); };
  using bank_type = memory_bank<memory_llama<double>>;
  bank_type apart(p.model, {.segments = 4, .adjoints = 3, .graphs = 2}),
      in_turn(p.model, {.segments = 4, .adjoints = 3, .graphs = 2, .graphs_end_with_reads = true});
  CHECK(in_turn.bytes() + std::size_t(p.model.size().tape) * sizeof(double) < apart.bytes());
  std::vector<std::vector<double>> g;
  for (bank_type* bank : {&apart, &in_turn}) {
    double loss = 0;
    bank->write(p.model, one(0), p.theta, 0);
    bank->read(p.model, one(1), 1, p.theta, &loss);
    CHECK(bank->graphs().owner(0) == (bank == &apart ? 0 : bank_type::none));
    for (const index_t slot : {0, 1}) bank->rewrite(p.model, one(std::size_t(slot)), slot, p.theta, slot);
    bank->executor().fill(matrix<double>(bank->adjoint(0, 2).data(), bank->adjoint(0, 2).size(), 1), 0.5);
    g.emplace_back(std::size_t(p.theta.size()));
    for (const index_t slot : {1, 0})
      bank->write_vjp(p.model, one(std::size_t(slot)), p.theta, slot, bank->adjoint(slot),
                      {.dtheta = g.back()});
  }
  CHECK(g[0] == g[1]);
}
