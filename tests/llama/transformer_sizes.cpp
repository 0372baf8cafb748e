#include "unroll/llama/transformer_sizes.hpp"

#include "tests/llama/small_llama.hpp"
#include "tests/support/catch.hpp"
#include "unroll/exec/of.hpp"

using namespace unroll;
using namespace unroll::llama;
using tests::small_llama;

TEST_CASE("the tape of a pass is the tapes of its layers, and of what is behind the last") {
  const transformer_sizes<exec::of<float>> sizes(small_llama());
  const config& c = sizes.shape();
  for (const saved keep : {saved::activations, saved::inputs})
    for (const index_t layers : {0, 1, 2})
      for (const index_t from : {0, 3}) {
        if (layers == 0 && from > 0) continue;
        CAPTURE(int(keep), layers, from);
        const pass_size p{.sequences = 2, .length = 5, .layers = layers, .outputs_from = from, .keep = keep};
        index_t sum = 0;
        for (index_t i = 0; i < layers; ++i) {
          CHECK(sizes.tape_start(p, i) == sum);
          sum += sizes.layer_tape(p, i);
        }
        CHECK(sizes.tape_start(p, layers) == sum);
        if (layers < c.layers) sum += arena<float>::rounded(c.hidden * p.outputs());
        CHECK(sizes.tape_size(p) == sum);
      }
}

TEST_CASE("the last layer keeps queries and outputs of the wanted tokens only, keys and values of all") {
  const transformer_sizes<exec::of<float>> sizes(small_llama());
  const config& c = sizes.shape();
  const pass_size p{.sequences = 2, .length = 5, .layers = 2, .outputs_from = 3};
  for (const index_t layer : {0, 1}) {
    CAPTURE(layer);
    const index_t n = layer == 1 ? 4 : 10;
    arena<float> counting;
    const auto s = sizes.cut_activations(counting, p, layer);
    CHECK((s.q.rows == c.query_width() && s.q.cols == n));
    CHECK((s.kv.rows == 2 * c.kv_width() && s.kv.cols == 10));
    CHECK((s.mixed.rows == c.query_width() && s.mixed.cols == n));
    CHECK((s.log_sum.rows == c.heads && s.log_sum.cols == n));
    CHECK((s.mid.rows == c.hidden && s.mid.cols == n));
    CHECK((s.gated.rows == 2 * c.intermediate_size && s.gated.cols == n));
    CHECK((s.rstd.rows == 10 && s.rstd_mid.rows == n));
  }
}

TEST_CASE(
    "a workspace for the vjp is enough for the pass, and layer inputs need more of it than activations") {
  const transformer_sizes<exec::of<float>> sizes(small_llama());
  pass_size p{.sequences = 2, .length = 5, .layers = 2};
  CHECK(sizes.workspace_size(p, false) < sizes.workspace_size(p, true));
  const index_t kept = sizes.workspace_size(p), tape = sizes.tape_size(p);
  p.keep = saved::inputs;
  CHECK(sizes.workspace_size(p) > kept);
  CHECK(sizes.tape_size(p) < tape);
}
