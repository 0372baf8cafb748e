#pragma once

#include <map>
#include "unroll/text/byte_level_tokenizer.hpp"
#include "unroll/text/tokenizer_config.hpp"
#include "unroll/text/tokenizer_steps.hpp"

namespace unroll::llama {

namespace detail {

/// Reads the parts of a tokenizer.json that decide about ids.
class tokenizer_json {
 public:
  using json = nlohmann::json;

  tokenizer_json(std::string_view bytes, const std::string& name)
      : name_(name), root_(parse_json(bytes, "load_tokenizer", name)) {}

  tokenizer read(const tokenizer_config& beside) {
    const json_members root(root_, "load_tokenizer", name_);
    const json* model_part = root.find("model");
    if (!model_part || !model_part->is_object()) refuse("has no \"model\", it is not a tokenizer.json");
    const json_members model(*model_part, "load_tokenizer", name_);
    if (const auto type = model.text("type", "BPE"); type != "BPE")
      refuse("has a model of type \"" + type + "\", expected \"BPE\" (the Llama kind)");
    for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
      if (const json* v = model.find(option); v && *v != "" && *v != 0.0)
        refuse(std::string("has ") + option + " " + show_json(*v) + ", expected none (the Llama kind)");
    for (const std::string option : {"truncation", "padding"})
      if (root.find(option.c_str()))
        root.refuse(option,
                    "null: ids are neither left out nor filled up (no_" + option + "() and save() clear it)");

    const tokenizer_steps steps(name_);
    tokenizer_options options{.prefix = false};
    if (const json* v = root.find("normalizer")) steps.read_normalizer(*v, options);
    const json* cuts = root.find("pre_tokenizer");
    if (cuts) steps.read_pre_tokenizer(*cuts, options);
    if (const json* v = root.find("decoder")) steps.check_decoder(*v, options);
    options.whole_pieces = model.truth("ignore_merges", false);
    if (options.whole_pieces && !cuts) refuse("ignores merges without a pre_tokenizer");
    options.fuse_unknown = model.truth("fuse_unk", false);
    const json* vocabulary = model.find("vocab");
    if (!vocabulary || !vocabulary->is_object()) refuse("has no \"vocab\" of pieces and ids");
    const json* added = root.find("added_tokens");
    if (added && !added->is_array()) refuse("has added_tokens that are no list");

    pieces_.resize(vocabulary->size() + (added ? count_new(*added, *vocabulary) : 0));
    const bool bytes = model.truth("byte_fallback", false);
    if (bytes && options.byte_level) refuse("has a ByteLevel pre_tokenizer and byte_fallback, expected one");
    for (const auto& [text, id] : vocabulary->items())
      place(text, id, bytes && named_byte(text) >= 0 ? piece_kind::byte : piece_kind::normal, true);
    ids_.seal();
    const json* unknown = model.find("unk_token");
    options.unk = unknown && unknown->is_string() ? find(unknown->get_ref<const std::string&>()) : -1;
    if (unknown && options.unk < 0)
      refuse("has the unk_token " + show_json(*unknown) + ", which is no piece");
    if (options.unk >= 0) pieces_[std::size_t(options.unk)].kind = piece_kind::unknown;
    const json* list = model.find("merges");
    const std::vector<merge> merges = read_merges(list ? *list : json());
    const std::vector<added_text> texts = added ? read_added(*added) : std::vector<added_text>();
    options.bos = cuts ? -1 : find(beside.bos.value_or("<s>"));
    if (const json* v = root.find("post_processor")) options.bos = front(steps.front(*v));
    options.eos = find(beside.eos.value_or("</s>"));
    model.refuse_unknown();
    static constexpr harmless_key harmless[] = {
        {"version", "of the format"},
    };
    root.refuse_unknown(harmless);
    check_config(beside, options);
    return {std::move(pieces_), merges, texts, options, name_};
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const { fail("load_tokenizer", name_, why); }
  token find(std::string_view text) const {
    if (const token* id = ids_.find(text)) return *id;
    const auto at = new_ids_.find(text);
    return at == new_ids_.end() ? -1 : at->second;
  }

  /// The id that a file puts in front of every text, as its vocabulary has it.
  token front(const std::optional<std::pair<std::string, json>>& said) const {
    if (!said) return -1;
    const token id = find(said->first);
    if (id < 0 || said->second != id)
      refuse("puts " + unroll::detail::in_quotes(said->first) + " of id " + show_json(said->second) +
             " in front of a text, the id of its vocabulary is " + std::to_string(id));
    return id;
  }

  /// Sets the piece with this id, once; `vocabulary`: it is of that.
  void place(const std::string& text, const json& id, piece_kind kind, bool vocabulary) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= pieces_.size())
      refuse("gives " + unroll::detail::in_quotes(text) + " the id " + show_json(id) +
             ", expected one of 0 to " + std::to_string(pieces_.size() - 1));
    vocabulary_entry& p = pieces_[id.get<std::size_t>()];
    if (!p.text.empty())
      refuse("gives " + unroll::detail::in_quotes(text) + " and " + unroll::detail::in_quotes(p.text) +
             " both the id " + show_json(id));
    if (text.empty()) refuse("gives an empty text the id " + show_json(id));
    p = {text, 0, kind};
    if (vocabulary)
      ids_.add(text, id.get<token>());
    else
      new_ids_.emplace(text, id.get<token>());
  }

  const std::string& content(const json& added) const {
    const json& v = member_of(added, "content");
    if (!v.is_string()) refuse("has an added token without content");
    return v.get_ref<const std::string&>();
  }
  std::size_t count_new(const json& added, const json& vocabulary) const {
    std::size_t n = 0;
    for (const json& a : added)
      if (!vocabulary.contains(content(a))) ++n;
    return n;
  }
  std::vector<added_text> read_added(const json& added) {
    std::vector<added_text> texts;
    std::set<std::string_view> seen;
    for (const json& a : added) {
      const std::string& text = content(a);
      const json_members options(a, "load_tokenizer",
                                 name_ + ", added token " + unroll::detail::in_quotes(text));
      const json& id = member_of(a, "id");
      options.find("id");
      options.find("content");
      if (find(text) < 0) place(text, id, piece_kind::user, false);
      if (id != find(text))
        refuse("gives the added token " + unroll::detail::in_quotes(text) + " the id " + show_json(id) +
               ", its vocabulary the id " + std::to_string(find(text)));
      if (!seen.insert(text).second)
        refuse("has the added token " + unroll::detail::in_quotes(text) + " twice");
      texts.push_back({text, find(text), options.truth("normalized", false), options.truth("special", false),
                       options.truth("lstrip", false), options.truth("rstrip", false),
                       options.truth("single_word", false)});
      options.refuse_unknown();
    }
    return texts;
  }

  std::vector<merge> read_merges(const json& list) const {
    if (!list.is_array()) refuse("has no list of merges");
    std::vector<merge> merges;
    merges.reserve(list.size());
    for (const json& m : list) {
      const std::string at = "has merge " + std::to_string(merges.size()) + " ";
      std::string_view left, right;
      if (m.is_string()) {
        const std::string_view both = m.get_ref<const std::string&>();
        const std::size_t blank = both.find(' ');
        if (blank == std::string::npos || both.find(' ', blank + 1) != std::string::npos)
          refuse(at + show_json(m) + ", expected two pieces with a blank between them");
        left = both.substr(0, blank);
        right = both.substr(blank + 1);
      } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
        left = m[0].get_ref<const std::string&>();
        right = m[1].get_ref<const std::string&>();
      } else {
        refuse(at + show_json(m) + ", expected two pieces");
      }
      merges.push_back(named_merge(
          left, right, [&](std::string_view text) { return find(text); },
          [&](const std::string& why) { refuse(at + why); }));
    }
    return merges;
  }

  void check_config(const tokenizer_config& c, const tokenizer_options& options) const {
    const auto differs = [&](const std::string& why) { fail("load_tokenizer", c.name, why + " " + name_); };
    const auto named = [&](const char* key, const std::optional<std::string>& text) {
      if (text && find(*text) < 0)
        differs(std::string("has the ") + key + " " + unroll::detail::in_quotes(*text) +
                ", which is no piece of");
    };
    named("bos_token", c.bos);
    named("eos_token", c.eos);
    if (c.prefix && *c.prefix != options.prefix)
      differs(std::string("has add_prefix_space ") + (*c.prefix ? "true" : "false") + ", unlike");
    for (const auto& [id, text] : c.added)
      if (find(text) != id)
        differs("has the added token " + unroll::detail::in_quotes(text) + " with the id " +
                std::to_string(id) + ", unlike");
  }

  const std::string& name_;
  const json root_;
  std::vector<vocabulary_entry> pieces_;
  sealed_map<std::string, token, text_hash> ids_;      // of the vocabulary
  std::map<std::string, token, std::less<>> new_ids_;  // of added tokens that it lacks
};

}  // namespace detail

/// Reads the bytes of a tokenizer.json with a BPE model, merges as texts or pairs, of one of these kinds:
///
///   | kind | normalizer | pre_tokenizer | model |
///   |---|---|---|---|
///   | Llama | U+2581 in front, blanks replaced by it, or neither | none | byte fallback or unk |
///   | transformers 5 | none | Metaspace, any prepend_scheme, split or not | the same |
///   | byte-level: GPT-2, Llama 3, SmolLM2 | none | ByteLevel behind Digits and Split by known expressions |
///   ignore_merges or not |
///
/// Before the normalizer of each, and where the table has none, may come NFC, NFD, NFKC, NFKD and Nmt
/// (text/character_steps.hpp, normal forms by ICU).
///
/// Added tokens inside a text become their ids, as HuggingFace's library does it: every stretch between them
/// is encoded on its own, lstrip and rstrip take the white space beside them, single_word asks that no
/// character of a word is beside them. bos() is what the post_processor puts in front of a text, -1 where
/// that is nothing; without one it is that of `beside` or "<s>" in the first kind, nothing in the others.
/// What a post_processor puts behind a text is left to the caller. Throws unroll::error, which names what
/// differs, on any other kind, on expressions that are not known, on keys that are neither implemented nor
/// known to change nothing, and on merges, ids or added tokens that contradict the vocabulary or `beside`.
///
/// Where some characters and some bytes are no pieces, ids stand in the order of the text; tokenizers 0.23
/// puts unk behind the bytes that follow it.
inline tokenizer parse_tokenizer_json(std::string_view bytes, const std::string& name,
                                      const tokenizer_config& beside = {}) {
  return detail::tokenizer_json(bytes, name).read(beside);
}

/// The text of a tokenizer.json that tells other programs of byte_tokenizer(): the same ids, "<s>" in front.
inline std::string byte_tokenizer_json() {
  using json = nlohmann::ordered_json;
  const tokenizer bytes = byte_tokenizer();
  const auto special = [](token id, std::string_view content) {
    return json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const auto begin_then = [](const char* sequence, int type) {
    return json::array({{{"SpecialToken", {{"id", "<s>"}, {"type_id", type}}}},
                        {{"Sequence", {{"id", sequence}, {"type_id", type}}}}});
  };
  json vocabulary, added = json::array(), pair = begin_then("A", 0);
  for (token id = 0; id < bytes.size(); ++id) {
    const bool byte = bytes.kind(id) == piece_kind::byte;
    const std::string text = byte ? detail::byte_name(unsigned(id)) : std::string(bytes.piece(id));
    vocabulary[text] = id;
    if (!byte) added.push_back(special(id, text));
  }
  for (const json& part : begin_then("B", 1)) pair.push_back(part);
  const json begin{{"id", "<s>"}, {"ids", {bytes.bos()}}, {"tokens", {"<s>"}}};
  const json j{
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", nullptr},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", begin_then("A", 0)},
        {"pair", pair},
        {"special_tokens", {{"<s>", begin}}}}},
      {"decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", true},
        {"ignore_merges", false},
        {"vocab", vocabulary},
        {"merges", json::array()}}}};
  return j.dump(1) + "\n";
}

/// The text of the tokenizer_config.json beside it: without one, transformers makes another tokenizer of it.
inline std::string byte_tokenizer_config_json() {
  return nlohmann::ordered_json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                                {"bos_token", "<s>"},
                                {"eos_token", "</s>"},
                                {"clean_up_tokenization_spaces", false}}
             .dump(1) +
         "\n";
}

}  // namespace unroll::llama
