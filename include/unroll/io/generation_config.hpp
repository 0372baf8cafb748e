#pragma once

#include <optional>
#include <string>
#include <vector>

#include "unroll/io/file.hpp"
#include "unroll/io/json.hpp"
#include "unroll/llama/sampling.hpp"
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

/// What a generation_config.json says of the texts that its model writes.
struct generation_defaults {
  std::optional<std::vector<token>> ends = {};  ///< each ends a text; nothing: the file names none
  token bos = -1;                               ///< begins a text; -1: the file names none
  bool draws = false;  ///< "do_sample": otherwise transformers takes the most probable token
  sampling how = {};   ///< as transformers draws where it draws: top_k is 50 where the file does not say
};

/// From the bytes of a generation_config.json; `name` stands for the file in messages. Throws unroll::error
/// on ids beyond the vocabulary, on numbers out of range and on every option that changes what is written and
/// is not implemented. How many tokens are wanted is for the caller of generate() to say.
inline generation_defaults parse_generation_defaults(std::string_view bytes, const std::string& name,
                                                     index_t vocabulary, const std::string& function) {
  const nlohmann::json file = parse_json(bytes, function, name);
  const json_members m(file, function, name);
  generation_defaults out;
  out.ends = detail::read_end_tokens(m, vocabulary);
  if (const auto* v = m.find("bos_token_id")) {
    if (!v->is_number_unsigned() || v->get<std::uint64_t>() >= std::uint64_t(vocabulary))
      m.refuse("bos_token_id", "one of the ids 0 to " + std::to_string(vocabulary - 1));
    out.bos = v->get<token>();
  }
  out.draws = m.truth("do_sample", false);
  sampling& how = out.how;
  how.temperature = m.number("temperature", 1);
  how.top_p = m.number("top_p", 1);
  how.repetition_penalty = m.number("repetition_penalty", 1);
  if (!(how.temperature > 0 && how.temperature <= 1e9)) m.refuse("temperature", "above 0");
  if (!(how.top_p >= 0 && how.top_p <= 1)) m.refuse("top_p", "from 0 to 1");
  if (!(how.repetition_penalty > 0 && how.repetition_penalty <= 1e9))
    m.refuse("repetition_penalty", "above 0");
  how.top_k = m.null("top_k") ? 0 : 50;
  if (const auto* v = m.find("top_k")) {
    if (!v->is_number_unsigned() || v->get<std::uint64_t>() > std::uint64_t{1} << 31)
      m.refuse("top_k", "a whole number from 0 (all) to 2^31");
    how.top_k = v->get<index_t>();
  }
  if (how.top_p == 0) how.top_p = 1, how.top_k = 1;  // the most probable one
  // other ways to draw, which do nothing unless it draws
  for (const auto& [key, nothing] :
       {std::pair("typical_p", 1.0), std::pair("min_p", 0.0), std::pair("top_h", 0.0),
        std::pair("epsilon_cutoff", 0.0), std::pair("eta_cutoff", 0.0)})
    if (m.number(key, nothing) != nothing && out.draws) m.refuse(key, nlohmann::json(nothing).dump());
  for (const char* key : {"encoder_repetition_penalty", "num_beams", "num_beam_groups", "guidance_scale"})
    if (m.number(key, 1) != 1) m.refuse(key, "1");
  for (const char* key : {"min_length", "min_new_tokens", "no_repeat_ngram_size",
                          "encoder_no_repeat_ngram_size", "penalty_alpha"})
    if (m.number(key, 0) != 0) m.refuse(key, "0");
  for (const char* key : {"renormalize_logits", "remove_invalid_values", "token_healing"})
    if (m.truth(key, false)) m.refuse(key, "false");
  static constexpr const char* many = "how many are wanted is for the caller to say";
  static constexpr const char* beams = "of several beams, which are refused";
  static constexpr const char* helpers = "a way to the same tokens";
  static constexpr const char* form = "form of what transformers returns";
  static constexpr const char* outside = "of texts before they are continued";
  static constexpr harmless_key harmless[] = {
      {"_from_model_config", "what wrote it"},
      {"transformers_version", "what wrote it"},
      {"trust_remote_code", "what wrote it"},
      {"pad_token_id", outside},
      {"decoder_start_token_id", outside},
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
  return out;
}

/// The ids of which each ends a text, as parse_generation_defaults() reads them. Refuses a
/// repetition_penalty.
inline std::optional<std::vector<token>> parse_generation_config(std::string_view bytes,
                                                                 const std::string& name, index_t vocabulary,
                                                                 const std::string& function) {
  auto said = parse_generation_defaults(bytes, name, vocabulary, function);
  if (said.how.repetition_penalty != 1)
    fail(function, name,
         "\"repetition_penalty\" is " + nlohmann::json(said.how.repetition_penalty).dump() + ", expected 1");
  return std::move(said.ends);
}

/// The same of a GGUF file: the ends of gguf_end_tokens(), and how tokens are drawn from general.sampling.*,
/// which the package gguf 0.19.0 writes of a generation_config.json: temp, top_k, top_p; penalty_repeat where
/// penalty_last_n is -1, all tokens. It draws where one of them is there. What is absent is as in that file,
/// and top_p counts behind the temperature, as in transformers; llama.cpp has other defaults and orders.
/// Refused by key: other ways to draw, unless they do nothing, a sequence of them, and keys that nobody
/// knows.
inline generation_defaults gguf_generation_defaults(const gguf& file, index_t vocabulary) {
  generation_defaults out;
  out.ends = gguf_end_tokens(file, vocabulary);
  const std::string at = "general.sampling.";
  static constexpr std::string_view known[] = {"temp",           "top_k", "top_p",           "penalty_repeat",
                                               "penalty_last_n", "min_p", "xtc_probability", "mirostat",
                                               "sequence"};
  static constexpr harmless_key harmless[] = {{"xtc_threshold", "of xtc_probability"},
                                              {"mirostat_tau", "of mirostat"},
                                              {"mirostat_eta", "of mirostat"}};
  file.refuse_unknown(at, known, harmless);
  const auto number = [&](const char* key, double otherwise, double least, double most) {
    if (!file.has(at + key)) return otherwise;
    const double x = double(file.get<float>(at + key));
    if (!(x >= least && x <= most))
      file.refuse_key(at + key, number_text(x), "from " + number_text(least) + " to " + number_text(most));
    out.draws = true;
    return x;
  };
  out.how = {.temperature = number("temp", 1, 0, 1e9), .top_p = number("top_p", 1, 0, 1), .top_k = 50};
  if (const std::string key = at + "top_k"; file.has(key)) {
    const auto k = file.get<std::int32_t>(key);
    out.how.top_k = std::max(k, 0);  // below 1: all, as in llama.cpp
    out.draws = true;
  }
  if (out.how.top_p == 0) out.how.top_p = 1, out.how.top_k = 1;  // the most probable one
  out.how.repetition_penalty = number("penalty_repeat", 1, 1e-9, 1e9);
  if (const auto last = file.get<std::int32_t>(at + "penalty_last_n", 64);
      out.how.repetition_penalty != 1 && last != -1)
    file.refuse_key(at + "penalty_last_n", std::to_string(last), "-1, all tokens");
  for (const char* key : {"min_p", "xtc_probability"})
    if (const float x = file.get<float>(at + key, 0); x != 0)
      file.refuse_key(at + key, number_text(double(x)), "0");
  if (const auto kind = file.get<std::int32_t>(at + "mirostat", 0); kind != 0)
    file.refuse_key(at + "mirostat", std::to_string(kind), "0");
  if (file.has(at + "sequence"))
    file.refuse_key(at + "sequence", unroll::detail::in_quotes(file.get<std::string>(at + "sequence")),
                    "absent");
  return out;
}

/// What the folder of a model says of its texts: its generation_config.json, and where that names no end its
/// config.json; of a GGUF file its keys; nothing where `model` is another file. Throws unroll::error, which
/// names the file, as parse_generation_defaults() does.
inline generation_defaults load_generation_defaults(
    const std::filesystem::path& model, const config& c,
    const std::string& function = "load_generation_defaults") {
  const auto bytes = [&](const std::filesystem::path& p) { return read_file(p, function); };
  std::error_code code;
  const auto status = std::filesystem::status(model, code);
  if (!std::filesystem::status_known(status))
    unroll::detail::fail_file(function, model, "cannot be reached: " + code.message());
  generation_defaults out;
  if (std::filesystem::is_regular_file(status) && is_gguf(byte_source::open(model, function)))
    return gguf_generation_defaults(gguf::open(model, function), c.vocabulary);
  if (!std::filesystem::is_directory(status)) return out;
  if (const auto file = model / "generation_config.json"; std::filesystem::exists(file, code) || code)
    out = parse_generation_defaults(bytes(file), unroll::detail::quoted_path(file), c.vocabulary, function);
  if (out.ends) return out;
  const auto file = model / "config.json";
  const nlohmann::json root = parse_json(bytes(file), function, unroll::detail::quoted_path(file));
  const json_members m(root, function, unroll::detail::quoted_path(file));
  out.ends = detail::read_end_tokens(m, c.vocabulary);
  return out;
}

/// The ends alone; no ids where neither file names one.
inline std::vector<token> load_end_tokens(const std::filesystem::path& model, const config& c) {
  return load_generation_defaults(model, c, "load_end_tokens").ends.value_or(std::vector<token>());
}

}  // namespace unroll::llama
