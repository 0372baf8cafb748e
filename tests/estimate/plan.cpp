#include "unroll/estimate/plan.hpp"

#include <algorithm>

#include "tests/support/catch.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/memory/memory_llama/costs.hpp"

using namespace unroll;
using namespace unroll::llama;

namespace {

// Llama-2-7B and the adapters of UIO-LLMs.
config llama2_7b() {
  config c;
  c.hidden = 4096;
  c.intermediate_size = 11008;
  c.layers = 32;
  c.heads = c.kv_heads = 32;
  c.head_dim = 128;
  c.vocabulary = 32000;
  c.context = 4096;
  c.tied = false;
  return c;
}
memory_options uio(index_t ratio) {
  memory_options o;
  o.segment = 1024;
  o.ratio = ratio;
  o.encoder.rank = o.transfer_head.rank = 128;
  o.encoder.alpha = o.transfer_head.alpha = 512;
  return o;
}
// bf16 weights, activations and memories; float adapters, a bf16 copy, gradient, moments; float adjoints.
constexpr number_bytes on_a_device{2, 18, 2, 2, 4, 2};

// Two query heads a key-value head, several segments, a last one that is shorter.
struct trial {
  index_t layers, segment, ratio, tokens;
  bool recurrent, inputs, separate;
};

/// Memory of the size that a plan says, filled with marks.
template <class T>
struct marked : std::vector<T> {
  static constexpr T mark = T(-1234.5);
  explicit marked(index_t n) : std::vector<T>(std::size_t(n), mark) {}
  /// How far it was written to, as a part of the whole.
  double used() const {
    const auto last = std::find_if(this->rbegin(), this->rend(), [](T x) { return x != mark; });
    return double(this->rend() - last) / double(this->size());
  }
};

/// Writing and reading `batch` segments from s on, forward and back, fills what `costs` says: no less is
/// enough, and what is more lies within the rounding of its parts to 64 bytes.
template <class T>
void holds_what_is_used(const memory_costs<T>& costs, const memory_llama<T>& model, params<const T> theta,
                        const std::vector<segment>& text, index_t s, index_t batch) {
  const std::span<const segment> xs(text.data() + s, std::size_t(batch));
  const index_t memory = costs.size().memory;
  marked<T> workspace(costs.workspace(s + batch - 1, batch)), m(batch * memory),
      tape(batch * costs.size().tape);
  const std::vector<T> before(std::size_t(memory), T(0.25));
  std::vector<T> adjoint(std::size_t((s + batch) * memory)), g(std::size_t(theta.size())), losses(xs.size());
  const std::vector<const T*> past(std::size_t(s + batch), before.data());
  std::vector<T*> dpast;
  for (index_t i = 0; i < s + batch; ++i) dpast.push_back(adjoint.data() + i * memory);
  const std::span<const T* const> written(past.data(), std::size_t(s));
  const std::span<T* const> to(dpast.data(), std::size_t(s));
  model.write(xs, s, theta, written, m, tape, workspace);
  model.write_vjp(xs, s, theta, written, {.tape = tape, .dm = m}, {.dpast = to, .dtheta = g}, workspace);
  const std::size_t seen = std::size_t(s + batch - 1);
  model.read_vjp(xs, s, theta, {past.data(), seen}, losses.data(),
                 {.dpast = {dpast.data(), seen}, .dtheta = g}, workspace);
  CAPTURE(s, batch);
  CHECK(workspace.used() > 0.95);
  CHECK(tape.used() > 0.95);
  CHECK(m.used() == 1);
}

template <class T>
void compare(const trial& t) {
  config c = small_memory::shape(t.layers);
  c.context = 4096;
  memory_options o = small_memory::options();
  o.segment = t.segment;
  o.ratio = t.ratio;
  o.recurrent = t.recurrent;
  o.separate_tokens = t.separate;
  o.encoder_tape = o.decoder_tape = t.inputs ? saved::inputs : saved::activations;
  const auto model = small_memory::make<T>(c, o);
  const memory_costs<T> costs(c, o);
  REQUIRE(costs.weights() == model.weights().size());
  const auto theta = small_memory::start(model);
  const auto ids = small_memory::text(t.tokens + 1);
  const auto text = segments_of(ids, t.segment);
  CHECK(costs.size().params == theta.size());
  for (const index_t s : {1, 2, 5}) {  // without earlier memories nothing goes back through a read
    if (s >= index_t(text.size())) continue;
    holds_what_is_used<T>(costs, model, theta, text, s, 1);
    if (!t.recurrent) holds_what_is_used<T>(costs, model, theta, text, s - 1, 2);
  }
  const double n = sizeof(T);
  for (const std::string name :
       {"rematerialise", "keep_all", "keep:2", "keep:50", "window:2", "window:50", "reservoir:2",
        "reservoir:50", "proportional:3", "proportional:50", "proportional:3:random_order",
        "proportional:50:independent", "roulette:50", "roulette:50:constant/3", "rematerialise/3",
        "keep_all/3", "keep:2/3", "keep:6/2", "rematerialise/50"}) {
    const policy p = parse_policy(name);
    if (t.recurrent &&
        (p.name == policy::kind::reservoir || p.name == policy::kind::proportional || p.batch > 1))
      continue;
    CAPTURE(name, t.layers, t.segment, t.recurrent);
    const memory_plan planned = plan(costs, t.tokens, p, {n, 4 * n, n, n, n, n});
    with_policy(p, model, index_t(text.size()), philox_chooser{}, [&](auto e) {
      gradient<T> g(theta.size());
      e.reset(key{1});
      report r = e.advance(theta, text, g);
      r += e.finish(theta, g);
      CHECK(r.code == status::ok);
      CHECK(double(r.bytes) == Approx(planned.estimator_bytes()).epsilon(0.05));
      CHECK(planned.segments == index_t(text.size()));
      CHECK(double(e.counts().writes) == planned.writes);
      CHECK(double(e.counts().rewrites) == planned.rewrites);
      CHECK(double(e.counts().reads) == planned.reads);
      CHECK(double(e.counts().read_vjps) == planned.read_vjps);
      CHECK(e.counts().live_graphs == planned.live_graphs);
      if (p.name != policy::kind::reservoir) CHECK(double(e.counts().write_vjps) == planned.write_vjps);
    });
  }
}

}  // namespace

TEST_CASE("a plan is what the estimators then hold and do") {
  for (const trial& t :
       {trial{2, 32, 4, 9 * 32, false, false, false}, trial{3, 32, 8, 9 * 32 - 5, false, false, true},
        trial{3, 16, 16, 9 * 16 + 1, false, true, false}, trial{2, 32, 4, 7 * 32, true, false, false},
        trial{2, 32, 4, 32, false, false, false}}) {
    compare<double>(t);
    compare<float>(t);
  }
}

TEST_CASE("the expected encoders back of a reservoir are those of many runs") {
  const auto o = small_memory::options();
  const auto model = small_memory::make<double>(small_memory::shape(2), o);
  const auto theta = small_memory::start(model);
  const index_t segments = 12;
  const auto ids = small_memory::text(segments * o.segment + 1);
  const auto text = segments_of(ids, o.segment);
  const double planned =
      plan(memory_costs<double>(model.shape(), o), segments * o.segment, parse_policy("reservoir:2"))
          .write_vjps;
  double vjps = 2;  // segment s >= 2 is taken with probability 2 / (s + 1)
  for (int s = 2; s < 11; ++s) vjps += 2.0 / (s + 1);
  CHECK(planned == Approx(vjps));
  double sum = 0, squares = 0;
  const int runs = 60;
  with_policy(parse_policy("reservoir:2"), model, segments, philox_chooser{}, [&](auto e) {
    gradient<double> g(theta.size());
    for (int i = 0; i < runs; ++i) {
      e.reset(key{std::uint64_t(i)});
      e.advance(theta, text, g);
      e.finish(theta, g);
      const double v = double(e.counts().write_vjps);
      sum += v;
      squares += v * v;
    }
  });
  const double mean = sum / runs, deviation = std::sqrt((squares / runs - mean * mean) / runs);
  CHECK(std::abs(mean - planned) < 4 * deviation);
}

TEST_CASE("Llama-2-7B with memories costs what an independent cost model says") {
  // PFLOP and GB by a cost model that leaves out the first decoder and all workspace, and whose encoder
  // computes in its last layer what nobody reads
  const double unread = 1024 * 2 * (2 * 4096.0 * 4096.0 + 3 * 4096.0 * 11008.0);
  const double unread_bytes = 1024 * 2 * (4 * 4096.0 + 2 * 11008.0);  // of a graph: q, mixed, mid, gated
  struct expected {
    index_t tokens, ratio;
    const char* name;
    double pflop, gigabytes;
  };
  config c = llama2_7b();
  c.beyond = position_policy::linear;  // 99,328 tokens at ratio 8 are 13,312 positions
  c.position_factor = 4;
  for (const expected& e : {expected{4096, 8, "keep_all", 0.179, 29.6},
                            {4096, 32, "keep_all", 0.169, 28.3},
                            {32768, 8, "keep_all", 1.955, 129},
                            {32768, 32, "keep_all", 1.772, 116},
                            {99328, 8, "keep_all", 6.80, 360},
                            {99328, 32, "keep_all", 5.67, 319},
                            {4096, 8, "rematerialise", 0.225, 22.9},
                            {32768, 8, "rematerialise", 2.43, 28.5},
                            {32768, 32, "rematerialise", 2.20, 23.6},
                            {99328, 8, "rematerialise", 8.26, 41.6},
                            {99328, 32, "rematerialise", 6.99, 26.9},
                            {99328, 8, "proportional:9", 5.55, 41.6},
                            {99328, 32, "proportional:9", 4.54, 26.9}}) {
    CAPTURE(e.tokens, e.ratio, e.name);
    const memory_costs<float> costs(c, uio(e.ratio));
    const memory_plan p = plan(costs, e.tokens, parse_policy(e.name), on_a_device);
    const double more = (p.writes + p.rewrites + p.write_vjps) * unread;
    CHECK((p.operations() + more - costs.read(0, 1024)) / 1e15 == Approx(e.pflop).epsilon(0.01));
    const double kept = double(p.live_graphs) * unread_bytes;
    // the published code has both graphs at a time
    const double in_turn = double(costs.read_tape(1)) * on_a_device.graph - p.decoder_graph_bytes;
    CHECK((in_turn > 0) == (parse_policy(e.name).name == policy::kind::rematerialise));
    CHECK((p.bytes() + kept + in_turn - p.workspace_bytes) / 1e9 == Approx(e.gigabytes).epsilon(0.01));
  }
  // the reservoir and the window hold one graph less than the published code, and 2 S adjoints
  const memory_costs<float> costs(c, uio(8));
  const auto lean = plan(costs, 99328, parse_policy("reservoir:2"), on_a_device);
  CHECK((lean.operations() - costs.read(0, 1024)) / 1e15 == Approx(5.42).epsilon(0.01));
  CHECK(lean.live_graphs == 2);
  const double graph = lean.graph_bytes / 2, memory = lean.adjoint_bytes / 4;
  CHECK((lean.bytes() - lean.workspace_bytes + graph + 92 * memory) / 1e9 == Approx(48.3).epsilon(0.01));
}

TEST_CASE("the longest text ends with the positions or with the bytes") {
  const memory_costs<float> x8(llama2_7b(), uio(8)), x32(llama2_7b(), uio(32));
  const policy exact;
  const double infinite = std::numeric_limits<double>::infinity();
  CHECK(longest_text(x8, exact, infinite) == 25600);
  CHECK(longest_text(x32, exact, infinite) == 99328);
  CHECK_NOTHROW(plan(x8, 25600, exact));
  CHECK_NOTHROW(plan(x8, 25600 + 896, exact));  // a last segment that is shorter leaves room for a memory
  CHECK_THROWS_WITH(plan(x8, 25600 + 897, exact), Catch::Matchers::ContainsSubstring("25600"));

  const double budget = 22e9;
  const index_t longest = longest_text(x32, exact, budget, on_a_device);
  CHECK(longest > 0);
  CHECK(longest < 99328);
  CHECK(plan(x32, longest, exact, on_a_device).bytes() <= budget);
  CHECK(plan(x32, longest + 1, exact, on_a_device).bytes() > budget);
  CHECK(longest_text(x32, exact, 1e9, on_a_device) == 0);
}

TEST_CASE("a plan has the positions that a run then finds") {
  config c = small_memory::shape();
  c.context = 17;
  memory_options o = small_memory::options();
  for (const bool recurrent : {false, true})
    for (const auto positions : {memory_positions::coverage, memory_positions::following}) {
      o.recurrent = recurrent;
      o.positions = positions;
      const memory_costs<double> costs(c, o);
      const auto model = small_memory::make<double>(c, o);
      const auto theta = small_memory::start(model);
      index_t refused = 0;
      for (index_t tokens = 1; tokens < 60; ++tokens) {
        CAPTURE(tokens, recurrent, positions == memory_positions::following);
        const auto ids = small_memory::text(tokens + 1);
        const auto text = segments_of(ids, o.segment);
        const auto throws = [](auto&& f) {
          try {
            f();
          } catch (const error&) {
            return true;
          }
          return false;
        };
        const bool planned = !throws([&] { plan(costs, tokens, policy{}); });
        CHECK(planned != throws([&] { small_memory::pass_over<double>(model, theta, text, false); }));
        refused += !planned;
      }
      CHECK((refused > 0 && refused < 59));
    }
}

TEST_CASE("the cheapest policy without bias keeps what fits") {
  const memory_costs<float> costs(llama2_7b(), uio(32));
  const auto chosen = [&](double gigabytes) {
    const auto p = cheapest_unbiased(costs, 99328, gigabytes * 1e9, on_a_device);
    return p ? to_string(p->replay) : std::string("nothing");
  };
  CHECK(chosen(400) == "keep_all");
  CHECK(chosen(80) == "keep:18");  // 17 graphs of 3.07 GB beside the one of 27 GB of rematerialise
  CHECK(chosen(27.5) == "keep:1");
  const auto bytes = [&](const policy& q) { return plan(costs, 99328, q, on_a_device).bytes(); };
  const double exact = bytes(policy{}), sampled = bytes({policy::kind::reservoir, 1, true});
  CHECK(exact < bytes({policy::kind::keep, 1, true}));
  REQUIRE(sampled < exact);
  CHECK(chosen(exact / 1e9) == "rematerialise");
  CHECK(chosen((sampled + exact) / 2e9) == "reservoir:1");
  CHECK(chosen(20) == "nothing");
  for (const double budget : {40e9, 80e9}) {
    const auto p = cheapest_unbiased(costs, 99328, budget, on_a_device);
    REQUIRE(p);
    CHECK(p->bytes() <= budget);
    CHECK(is_exact(p->replay));
    CHECK(plan(costs, 99328, {policy::kind::keep, p->replay.size + 1, true}, on_a_device).bytes() > budget);
    CHECK(p->operations() < plan(costs, 99328, policy{}, on_a_device).operations());
  }
}

TEST_CASE("plans of one segment have no encoder") {
  const memory_costs<float> costs(llama2_7b(), uio(32));
  const auto p = plan(costs, 1000, policy{});
  CHECK(p.writes == 0);
  CHECK(p.read_vjps == 0);
  CHECK(p.write_operations == 0);
  CHECK(p.read_operations == costs.read(0, 1000));
  CHECK(cheapest_unbiased(costs, 1000, 1e15).has_value());
  CHECK_THROWS_AS(plan(costs, 0, policy{}), error);
  // nothing is written, so nothing is kept either
  for (const char* name : {"keep_all", "keep:8"})
    CHECK(plan(costs, 1000, parse_policy(name)).bytes() == p.bytes());
}

namespace {

// The costs of a model that is no Llama: one operation a call.
struct toy_costs {
  memory_dims size() const { return {10, 4, 3}; }
  bool independent() const { return true; }
  index_t workspace(index_t earlier, index_t batch) const { return batch * (2 + earlier); }
  index_t weights() const { return 7; }
  index_t segment_length() const { return 5; }
  index_t longest_text() const { return 40; }
  bool holds(index_t tokens) const { return tokens <= 40; }
  index_t read_tape(index_t batch) const { return 2 * batch; }
  double write(index_t) const { return 1; }
  double write_vjp(index_t) const { return 2; }
  double read(index_t, index_t tokens) const { return double(tokens); }
  double read_vjp(index_t, index_t tokens) const { return 3 * double(tokens); }
};
struct double_costs : toy_costs {
  using numbers = unroll::numbers<double>;
};
static_assert(costed_memory_model<toy_costs> && costed_memory_model<memory_costs<float>>);
static_assert(!costed_memory_model<memory_options>);

}  // namespace

TEST_CASE("plan knows nothing of its model but its costs, and counts batches") {
  const auto p = plan(toy_costs{}, 38, parse_policy("rematerialise/3"));  // 7 segments and one of 3 tokens
  CHECK(p.segments == 8);
  CHECK(p.writes == 7);
  CHECK(p.rewrites == 7);
  CHECK(p.live_graphs == 3);
  CHECK(p.write_operations == 14);
  CHECK(p.write_vjp_operations == 14);
  CHECK(p.read_operations == 5 + 6 * 15 + 9);
  CHECK(p.graph_bytes == 3 * 3 * 4);
  CHECK(p.decoder_graph_bytes == 2 * 3 * 4);
  CHECK(p.workspace_bytes == (3 * (2 + 7) - 2 * 3) * 4);
  CHECK(p.memory_bytes == 7 * 4 * 4);
  CHECK(p.adjoint_bytes == 7 * 4 * 4);
  CHECK(p.weight_bytes == 7 * 4);
  CHECK(plan(toy_costs{}, 38, parse_policy("rematerialise/50")).graph_bytes == 7 * 3 * 4);
  CHECK(plan(toy_costs{}, 38, parse_policy("keep:4/3")).rewrites == 3);  // the batches of 3 and 1 are kept
  CHECK(plan(double_costs{}, 38, parse_policy("rematerialise")).graph_bytes == 3 * 8);
  CHECK(longest_text(toy_costs{}, policy{}, 1e9) == 40);
  CHECK_THROWS_WITH(plan(toy_costs{}, std::numeric_limits<index_t>::max(), policy{}),
                    Catch::Matchers::ContainsSubstring("are 9223372036854775807"));
  CHECK_THROWS_WITH(plan(toy_costs{}, 41, policy{}), Catch::Matchers::ContainsSubstring("has 40"));
  CHECK_THROWS_WITH(plan(toy_costs{}, 38, {.name = policy::kind::window, .size = 2, .batch = 2}),
                    Catch::Matchers::ContainsSubstring("window:2/2"));
}
