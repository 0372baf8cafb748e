#pragma once

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "unroll/io/json.hpp"
#include "unroll/text/vocabulary.hpp"

namespace unroll::llama::detail {

inline std::string show_json(const nlohmann::json& v) {
  if (v.is_string()) return unroll::detail::in_quotes(v.get_ref<const std::string&>());
  return v.is_structured() ? std::string("a ") + v.type_name() : v.dump();
}
/// Null where `object` has no such member, or is none.
inline const nlohmann::json& member_of(const nlohmann::json& object, const char* key) {
  static const nlohmann::json null;
  const auto at = object.find(key);  // end() also where it is no object
  return at == object.end() ? null : *at;
}

/// The expressions of a "Split" that are known, and the rules that cut as they do.
struct known_expression {
  const char* text;
  cut_rule rule;
};
inline constexpr known_expression known_expressions[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", cut_rule::gpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     cut_rule::llama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     cut_rule::qwen2},
};

/// Reads what a tokenizer.json does around its model: before it (normalizer, pre_tokenizer), behind it
/// (post_processor) and on the way back (decoder). Every step that is not known is refused by its type.
class tokenizer_steps {
 public:
  using json = nlohmann::json;

  explicit tokenizer_steps(const std::string& name) : name_(name) {}

  /// Nothing, or steps that change characters, and behind them any of: a mark in front, blanks replaced by
  /// the mark.
  void read_normalizer(const json& normalizer, tokenizer_options& options) const {
    const char* known = "NFC, NFD, NFKC, NFKD and Nmt, and behind them Prepend and Replace for U+2581";
    each(normalizer, "normalizer", "normalizers", known, [&](const std::string& type, const json_members& s) {
      const auto step = std::find(std::begin(step_names), std::end(step_names), type);
      if (step != std::end(step_names)) {
        if (options.prefix || options.blank != " ")
          refuse("has the normalizer " + unroll::detail::in_quotes(type) + " behind one that writes blanks");
        options.characters.push_back(character_step(step - std::begin(step_names)));
        if (options.characters.size() > most_steps)
          refuse("has more than " + std::to_string(most_steps) + " normalizers that change characters");
        return true;
      }
      if (type == "Prepend" && !options.prefix && s.text("prepend", "") == blank_mark)
        return options.prefix = true;
      if (type != "Replace" || !replaces(s, " ", blank_mark)) return false;
      options.blank = blank_mark;
      return true;
    });
    if (options.prefix && options.blank == " ")
      refuse("puts U+2581 in front but does not replace blanks by it");
  }

  /// Metaspace alone, or Digits and Split by known expressions with a ByteLevel as the last one.
  void read_pre_tokenizer(const json& pre_tokenizer, tokenizer_options& options) const {
    const bool normalised = options.prefix || options.blank != " ";
    bool ended = false;
    std::size_t steps = 0;
    each(pre_tokenizer, "pre_tokenizer", "pretokenizers", "Metaspace, Digits, Split and ByteLevel",
         [&](const std::string& type, const json_members& s) {
           const auto out_of_place = [&](const std::string& why) {
             refuse("has a pre_tokenizer of type " + unroll::detail::in_quotes(type) + " " + why);
           };
           if (normalised) out_of_place("beside a normalizer that writes blanks");
           if (ended) out_of_place("behind the last of its kind");
           if (type == "Metaspace") {
             if (steps > 0) out_of_place("behind others");
             read_metaspace(s, options);
           } else if (type == "Digits") {
             options.cuts.push_back(s.truth("individual_digits", false) ? cut_rule::digits
                                                                        : cut_rule::digit_runs);
           } else if (type == "Split") {
             options.cuts.push_back(expression(s));
           } else if (type == "ByteLevel") {
             options.byte_level = true;
             options.prefix = s.truth("add_prefix_space", true);
             options.blanks = blank_step::pre_tokenizer;
             if (options.prefix && steps > 0)
               s.refuse("add_prefix_space", "false behind other pre_tokenizers");
             if (s.truth("use_regex", true)) options.cuts.push_back(cut_rule::gpt2);
             s.find("trim_offsets");
           } else {
             return false;
           }
           ended = type == "Metaspace" || type == "ByteLevel";
           if (++steps > most_steps)
             refuse("has more than " + std::to_string(most_steps) + " pre_tokenizers, one behind the other");
           return true;
         });
    if (!ended)
      refuse("has a pre_tokenizer of type " + show_json(member_of(pre_tokenizer, "type")) +
             " without a Metaspace or ByteLevel");
  }

  /// Nothing, or what undoes such steps and byte_fallback: decode() does that without being told.
  void check_decoder(const json& decoder, const tokenizer_options& options) const {
    const char* known = "Replace, Metaspace, Strip, ByteFallback and Fuse, of bytes ByteLevel and Fuse";
    each(decoder, "decoder", "decoders", known, [&](const std::string& type, const json_members& s) {
      if (type == "ByteLevel") {
        for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) s.find(key);
        return options.byte_level;
      }
      if (options.byte_level) return type == "Fuse";
      if (type == "Replace") return replaces(s, blank_mark, " ");
      if (type == "Metaspace") {
        for (const char* key : {"prepend_scheme", "split", "add_prefix_space", "str_rep"}) s.find(key);
        return s.text("replacement", "") == blank_mark;
      }
      if (type == "Strip")
        return s.text("content", "") == " " && s.number("start", 0) == 1 && s.number("stop", 0) == 0;
      return type == "ByteFallback" || type == "Fuse";
    });
  }

  /// The text and the id of the token that a post_processor puts in front of a single text, where it does.
  std::optional<std::pair<std::string, json>> front(const json& post_processor) const {
    std::optional<std::pair<std::string, json>> found;
    bool template_seen = false;
    const char* known = "ByteLevel and one TemplateProcessing";
    each(post_processor, "post_processor", "processors", known,
         [&](const std::string& type, const json_members& s) {
           if (type == "ByteLevel") {  // of offsets
             for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) s.find(key);
             return true;
           }
           if (type != "TemplateProcessing" || template_seen) return false;
           template_seen = true;
           s.find("pair");  // of two texts
           const json* single = s.find("single");
           const json* tokens = s.find("special_tokens");
           if (!single || !single->is_array()) s.refuse("single", "a list of its parts");
           for (const json& part : *single) {
             if (!member_of(part, "Sequence").is_null()) break;
             const json& id = member_of(member_of(part, "SpecialToken"), "id");
             if (!id.is_string()) s.refuse("single", "a list of special tokens and sequences");
             const json null,
                 &token = tokens ? member_of(*tokens, id.get_ref<const std::string&>().c_str()) : null;
             const json& ids = member_of(token, "ids");
             if (!ids.is_array() || ids.size() != 1 || found)
               refuse("puts " + show_json(id) + " in front of a text, expected one token of one id at most");
             found.emplace(id.get<std::string>(), ids[0]);
           }
           return true;
         });
    return found;
  }

 private:
  static constexpr const char* step_names[] = {"Nmt", "NFC", "NFD", "NFKC", "NFKD"};  // of character_step
  static constexpr std::size_t most_steps = 16;  // a text is cut by each of the pieces of the one before

  [[noreturn]] void refuse(const std::string& why) const { fail("load_tokenizer", name_, why); }

  /// Calls step(type, object) for a part, or for each of the list that a "Sequence" has.
  template <class Step>
  void each(const json& part, const std::string& what, const char* list_name, const char* known,
            Step&& step) const {
    const auto one = [&](const json& s) {
      const json& type = member_of(s, "type");
      if (!type.is_string()) refuse("has a " + what + " without a type");
      const json_members members(s, "load_tokenizer", name_ + ", " + what);
      members.find("type");
      if (!step(type.get_ref<const std::string&>(), members))
        refuse("has a " + what + " " + show_json(type) + " that is not of the kinds that are read (" + known +
               ")");
      members.refuse_unknown();
    };
    if (member_of(part, "type") != "Sequence") return one(part);
    const json_members sequence(part, "load_tokenizer", name_ + ", " + what);
    for (const char* key : {"type", list_name}) sequence.find(key);
    sequence.refuse_unknown();
    const json& list = member_of(part, list_name);
    if (!list.is_array()) refuse("has a " + what + " \"Sequence\" without a list of " + list_name);
    for (const json& s : list) one(s);
  }

  static bool replaces(const json_members& s, std::string_view from, std::string_view to) {
    const json* pattern = s.find("pattern");
    return pattern && pattern->is_object() && pattern->size() == 1 &&
           pattern->value("String", json()) == from && s.text("content", "") == to;
  }

  static void read_metaspace(const json_members& s, tokenizer_options& options) {
    for (const char* key : {"replacement", "str_rep"})
      if (s.text(key, blank_mark.data()) != blank_mark) s.refuse(key, "U+2581");
    const std::string scheme = s.text("prepend_scheme", "always");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      s.refuse("prepend_scheme", "always, first or never");
    if (!s.truth("add_prefix_space", true) && scheme != "never")
      s.refuse("add_prefix_space", "true where prepend_scheme is " + scheme);
    options.blank = blank_mark;
    options.prefix = scheme != "never";
    options.blanks = scheme == "first" ? blank_step::first_stretch : blank_step::pre_tokenizer;
    if (s.truth("split", true)) options.cuts.push_back(cut_rule::words);
  }

  cut_rule expression(const json_members& s) const {
    const json null, *pattern = s.find("pattern"), &text = member_of(pattern ? *pattern : null, "Regex");
    if (s.text("behavior", "") != "Isolated") s.refuse("behavior", "\"Isolated\"");
    if (s.truth("invert", false)) s.refuse("invert", "false");
    for (const known_expression& known : known_expressions)
      if (text == known.text) return known.rule;
    if (!text.is_string()) s.refuse("pattern", "a \"Regex\"");
    refuse("has a pre_tokenizer \"Split\" by the expression " + show_json(text) +
           ", which is not known (known are those of GPT-2, Llama 3 and Qwen 2)");
  }

  const std::string& name_;
};

}  // namespace unroll::llama::detail
