// Calls what puts texts together, so that it is inlined and optimised; see check.sh.
#include "unroll/io/checkpoint.hpp"
#include "unroll/llama.hpp"
#if __has_include(<nlohmann/json.hpp>)
#include "unroll/diagnose/json_sink.hpp"
#include "unroll/io/llama_checkpoint.hpp"
#include "unroll/io/lora_file.hpp"
#include "unroll/text/tokenizer_file.hpp"
#endif

std::string texts(const std::filesystem::path& path, const std::vector<unroll::row>& rows,
                  const unroll::measurement& m) {
  using namespace unroll;
  std::string out = to_csv(rows) + to_table(rows);
  out += to_csv(std::vector{to_row("name", m), to_short_row("name", m)});
  write_csv(path, rows);
  out += read_file(path);
  write_file(path, out);
  const data::text bytes(path);
  out += bytes.decode(bytes.encode("text"));
  checkpoint saved = load_checkpoint(path);
  out += saved.text("name");
  save_checkpoint(path, saved);
  out += to_string(parse_policy("keep_all"));
#if __has_include(<nlohmann/json.hpp>)
  const llama::tokenizer t = llama::load_tokenizer(path);
  out += t.decode(t.encode("text", true));
  out += data::documents(path, t)[0].name;
  const auto model = llama::load_llama<float>(path);
  const auto adapters = llama::load_lora<float>(path, model.shape);
  llama::save_lora<float>(path, model.shape, adapters.map, adapters.theta);
  llama::save_llama<float>(path, model.shape, model.weights);
  write_json_lines(path, rows);
#endif
  return out;
}
