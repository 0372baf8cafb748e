// A checkpoint of llama2.c, of each of its versions.
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

// Of a version with a header: ones where they are float32, else 1 and the scale 1 for groups of 2.
std::string with_version(std::int32_t version, bool tied) {
  const std::int32_t hidden = 4, mlp = 3, layers = 2, heads = 2, kv_heads = 1, vocabulary = 5, context = 3;
  std::string out =
      "24ka" + made::raw<std::int32_t>({version, hidden, mlp, layers, heads, kv_heads, vocabulary, context});
  out += tied ? '\1' : '\0';
  out += made::raw<std::int32_t>({version == 2 ? 2 : 0}) + std::string(215, '\0');
  const int norms = hidden * (2 * layers + 1);
  const int others = vocabulary * hidden * (tied ? 1 : 2) +
                     layers * (2 * hidden * hidden + 2 * hidden * 2 + 3 * hidden * mlp);
  return out + std::string(std::size_t(4 * norms + (version == 2 ? 3 : 4) * others), '\1');
}

}  // namespace

std::vector<std::string> seeds() {
  return {checkpoint(1, true), checkpoint(2, false), with_version(1, true), with_version(2, false)};
}

void parse(std::string_view bytes) {
  const auto model = llama::load_bin<float>(byte_source::memory(bytes, "input", "fuzz"));
  if (std::size_t(model.weights.size()) > bytes.size()) std::abort();  // of int8 each weight has a byte
  for (const float w : model.weights)
    if (!std::isfinite(w)) std::abort();
}
