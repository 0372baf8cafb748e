#include "unroll/memory/memory_llama/model.hpp"
#include "unroll/memory/memory_llama/costs.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/plain_memory.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/testing/memory_model_conformance.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;
using namespace unroll::llama;
using small_memory::make;
using small_memory::pass_over;
using small_memory::shape;
using small_memory::start;
using testing::relative_error;

static_assert(memory_model<memory_llama<double>> && memory_model<memory_llama<float>>);

namespace {

struct variant {
  std::string name;
  config c;
  memory_options o;
};

std::vector<variant> variants() {
  std::vector<variant> all;
  const memory_options o = small_memory::options();
  all.push_back({"the code's mask and positions", shape(), o});
  memory_options causal = o;
  causal.mask = memory_mask::causal;
  causal.positions = memory_positions::following;
  all.push_back({"the paper's mask, three layers", shape(3, false, rope_pairs::neighbours), causal});
  memory_options mixed = o;
  mixed.positions = memory_positions::following;
  mixed.separate_tokens = true;
  mixed.encoder.adapted.fill(true);
  all.push_back({"separate memory tokens, adapters everywhere", shape(3), mixed});
  memory_options recurrent = o;
  recurrent.recurrent = true;
  all.push_back({"recurrent", shape(3), recurrent});
  recurrent.mask = memory_mask::causal;
  recurrent.positions = memory_positions::following;
  recurrent.encoder_tape = recurrent.decoder_tape = saved::inputs;
  recurrent.encoder.first_layer = 1;
  all.push_back({"recurrent with recomputed graphs, upper layer adapted", shape(3), recurrent});
  memory_options frozen_head = o;
  frozen_head.transfer_head.adapted.fill(false);
  frozen_head.mask = memory_mask::causal;
  all.push_back({"without a transfer head", shape(), frozen_head});
  memory_options values_only = o;
  values_only.transfer_head.adapted = {false, false, true, false, false, false, false};
  values_only.ratio = 1;
  all.push_back({"a head on values, ratio 1", shape(), values_only});
  memory_options one = o;
  one.ratio = 6;
  config linear = shape();
  linear.context = 6;  // shorter than the texts
  linear.beyond = position_policy::linear;
  linear.position_factor = 2;
  one.recurrent = true;
  all.push_back({"one memory token, stretched positions", linear, one});
  config ntk = shape(2, true, rope_pairs::neighbours);
  ntk.head_dim = 6;
  ntk.context = 6;
  ntk.beyond = position_policy::ntk;
  ntk.position_factor = 3;
  all.push_back({"another rotary base", ntk, o});
  config yarn = shape();
  yarn.beyond = position_policy::yarn;
  yarn.position_factor = 4;
  yarn.scaling.original_context = 10;
  all.push_back({"an attention factor", yarn, small_memory::options()});
  return all;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

}  // namespace

TEST_CASE("memories and losses are those of the definition") {
  for (variant v : variants()) {
    CAPTURE(v.name);
    const auto model = make<double>(v.c, v.o);
    const auto theta = start(model);
    auto ids = small_memory::text(4 * 6 - 2);
    std::vector<segment> text = segments_of(ids, 6);
    REQUIRE(text.size() == 4);
    std::vector<token> some(text[1].targets.begin(), text[1].targets.end());
    some[2] = some[5] = -1;
    text[1].targets = some;
    const pass_over<double> got(model, theta, text, false);
    const auto expected = plain_llama::with_memories(model, theta, text);
    for (std::size_t s = 0; s + 1 < text.size(); ++s) {
      CAPTURE(s);
      CHECK(largest_difference(got.m[s], expected.memories[s]) < 1e-12);
    }
    for (std::size_t t = 0; t < text.size(); ++t) {
      double sum = 0;
      for (const double x : expected.nll[t]) sum += x;
      CHECK(got.losses[t] == Approx(sum).epsilon(1e-12));
    }
  }
}

TEST_CASE("the exact gradient is that of finite differences, in every named part of theta") {
  for (const variant& v : variants()) {
    CAPTURE(v.name);
    const auto model = make<double>(v.c, v.o);
    auto theta = start(model);
    const auto ids = small_memory::text(3 * 6 - 1);
    const auto text = segments_of(ids, 6);
    const pass_over<double> exact(model, theta, text, true);
    for (const layout_block& b : model.names().blocks()) {
      CAPTURE(b.name);
      std::vector<double> got, expected;
      // a few numbers of each part, among them the first and the last
      for (index_t i = 0; i < b.size(); i += std::max<index_t>(1, (b.size() - 1) / 5)) {
        got.push_back(exact.g[std::size_t(b.offset + i)]);
        expected.push_back(small_memory::slope(
            theta[b.offset + i], [&] { return pass_over<double>(model, theta, text, false).loss; }));
      }
      double largest = 0;
      for (const double x : expected) largest = std::max(largest, std::abs(x));
      CHECK(largest > 1e-5);  // every trainable tensor has a gradient
      CHECK(relative_error(got, expected) < 1e-7);
    }
  }
}

TEST_CASE("adjoints of memories are those of finite differences") {
  for (const variant& v : variants()) {
    CAPTURE(v.name);
    const auto model = make<double>(v.c, v.o);
    const auto theta = start(model);
    const auto ids = small_memory::text(3 * 6);
    const auto text = segments_of(ids, 6);
    pass_over<double> p(model, theta, text, false);
    const index_t n = model.size().memory;
    std::vector<const double*> past{p.m[0].data(), p.m[1].data()};
    std::vector<double> workspace(std::size_t(model.workspace(2))), d0(p.m[0].size(), 1),
        d1(p.m[0].size(), 1);
    std::vector<double*> dpast{d0.data(), d1.data()};
    model.read_vjp(text[2], 2, theta, past, {.dpast = dpast}, workspace);
    const index_t stride = std::max<index_t>(1, n / 23);
    for (int s = 0; s < 2; ++s) {
      std::vector<double> got, expected;
      for (index_t i = 0; i < n; i += stride) {
        got.push_back((s == 0 ? d0 : d1)[std::size_t(i)] - 1);
        expected.push_back(small_memory::slope(p.m[std::size_t(s)][std::size_t(i)], [&] {
          return model.read(text[2], 2, theta, past, workspace);
        }));
      }
      CHECK(relative_error(got, expected) < 1e-8);
    }

    // write: the sum of dm times the memory
    std::vector<double> dm(std::size_t(n), 0), tape(std::size_t(model.size().tape)), m(std::size_t(n), 0), g;
    draw_normals({9}, 0, view<double>(dm));
    d0.assign(d0.size(), 0);
    const auto earlier = std::span<const double* const>(past).first(model.independent() ? 0 : 1);
    model.write(text[1], 1, theta, earlier, m, tape, workspace);
    model.write_vjp(text[1], 1, theta, earlier, {.tape = tape, .dm = dm},
                    {.dpast = std::span<double* const>(dpast).first(1)}, workspace);
    if (model.independent()) {
      CHECK(d0 == std::vector<double>(d0.size(), 0));
      continue;
    }
    std::vector<double> got, expected;
    for (index_t i = 0; i < n; i += stride) {
      got.push_back(d0[std::size_t(i)]);
      expected.push_back(small_memory::slope(p.m[0][std::size_t(i)], [&] {
        model.write(text[1], 1, theta, earlier, m, {}, workspace);
        return linalg::dot(m.data(), dm.data(), n);
      }));
    }
    CHECK(relative_error(got, expected) < 1e-8);
  }
}

TEST_CASE("a memory model over a Llama keeps the rules of memory models") {
  for (const variant& v : variants()) {
    CAPTURE(v.name);
    const auto model = make<double>(v.c, v.o);
    const auto ids = small_memory::text(4 * 6);
    const auto text = segments_of(ids, 6);  // the last one is shorter
    const auto whole = std::span(text).first(3);
    for (const std::string& failure : testing::memory_model_conformance(model, start(model), whole))
      FAIL_CHECK(failure);
    const auto single = make<float>(v.c, v.o);
    for (const std::string& failure : testing::memory_model_conformance(single, start(single), whole))
      FAIL_CHECK("float: " << failure);
  }
}

TEST_CASE("recomputed graphs have the same bits, and single precision is near") {
  for (const bool recurrent : {false, true}) {
    auto o = small_memory::options();
    o.recurrent = recurrent;
    const auto kept = make<double>(shape(3), o);
    o.encoder_tape = o.decoder_tape = saved::inputs;
    const auto recomputed = make<double>(shape(3), o);
    CHECK(recomputed.size().tape < kept.size().tape / 2);
    const auto single = make<float>(shape(3), o);
    const auto theta = start(kept);
    const auto ids = small_memory::text(4 * 6 - 3);
    const auto text = segments_of(ids, 6);
    const pass_over<double> a(kept, theta, text, true), b(recomputed, theta, text, true);
    CHECK(a.g == b.g);
    CHECK(a.losses == b.losses);
    const pass_over<float> f(single, start(single), text, true);
    CHECK(f.loss == Approx(a.loss).epsilon(1e-4));
    CHECK(relative_error(f.g, a.g) < 1e-3);
  }
}

TEST_CASE("theta holds the two sets of adapters and the memory tokens, and nothing that is frozen") {
  const auto c = shape(3);
  auto o = small_memory::options();
  const auto model = make<double>(c, o);
  // q and v of layers 0 and 1 only: the last layer of the encoder does not run; k and v of all three
  const index_t encoder = 2 * 2 * ((12 + 16) + (12 + 8)), head = 3 * 3 * 2 * (12 + 8);
  CHECK(model.size().params == encoder + 12 + head);
  for (const layout_block& b : model.names().blocks()) {
    CAPTURE(b.name);
    const bool lora = b.name.ends_with("lora_A.weight") || b.name.ends_with("lora_B.weight");
    CHECK((lora || b.name == "memory_tokens"));
    if (b.name.starts_with("encoder.")) CHECK(b.name.find("layers.2.") == std::string::npos);
  }
  CHECK(model.names().at("encoder.model.layers.0.self_attn.q_proj.lora_A.weight").offset == 0);
  CHECK(model.names().at("memory_tokens").offset == encoder);
  CHECK(model.names().at("head.model.layers.2.self_attn.v_proj.lora_B.weight").size() == 3 * 8);
  CHECK(model.trainable()
            .transfer_head()
            .names()
            .at("base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight")
            .offset == 0);
  o.separate_tokens = true;
  CHECK(make<double>(c, o).size().params == encoder + 2 * 12 + head);

  // keys and values of M columns; one live graph keeps M rows of hidden states, not the whole segment's
  CHECK(model.size().memory == 3 * 2 * 8 * 2);
  const memory_llama<double> copy = model;
  CHECK(copy.weights().data() == model.weights().data());
}

TEST_CASE("parameters begin at the frozen model, with memory tokens of their own") {
  const auto model = make<double>(shape(), small_memory::options());
  parameters<double> theta(model.names().size());
  init_memory<double>(model, theta, {1}, {2, 0});
  const auto mem = model.trainable().memory_part(params<double>(theta));
  for (index_t i = 0; i < 12; ++i)
    CHECK(mem[i] == model.weights()[model.stack().map().embedding() + 2 * 12 + i]);
  for (const layout_block& b : model.names().blocks())
    for (index_t i = 0; i < b.size(); ++i)
      if (b.name.ends_with("lora_B.weight")) CHECK(theta[b.offset + i] == 0);
  parameters<double> again(theta.size()), other(theta.size());
  init_memory<double>(model, again, {1}, {-1, .1});
  init_memory<double>(model, other, {2}, {-1, .1});
  CHECK(again[0] != other[0]);
  CHECK(again[model.names().at("memory_tokens").offset] != other[model.names().at("memory_tokens").offset]);
  CHECK_THROWS_WITH(init_memory<double>(model, theta, {1}, {17, 0}),
                    Catch::Matchers::ContainsSubstring("is 17, the vocabulary has 17"));
}

TEST_CASE("with one memory token vector the lowest layer of all memories is the same up to rotation") {
  auto o = small_memory::options();
  const auto model = make<double>(shape(), o);
  const auto theta = start(model);
  const auto ids = small_memory::text(3 * 6 + 1);
  const auto text = segments_of(ids, 6);
  const pass_over<double> p(model, theta, text, false);
  const index_t area = 8 * 2;
  for (index_t s = 0; s < 2; ++s) {
    const double* m = p.m[std::size_t(s)].data();
    std::vector<double> k(m, m + area);
    std::vector<index_t> positions{2 * s, 2 * s + 1};
    model.stack().rotary().rotate_back({k.data(), 8, 2}, positions);
    for (index_t i = 0; i < 8; ++i) {
      CHECK(k[std::size_t(i)] == Approx(k[std::size_t(8 + i)]).margin(1e-13));
      CHECK(m[area + i] == p.m[0][std::size_t(area + i)]);
      CHECK(m[area + 8 + i] == p.m[0][std::size_t(area + i)]);
    }
    CHECK(m[2 * area] != p.m[std::size_t(1 - s)][std::size_t(2 * area)]);
  }
}

TEST_CASE("the coverage mask lets a memory token see its span only") {
  // The first of two memory tokens covers tokens 0 .. 2: token 4 must not change its column of the memory.
  auto o = small_memory::options();
  for (const memory_mask mask : {memory_mask::coverage, memory_mask::causal}) {
    o.mask = mask;
    const auto model = make<double>(shape(3), o);
    const auto theta = start(model);
    auto ids = small_memory::text(13);
    const pass_over<double> before(model, theta, segments_of(ids, 6), false);
    ids[4] = (ids[4] + 1) % 17;
    const pass_over<double> after(model, theta, segments_of(ids, 6), false);
    index_t first = 0, second = 0;
    for (index_t i = 0; i < index_t(before.m[0].size()); ++i)
      if (before.m[0][std::size_t(i)] != after.m[0][std::size_t(i)]) ++(i / 8 % 2 == 0 ? first : second);
    CHECK((first == 0) == (mask == memory_mask::coverage));
    CHECK(second > 0);
  }
}

TEST_CASE("without memories the loss is the plain Llama's, and there is nothing to send back") {
  const auto model = make<double>(shape(), small_memory::options());
  const auto theta = start(model);
  const auto ids = small_memory::text(7);
  const auto x = segments_of(ids, 6)[0];
  const plain_llama::model plain(shape(), model.weights());
  const auto logits = plain.logits({x.tokens.begin(), x.tokens.end()});
  double sum = 0;
  for (std::size_t i = 0; i < 6; ++i) sum += plain_llama::nll(logits[i], x.targets[i]);
  std::vector<double> workspace(std::size_t(model.workspace(0))), g(std::size_t(theta.size()));
  CHECK(model.read(x, 0, theta, {}, workspace) == Approx(sum).epsilon(1e-13));
  CHECK(model.read_vjp(x, 0, theta, {}, {.dtheta = g}, workspace) == model.read(x, 0, theta, {}, workspace));
  CHECK(std::all_of(g.begin(), g.end(), [](double v) { return v == 0; }));
  CHECK(model.read({x.tokens}, 0, theta, {}, workspace) == 0);  // nothing is scored
}

TEST_CASE("the workspace of a segment is enough for one token behind many memories") {
  auto c = shape();
  c.heads = 32;
  c.context = 400;
  auto o = small_memory::options();
  o.segment = 2;
  o.ratio = 1;
  const auto model = make<double>(c, o);
  const auto ids = small_memory::text(2 * 150 + 2);
  CHECK_NOTHROW(pass_over<double>(model, start(model), segments_of(ids, 2), true));
}

TEST_CASE("the encoder does not run its last layer, nor what is behind it") {
  // Of these weights a memory needs the norm in front of the last layer's attention, W_K and W_V.
  const auto model = make<double>(shape(2, false), small_memory::options());
  const weight_map& map = model.stack().map();
  parameters<double> spoilt(map.size());
  std::copy(model.weights().begin(), model.weights().end(), spoilt.begin());
  const auto spoil = [&](index_t first, index_t last) {
    std::fill(spoilt.begin() + first, spoilt.begin() + last, std::nan(""));
  };
  spoil(map[1].q, map[1].k);
  spoil(map[1].o, map.size());
  const memory_llama<double> other(model.shape(), std::make_shared<const parameters<double>>(spoilt),
                                   model.options());
  const auto theta = start(model);
  const auto ids = small_memory::text(7);
  const segment x = segments_of(ids, 6)[0];
  std::vector<double> workspace(std::size_t(model.workspace(0))), tape(std::size_t(model.size().tape));
  std::vector<double> m[2], g[2];
  for (const auto* f : {&model, &other}) {
    auto &memory = m[f == &other], &gradient = g[f == &other];
    memory.assign(std::size_t(model.size().memory), 0);
    gradient.assign(std::size_t(theta.size()), 0);
    f->write(x, 0, theta, {}, memory, tape, workspace);
    const std::vector<double> dm(memory.size(), 1);
    f->write_vjp(x, 0, theta, {}, {.tape = tape, .dm = dm}, {.dtheta = gradient}, workspace);
  }
  CHECK(m[0] == m[1]);
  CHECK(g[0] == g[1]);
}

TEST_CASE("the longest text is known before anything runs") {
  config c;  // Llama-2-7B
  c.hidden = 4096;
  c.layers = 32;
  c.heads = c.kv_heads = 32;
  c.head_dim = 128;
  c.context = 4096;
  memory_options o;
  o.segment = 1024;
  o.ratio = 32;
  CHECK(o.segments(c) == 97);
  CHECK(o.longest_text(c) == 99328);
  o.ratio = 8;
  CHECK(o.longest_text(c) == 25600);
  c.beyond = position_policy::linear;
  c.position_factor = 2;
  CHECK(o.segments(c) == 57);
  c.context = 511;
  CHECK(o.segments(c) == 0);
  c.context = 4096;

  // the costs need no weights, and say what a graph and a memory take
  c.intermediate_size = 11008;
  c.vocabulary = 32000;
  o.encoder.rank = o.transfer_head.rank = 128;
  const memory_costs<float> sizes(c, o);
  CHECK(sizes.segments() == 57);
  CHECK(sizes.size().memory == 2 * 32 * 4096 * 128);
  CHECK(sizes.size().params == 134217728 - 2 * 2 * 4096 * 128 + 4096);  // the last layer's are not there
  CHECK(sizes.workspace(4) > 0);
  CHECK_THROWS_WITH(memory_llama<float>(c, nullptr, o),
                    Catch::Matchers::ContainsSubstring("weights: are null"));

  const auto model = make<double>(shape(), small_memory::options());  // 40 positions, segments of 6, M = 2
  CHECK(model.segments() == 18);
  CHECK(model.longest_text() == 108);
  const auto theta = start(model);
  auto ids = small_memory::text(19 * 6 + 1);
  auto text = segments_of(ids, 6);
  const auto beyond = Catch::Matchers::ContainsSubstring(
      "segment 18 ends at position 42, the model has 40: the longest text has 108 tokens in 18 segments");
  CHECK_THROWS_WITH(pass_over<double>(model, theta, text, false), beyond);
  text.pop_back();
  CHECK_NOTHROW(pass_over<double>(model, theta, text, true));
  text.push_back({std::span(ids).subspan(18 * 6, 4), std::span(ids).subspan(18 * 6 + 1, 4)});
  CHECK_NOTHROW(pass_over<double>(model, theta, text, false));  // a residual that fits
  for (const auto beyond_ : {position_policy::linear, position_policy::ntk}) {
    config stretched = shape();
    stretched.beyond = beyond_;
    stretched.position_factor = 1.1;
    CHECK_NOTHROW(pass_over<double>(make<double>(stretched, small_memory::options()), theta,
                                    segments_of(ids, 6), false));
  }
}

TEST_CASE("misuse of a memory model names what is wrong") {
  using Catch::Matchers::ContainsSubstring;
  const auto c = shape();
  auto o = small_memory::options();
  const auto refused = [&](const config& c_, const memory_options& o_, const std::string& message) {
    CHECK_THROWS_WITH(make<double>(c_, o_), ContainsSubstring(message));
  };
  const auto changed = [&](auto&& change) {
    memory_options r = o;
    change(r);
    return r;
  };
  refused(c, changed([](auto& r) { r.ratio = 4; }), "ratio: is 4, does not divide the segment of 6");
  refused(c, changed([](auto& r) { r.ratio = 0; }), "ratio: is 0, must be at least 1");
  refused(c, changed([](auto& r) { r.segment = 0; }), "segment: is 0, must be at least 1");
  refused(c, changed([](auto& r) { r.encoder.layers = 2; }), "encoder.layers: end at 2, the encoder runs 1");
  refused(c, changed([](auto& r) { r.transfer_head.adapted[0] = true; }), "self_attn.q_proj is neither");
  refused(c, changed([](auto& r) {
            r.segment = 40;
            r.ratio = 20;
          }),
          "take 41 positions, the model has 40");
  config one = c;
  one.layers = 1;
  refused(one, o, "layers: is 1, must be at least 2");
  CHECK_THROWS_WITH(memory_llama<double>(c, std::make_shared<const parameters<double>>(3), o),
                    ContainsSubstring("weights: has size 3"));

  const auto model = make<double>(c, o);
  const auto theta = start(model);
  auto ids = small_memory::text(13);
  std::vector<double> workspace(std::size_t(model.workspace(2))), m(std::size_t(model.size().memory));
  const segment good = segments_of(ids, 6)[0];
  const auto write = [&](const segment& x) { model.write(x, 0, theta, {}, m, {}, workspace); };
  CHECK_THROWS_WITH(write({good.tokens.first(5)}), ContainsSubstring("x.tokens: has size 5, expected 6"));
  CHECK_THROWS_WITH(model.read(good, 1, theta, {}, workspace),
                    ContainsSubstring("past: has size 0, expected 1"));
  CHECK_THROWS_WITH(model.read({}, 0, theta, {}, workspace), ContainsSubstring("x.tokens: is 0"));
  CHECK_THROWS_WITH(model.read({std::span<const token>(ids).first(7)}, 0, theta, {}, workspace),
                    ContainsSubstring("are 7, a segment has 6"));
  CHECK_THROWS_WITH(model.read({good.tokens, good.targets.first(2)}, 0, theta, {}, workspace),
                    ContainsSubstring("x.targets: has size 2, expected 6"));
  CHECK_THROWS_WITH(model.read(good, 0, theta, {}, view<double>(workspace).part(0, 10)),
                    ContainsSubstring("workspace: is 10, must be at least"));
  CHECK_THROWS_WITH(model.write(good, 0, theta, {}, view<double>(m).part(0, 10), {}, workspace),
                    ContainsSubstring("m: has size 10, expected 64"));
  const auto two = segments_of(ids, 6);
  std::vector<double> both(std::size_t(2 * model.size().memory)), losses(2);
  CHECK_THROWS_WITH(model.write(two, 0, theta, {}, both, {}, view<double>(workspace).part(0, 100)),
                    ContainsSubstring("workspace: has 100 numbers, a batch of 2 segments needs"));
  const double* memory_of_first[] = {m.data()};
  CHECK_THROWS_WITH(
      model.read(two, 0, theta, memory_of_first, losses.data(), view<double>(workspace).part(0, 100)),
      ContainsSubstring("workspace: has 100 numbers, a batch of 2 segments needs"));
  CHECK_THROWS_WITH(model.write(two, 0, theta, {}, m, {}, workspace),
                    ContainsSubstring("m: has size 64, expected 128"));
  ids[3] = 17;
  CHECK_THROWS_WITH(write(good), ContainsSubstring("tokens: holds 17, the vocabulary has 17"));
  ids[3] = -1;
  CHECK_THROWS_WITH(write(good), ContainsSubstring("tokens: holds -1"));
  o.recurrent = true;
  const auto recurrent = make<double>(c, o);
  ids[3] = 0;
  CHECK_THROWS_WITH(recurrent.write(good, 1, theta, {}, m, {}, workspace),
                    ContainsSubstring("past: has size 0"));
  CHECK_THROWS_WITH(recurrent.write(two, 0, theta, {}, both, {}, workspace),
                    ContainsSubstring("are 2 segments, recurrent memories are written one by one"));
}
