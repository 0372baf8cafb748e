// A memory model over a Llama of the shape of Llama-2-7B with random bfloat16 weights, on one core: one
// segment of 1024 tokens is encoded into 32 memory tokens, the next one is read behind them and its last 16
// tokens are generated one by one. Prints seconds, and the bytes that were planned beside the largest that
// the process had.
//   usage: large_memory [LAYERS]    32 by default: 15 GB of memory, minutes; fewer layers for a trial
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <unroll/memory/memory_llama/session.hpp>
#include <unroll/memory/memory_llama/start.hpp>

using namespace unroll;

namespace {

using number_kinds = numbers<float, bf16>;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Numbers of random sign, their size uniform in [least, 2 least), a power of two: four of each output of
// splitmix64 (Steele et al. 2014), so that 13 GB take seconds.
void fill_random(bf16* w, index_t n, float least, std::uint64_t seed) {
  const std::uint64_t exponents = bf16(least).bits * 0x0001000100010001u;
  for (index_t i = 0; i < n; i += 4) {
    std::uint64_t z = seed + std::uint64_t(i) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z = ((z ^ (z >> 31)) & 0x807f807f807f807fu) | exponents;
    std::memcpy(w + i, &z, std::size_t(std::min<index_t>(4, n - i)) * sizeof(bf16));
  }
}

std::shared_ptr<const parameters<bf16>> random_weights(const llama::weight_map& map) {
  auto w = std::make_shared<parameters<bf16>>(map.size());
  for (const layout_block& b : map.names().blocks()) {
    const bool to_residual =
        b.name.find("o_proj") != std::string::npos || b.name.find("down_proj") != std::string::npos;
    if (b.cols == 1)
      std::fill_n(w->data() + b.offset, b.size(), bf16(1.0f));
    else
      fill_random(w->data() + b.offset, b.size(), to_residual ? 0x1p-9f : 0x1p-6f, std::uint64_t(b.offset));
  }
  return w;
}

// Of this process, in bytes; 0 where the system does not say.
double largest_resident() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return 1024 * std::strtod(line.c_str() + 6, nullptr);
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // minutes pass between lines
  llama::config c{
      .hidden = 4096, .intermediate_size = 11008, .layers = 32, .heads = 32, .kv_heads = 32, .head_dim = 128};
  if (argc > 1) c.layers = std::atoi(argv[1]);
  c.vocabulary = 32000;
  c.context = 1152;  // the two segments and the memory tokens; the cache has as many columns
  c.tied = false;
  llama::memory_options o;
  o.segment = 1024;
  o.ratio = 32;

  const double start = now();
  auto weights = random_weights(llama::weight_map(c));
  const double weight_bytes = double(weights->bytes());
  std::printf("%td weights, %.3f GB in bfloat16, made in %.0f s\n", weights->size(), weight_bytes / 1e9,
              now() - start);
  const llama::memory_llama<number_kinds> model(c, std::move(weights), o);
  parameters<float> theta(model.names().size());
  llama::init_memory<number_kinds>(model, theta, key{1}, {});
  llama::memory_session<number_kinds> session(model, theta);
  const double planned = weight_bytes + double(theta.bytes()) + double(session.bytes());

  std::vector<llama::token> ids;
  for (index_t i = 0; i < 2 * o.segment; ++i) ids.push_back(llama::token(i * 7919 % c.vocabulary));
  const auto text = std::span<const llama::token>(ids);
  const auto segment = std::size_t(o.segment);
  constexpr std::size_t decoded = 16;

  double t = now();
  session.remember(text.first(segment));
  std::printf("encoded %zu tokens in %.1f s\n", segment, now() - t);
  t = now();
  session.append(text.subspan(segment, segment - decoded));
  std::printf("read %zu tokens behind %td memory tokens in %.1f s\n", segment - decoded,
              model.memory_tokens(), now() - t);
  t = now();
  for (std::size_t i = 0; i < decoded; ++i) {
    const auto logits = session.logits();
    if (!linalg::all_finite(logits.data(), logits.size())) fail("large_memory", "logits", "are not finite");
    session.append(llama::token(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  const double seconds = now() - t;
  std::printf("decoded %zu tokens in %.1f s, %.2f a second\n", decoded, seconds, double(decoded) / seconds);
  const double had = largest_resident();
  std::printf("planned %.3f GB, the process had %.3f GB at most: %.3f of it; %.0f s in all\n", planned / 1e9,
              had / 1e9, had / planned, now() - start);
  return had > 1.05 * planned ? 1 : 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
