// An original checkpoint.
#include "tests/fuzz/target.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;

namespace {

std::string checkpoint(std::int32_t layers, bool tied) {
  const std::int32_t hidden = 4, mlp = 3, heads = 2, kv_heads = 1, vocabulary = 5, context = 3;
  std::string out = made::raw<std::int32_t>(
      {hidden, mlp, layers, heads, kv_heads, tied ? vocabulary : -vocabulary, context});
  const int numbers = vocabulary * hidden * (tied ? 1 : 2) + hidden + context * 2 +
                      layers * (2 * hidden + 2 * hidden * hidden + 2 * hidden * 2 + 3 * hidden * mlp);
  return out + std::string(std::size_t(4 * numbers), '\1');
}

}  // namespace

std::vector<std::string> seeds() { return {checkpoint(1, true), checkpoint(2, false)}; }

void parse(std::string_view bytes) {
  const auto model = llama::load_bin<float>(byte_source::memory(bytes, "input", "fuzz"));
  if (std::size_t(model.weights.size()) * sizeof(float) > bytes.size()) std::abort();
  for (const float w : model.weights)
    if (!std::isfinite(w)) std::abort();
}
