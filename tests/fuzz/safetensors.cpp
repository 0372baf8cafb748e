// The header and the tensors of a .safetensors file, and the index of a sharded one.
#include "unroll/io/safetensors.hpp"

#include "tests/fuzz/target.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;

std::vector<std::string> seeds() {
  return {made::safetensors({{"a", "F32", {2, 3}, made::raw<float>({1, 2, 3, 4, 5, 6})},
                             {"b", "F16", {2}, made::raw<std::uint16_t>({0x3c00, 1})},
                             {"c", "BF16", {1, 1}, made::raw<std::uint16_t>({0x3f80})},
                             {"d", "I64", {}, std::string(8, '\0')}}),
          made::with_header(R"({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [0, 7],
                                "data_offsets": [0, 0]}}   )",
                            ""),
          R"({"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors", "b": "model-2"}})"};
}

void parse(std::string_view bytes) {
  const auto source = [&] { return byte_source::memory(bytes, "input", "fuzz"); };
  if (bytes.starts_with('{')) {
    tensor_files::parse_index(source());
    return;
  }
  const safetensors s(source());
  std::uint64_t covered = 0;
  for (const auto& t : s.tensors()) {
    covered += t.second.last - t.second.first;
    if (t.second.dtype == "I64") continue;
    std::vector<float> narrow(std::size_t(t.second.size));
    std::vector<double> wide(std::size_t(t.second.size));
    s.read(t.first, 0, view<float>(narrow), true);
    s.read(t.first, 0, view<double>(wide));
    if (!std::equal(narrow.begin(), narrow.end(), wide.begin())) std::abort();
  }
  if (covered > bytes.size()) std::abort();
}
