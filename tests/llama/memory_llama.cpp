#include "unroll/llama/memory_llama.hpp"

#include <cstring>

#include "tests/support/catch.hpp"
#include "tests/support/plain_memory.hpp"
#include "tests/support/small_memory.hpp"
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
  mixed.encoder.targets.fill(true);
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
  frozen_head.head.targets.fill(false);
  frozen_head.mask = memory_mask::causal;
  all.push_back({"without a transfer head", shape(), frozen_head});
  memory_options values_only = o;
  values_only.head.targets = {false, false, true, false, false, false, false};
  values_only.ratio = 1;
  all.push_back({"a head on values, ratio 1", shape(), values_only});
  memory_options one = o;
  one.ratio = 6;
  config linear = shape();
  linear.context = 20;
  linear.beyond = position_policy::linear;
  linear.position_factor = 2;
  one.recurrent = true;
  all.push_back({"one memory token, stretched positions", linear, one});
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
    if (v.c.beyond != position_policy::refuse) continue;  // the plain model does not stretch positions
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
    std::vector<double> work(std::size_t(model.workspace(2))), d0(p.m[0].size(), 1), d1(p.m[0].size(), 1);
    std::vector<double*> dpast{d0.data(), d1.data()};
    model.read_vjp(text[2], 2, theta, past, dpast, {}, work);
    const index_t stride = std::max<index_t>(1, n / 23);
    for (int s = 0; s < 2; ++s) {
      std::vector<double> got, expected;
      for (index_t i = 0; i < n; i += stride) {
        got.push_back((s == 0 ? d0 : d1)[std::size_t(i)] - 1);
        expected.push_back(small_memory::slope(p.m[std::size_t(s)][std::size_t(i)],
                                               [&] { return model.read(text[2], 2, theta, past, work); }));
      }
      CHECK(relative_error(got, expected) < 1e-8);
    }

    // write: the sum of dm times the memory
    std::vector<double> dm(std::size_t(n), 0), tape(std::size_t(model.size().tape)), m(std::size_t(n), 0), g;
    draw_normals({9}, 0, view<double>(dm));
    d0.assign(d0.size(), 0);
    const auto earlier = std::span<const double* const>(past).first(model.independent() ? 0 : 1);
    model.write(text[1], 1, theta, earlier, m, tape, work);
    model.write_vjp(text[1], 1, theta, earlier, tape, dm, std::span<double* const>(dpast).first(1), {}, work);
    if (model.independent()) {
      CHECK(d0 == std::vector<double>(d0.size(), 0));
      continue;
    }
    std::vector<double> got, expected;
    for (index_t i = 0; i < n; i += stride) {
      got.push_back(d0[std::size_t(i)]);
      expected.push_back(small_memory::slope(p.m[0][std::size_t(i)], [&] {
        model.write(text[1], 1, theta, earlier, m, {}, work);
        return linalg::dot(m.data(), dm.data(), n);
      }));
    }
    CHECK(relative_error(got, expected) < 1e-8);
  }
}
