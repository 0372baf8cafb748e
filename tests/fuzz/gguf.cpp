// The keys, the table, the tensors, the vocabulary and the ways to draw of a GGUF file.
#include "unroll/io/generation_config.hpp"

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
  made::gguf_file bytes, scores;
  bytes.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm");
  bytes.texts("tokenizer.ggml.tokens", {"<e>", "a", "b", "ab", "\xC4\xA0", "1"});
  bytes.texts("tokenizer.ggml.merges", {"a b"}).u32("tokenizer.ggml.unknown_token_id", 0);
  scores.text("tokenizer.ggml.model", "llama")
      .texts("tokenizer.ggml.tokens", {"u", "b", "e", "x", "xx", "<0x41>"});
  scores.array("tokenizer.ggml.scores", 6, 6, made::bytes_of(1.0f) + std::string(20, '\0'));
  std::string types;
  for (const std::int32_t t : {2, 3, 3, 1, 1, 6}) types += made::bytes_of(t);
  scores.array("tokenizer.ggml.token_type", 5, 6, types);
  made::gguf_file draws;
  const std::string at = "general.sampling.", i32 = made::bytes_of(std::uint32_t{5});
  draws.u32("tokenizer.ggml.eos_token_id", 3).f32(at + "temp", 0.5f).f32(at + "top_p", 0.75f);
  draws.key(at + "top_k", i32 + made::bytes_of(std::int32_t{20})).f32(at + "penalty_repeat", 1.25f);
  draws.key(at + "penalty_last_n", i32 + made::bytes_of(std::int32_t{-1})).f32(at + "min_p", 0);
  draws.f32(at + "xtc_probability", 0).key(at + "mirostat", i32 + made::bytes_of(std::int32_t{0}));
  return {plain.bytes(), packed.bytes(), bytes.bytes(), scores.bytes(), draws.bytes()};
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
  if (!g.has("tokenizer.ggml.model")) {
    const auto said = llama::gguf_generation_defaults(g, 12);
    const llama::sampling& how = said.how;
    if (!(how.temperature >= 0 && how.top_p > 0 && how.top_p <= 1 && how.top_k >= 0)) std::abort();
    if (!(how.repetition_penalty > 0)) std::abort();
    for (const llama::token end : said.ends.value_or(std::vector<llama::token>()))
      if (end < 0 || end >= 12) std::abort();
    return;
  }
  const auto words = llama::parse_tokenizer_gguf(g);
  words.decode(words.encode(bytes.substr(0, 200)));
}
