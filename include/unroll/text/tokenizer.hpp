#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unroll/text/added_texts.hpp"
#include "unroll/text/byte_level.hpp"
#include "unroll/text/character_steps.hpp"
#include "unroll/text/score_joins.hpp"
#include "unroll/text/word_cache.hpp"

namespace unroll::llama {

/// A vocabulary, with byte-pair encoding from text to its ids (Sennrich et al. 2016) and back:
///
///   1. Rules cut the text into pieces (words, mostly), where the vocabulary has some.
///   2. Each is cut into characters. A character that is no piece is cut into its bytes, or becomes unk
///      where the vocabulary has no bytes (the byte fallback of SentencePiece, Kudo and Richardson 2018). A
///      byte-level vocabulary (Radford et al. 2019) begins with the bytes.
///   3. Of all pairs of neighbours that may be joined, the best one is, and so on until none is left. The
///      best has the highest score, or stands first in the list of merges; of equals it is the leftmost.
///
/// Where the vocabulary has steps for characters (tokenizer_options::characters), they come first, and
/// decode() gives the changed ones.
///
/// Any bytes are a text: what is not UTF-8 is cut into single bytes. decode(encode(text)) == text where the
/// vocabulary has bytes, with three exceptions: U+2581 comes back as a blank where the vocabulary writes
/// blanks so, an added text of kind control comes back as nothing, and a blank that a text begins with is
/// dropped where none but it is put in front (blank_step other than normalizer). Joining by scores never
/// makes a byte or a control, even where characters spell its name.
class tokenizer final {
 public:
  /// Joins by score. `name` stands for the file in messages. Throws unroll::error on a piece that is empty,
  /// there twice, has a score that is no number, or is of kind byte and names none, and on unk, bos or eos
  /// beyond the vocabulary; of `added` texts, which are found before, as below.
  tokenizer(std::vector<vocabulary_entry> pieces, const tokenizer_options& options = {},
            const std::string& name = "pieces", std::vector<added_text> added = {})
      : tokenizer(std::move(pieces), std::move(added), options, name) {
    detail::add_score_joins(pieces_, joins_);
    joins_.seal([](const detail::join&, const detail::join&) {});
    find_seams([](token, token, token) { return true; });
  }

  /// Joins by a list of merges, the first one first; `added` texts are found before. Throws also on ids
  /// beyond the vocabulary, on a pair that is listed twice and on an empty added text.
  tokenizer(std::vector<vocabulary_entry> pieces, view<const merge> merges, std::vector<added_text> added,
            const tokenizer_options& options, const std::string& name = "pieces")
      : tokenizer(std::move(pieces), std::move(added), options, name) {
    if (merges.size() >= index_t(none)) fail("tokenizer", name, "has more than 2^32 merges");
    joins_.reserve(std::size_t(merges.size()));
    for (index_t i = 0; i < merges.size(); ++i) {
      for (const token id : {merges[i].left, merges[i].right, merges[i].result})
        if (!has(id)) refuse_id("merge " + std::to_string(i), id, name);
      joins_.add(merges[i].left, merges[i].right, {std::uint32_t(i), merges[i].result});
    }
    std::uint32_t twice = none;
    joins_.seal([&](const detail::join&, const detail::join& j) { twice = std::min(twice, j.rank); });
    if (twice != none)
      fail("tokenizer", name, "merge " + std::to_string(twice) + " is of a pair that an earlier merge joins");
    find_seams([&](token l, token r, token joined) {
      const auto &left = pieces_[std::size_t(l)], &right = pieces_[std::size_t(r)];
      return left.kind == piece_kind::normal && right.kind == piece_kind::normal &&
             pieces_[std::size_t(joined)].text == left.text + right.text;
    });
  }

  /// Ids are found by `encoder`; pieces serve decode().
  tokenizer(std::vector<vocabulary_entry> pieces, std::shared_ptr<const text_encoder> encoder,
            const tokenizer_options& options, const std::string& name = "pieces")
      : tokenizer(std::move(pieces), std::vector<added_text>(), options, name) {
    encoder_ = std::move(encoder);
  }

  index_t size() const { return index_t(pieces_.size()); }
  token bos() const { return options_.bos; }  ///< begins a text; -1: nothing does
  token eos() const { return options_.eos; }  ///< ends a text; -1: nothing does
  token unk() const { return options_.unk; }  ///< stands for what is unknown; -1: that is an error

  /// The bytes an id stands for, with real blanks; of a special piece its name.
  std::string_view piece(token id) const { return shown_[checked("tokenizer::piece", id)]; }
  piece_kind kind(token id) const { return kinds_[checked("tokenizer::kind", id)]; }  ///< what the piece is
  /// Of the piece, by which joins are ordered.
  float score(token id) const { return pieces_[checked("tokenizer::score", id)].score; }
  /// Whether encode() begins a stretch behind this id, with a blank in front where the vocabulary wants one:
  /// what decode() of the ids behind it has to be told by `start`.
  bool ends_stretch(token id) const { return ends_stretch_[checked("tokenizer::ends_stretch", id)]; }
  /// The id of a piece with real blanks (or of a name such as "</s>" or "<0x0A>"), or -1.
  token find(std::string_view text) const {
    const token* at = find_text(options_.byte_level ? detail::byte_level_spelling(text) : marked(text));
    if (!at) at = find_text(text);
    return at ? *at : -1;
  }

  /// The ids of a text of n bytes in O(n log n); an empty text has none. `bos` puts the begin in front;
  /// nothing else is added. `name` stands for the text in messages. Throws unroll::error when bos is wanted
  /// and there is none, when a character has no id and there is no unk, and on texts of 2^32 bytes and more.
  std::vector<token> encode(std::string_view text, bool bos = false, const std::string& name = "text") const {
    std::vector<token> ids;
    if (text.size() >= none) fail("tokenizer::encode", name, "has 2^32 bytes or more");
    if (bos) {
      if (options_.bos < 0)
        fail("tokenizer::encode", "bos", "is wanted, the vocabulary " + name_ + " has none");
      ids.push_back(options_.bos);
    }
    if (encoder_) {
      encoder_->encode(text, ids);
      return ids;
    }
    encoding e{.ids = ids, .name = name, .seen = detail::word_cache(text.size())};
    const bool blanks = options_.prefix || options_.blank != " ";
    const bool early = blanks && options_.blanks == blank_step::normalizer, late = blanks && !early;
    const auto pieces = [&](std::string_view rest) {
      pre_tokenize(rest, options_.cuts, [&](std::string_view piece) { append_piece(piece, e); });
    };
    added_.split(text, ids, [&](std::string_view stretch) {
      const bool begins = stretch.data() == text.data();
      if (!characters_.empty()) stretch = e.keep(characters_(stretch));
      if (stretch.empty()) return;
      if (stretch.size() >= none) fail("tokenizer::encode", name, "has 2^32 bytes or more, normalised");
      added_normalised_.split(early ? e.keep(normalised(stretch)) : stretch, ids, [&](std::string_view rest) {
        pieces(late ? e.keep(with_blank(rest, begins && rest.data() == stretch.data())) : rest);
      });
    });
    return ids;
  }

  /// The bytes of the ids: controls are nothing, unk is U+FFFD. `start`: a text begins with the first id, so
  /// the blank that encode() put there is dropped, as it is behind every control; false: the ids continue a
  /// text. Throws unroll::error on an id beyond the vocabulary.
  std::string decode(std::span<const token> ids, bool start = true) const {
    std::string text;
    for (const token id : ids) {
      const std::size_t i = checked("tokenizer::decode", id);
      if (kinds_[i] != piece_kind::control) {
        std::string_view bytes =
            kinds_[i] == piece_kind::unknown ? "\xEF\xBF\xBD" : std::string_view(shown_[i]);
        if (start && options_.prefix && bytes.front() == ' ' && !found_whole_[i]) bytes.remove_prefix(1);
        text.append(bytes);
        start = false;
      }
      if (ends_stretch_[i]) start = true;
    }
    return text;
  }

 private:
  static constexpr std::uint32_t none = 0xFFFFFFFF;
  /// What one call of encode() works with: a word that has been seen is copied from where its ids stand.
  struct encoding {
    std::vector<token>& ids;
    const std::string& name;
    detail::word_cache seen;
    detail::byte_pairs::workspace workspace = {};
    std::deque<std::string> kept = {};  // texts that `seen` points into

    std::string_view keep(std::string text) { return kept.emplace_back(std::move(text)); }
  };

  tokenizer(std::vector<vocabulary_entry> pieces, std::vector<added_text> added,
            const tokenizer_options& options, const std::string& name)
      : name_(name), pieces_(std::move(pieces)), options_(options), characters_(options.characters, name) {
    if (pieces_.size() >= std::size_t{1} << 31) fail("tokenizer", name, "has 2^31 pieces or more");
    if (options.blank.empty()) fail("tokenizer", name, "has an empty text for a blank");
    bytes_.fill(-1);
    kinds_.reserve(pieces_.size());
    ends_stretch_.reserve(pieces_.size());
    found_whole_.reserve(pieces_.size());
    shown_.reserve(pieces_.size());
    ids_.reserve(pieces_.size());
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      const vocabulary_entry& p = pieces_[i];
      const auto refuse = [&](const std::string& why) {
        fail("tokenizer", name, "piece " + std::to_string(i) + " " + why);
      };
      if (p.text.empty()) refuse("has no text");
      if (!std::isfinite(p.score)) refuse("has score " + std::to_string(p.score) + ", must be finite");
      ids_.add(p.text, token(i));
      kinds_.push_back(p.kind);
      found_whole_.push_back(marks(p.kind));
      ends_stretch_.push_back(begins_behind(token(i)));
      if (options_.byte_level) {
        auto bytes = p.kind == piece_kind::normal ? detail::spelled_bytes(p.text) : std::nullopt;
        if (bytes && bytes->size() == 1) bytes_[static_cast<unsigned char>(bytes->front())] = token(i);
        shown_.push_back(std::move(bytes).value_or(p.text));
      } else if (p.kind == piece_kind::byte) {
        const int byte = detail::named_byte(p.text);
        if (byte < 0) refuse("is of kind byte and has no name such as <0x0A>");
        bytes_[std::size_t(byte)] = token(i);
        shown_.emplace_back(1, char(static_cast<unsigned char>(byte)));
      } else {
        shown_.push_back(detail::replace_all(p.text, options.blank, " "));
      }
    }
    std::pair<token, token> twice{token(size()), 0};
    ids_.seal([&](token first, token id) { twice = std::min(twice, {id, first}); });
    if (twice.first < size())
      fail("tokenizer", name,
           "piece " + std::to_string(twice.first) + " and piece " + std::to_string(twice.second) +
               " have the same text");
    const auto special = [&](const char* what, token id) {
      if (id != -1 && !has(id)) refuse_id(what, id, name);
    };
    special("unk", options.unk);
    special("bos", options.bos);
    special("eos", options.eos);
    for (std::size_t b = 0; b < ascii_.size(); ++b) {
      const char c = char(static_cast<unsigned char>(b));
      ascii_[b] = find_plain({&c, 1});
    }
    for (added_text& a : added) add(std::move(a), name);
    added_.seal();
    added_normalised_.seal();
  }

  /// A byte stays one; any other piece is what the added text says.
  void add(added_text a, const std::string& name) {
    if (a.text.empty()) fail("tokenizer", name, "has an added text that is empty");
    if (!has(a.id)) refuse_id("an added text", a.id, name);
    const auto i = std::size_t(a.id);
    const bool in_marks = a.normalised && options_.blanks == blank_step::normalizer;
    if (a.normalised && !characters_.empty()) {
      a.text = characters_(a.text);
      if (a.text.empty()) fail("tokenizer", name, "has an added text that is empty when it is normalised");
    }
    if (in_marks) a.text = normalised(a.text);
    // blanks become marks after these texts are looked for, so characters can become it as well
    const bool as_characters = pieces_[i].kind == piece_kind::normal && !options_.byte_level &&
                               a.text.find(options_.blank) != std::string::npos;
    if (kinds_[i] == piece_kind::normal || kinds_[i] == piece_kind::user) {
      if (a.special)
        kinds_[i] = piece_kind::control;
      else if (in_marks || !as_characters)
        kinds_[i] = piece_kind::user;
      if (in_marks && !a.special) shown_[i] = detail::replace_all(a.text, options_.blank, " ");
    }
    found_whole_[i] = !in_marks && marks(kinds_[i]);
    ends_stretch_[i] = begins_behind(a.id);
    if (!(a.normalised ? added_normalised_ : added_).add(a))
      fail("tokenizer", name, "has two added texts that are looked for as \"" + a.text + "\"");
  }

  bool has(token id) const { return id >= 0 && id < size(); }
  [[noreturn]] void refuse_id(const std::string& place, token id, const std::string& name) const {
    fail("tokenizer", name,
         place + " has id " + std::to_string(id) + ", the vocabulary has " + std::to_string(size()));
  }
  std::size_t checked(std::string_view function, token id) const {
    if (!has(id))
      fail(function, "ids", "holds " + std::to_string(id) + ", the vocabulary has " + std::to_string(size()));
    return std::size_t(id);
  }
  static bool marks(piece_kind kind) { return kind == piece_kind::control || kind == piece_kind::user; }
  bool begins_behind(token id) const {
    return options_.blanks == blank_step::first_stretch ? id == options_.bos : found_whole_[std::size_t(id)];
  }
  std::string marked(std::string_view text) const {
    return options_.blank == " " ? std::string(text) : detail::replace_all(text, " ", options_.blank);
  }

  std::string normalised(std::string_view stretch) const {
    return (options_.prefix ? options_.blank : std::string()) + marked(stretch);
  }

  /// What a stretch becomes where blanks are written behind all added texts.
  std::string with_blank(std::string_view stretch, bool first) const {
    std::string text = marked(stretch);
    const bool wanted = options_.prefix && (first || options_.blanks != blank_step::first_stretch);
    return wanted && !text.starts_with(options_.blank) ? options_.blank + text : text;
  }

  const token* find_text(std::string_view text) const { return ids_.find(text); }
  /// The id of a piece that text can become, or -1.
  token find_plain(std::string_view text) const {
    const token* at = find_text(text);
    return at && pieces_[std::size_t(*at)].kind == piece_kind::normal ? *at : -1;
  }
  token plain(std::string_view character) const {
    const auto first = static_cast<unsigned char>(character[0]);
    return first < 128 ? ascii_[first] : find_plain(character);
  }
  /// The id of a piece that text can become without a join, or -1.
  token whole(std::string_view text) const {
    const token* at = options_.byte_level ? find_text(detail::byte_level_spelling(text)) : find_text(text);
    return at && !marks(pieces_[std::size_t(*at)].kind) ? *at : -1;
  }

  /// Two characters that stand side by side at the seam of no join are never joined across, whatever is
  /// around them: a text falls apart there into stretches (words, mostly), each with a small heap.
  /// spelled(left, right, joined): whether these are normal pieces, and the texts of two that of the third.
  template <class Spelled>
  void find_seams(Spelled&& spelled) {
    falls_apart_ = !options_.byte_level && !options_.whole_pieces;
    if (!falls_apart_) return;
    std::vector<std::pair<token, token>> ends;  // of each piece, once: joins may be as many as all bytes
    ends.reserve(pieces_.size());
    for (const vocabulary_entry& p : pieces_) {
      std::string_view last = p.text;
      const auto first = last.substr(0, detail::character_length(last));
      for (std::size_t n = 0; (n = detail::character_length(last)) < last.size();) last.remove_prefix(n);
      ends.emplace_back(plain(first), plain(last));
    }
    joins_.each([&](token left, token right, const detail::join& joined) {
      falls_apart_ = falls_apart_ && spelled(left, right, joined.result);
      if (falls_apart_) seams_.add(ends[std::size_t(left)].second, ends[std::size_t(right)].first, true);
    });
    seams_.seal();
  }

  /// Appends the ids of what the cuts leave of a text.
  void append_piece(std::string_view piece, encoding& e) const {
    if (!falls_apart_) return append_word(piece, e);
    std::size_t begin = 0;
    token before = -1;
    for (std::size_t at = 0; at < piece.size();) {
      const std::size_t length = detail::character_length(piece.substr(at));
      const token id = plain(piece.substr(at, length));
      // unknown characters stay together, as they may become one
      const bool together = id >= 0 && before >= 0 ? seams_.find(before, id) != nullptr : id == before;
      if (!together && begin < at) {
        append_word(piece.substr(begin, at - begin), e);
        begin = at;
      }
      before = id;
      at += length;
    }
    append_word(piece.substr(begin), e);
  }

  void append_word(std::string_view word, encoding& e) const {
    const std::size_t begin = e.ids.size();
    auto& seen = e.seen.slot_of(word);
    if (seen.word == word) {
      e.ids.resize(begin + seen.count);
      std::copy_n(e.ids.begin() + std::ptrdiff_t(seen.from), seen.count,
                  e.ids.begin() + std::ptrdiff_t(begin));
      return;
    }
    if (const token id = options_.whole_pieces ? whole(word) : -1; id >= 0) {
      e.ids.push_back(id);
    } else {
      append_characters(word, e);
      joins_.run(e.ids, begin, e.workspace);
    }
    seen = {word, begin, e.ids.size() - begin};
  }

  void append_characters(std::string_view text, encoding& e) const {
    const auto byte_piece = [&](char c) { return bytes_[static_cast<unsigned char>(c)]; };
    bool unknown_before = false;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = options_.byte_level ? 1 : detail::character_length(text.substr(at));
      const std::string_view character = text.substr(at, length);
      at += length;
      const token id = options_.byte_level ? byte_piece(character[0]) : plain(character);
      const bool as_bytes = id < 0 && std::all_of(character.begin(), character.end(),
                                                  [&](char c) { return byte_piece(c) >= 0; });
      const bool unknown = id < 0 && !as_bytes;
      if (id >= 0) e.ids.push_back(id);
      if (as_bytes)
        for (const char c : character) e.ids.push_back(byte_piece(c));
      if (unknown && options_.unk < 0)
        fail("tokenizer::encode", e.name,
             "has \"" + std::string(character) + "\", which is no piece, and the vocabulary " + name_ +
                 " has neither bytes nor unk");
      if (unknown && !(unknown_before && options_.fuse_unknown)) e.ids.push_back(options_.unk);
      unknown_before = unknown;
    }
  }

  std::string name_;
  std::vector<vocabulary_entry> pieces_;
  tokenizer_options options_;
  character_steps characters_;
  std::vector<piece_kind> kinds_;   // where ids become text; those of pieces_ say what text can become them
  std::vector<bool> found_whole_;   // a text that is looked for before blanks are written and put in front
  std::vector<bool> ends_stretch_;  // encode() begins a stretch, with a blank in front, behind it
  std::vector<std::string> shown_;
  detail::sealed_map<std::string, token, detail::text_hash> ids_;
  detail::byte_pairs joins_;
  detail::pair_map<bool> seams_;  // of the characters on both sides
  bool falls_apart_ = true;
  std::array<token, 256> bytes_{};
  std::array<token, 128> ascii_{};  // characters of one byte
  added_texts added_, added_normalised_;
  std::shared_ptr<const text_encoder> encoder_;
};

/// The 256 bytes as ids 0 to 255, bos 256, eos 257: for models trained from scratch. Any text comes back.
inline tokenizer byte_tokenizer() {
  std::vector<vocabulary_entry> pieces;
  for (unsigned b = 0; b < 256; ++b) pieces.push_back({detail::byte_name(b), 0, piece_kind::byte});
  pieces.push_back({"<s>", 0, piece_kind::control});
  pieces.push_back({"</s>", 0, piece_kind::control});
  return {std::move(pieces), {.unk = -1, .bos = 256, .eos = 257, .prefix = false}, "byte_tokenizer"};
}

}  // namespace unroll::llama
