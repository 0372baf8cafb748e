// Seconds of one exact gradient of a Llama with memories by rematerialise, the least of some. Needs nothing
// that older headers lack, so that memory_batches.py can compare revisions; BATCH is defined where there are
// batches. usage: exact_gradient TURNS HIDDEN LAYERS SEGMENTS LENGTH
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "any_revision.hpp"
#include "unroll/llama.hpp"
#include "unroll/unroll.hpp"

using namespace unroll;
using namespace unroll::llama;

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const auto number = [&](int i) { return index_t(std::atol(argv[i])); };
  const index_t segments = number(4), length = number(5);
  config c;
  c.hidden = number(2);
  c.layers = number(3);
  c.heads = c.kv_heads = c.hidden < 128 ? 4 : 8;
  bench::set_widths(c, c.hidden / c.heads, c.hidden * 8 / 3 / 4 * 4);
  c.vocabulary = 256;
  c.context = segments * length;
  memory_options o;
  o.segment = length;
  o.ratio = 8;
  o.encoder.rank = bench::transfer_head_of(o).rank = 8;
  o.encoder.alpha = bench::transfer_head_of(o).alpha = 16;
  parameters<float> w(weight_map(c).size());
  init_weights<float>(weight_map(c), w, {1});
  const memory_llama<float> model(c, std::make_shared<const parameters<float>>(std::move(w)), o);
  parameters<float> theta(model.names().size());
  init_memory<float>(model, theta, {2}, {-1, 0.1});
  std::vector<token> ids;
  for (index_t i = 0; i < segments * length + 1; ++i) ids.push_back(token(draw_index({3}, i, c.vocabulary)));
  const auto text = segments_of(ids, length);
#if defined(BATCH)
  rematerialise e(model, {.segments = segments, .batch = BATCH});
#else
  rematerialise e(model, {.segments = segments});
#endif
  gradient<float> g(theta.size());
  double seconds = 1e9;
  for (index_t turn = 0; turn < number(1); ++turn) {
    std::fill(g.begin(), g.end(), 0.f);
    e.reset({});
    const std::clock_t start = std::clock();
    report r = e.advance(theta, text, g);
    r += e.finish(theta, g);
    seconds = std::min(seconds, double(std::clock() - start) / CLOCKS_PER_SEC);
    if (r.code != status::ok) return 1;
  }
  std::printf("%.6g\n", seconds);
}
