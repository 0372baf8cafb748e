#pragma once

#include <optional>
#include <string>
#include <vector>

#include "unroll/io/file.hpp"
#include "unroll/io/json.hpp"
#include "unroll/llama/config.hpp"
#include "unroll/text/tokenizer_gguf.hpp"

namespace unroll::llama {

namespace detail {

/// The ids of "eos_token_id", a number or a list of them; nothing where it is absent or null.
inline std::optional<std::vector<token>> read_end_tokens(const json_members& m, index_t vocabulary) {
  const auto* v = m.find("eos_token_id");
  if (!v) return {};
  std::vector<token> ends;
  for (const auto& id : v->is_array() ? *v : nlohmann::json::array({*v})) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= std::uint64_t(vocabulary))
      m.refuse("eos_token_id", "one or several of the ids 0 to " + std::to_string(vocabulary - 1));
    ends.push_back(id.get<token>());
  }
  return ends;
}

}  // namespace detail

/// The ids of which each ends a text, from the bytes of a generation_config.json; nothing where it names
/// none. `name` stands for the file in messages. Throws unroll::error on ids beyond the vocabulary, and on
/// every option that changes what is written and is not implemented. What is left to the caller of generate()
/// is not read: how a token is drawn and how many are wanted.
inline std::optional<std::vector<token>> parse_generation_config(std::string_view bytes,
                                                                 const std::string& name, index_t vocabulary,
                                                                 const std::string& function) {
  const nlohmann::json file = parse_json(bytes, function, name);
  const json_members m(file, function, name);
  auto ends = detail::read_end_tokens(m, vocabulary);
  for (const char* key :
       {"repetition_penalty", "encoder_repetition_penalty", "num_beams", "num_beam_groups", "guidance_scale"})
    if (m.number(key, 1) != 1) m.refuse(key, "1");
  for (const char* key : {"min_length", "min_new_tokens", "no_repeat_ngram_size",
                          "encoder_no_repeat_ngram_size", "penalty_alpha"})
    if (m.number(key, 0) != 0) m.refuse(key, "0");
  for (const char* key : {"renormalize_logits", "remove_invalid_values", "token_healing"})
    if (m.truth(key, false)) m.refuse(key, "false");
  static constexpr const char* drawn = "how a token is drawn is for the caller to say";
  static constexpr const char* many = "how many are wanted is for the caller to say";
  static constexpr const char* beams = "of several beams, which are refused";
  static constexpr const char* helpers = "a way to the same tokens";
  static constexpr const char* form = "form of what transformers returns";
  static constexpr const char* outside = "of texts before they are continued";
  static constexpr harmless_key harmless[] = {
      {"_from_model_config", "what wrote it"},
      {"transformers_version", "what wrote it"},
      {"trust_remote_code", "what wrote it"},
      {"bos_token_id", outside},
      {"pad_token_id", outside},
      {"decoder_start_token_id", outside},
      {"do_sample", drawn},
      {"temperature", drawn},
      {"top_k", drawn},
      {"top_p", drawn},
      {"top_h", drawn},
      {"min_p", drawn},
      {"typical_p", drawn},
      {"epsilon_cutoff", drawn},
      {"eta_cutoff", drawn},
      {"max_length", many},
      {"max_new_tokens", many},
      {"max_time", many},
      {"num_return_sequences", many},
      {"early_stopping", beams},
      {"length_penalty", beams},
      {"diversity_penalty", beams},
      {"use_cache", helpers},
      {"use_mtp", helpers},
      {"cache_implementation", helpers},
      {"cache_config", helpers},
      {"max_cache_len", helpers},
      {"return_legacy_cache", helpers},
      {"low_memory", helpers},
      {"prefill_chunk_size", helpers},
      {"compile_config", helpers},
      {"disable_compile", helpers},
      {"continuous_batching_config", helpers},
      {"is_assistant", helpers},
      {"num_assistant_tokens", helpers},
      {"num_assistant_tokens_schedule", helpers},
      {"assistant_confidence_threshold", helpers},
      {"assistant_early_exit", helpers},
      {"assistant_lookbehind", helpers},
      {"assistant_ensemble_weight", helpers},
      {"target_lookbehind", helpers},
      {"prompt_lookup_num_tokens", helpers},
      {"max_matching_ngram_size", helpers},
      {"speculation_type", helpers},
      {"output_attentions", form},
      {"output_hidden_states", form},
      {"output_scores", form},
      {"output_logits", form},
      {"return_dict_in_generate", form},
  };
  m.refuse_unknown(harmless);
  return ends;
}

/// The ids of which each ends a text that the model in this folder writes: those of its
/// generation_config.json, or where that names none of its config.json; of a GGUF file those of its keys; no
/// ids where nothing names one, or where `model` is another file. Throws unroll::error, which names the file,
/// as parse_generation_config() does.
inline std::vector<token> load_end_tokens(const std::filesystem::path& model, const config& c) {
  const char* function = "load_end_tokens";
  const auto bytes = [&](const std::filesystem::path& p) { return read_file(p, function); };
  std::error_code code;
  const auto status = std::filesystem::status(model, code);
  if (!std::filesystem::status_known(status))
    unroll::detail::fail_file(function, model, "cannot be reached: " + code.message());
  if (std::filesystem::is_regular_file(status) && is_gguf(byte_source::open(model, function)))
    return gguf_end_tokens(gguf::open(model, function), c.vocabulary);
  if (!std::filesystem::is_directory(status)) return {};
  if (const auto file = model / "generation_config.json"; std::filesystem::exists(file, code) || code)
    if (auto ends =
            parse_generation_config(bytes(file), unroll::detail::quoted_path(file), c.vocabulary, function))
      return *ends;
  const auto file = model / "config.json";
  const nlohmann::json root = parse_json(bytes(file), function, unroll::detail::quoted_path(file));
  return detail::read_end_tokens(json_members(root, function, unroll::detail::quoted_path(file)),
                                 c.vocabulary)
      .value_or(std::vector<token>());
}

}  // namespace unroll::llama
