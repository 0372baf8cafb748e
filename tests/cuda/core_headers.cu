// What device code may include must compile under nvcc with --expt-relaxed-constexpr (Philox works on
// std::array): core, rng, system, what executors share, and all of the Llama and its memories, on any
// executor.
#include <unroll/core/arena.hpp>
#include <unroll/core/bf16.hpp>
#include <unroll/core/block.hpp>
#include <unroll/core/config.hpp>
#include <unroll/core/error.hpp>
#include <unroll/core/layout.hpp>
#include <unroll/core/matrix.hpp>
#include <unroll/core/numbers.hpp>
#include <unroll/core/report.hpp>
#include <unroll/core/view.hpp>
#include <unroll/core/visit.hpp>
#include <unroll/estimate/plan.hpp>
#include <unroll/estimate/proportional_replay.hpp>
#include <unroll/estimate/rematerialise.hpp>
#include <unroll/estimate/reservoir_tbptt.hpp>
#include <unroll/exec/executor.hpp>
#include <unroll/exec/mirror.hpp>
#include <unroll/exec/of.hpp>
#include <unroll/llama/generate.hpp>
#include <unroll/llama/language_model.hpp>
#include <unroll/llama/score.hpp>
#include <unroll/memory/bank.hpp>
#include <unroll/memory/memory_llama/costs.hpp>
#include <unroll/memory/memory_llama/session.hpp>
#include <unroll/rng/chooser.hpp>
#include <unroll/rng/draw.hpp>
#include <unroll/rng/key.hpp>
#include <unroll/rng/philox.hpp>
#include <unroll/system/concepts.hpp>
#include <unroll/system/edge.hpp>
#include <unroll/system/explain.hpp>
#include <unroll/system/window.hpp>
#include <unroll/system/with_resets.hpp>

using namespace unroll;

// A system declared under nvcc satisfies the same concepts.
struct decay {
  using scalar = float;
  using input = float;
  dims size() const { return {.params = 1, .state = 1}; }
  void step(const input& x, const edge<float>& e) const {
    e.next[0] = e.theta[0] * e.s[0] + x;
    *e.loss = e.next[0] * e.next[0] / 2;
  }
};
static_assert(recurrent<decay>);
static_assert(!has_vjp<decay>);

// Views, Philox and the keys run on the device.
__global__ void draw(key k, view<float> out) {
  const index_t i = blockIdx.x * index_t(blockDim.x) + threadIdx.x;
  if (i >= out.size()) return;
  const key child = fold(k, std::uint64_t(i));
  const auto r =
      philox({std::uint32_t(i), 0, 0, 0}, {std::uint32_t(child.seed), std::uint32_t(child.seed >> 32)});
  out[i] = float(r[0]);
}

void launch(key k, view<float> out) { draw<<<1, 32>>>(k, out); }

// Normals on the host, by vectors.
void draw_on_host(key k, view<float> out) { draw_normals(k, 0, out); }
