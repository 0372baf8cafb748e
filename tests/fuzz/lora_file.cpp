// An adapter_config.json and the tensors beside it: one byte that says how long the first is, in units of 16,
// then both.
#include "unroll/io/lora_file.hpp"

#include "tests/fuzz/target.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;

namespace {

std::string folder(llama::lora_options o) {
  const auto c = made::tiny();
  const llama::lora_map map(c, o);
  const auto theta = made::counted<float>(map.size());
  std::vector<made::tensor> tensors;
  for (const auto& b : map.names().blocks())
    tensors.push_back(
        {b.name, "F32", file_shape(b),
         made::raw(std::vector<float>(theta.data() + b.offset, theta.data() + b.offset + b.size()))});
  std::string text = llama::adapter_config_text(c, o);
  text.resize((text.size() + 15) / 16 * 16, ' ');
  return char(text.size() / 16) + text + made::safetensors(tensors);
}

}  // namespace

std::vector<std::string> seeds() {
  llama::lora_options one;
  one.rank = 1;
  one.first_layer = 1;
  one.adapted = {false, true, false, false, false, false, false};
  llama::lora_options two;
  two.rank = 2;
  llama::lora_options by_patterns;
  by_patterns.modules = {{0, llama::layer_matrix::q, 1, 2}, {1, llama::layer_matrix::down, 2, 0.5}};
  by_patterns.bias = true;
  return {folder(one), folder(two), folder(by_patterns)};
}

void parse(std::string_view bytes) {
  if (bytes.empty()) return;
  const std::size_t length =
      std::min(bytes.size() - 1, std::size_t(16) * static_cast<unsigned char>(bytes[0]));
  auto c = made::tiny();
  c.pairs = llama::rope_pairs::neighbours;
  const auto o = llama::parse_adapter_config(bytes.substr(1, length), c, "adapter_config.json");
  std::vector<safetensors> files;
  files.emplace_back(byte_source::memory(bytes.substr(1 + length), "adapter_model.safetensors", "fuzz"));
  const auto a = llama::load_adapter_tensors<double>(c, o, tensor_files(std::move(files)));
  if (std::size_t(a.theta.size()) * 2 > bytes.size()) std::abort();
}
