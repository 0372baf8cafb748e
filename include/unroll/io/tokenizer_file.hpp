#pragma once

#include "unroll/io/json.hpp"
#include "unroll/io/tokenizer_bin.hpp"

#if defined(UNROLL_WITH_SENTENCEPIECE) && __has_include(<sentencepiece_processor.h>)
#include <sentencepiece_processor.h>
#define UNROLL_HAS_SENTENCEPIECE 1
#else
#define UNROLL_HAS_SENTENCEPIECE 0
#endif

namespace unroll::llama {

namespace detail {

inline constexpr std::string_view mark = "\xE2\x96\x81";  // U+2581, a blank in the pieces of SentencePiece

/// Reads the parts of a tokenizer.json that decide about ids.
class tokenizer_json {
 public:
  using json = nlohmann::json;

  tokenizer_json(std::string_view bytes, const std::string& name)
      : name_(name), root_(parse_json(bytes, "load_tokenizer", name)) {}

  tokenizer read() {
    if (!root_.is_object()) refuse("is no JSON object");
    const json& model = member(root_, "model");
    if (!model.is_object()) refuse("has no \"model\", it is not a tokenizer.json");
    const json& type = member(model, "type");
    if (!type.is_null() && type != "BPE")
      refuse("has a model of type " + show(type) + ", expected \"BPE\" (the Llama kind)");
    for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
      if (const json& v = member(model, option); !v.is_null() && v != "" && v != 0.0)
        refuse(std::string("has ") + option + " " + show(v) + ", expected none (the Llama kind)");
    if (truth(model, "ignore_merges")) refuse("ignores merges, which is not the Llama kind");
    if (const json& v = member(root_, "pre_tokenizer"); !v.is_null())
      refuse("has a pre_tokenizer of type " + show(member(v, "type")) + ", expected none (the Llama kind)");

    tokenizer_options options;
    options.prefix = false;
    read_normalizer(member(root_, "normalizer"), options);
    options.fuse_unknown = truth(model, "fuse_unk");
    const json& vocabulary = member(model, "vocab");
    if (!vocabulary.is_object()) refuse("has no \"vocab\" of pieces and ids");
    const json& added = member(root_, "added_tokens");
    if (!added.is_null() && !added.is_array()) refuse("has added_tokens that are no list");

    pieces_.resize(vocabulary.size() + count_new(added, vocabulary));
    const bool bytes = truth(model, "byte_fallback");
    for (const auto& [text, id] : vocabulary.items())
      place(text, id, bytes && named_byte(text) >= 0 ? piece_kind::byte : piece_kind::normal);
    const std::vector<added_text> texts = read_added(added, vocabulary);
    const json& unknown = member(model, "unk_token");
    options.unk = unknown.is_string() ? find(unknown.get_ref<const std::string&>()) : -1;
    if (unknown.is_string() && options.unk < 0)
      refuse("has the unk_token " + show(unknown) + ", which is no piece");
    if (options.unk >= 0) pieces_[std::size_t(options.unk)].kind = piece_kind::unknown;
    options.bos = find("<s>");
    options.eos = find("</s>");
    const std::vector<merge> merges = read_merges(member(model, "merges"));
    return {std::move(pieces_), merges, texts, options, name_};
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const { fail("load_tokenizer", name_, why); }
  static std::string show(const json& v) {
    if (v.is_string()) return unroll::detail::in_quotes(v.get_ref<const std::string&>());
    return v.is_structured() ? std::string("a ") + v.type_name() : v.dump();
  }
  const json& member(const json& object, const char* key) const {
    const auto at = object.find(key);  // end() also where it is no object
    return at == object.end() ? null_ : *at;
  }
  bool truth(const json& object, const char* key) const {
    const json& v = member(object, key);
    if (!v.is_null() && !v.is_boolean())
      refuse(std::string("has ") + key + " " + show(v) + ", expected true or false");
    return v.is_boolean() && v.get<bool>();
  }
  token find(const std::string& text) const {
    const auto at = ids_.find(text);
    return at == ids_.end() ? -1 : at->second;
  }

  /// Nothing, or any of: a mark in front, blanks replaced by the mark.
  void read_normalizer(const json& normalizer, tokenizer_options& options) const {
    const json& steps = member(normalizer, "normalizers");
    if (normalizer.is_null()) return;
    const auto step = [&](const json& s) {
      const json &type = member(s, "type"), &pattern = member(member(s, "pattern"), "String");
      if (type == "Prepend" && member(s, "prepend") == std::string(mark) && !options.prefix) {
        options.prefix = true;
      } else if (type == "Replace" && pattern == " " && member(s, "content") == std::string(mark)) {
        options.blank = mark;
      } else {
        refuse("has a normalizer " + show(type) +
               " that is not of the Llama kind: U+2581 in front, blanks replaced by U+2581");
      }
    };
    if (member(normalizer, "type") != "Sequence")
      step(normalizer);
    else if (!steps.is_array())
      refuse("has a normalizer \"Sequence\" without a list of normalizers");
    else
      for (const json& s : steps) step(s);
    if (options.prefix && options.blank == " ")
      refuse("puts U+2581 in front but does not replace blanks by it");
  }

  /// Sets the piece with this id, once.
  void place(const std::string& text, const json& id, piece_kind kind) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= pieces_.size())
      refuse("gives " + unroll::detail::in_quotes(text) + " the id " + show(id) + ", expected one of 0 to " +
             std::to_string(pieces_.size() - 1));
    vocabulary_entry& p = pieces_[id.get<std::size_t>()];
    if (!p.text.empty())
      refuse("gives " + unroll::detail::in_quotes(text) + " and " + unroll::detail::in_quotes(p.text) +
             " both the id " + show(id));
    if (text.empty()) refuse("gives an empty text the id " + show(id));
    p = {text, 0, kind};
    ids_.emplace(text, id.get<token>());
  }

  const std::string& content(const json& added) const {
    const json& v = member(added, "content");
    if (!v.is_string()) refuse("has an added token without content");
    return v.get_ref<const std::string&>();
  }
  std::size_t count_new(const json& added, const json& vocabulary) const {
    std::size_t n = 0;
    for (const json& a : added) n += vocabulary.contains(content(a)) ? 0 : 1;
    return n;
  }
  std::vector<added_text> read_added(const json& added, const json& vocabulary) {
    std::vector<added_text> texts;
    for (const json& a : added) {
      const std::string& text = content(a);
      const json& id = member(a, "id");
      for (const char* option : {"lstrip", "rstrip", "single_word"})
        if (truth(a, option))
          refuse("has the added token " + unroll::detail::in_quotes(text) + " with " + option +
                 ", which is not of the Llama kind");
      if (!vocabulary.contains(text)) place(text, id, piece_kind::user);
      if (id != find(text))
        refuse("gives the added token " + unroll::detail::in_quotes(text) + " the id " + show(id) +
               ", its vocabulary the id " + std::to_string(find(text)));
      pieces_[std::size_t(find(text))].kind = truth(a, "special") ? piece_kind::control : piece_kind::user;
      texts.push_back({text, find(text), truth(a, "normalized")});
    }
    return texts;
  }

  std::vector<merge> read_merges(const json& list) const {
    if (!list.is_array()) refuse("has no list of merges");
    std::vector<merge> merges;
    merges.reserve(list.size());
    for (const json& m : list) {
      const std::string at = "has merge " + std::to_string(merges.size());
      std::string left, right;
      if (m.is_string()) {
        const auto& both = m.get_ref<const std::string&>();
        const std::size_t blank = both.find(' ');
        if (blank == std::string::npos || both.find(' ', blank + 1) != std::string::npos)
          refuse(at + " " + show(m) + ", expected two pieces with a blank between them");
        left = both.substr(0, blank);
        right = both.substr(blank + 1);
      } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
        left = m[0].get<std::string>();
        right = m[1].get<std::string>();
      } else {
        refuse(at + " " + show(m) + ", expected two pieces");
      }
      const auto piece = [&](const std::string& text) {
        const token id = find(text);
        if (id < 0)
          refuse(at + " of " + unroll::detail::in_quotes(left) + " and " + unroll::detail::in_quotes(right) +
                 ", but " + unroll::detail::in_quotes(text) + " is no piece");
        return id;
      };
      merges.push_back({piece(left), piece(right), piece(left + right)});
    }
    return merges;
  }

  const std::string& name_;
  const json root_, null_;
  std::vector<vocabulary_entry> pieces_;
  std::unordered_map<std::string, token> ids_;
};

/// Reads the fields of a protobuf message, one after another.
class proto_reader {
 public:
  proto_reader(std::string_view bytes, std::string_view place, const std::string& name)
      : bytes_(bytes), place_(place), name_(name) {}

  /// Moves to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    const std::uint64_t tag = varint();
    field = tag >> 3;
    const auto kind = unsigned(tag & 7);
    text = {};
    number = 0;
    if (kind == 0)
      number = varint();
    else if (kind == 1)
      text = take(8);
    else if (kind == 2)
      text = take(varint());
    else if (kind == 5)
      text = take(4);
    else
      refuse("has wire type " + std::to_string(kind));
    return true;
  }
  /// The value of a field of four bytes.
  float real() const {
    if (text.size() != 4) refuse("has a score of " + std::to_string(text.size()) + " bytes, expected 4");
    float value;
    std::memcpy(&value, text.data(), 4);
    return value;
  }

  std::uint64_t field = 0, number = 0;  ///< of the field: its number, its value where that is an integer
  std::string_view text;                ///< its bytes where it is not

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail("load_tokenizer", name_, "is no SentencePiece model: " + std::string(place_) + " " + why);
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t(byte & 127) << shift;
      if (byte < 128) return value;
    }
    refuse("has an integer of more than ten bytes");
  }
  std::string_view take(std::uint64_t n) {
    if (n > bytes_.size() - at_)
      refuse("needs " + std::to_string(n) + " bytes, " + std::to_string(bytes_.size() - at_) + " are left");
    at_ += std::size_t(n);
    return bytes_.substr(at_ - std::size_t(n), std::size_t(n));
  }

  std::string_view bytes_, place_;
  const std::string& name_;
  std::size_t at_ = 0;
};

/// What a .model says, in our own words.
struct sentencepiece_model {
  std::vector<vocabulary_entry> pieces;
  tokenizer_options options{.blank = std::string(mark)};
  bool byte_pairs = false;
};

inline sentencepiece_model read_sentencepiece(std::string_view bytes, const std::string& name) {
  sentencepiece_model m;
  for (proto_reader file(bytes, "the file", name); file.next();) {
    if (file.field == 1) {
      const std::string place = "piece " + std::to_string(m.pieces.size());
      vocabulary_entry p;
      for (proto_reader r(file.text, place, name); r.next();) {
        if (r.field == 1) p.text = r.text;
        if (r.field == 2) p.score = r.real();
        if (r.field == 3)
          p.kind = r.number == 2   ? piece_kind::unknown
                   : r.number == 3 ? piece_kind::control
                   : r.number == 6 ? piece_kind::byte
                                   : piece_kind::normal;
      }
      m.pieces.push_back(std::move(p));
    }
    if (file.field == 2)
      for (proto_reader r(file.text, "the training part", name); r.next();) {
        token* id = r.field == 40 ? &m.options.unk : r.field == 41 ? &m.options.bos : &m.options.eos;
        if (r.field == 3) m.byte_pairs = r.number == 2;
        if (r.field >= 40 && r.field <= 42) *id = token(std::uint32_t(r.number));
      }
    if (file.field == 3)
      for (proto_reader r(file.text, "the normalisation", name); r.next();) {
        if (r.field == 3) m.options.prefix = r.number != 0;
        if (r.field == 2 && !r.text.empty())
          fail("load_tokenizer", name,
               "changes characters by a table of " + std::to_string(r.text.size()) +
                   " bytes before it encodes; only models without one (\"identity\") are read");
      }
  }
  if (!m.byte_pairs)
    fail("load_tokenizer", name, "is a SentencePiece model of another type than byte pairs (the Llama kind)");
  return m;
}

#if UNROLL_HAS_SENTENCEPIECE
class sentencepiece_encoder final : public text_encoder {
 public:
  sentencepiece_encoder(std::string_view bytes, const std::string& name) {
    std::string why;
    try {
      const auto status = processor_.LoadFromSerializedProto(bytes);
      if (!status.ok()) why = status.ToString();
    } catch (const std::exception& e) {  // of the tables inside
      why = e.what();
    }
    if (!why.empty()) fail("load_tokenizer", name, "is refused by sentencepiece: " + why);
  }
  void encode(std::string_view text, std::vector<token>& ids) const override {
    std::vector<int> found;
    const auto status = processor_.Encode(text, &found);
    if (!status.ok()) fail("tokenizer::encode", "text", "is refused by sentencepiece: " + status.ToString());
    ids.insert(ids.end(), found.begin(), found.end());
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};
#endif

}  // namespace detail

/// Reads the bytes of a tokenizer.json of the Llama kind: a BPE model with merges as texts or pairs, byte
/// fallback, no pre_tokenizer, and a normalizer that puts U+2581 in front and replaces blanks by it. Added
/// tokens inside a text become their ids, as HuggingFace's library does it: every stretch between them is
/// encoded on its own. bos and eos are "<s>" and "</s>". Throws unroll::error, which names what differs, on
/// any other kind, and on merges, ids or added tokens that contradict the vocabulary.
inline tokenizer parse_tokenizer_json(std::string_view bytes, const std::string& name) {
  return detail::tokenizer_json(bytes, name).read();
}

/// Reads the bytes of a SentencePiece .model. Its texts are encoded by libsentencepiece, so exactly as the
/// model asks: those of small Llamas often drop blanks at both ends and repeated ones, neighbouring unknown
/// characters are one unk, and bytes that are no UTF-8 become U+FFFD. Throws unroll::error on a damaged file,
/// and where the library was built without libsentencepiece.
inline tokenizer parse_tokenizer_model(std::string_view bytes, const std::string& name) {
  auto m = detail::read_sentencepiece(bytes, name);
#if UNROLL_HAS_SENTENCEPIECE
  tokenizer checked(m.pieces, nullptr, m.options, name);  // before the library sees it
  auto encoder = std::make_shared<detail::sentencepiece_encoder>(bytes, name);
  return {std::move(m.pieces), std::move(encoder), m.options, name};
#else
  fail("load_tokenizer", name,
       "is a SentencePiece model of " + std::to_string(m.pieces.size()) +
           " pieces, which needs libsentencepiece (Debian: libsentencepiece-dev; define "
           "UNROLL_WITH_SENTENCEPIECE and link it); its tokenizer.json or tokenizer.bin needs nothing");
#endif
}

/// Reads a vocabulary: a file named .bin, .json or .model, another name by its first bytes, or a folder with
/// a tokenizer.json, tokenizer.model or tokenizer.bin, in this order. Throws unroll::error that names the
/// file.
inline tokenizer load_tokenizer(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer.bin"})
      if (std::filesystem::exists(path / name)) return load_tokenizer(path / name);
    unroll::detail::fail_file("load_tokenizer", path,
                              "has no tokenizer.json, tokenizer.model or tokenizer.bin");
  }
  const std::string bytes = read_file(path, "load_tokenizer"), name = "\"" + path.string() + "\"";
  const auto is = [&](const char* extension, bool magic) {
    const auto e = path.extension();
    return e == extension || (magic && e != ".bin" && e != ".json" && e != ".model");
  };
  // a .bin begins with the length of a piece, a .model with its first piece, whose first field is the text
  if (is(".bin", bytes.size() > 3 && bytes[2] == 0 && bytes[3] == 0)) return parse_tokenizer_bin(bytes, name);
  if (is(".model", bytes.size() > 2 && bytes[0] == 10 && bytes[2] == 10))
    return parse_tokenizer_model(bytes, name);
  return parse_tokenizer_json(bytes, name);
}

}  // namespace unroll::llama
