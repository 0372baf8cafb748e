// A Llama in a GGUF file.
#include "unroll/io/llama_gguf.hpp"

#include "tests/fuzz/target.hpp"
#include "tests/support/llama_gguf.hpp"

using namespace unroll;

std::vector<std::string> seeds() {
  std::vector<std::string> out;
  for (const bool tied : {true, false}) {
    auto c = made::gguf_shape(tied);
    c.layers = 1;
    const parameters<float> w(llama::weight_map(c).size());
    auto f = made::llama_keys(c);
    made::add_weights(f, c, w.data(), [&](const std::vector<float>& x) {
      return tied ? std::pair(2u, std::string(x.size() / 32 * 18, '\1'))
                  : std::pair(8u, std::string(x.size() / 32 * 34, '\1'));
    });
    if (tied) {
      f.f32("llama.rope.scaling.factor", 2).text("llama.rope.scaling.type", "yarn");
    } else {
      f.add("rope_freqs.weight", {4}, {1, 2, 3, 4});
    }
    out.push_back(f.bytes());
  }
  return out;
}

void parse(std::string_view bytes) {
  std::vector<gguf> parts;
  parts.emplace_back(byte_source::memory(bytes, "input", "fuzz"));
  const auto model = llama::load_gguf<float>(gguf_files(std::move(parts)));
  if (std::size_t(model.weights.size()) > 2 * bytes.size()) std::abort();  // 4 bits and more a number
  for (const float w : model.weights)
    if (!std::isfinite(w)) std::abort();
}
