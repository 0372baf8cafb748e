#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "unroll/io/json.hpp"
#include "unroll/text/token.hpp"

namespace unroll::llama {

/// What a tokenizer_config.json says that decides about the ids of the tokenizer.json beside it.
struct tokenizer_config {
  std::string name = {};                                  ///< of the file, for messages
  std::optional<std::string> bos = {}, eos = {};          ///< else "<s>" and "</s>" where these are pieces
  std::optional<bool> prefix = {};                        ///< whether a blank is put in front of a text
  std::vector<std::pair<token, std::string>> added = {};  ///< texts that have these ids
};

/// Reads the bytes of a tokenizer_config.json; `name` stands for the file in messages. Throws unroll::error
/// on keys that are neither implemented nor known to change no ids: tokenizer.json decides about those, as it
/// does for the library tokenizers.
inline tokenizer_config parse_tokenizer_config(std::string_view bytes, const std::string& name) {
  const nlohmann::json file = parse_json(bytes, "load_tokenizer", name);
  const json_members m(file, "load_tokenizer", name);
  tokenizer_config c{.name = name};
  const auto text = [&](const char* key) -> std::optional<std::string> {  // itself, or an object that has it
    const auto* v = m.find(key);
    if (!v) return {};
    const auto content = v->is_object() ? v->find("content") : v->end();
    if (v->is_object() && content != v->end()) v = &*content;
    if (!v->is_string()) m.refuse(key, "a text, or an object with its content");
    return v->get<std::string>();
  };
  c.bos = text("bos_token");
  c.eos = text("eos_token");
  if (m.find("add_prefix_space")) c.prefix = m.truth("add_prefix_space", true);
  if (m.truth("split_special_tokens", false)) m.refuse("split_special_tokens", "false");
  if (const auto* added = m.find("added_tokens_decoder")) {
    if (!added->is_object()) m.refuse("added_tokens_decoder", "an object of ids and tokens");
    for (const auto& [id, options] : added->items()) {
      const bool number = !id.empty() && id.size() < 10 && id.find_first_not_of("0123456789") == id.npos;
      const auto content = options.find("content");
      if (!number || content == options.end() || !content->is_string())
        m.refuse("added_tokens_decoder", "an object of ids and tokens");
      c.added.emplace_back(token(std::stoi(id)), content->get<std::string>());
    }
  }
  static constexpr const char* outside = "what stands around a text is for the caller of encode() to say";
  static constexpr const char* shown = "of the way back, which decode() does by the pieces alone";
  static constexpr const char* batches = "of batches";
  static constexpr const char* library = "chooses a class of transformers";
  static constexpr const char* rebuilds =
      "transformers 5 rebuilds the normalizer by it; here, as in tokenizers, tokenizer.json decides";
  static constexpr const char* marks = "names a mark among the added tokens of tokenizer.json";
  static constexpr harmless_key harmless[] = {
      {"add_bos_token", outside},
      {"add_eos_token", outside},
      {"chat_template", outside},
      {"use_default_system_prompt", outside},
      {"clean_up_tokenization_spaces", shown},
      {"spaces_between_special_tokens", shown},
      {"errors", shown},
      {"response_schema", shown},
      {"model_max_length", batches},
      {"max_length", batches},
      {"stride", batches},
      {"padding_side", batches},
      {"truncation_side", batches},
      {"truncation_strategy", batches},
      {"pad_to_multiple_of", batches},
      {"pad_token_type_id", batches},
      {"model_input_names", batches},
      {"auto_map", library},
      {"backend", library},
      {"from_slow", library},
      {"is_local", library},
      {"legacy", rebuilds},
      {"local_files_only", library},
      {"name_or_path", library},
      {"processor_class", library},
      {"slow_tokenizer_class", library},
      {"sp_model_kwargs", library},
      {"special_tokens_map_file", library},
      {"tokenizer_class", library},
      {"tokenizer_file", library},
      {"transformers_version", library},
      {"trust_remote_code", library},
      {"use_fast", library},
      {"verbose", library},
      {"additional_special_tokens", marks},
      {"bos_token_id", marks},
      {"cls_token", marks},
      {"eos_token_id", marks},
      {"extra_special_tokens", marks},
      {"mask_token", marks},
      {"model_specific_special_tokens", marks},
      {"pad_token", marks},
      {"pad_token_id", marks},
      {"sep_token", marks},
      {"unk_token", marks},
      {"unk_token_id", marks},
  };
  m.refuse_unknown(harmless);
  return c;
}

}  // namespace unroll::llama
