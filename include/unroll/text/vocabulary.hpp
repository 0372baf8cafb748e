#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/text/token.hpp"

namespace unroll::llama {

/// What an id stands for.
enum class piece_kind {
  normal,   ///< a text
  unknown,  ///< any character that has no id
  control,  ///< a mark that no text contains, such as the begin of a text
  byte,     ///< one byte; the piece is its name, "<0x00>" to "<0xFF>"
  user      ///< a text that becomes this id wherever it appears, before anything is joined
};

/// One id of a vocabulary.
struct vocabulary_entry {
  std::string text;                      ///< the piece
  float score = 0;                       ///< the pair whose join has the highest score is joined first
  piece_kind kind = piece_kind::normal;  ///< what the piece is
};

/// A rule of byte-pair encoding: the neighbours `left` and `right` are joined to `result`.
struct merge {
  token left = 0, right = 0, result = 0;  ///< ids
};

/// A text that becomes its id before the rest is cut into characters.
struct added_text {
  std::string text;  ///< as it stands in texts
  token id = 0;      ///< what it becomes
  /// Looked for in the normalised text (a blank in front, blanks replaced), and is normalised itself.
  bool normalised = false;
  bool special = false;                        ///< a mark: decode() leaves it out
  bool eats_left = false, eats_right = false;  ///< takes the white space on that side along
  bool single_word = false;                    ///< only where no character of a word is beside it
};

/// A rule that cuts a text into pieces across which nothing is joined; text/pre_tokenizer.hpp has the
/// expressions, those of tokenizers 0.23 with its Unicode 16.0. Digits are those of 17.0, as there.
enum class cut_rule {
  gpt2,        ///< contractions, words, numbers and signs, each with the blank before it
  llama3,      ///< the same with numbers of at most three digits, and signs with the line ends behind them
  qwen2,       ///< as llama3, every number character alone
  digits,      ///< every number character alone, what is between them whole
  digit_runs,  ///< runs of number characters, what is between them whole
  words        ///< before every mark U+2581
};

/// The step of encode() that writes blanks as marks, and where it puts one in front of what.
enum class blank_step {
  normalizer,     ///< before normalised added texts are looked for; in front of every stretch between others
  pre_tokenizer,  ///< behind that; in front of every stretch between added texts that begins with none
  first_stretch   ///< as pre_tokenizer, but in front of the stretch that a text begins with alone
};

/// A step that changes the characters of a text, before blanks are written (text/character_steps.hpp).
enum class character_step {
  nmt,   ///< controls fall out, white space and marks without width are blanks
  nfc,   ///< normal form C of Unicode 9.0, by ICU, as those that follow
  nfd,   ///< D
  nfkc,  ///< KC
  nfkd   ///< KD
};

struct tokenizer_options {
  token unk = 0, bos = 1, eos = 2;             ///< -1: there is none
  bool prefix = true;                          ///< a blank is put before every text that is not empty
  std::string blank = " ";                     ///< what stands for a blank in the pieces
  bool fuse_unknown = false;                   ///< neighbouring unknown characters are one unk, not one each
  blank_step blanks = blank_step::normalizer;  ///< where blanks are written and `prefix` is put
  bool byte_level = false;          ///< a text is its bytes; normal pieces spell them (text/byte_level.hpp)
  std::vector<cut_rule> cuts = {};  ///< one after another, on the pieces of the one before
  bool whole_pieces = false;        ///< what the cuts leave becomes a piece at once where it is one
  std::vector<character_step> characters = {};  ///< one after another, on what added texts leave
};

/// Finds the ids of a text where the rules are not those of `tokenizer` and another library has them.
class text_encoder {
 public:
  virtual ~text_encoder() = default;
  virtual void encode(std::string_view text, std::vector<token>& ids) const = 0;  ///< appends
};

/// U+2581, a blank in the pieces of SentencePiece.
inline constexpr std::string_view blank_mark = "\xE2\x96\x81";

namespace detail {

/// Bytes of the UTF-8 character (RFC 3629) that `text`, not empty, begins with; 1 where it begins with none.
inline std::size_t character_length(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? unsigned(static_cast<unsigned char>(text[i])) : 0u;
  };
  const auto follows = [&](std::size_t i) { return byte(i) >> 6 == 2; };
  const unsigned first = byte(0), second = byte(1);
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 1;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && second < 0xA0, surrogate = first == 0xED && second > 0x9F;
    return follows(1) && follows(2) && !overlong && !surrogate ? 3 : 1;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool overlong = first == 0xF0 && second < 0x90, beyond = first == 0xF4 && second > 0x8F;
    return follows(1) && follows(2) && follows(3) && !overlong && !beyond ? 4 : 1;
  }
  return 1;
}

inline std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t next = std::min(text.find(from, at), text.size());
    out.append(text.substr(at, next - at));
    if (next < text.size()) out.append(to);
    at = next + from.size();
  }
  return out;
}

inline std::string byte_name(unsigned byte) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  return std::string("<0x") + digits[byte / 16] + digits[byte % 16] + '>';
}

/// The byte that "<0x0A>" names, or -1.
inline int named_byte(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
  constexpr std::string_view digits = "0123456789ABCDEF";
  const std::size_t high = digits.find(text[3]), low = digits.find(text[4]);
  return high < 16 && low < 16 ? int(16 * high + low) : -1;
}

struct text_hash {
  std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
};

}  // namespace detail

namespace detail {

/// The bytes of a text, the last one first.
inline std::string reversed(std::string text) {
  std::reverse(text.begin(), text.end());
  return text;
}

}  // namespace detail

}  // namespace unroll::llama
