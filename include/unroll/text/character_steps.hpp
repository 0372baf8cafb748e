#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/text/vocabulary.hpp"

#if defined(UNROLL_WITH_ICU) && __has_include(<unicode/normalizer2.h>)
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uniset.h>
#define UNROLL_HAS_ICU 1
#else
#define UNROLL_HAS_ICU 0
#endif

namespace unroll::llama {

namespace detail {

/// Controls fall out, other white space and marks without width become blanks, as SentencePiece's rules "nmt"
/// do it. Bytes that are no UTF-8 stay.
inline std::string nmt(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::string_view character = text.substr(0, character_length(text));
    text.remove_prefix(character.size());
    const auto first = static_cast<unsigned char>(character[0]);
    const auto is_any = [&](std::initializer_list<std::string_view> all) {
      for (const std::string_view c : all)
        if (c == character) return true;
      return false;
    };
    const bool blank = first < 128 ? first == '\t' || first == '\n' || first == '\f' || first == '\r'
                                   : is_any({"\xE1\x9A\x80", "\xE2\x80\x8B", "\xE2\x80\x8C", "\xE2\x80\x8D",
                                             "\xE2\x80\x8E", "\xE2\x80\x8F", "\xE2\x80\xA8", "\xE2\x80\xA9",
                                             "\xE2\x96\x81", "\xEF\xBB\xBF", "\xEF\xBF\xBD"});
    const bool gone =
        first < 128 ? (first > 0 && first < 0x20) || first == 0x7F : is_any({"\xC2\x8F", "\xC2\x9F"});
    if (blank)
      out += ' ';
    else if (!gone)
      out.append(character);
  }
  return out;
}

}  // namespace detail

/// Steps that change the characters of a text, one after another, as tokenizers 0.23.3 does. Unicode's four
/// normal forms are those of Unicode 9.0, as there, by the library ICU: characters that came later stay as
/// they are. Bytes that are no UTF-8 stay too.
class character_steps {
 public:
  character_steps() = default;
  /// `name` stands for the vocabulary in messages. Throws unroll::error on a normal form where this was built
  /// without ICU, and where ICU has not got its data.
  character_steps(std::vector<character_step> steps, const std::string& name) : steps_(std::move(steps)) {
    bool forms = false;
    for (const character_step s : steps_) forms = forms || s != character_step::nmt;
    if (!forms) return;
#if UNROLL_HAS_ICU
    UErrorCode code = U_ZERO_ERROR;
    known_ = std::make_shared<icu::UnicodeSet>(icu::UnicodeString("[:age=9.0:]"), code);
    known_->freeze();
    for (const character_step s : steps_)
      if (s != character_step::nmt) form(s, code);
    if (U_FAILURE(code))
      fail("tokenizer", name, std::string("needs a normal form, ICU says ") + u_errorName(code));
#else
    fail("tokenizer", name,
         "needs a normal form of Unicode, and so ICU (Debian: libicu-dev; define UNROLL_WITH_ICU and link "
         "icuuc)");
#endif
  }

  bool empty() const { return steps_.empty(); }  ///< every text stays as it is

  /// The changed text. Throws unroll::error on texts of 2^31 bytes and more.
  std::string operator()(std::string_view text) const {
    std::string out(text);
    for (const character_step s : steps_) out = s == character_step::nmt ? detail::nmt(out) : in_form(s, out);
    return out;
  }

 private:
#if UNROLL_HAS_ICU
  static const icu::Normalizer2* form(character_step s, UErrorCode& code) {
    switch (s) {
      case character_step::nfc:
        return icu::Normalizer2::getNFCInstance(code);
      case character_step::nfd:
        return icu::Normalizer2::getNFDInstance(code);
      case character_step::nfkc:
        return icu::Normalizer2::getNFKCInstance(code);
      default:
        return icu::Normalizer2::getNFKDInstance(code);
    }
  }
  std::string in_form(character_step s, const std::string& text) const {
    bool plain = true;  // ASCII, of which all forms are the same
    for (const char c : text) plain = plain && static_cast<unsigned char>(c) < 128;
    if (plain) return text;
    if (text.size() >= std::size_t{1} << 31)
      fail("tokenizer::encode", "text", "has 2^31 bytes or more to normalise");
    UErrorCode code = U_ZERO_ERROR;
    const icu::FilteredNormalizer2 normal(*form(s, code), *known_);
    std::string out;
    icu::StringByteSink<std::string> sink(&out);
    normal.normalizeUTF8(0, {text.data(), std::int32_t(text.size())}, sink, nullptr, code);
    if (U_FAILURE(code))
      fail("tokenizer::encode", "text", std::string("is not normalised, ICU says ") + u_errorName(code));
    return out;
  }

  std::shared_ptr<icu::UnicodeSet> known_;
#else
  static std::string in_form(character_step, std::string text) { return text; }  // the constructor refuses
#endif
  std::vector<character_step> steps_;
};

}  // namespace unroll::llama
