// The keys, the table and the tensors of a GGUF file.
#include "unroll/io/gguf.hpp"

#include "tests/fuzz/target.hpp"
#include "tests/support/gguf_files.hpp"

using namespace unroll;

std::vector<std::string> seeds() {
  made::gguf_file plain, packed;
  plain.u32("general.alignment", 64).text("t", "text").texts("ts", {"a", "", "b"}).truth("b", true);
  plain.alignment = 64;
  plain.add("a", {3, 2}, {1, 2, 3, 4, 5, 6}).add("b", {2}, 1, std::string(4, '\1'));
  packed.version = 2;
  const std::pair<std::uint32_t, std::size_t> blocks[] = {{2, 18}, {3, 20},   {6, 22},   {7, 24},
                                                          {8, 34}, {12, 144}, {13, 176}, {14, 210}};
  for (const auto& [kind, bytes] : blocks)
    packed.add("t" + std::to_string(kind), {kind < 10 ? 32u : 256u}, kind, std::string(bytes, '\x2a'));
  return {plain.bytes(), packed.bytes()};
}

void parse(std::string_view bytes) {
  const gguf g(byte_source::memory(bytes, "input", "fuzz"));
  std::uint64_t covered = 0;
  for (const auto& [name, t] : g.tensors()) {
    covered += t.bytes;
    std::vector<float> x(std::size_t(t.size));
    g.read(name, 0, view<float>(x), true);
  }
  if (covered > bytes.size()) std::abort();
  for (const auto& [key, v] : g.keys()) {
    if (v.type == gguf_type::text && v.is_array) g.list<std::string>(key);
    if (v.type == gguf_type::f32 && v.is_array) g.list<float>(key);
    if (v.type == gguf_type::boolean && !v.is_array) g.get<bool>(key);
  }
}
