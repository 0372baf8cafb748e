// The Llama with memories on testing::simt, which is to say as a device runs it: every call against float64,
// in float to 1e-5 and in bfloat16 to twice the error of PyTorch's operations; the estimators over it; a
// training run.
#include <optional>

#include "tests/exec/results.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/estimate/plan.hpp"
#include "unroll/exec/kept_cast.hpp"
#include "unroll/llama/score.hpp"
#include "unroll/memory/memory_llama/costs.hpp"
#include "unroll/memory/memory_llama/session.hpp"
#include "unroll/memory/reader.hpp"
#include "unroll/train/document_gradients.hpp"
#include "unroll/train/loop.hpp"

using namespace unroll;
using namespace unroll::llama;
using namespace tests;

namespace {

/// Weights, or theta, that a bfloat16 can hold.
template <class Numbers>
std::vector<double> short_numbers(const Numbers& x) {
  std::vector<double> y;
  for (const double u : x) y.push_back(double(float(bf16(u))));
  return y;
}
template <class Block, class E>
Block at_place_of(const E& e, const std::vector<double>& x) {
  Block at = e.template allocate<std::remove_cvref_t<decltype(*std::declval<Block>().data())>,
                                 typename Block::unroll_space>(index_t(x.size()));
  const std::vector<std::remove_cvref_t<decltype(*at.data())>> narrow(x.begin(), x.end());
  e.upload(narrow.data(), at.size(), at.data());
  e.synchronise();
  return at;
}

memory_options on_the_host(memory_options o) {
  o.memories_on_host = false;
  return o;
}

/// A small model on an executor, with its theta.
template <class E>
struct model_on {
  using model_type = memory_llama<E>;
  using P = typename E::numbers::parameter;
  using theta_type = typename E::template block<P, param_space>;

  E e;
  model_type model;
  theta_type theta;

  model_on(const E& e_, const memory_options& o, const config& c = small_memory::shape())
      : e(e_), model(make(e_, o, c)) {
    const auto reference = small_memory::make<double>(c, on_the_host(o));
    theta = at_place_of<theta_type>(e, short_numbers(small_memory::start(reference)));
  }
  static model_type make(const E& e, const memory_options& o, const config& c) {
    using weights_type = typename model_type::weights_type;
    const auto reference = small_memory::make<double>(c, on_the_host(o));
    return {c,
            std::make_shared<const weights_type>(
                at_place_of<weights_type>(e, short_numbers(reference.weights()))),
            o, e};
  }
};

/// All memories, losses, adjoints of memories and the gradient of a text, in batches.
template <class E>
results whole_text(const E& e, const memory_options& o, index_t batch) {
  using N = typename E::numbers;
  const model_on<E> on(e, o);
  const auto& model = on.model;
  const auto ids = small_memory::text(25);
  const auto text = segments_of(ids, o.segment);
  const std::span<const segment> xs(text);
  const index_t n = index_t(text.size()), memory = model.size().memory, tape = model.size().tape;
  auto m = e.template allocate<typename N::memory>(n * memory);
  auto dm = e.template allocate<typename N::adjoint>(n * memory);
  auto tapes = e.template allocate<typename N::activation>(n * tape);
  auto work = e.template allocate<typename N::activation>(model.workspace(n - 1, batch));
  auto losses = e.template allocate<typename N::accumulator>(n), again = losses;
  auto g = e.template allocate<typename N::parameter>(on.theta.size());
  std::vector<const typename N::memory*> past;
  std::vector<typename N::adjoint*> dpast;
  for (index_t s = 0; s < n; ++s) {
    past.push_back(m.data() + s * memory);
    dpast.push_back(dm.data() + s * memory);
  }
  const params<const typename N::parameter> theta(on.theta.data(), on.theta.size());
  const auto part = [](auto& block, index_t first, index_t count) {
    return view(block.data() + first, count);
  };
  const auto each_batch = [&](index_t end, auto&& f) {
    for (index_t s = 0; s < end; s += batch) f(s, std::min(batch, end - s));
  };
  const auto of = [&](index_t s, index_t count) { return xs.subspan(std::size_t(s), std::size_t(count)); };
  const auto first = [](auto& v, index_t count) { return std::span(v).first(std::size_t(count)); };
  const auto earlier = [&](index_t s) { return first(past, model.independent() ? 0 : s); };
  each_batch(n - 1, [&](index_t s, index_t count) {
    model.write(of(s, count), s, theta, earlier(s), part(m, s * memory, count * memory),
                part(tapes, s * tape, count * tape), part(work, 0, work.size()));
  });
  each_batch(n, [&](index_t s, index_t count) {
    model.read(of(s, count), s, theta, first(past, s + count - 1), again.data() + s,
               part(work, 0, work.size()));
    model.read_vjp(of(s, count), s, theta, first(past, s + count - 1), losses.data() + s,
                   {.dpast = first(dpast, s + count - 1)}, part(work, 0, work.size()));
  });
  for (index_t end = n - 1; end > 0;) {
    const index_t s = (end - 1) / batch * batch, count = end - s;
    model.write_vjp(of(s, count), s, theta, earlier(s),
                    {.tape = part(tapes, s * tape, count * tape), .dm = part(dm, s * memory, count * memory)},
                    {.dpast = first(dpast, model.independent() ? 0 : s), .dtheta = {g.data(), g.size()}},
                    part(work, 0, work.size()));
    end = s;
  }
  return fetched(e, m, losses, again, dm, g);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("simt: the memory model, one by one and in batches", "[simt]", both_kinds) {
  memory_options recurrent = small_memory::options();
  recurrent.recurrent = true;
  recurrent.encoder_tape = recurrent.decoder_tape = saved::inputs;
  for (const memory_options& o : {small_memory::options(), recurrent}) {
    const auto run = [&](const auto& e) { return whole_text(e, o, 1); };
    const results alone = check<TestType>(run, 1);
    if (!o.recurrent) CHECK(whole_text(simt_of<TestType>(key{1}), o, 3) == alone);
  }
}

namespace {

/// Losses of a text in windows and in a stream, logits of a text in the making with memories and without, and
/// the gradient of all weights.
template <class E>
results of_a_language_model(const E& e) {
  using P = typename E::numbers::parameter;
  const model_on<E> on(e, small_memory::options());
  const auto& stack = on.model.stack();
  const auto weights = on.model.weights();
  const auto ids =
      small_memory::text(20, 17, 6);  // errors of one text scatter: PyTorch's of this one is usual
  const std::span<const token> all(ids);
  const auto numbers_of = [](const auto& x) { return std::vector<double>(x.begin(), x.end()); };
  results out = {numbers_of(score(stack, weights, ids, {.window = 12, .overlap = 4}).nll),
                 numbers_of(score_streaming(stack, weights, ids, {.sinks = 2, .window = 6, .chunk = 2}).nll)};
  generator<E> g(stack, weights);
  g.append(all.first(7));
  g.append(ids[7]);
  out.push_back(numbers_of(g.logits()));
  memory_session<E> session(on.model, params<const P>(on.theta.data(), on.theta.size()));
  session.append(all.first(15));
  session.append(ids[15]);
  out.push_back(numbers_of(session.logits()));
  language_model<E> model(stack.shape(), {.sequences = 4, .length = 5, .shares = 2}, e);
  auto gradient = e.template allocate<P>(stack.map().size());
  auto targets = ids;
  targets[3] = -1;
  const auto loss = model.gradient(weights, ids, targets, dparams<P>(gradient.data(), gradient.size()));
  out.push_back({double(loss), double(model.nll(weights, ids, targets))});
  out.push_back(fetched(e, gradient)[0]);
  return out;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("simt: scores, texts in the making and the gradient of a language model", "[simt]",
                        both_kinds) {
  check<TestType>([](const auto& e) { return of_a_language_model(e); }, 1);
}

TEST_CASE("simt: several threads are refused where they would share a handle", "[simt]") {
  using E = testing::simt::executor<numbers<float>>;
  const E e;
  const model_on<E> on(e, small_memory::options());
  const auto refusal = Catch::Matchers::ContainsSubstring("threads: are 2, must be 1 on an executor");
  CHECK_THROWS_WITH(
      language_model<E>(on.model.shape(), {.sequences = 2, .length = 5, .shares = 2, .threads = 2}, e),
      refusal);
  CHECK_THROWS_WITH(
      score(on.model.stack(), on.model.weights(), small_memory::text(20), {.window = 5, .threads = 2}),
      refusal);
}

namespace {

/// Whether losses are those of the host in double: a single number has no error of PyTorch's to be measured
/// by.
template <class N>
bool same_losses(const std::vector<double>& got, const std::vector<double>& want) {
  return distance_of(got, want) < (std::is_same_v<typename N::activation, bf16> ? 5e-3 : 1e-5);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("simt: every policy over the memory model", "[simt]", both_kinds) {
  const auto ids = small_memory::text(25);
  const auto text = segments_of(ids, small_memory::options().segment);
  for (const char* name : {"rematerialise", "rematerialise/2", "keep_all", "keep:2/2", "window:2",
                           "reservoir:2", "reservoir:2:uncompensated", "proportional:2/2"}) {
    INFO(name);
    std::vector<std::vector<double>> losses;  // on simt, the host
    check<TestType>(
        [&]<class E>(const E& e) {
          using P = typename E::numbers::parameter;
          const model_on<E> on(e, small_memory::options());
          const params<const P> theta(on.theta.data(), on.theta.size());
          auto g = e.template allocate<P>(theta.size());
          const dparams<P> to(g.data(), g.size());
          with_policy(parse_policy(name), on.model, index_t(text.size()), philox_chooser{}, [&](auto policy) {
            policy.reset(key{4});
            report r = policy.advance(theta, std::span(text).first(3), to);
            r += policy.advance(theta, std::span(text).subspan(3), to);
            r += policy.finish(theta, to);
            CHECK(r.code == status::ok);
            losses.push_back({r.loss});
          });
          return fetched(e, g);
        },
        0);
    CHECK(same_losses<TestType>(losses[0], losses[1]));
  }
}

namespace {

/// The losses of a run of eight steps on one text; factors of adapters are cast in every product, or once a
/// step.
template <class E>
std::vector<double> trained(const E& e, bool keeps = false,
                            const memory_options& o = small_memory::options()) {
  using P = typename E::numbers::parameter;
  const auto ids = small_memory::text(25, 5);  // five tokens are easier than seventeen
  const std::vector<std::vector<segment>> texts{segments_of(ids, o.segment)};
  const model_on<E> on(e, o);
  parameters<P> begin(on.theta.size());
  e.download(on.theta.data(), begin.size(), begin.data());
  e.synchronise();
  training::run<E> run({.steps = 8, .warm_up = 0, .rate = 0.03, .last_rate = 1, .decay = 0}, std::move(begin),
                       "eight steps", e);
  std::optional<exec::kept_cast<E>> kept;
  if (keeps) kept.emplace(e, params<const P>(run.theta()));
  training::document_gradients gradients(
      rematerialise<memory_llama<E>>(on.model, {.segments = index_t(texts[0].size()), .batch = 2}), 1, 1);
  std::vector<double> curve;
  const status end = training::train(
      run,
      [&](const auto& theta, auto& g) {
        const report r = gradients.add({}, theta, texts, g);
        curve.push_back(r.loss);
        if (keeps) CHECK(kept->times() == (kept->bytes() > 0 ? run.step() + 1 : 0));
        return r;
      },
      [](const auto&) { return 1.0; }, [](const training::course_row&) {});
  CHECK(end == status::ok);
  return curve;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("simt: a training run follows the host's", "[simt]", both_kinds) {
  const std::vector<double> curve = trained(simt_of<TestType>()),
                            want = trained(exec::host<numbers<double>>());
  CHECK(same_losses<TestType>(curve, want));
  CHECK(curve.back() < 0.8 * curve.front());
}

TEST_CASE("simt: factors of adapters that are cast once a step change no bit of a training run", "[simt]") {
  memory_options o = small_memory::options();
  o.encoder.rank = o.transfer_head.rank = 8;  // with which every factor is aligned to 16 bytes
  o.separate_tokens = true;
  const torch_executor each, once;
  CHECK(trained(once, true, o) == trained(each, false, o));
  const auto casts = [](const auto& e) {
    return e.machine().template launches<kernels::copy_body<float, bf16>>();
  };
  // the first of two layers has adapters of q and v, the last one's are behind all memories; the transfer
  // head has them of k and v of both; a step writes two batches of segments, writes them again and takes
  // their vjp
  const index_t factors = 2 * (2 + 4), passes = 3 * 2;
  CHECK(casts(each) - casts(once) == 8 * (factors * passes - 1));
}

namespace {

/// What a stream shows of itself, or is given back.
struct shown {
  bool restore = false;
  std::vector<std::vector<std::int64_t>> integers = {};
  std::vector<std::vector<double>> numbers = {};
  std::size_t i = 0, n = 0;

  void operator()(std::string_view, std::string_view) {}
  template <class T, class Space>
  void operator()(std::string_view, view<T, Space> x) {
    auto& all = [this]() -> auto& {
      if constexpr (std::is_same_v<T, std::int64_t>)
        return integers;
      else
        return numbers;
    }
    ();
    auto& at = std::is_same_v<T, std::int64_t> ? i : n;
    if (!restore) all.emplace_back(x.begin(), x.end());
    REQUIRE(all.at(at).size() == std::size_t(x.size()));
    for (index_t k = 0; k < x.size(); ++k) x[k] = T(all[at][std::size_t(k)]);
    ++at;
  }
};

/// A gradient, its loss and bytes, with the memories where `on_host` says, the stream saved and resumed in
/// the middle.
template <class E>
results with_memories(bool on_host, memory_options o, const std::string& name) {
  using P = typename E::numbers::parameter;
  const E e;
  o.memories_on_host = on_host;
  const auto ids = small_memory::text(29);
  const auto text = segments_of(ids, o.segment);
  const model_on<E> on(e, o);
  const params<const P> theta(on.theta.data(), on.theta.size());
  auto g = e.template allocate<P>(theta.size());
  const dparams<P> to(g.data(), g.size());
  results out;
  with_policy(parse_policy(name), on.model, index_t(text.size()), philox_chooser{}, [&](auto policy) {
    auto resumed = policy;
    policy.reset(key{4});
    report r = policy.advance(theta, std::span(text).first(4), to);
    shown stream;
    policy.visit(stream);
    resumed.reset(key{4});
    stream.restore = true;
    stream.i = stream.n = 0;
    resumed.visit(stream);
    resumed.hold(std::span(text).first(std::size_t(resumed.held())));
    r += resumed.advance(theta, std::span(text).subspan(4), to);
    r += resumed.finish(theta, to);
    CHECK(r.code == status::ok);
    const memory_plan planned =
        plan(memory_costs<E>(on.model.shape(), o), index_t(ids.size()) - 1, parse_policy(name));
    CHECK(double(r.bytes) == Approx(planned.estimator_bytes()).epsilon(0.05));
    const index_t adjoints = replay_of(parse_policy(name), index_t(text.size()) - 1).adjoints;
    const double kept =
        double(on.model.size().memory) *
        double(sizeof(typename E::numbers::memory) * (text.size() - 1) + sizeof(P) * std::size_t(adjoints));
    CHECK(planned.host_bytes == (on_host ? kept : 0));
    CHECK(planned.place_bytes() == planned.bytes() - planned.host_bytes);
    out.push_back({r.loss});
  });
  out.push_back(fetched(e, g)[0]);
  memory_reader<memory_llama<E>> reader(on.model, index_t(text.size()));
  out.push_back(reader.losses(theta, text));
  return out;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("simt: memories in memory of the host change no bit", "[simt]", both_kinds) {
  using E = simt_of<TestType>;
  constexpr bool half = std::is_same_v<typename TestType::activation, bf16>;
  memory_options recurrent = small_memory::options();
  recurrent.recurrent = true;
  recurrent.encoder_tape = recurrent.decoder_tape = saved::inputs;
  const auto same = [](const memory_options& o, const char* name) {
    INFO(name);
    CHECK(with_memories<E>(true, o, name) == with_memories<E>(false, o, name));
  };
  same(small_memory::options(), "keep:2/2");
  if (half) return;  // what follows differs in the calls of the policies alone
  same(small_memory::options(), "rematerialise/3");
  same(small_memory::options(), "window:2");
  same(small_memory::options(), "proportional:2");
  same(recurrent, "rematerialise");
}

TEST_CASE("simt: memories in memory of the host are a layer at a time at the place", "[simt]") {
  using E = testing::simt::executor<numbers<bf16>>;
  config c;  // Llama-2-7B
  c.hidden = 4096;
  c.intermediate_size = 11008;
  c.layers = c.heads = c.kv_heads = 32;
  c.head_dim = 128;
  c.vocabulary = 32000;
  c.context = 4096;
  c.tied = false;
  c.beyond = position_policy::linear;
  c.position_factor = 16;
  memory_options o;
  o.segment = 1024;
  o.ratio = 32;
  const index_t segments = 977, blocks = segments - 1;  // 1,000,448 tokens
  const auto planned = [&](bool on_host) {
    o.memories_on_host = on_host;
    return plan(memory_costs<E>(c, o), segments * o.segment, parse_policy("rematerialise/4"));
  };
  const memory_plan there = planned(false), kept = planned(true);
  const double layer = double(blocks + 3) * 2 * double(c.kv_width()) * 32, memory = 32 * 2 * 4096 * 32.0;
  CHECK(kept.host_bytes == there.memory_bytes + there.adjoint_bytes);
  CHECK(kept.place_bytes() - (there.bytes() - kept.host_bytes) ==
        Approx(2 * layer * (2 + 4) + 4 * memory * (2 + 4)).epsilon(1e-2));
  CHECK(kept.place_bytes() < 40e9);
  CHECK(there.bytes() > 72e9);
}

TEST_CASE("simt: blocks without keys in memory of the host are none", "[simt]") {
  using E = testing::simt::executor<numbers<float>>;
  const E e;
  const model_on<E> on(e, small_memory::options());
  const auto& stack = on.model.stack();
  const index_t n = 3, hidden = on.model.shape().hidden;
  const auto outputs = [&](const prefix<float>& before) {
    auto x = placed<float>(e, hidden * n, 1);
    const pass<float> p = stack.pass_over(0, n, before);
    auto workspace = e.allocate<float>(stack.workspace_size(p, false));
    stack.forward(on.model.weights().data(), {}, p, shaped<float>(x, hidden, n), {}, view<float>(workspace));
    return fetched(e, x);
  };
  const float nothing = 0;
  const std::vector<const float*> blocks{&nothing};
  CHECK(outputs({.blocks = blocks, .on_host = true}) == outputs({}));
}

TEST_CASE("memories in memory of the host are refused where there is no other place", "[simt]") {
  memory_options o = small_memory::options();
  o.memories_on_host = true;
  CHECK_THROWS_WITH(small_memory::make<float>(small_memory::shape(), o),
                    Catch::Matchers::ContainsSubstring("memory_llama: memories_on_host: is true"));
  using E = testing::simt::executor<numbers<float>>;
  const model_on<E> on(E(), small_memory::options());
  std::vector<float> block(std::size_t(on.model.size().memory));
  const std::vector<const float*> blocks{block.data()};
  prefix<float> before{.blocks = blocks, .keys = 1, .capacity = 2, .on_host = true};
  auto x = E().allocate<float>(0);
  CHECK_THROWS_WITH(
      on.model.stack().forward(on.model.weights().data(), {}, on.model.stack().pass_over(2, 1, before),
                               matrix<float>(nullptr, on.model.shape().hidden, 1), {}, {}),
      Catch::Matchers::ContainsSubstring("has 1 keys and room for 2: blocks in memory of the host are full"));
}
