// A config.json and the tensors beside it: one byte that says how long the first is, in units of 16, then
// both.
#include "tests/fuzz/target.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;

namespace {

std::string folder(bool tied) {
  auto c = made::tiny(tied);
  c.layers = 1;
  c.hidden = 2;
  c.intermediate_size = 1;
  c.heads = c.kv_heads = 1;
  c.vocabulary = 3;
  const llama::weight_map map(c);
  std::string text = llama::config_text(c);
  text.resize((text.size() + 15) / 16 * 16, ' ');
  return char(text.size() / 16) + text +
         made::safetensors(made::tensors(map, made::counted<float>(map.size())));
}

}  // namespace

std::vector<std::string> seeds() { return {folder(true), folder(false)}; }

void parse(std::string_view bytes) {
  if (bytes.empty()) return;
  const std::size_t length =
      std::min(bytes.size() - 1, std::size_t(16) * static_cast<unsigned char>(bytes[0]));
  const auto c = llama::parse_config(bytes.substr(1, length), "config.json");
  std::vector<safetensors> files;
  files.emplace_back(byte_source::memory(bytes.substr(1 + length), "model.safetensors", "fuzz"));
  const auto model = llama::load_tensors<float>(c, tensor_files(std::move(files)));
  if (std::size_t(model.weights.size()) * 2 > bytes.size()) std::abort();
}
