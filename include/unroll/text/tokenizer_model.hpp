#pragma once

#include <cstring>

#include "unroll/core/error.hpp"
#include "unroll/text/character_table.hpp"
#include "unroll/text/tokenizer.hpp"

#if defined(UNROLL_WITH_SENTENCEPIECE) && __has_include(<sentencepiece_processor.h>)
#include <sentencepiece_processor.h>
#define UNROLL_HAS_SENTENCEPIECE 1
#else
#define UNROLL_HAS_SENTENCEPIECE 0
#endif

namespace unroll::llama {

namespace detail {

/// Reads the fields of a protobuf message, one after another.
class proto_reader {
 public:
  proto_reader(std::string_view bytes, std::string_view place, const std::string& name)
      : bytes_(bytes), place_(place), name_(name) {}

  /// Moves to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    const std::uint64_t tag = varint();
    if (tag >> 32 != 0) refuse("has a tag of more than 32 bits");
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
  tokenizer_options options{.blank = std::string(blank_mark)};
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
    if (file.field == 5)
      for (proto_reader r(file.text, "the way back of it", name); r.next();)
        if (r.field == 2 && !r.text.empty()) check_character_table(r.text, name);
    if (file.field == 3)
      for (proto_reader r(file.text, "the normalisation", name); r.next();) {
        if (r.field == 3) m.options.prefix = r.number != 0;
        if (r.field == 2 && !r.text.empty()) check_character_table(r.text, name);
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

/// Reads the bytes of a SentencePiece .model. Its texts are encoded by libsentencepiece, so exactly as the
/// model asks: those of small Llamas often drop blanks at both ends and repeated ones, neighbouring unknown
/// characters are one unk, bytes that are no UTF-8 become U+FFFD, and a table (nmt_nfkc, nfkc, rules of one's
/// own) changes characters before: decode() gives the changed ones. Throws unroll::error on a damaged file,
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

}  // namespace unroll::llama
