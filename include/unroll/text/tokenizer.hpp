#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "unroll/text/added_texts.hpp"

namespace unroll::llama {

/// A vocabulary, with byte-pair encoding from text to its ids (Sennrich et al. 2016) and back:
///
///   1. The text is cut into characters. A character that is no piece is cut into its bytes, or becomes unk
///      where the vocabulary has no bytes (the byte fallback of SentencePiece, Kudo and Richardson 2018).
///   2. Of all pairs of neighbours that may be joined, the best one is, and so on until none is left. The
///   best
///      has the highest score, or stands first in the list of merges; of equals it is the leftmost.
///
/// Any bytes are a text: what is not UTF-8 is cut into single bytes. decode(encode(text)) == text where the
/// vocabulary has bytes, with two exceptions: U+2581 comes back as a blank where the vocabulary writes blanks
/// so, and an added text of kind control comes back as nothing. Joining by scores never makes a byte or a
/// control, even where characters spell its name.
class tokenizer final {
 public:
  /// Joins by score. `name` stands for the file in messages. Throws unroll::error on a piece that is empty,
  /// there twice, has a score that is no number, or is of kind byte and names none, and on unk, bos or eos
  /// beyond the vocabulary.
  tokenizer(std::vector<vocabulary_entry> pieces, const tokenizer_options& options = {},
            const std::string& name = "pieces")
      : tokenizer(std::move(pieces), options, name, {}) {
    join_by_scores();
    find_seams();
  }

  /// Joins by a list of merges, the first one first; `added` texts are found before. Throws also on ids
  /// beyond the vocabulary, on a pair that is listed twice and on an empty added text.
  tokenizer(std::vector<vocabulary_entry> pieces, std::span<const merge> merges,
            std::vector<added_text> added, const tokenizer_options& options,
            const std::string& name = "pieces")
      : tokenizer(std::move(pieces), options, name, std::move(added)) {
    if (merges.size() >= none) fail("tokenizer", name, "has more than 2^32 merges");
    joins_.reserve(merges.size());
    for (std::size_t i = 0; i < merges.size(); ++i) {
      const std::string place = "merge " + std::to_string(i);
      for (const token id : {merges[i].left, merges[i].right, merges[i].result}) check_id(place, id, name);
      if (!joins_.emplace(pair(merges[i].left, merges[i].right), join{std::uint32_t(i), merges[i].result})
               .second)
        fail("tokenizer", name, place + " is of a pair that an earlier merge joins");
    }
    find_seams();
  }

  /// Ids are found by `encoder`; pieces serve decode().
  tokenizer(std::vector<vocabulary_entry> pieces, std::shared_ptr<const text_encoder> encoder,
            const tokenizer_options& options, const std::string& name = "pieces")
      : tokenizer(std::move(pieces), options, name, {}) {
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
    const auto at = ids_.find(marked(text));
    return at == ids_.end() ? -1 : at->second;
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
    added_.split(text, ids, [&](std::string_view stretch) {
      added_normalised_.split(normalised(stretch), ids,
                              [&](std::string_view rest) { join_pieces(rest, ids, name); });
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
        if (start && options_.prefix && bytes.front() == ' ' && !ends_stretch_[i]) bytes.remove_prefix(1);
        text.append(bytes);
        start = false;
      }
      if (ends_stretch_[i]) start = true;
    }
    return text;
  }

 private:
  static constexpr std::uint32_t none = 0xFFFFFFFF;
  struct join {
    std::uint32_t rank;
    token result;
  };
  struct symbol {
    token id;
    std::uint32_t before, after;
  };
  struct candidate {
    std::uint32_t rank, at;
    token left, right, result;
    bool operator<(const candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
  };

  tokenizer(std::vector<vocabulary_entry> pieces, const tokenizer_options& options, const std::string& name,
            std::vector<added_text> added)
      : name_(name), pieces_(std::move(pieces)), options_(options) {
    if (pieces_.size() >= std::size_t{1} << 31) fail("tokenizer", name, "has 2^31 pieces or more");
    if (options.blank.empty()) fail("tokenizer", name, "has an empty text for a blank");
    bytes_.fill(-1);
    kinds_.reserve(pieces_.size());
    ends_stretch_.reserve(pieces_.size());
    shown_.reserve(pieces_.size());
    ids_.reserve(pieces_.size());
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      const vocabulary_entry& p = pieces_[i];
      const std::string place = "piece " + std::to_string(i);
      if (p.text.empty()) fail("tokenizer", name, place + " has no text");
      if (!std::isfinite(p.score))
        fail("tokenizer", name, place + " has score " + std::to_string(p.score) + ", must be finite");
      const auto [at, is_new] = ids_.emplace(p.text, token(i));
      if (!is_new)
        fail("tokenizer", name, place + " and piece " + std::to_string(at->second) + " have the same text");
      kinds_.push_back(p.kind);
      ends_stretch_.push_back(marks(p.kind));
      const int byte = detail::named_byte(p.text);
      if (p.kind == piece_kind::byte) {
        if (byte < 0) fail("tokenizer", name, place + " is of kind byte and has no name such as <0x0A>");
        bytes_[std::size_t(byte)] = token(i);
        shown_.emplace_back(1, char(static_cast<unsigned char>(byte)));
      } else {
        shown_.push_back(detail::replace_all(p.text, options.blank, " "));
      }
    }
    const auto special = [&](const char* what, token id) {
      if (id != -1) check_id(what, id, name);
    };
    special("unk", options.unk);
    special("bos", options.bos);
    special("eos", options.eos);
    for (added_text& a : added) add(std::move(a), name);
  }

  /// A byte stays one; any other piece is what the added text says.
  void add(added_text a, const std::string& name) {
    if (a.text.empty()) fail("tokenizer", name, "has an added text that is empty");
    check_id("an added text", a.id, name);
    const auto i = std::size_t(a.id);
    if (a.normalised) a.text = normalised(a.text);
    // blanks become marks after these texts are looked for, so characters can become it as well
    const bool as_characters =
        pieces_[i].kind == piece_kind::normal && a.text.find(options_.blank) != std::string::npos;
    if (kinds_[i] == piece_kind::normal || kinds_[i] == piece_kind::user) {
      if (a.special)
        kinds_[i] = piece_kind::control;
      else if (a.normalised || !as_characters)
        kinds_[i] = piece_kind::user;
      if (a.normalised && !a.special) shown_[i] = detail::replace_all(a.text, options_.blank, " ");
    }
    ends_stretch_[i] = !a.normalised && marks(kinds_[i]);
    if (!(a.normalised ? added_normalised_ : added_).add(a))
      fail("tokenizer", name, "has two added texts that are looked for as \"" + a.text + "\"");
  }

  void check_id(std::string_view place, token id, const std::string& name) const {
    if (id < 0 || id >= size())
      fail("tokenizer", name,
           std::string(place) + " has id " + std::to_string(id) + ", the vocabulary has " +
               std::to_string(size()));
  }
  std::size_t checked(std::string_view function, token id) const {
    if (id < 0 || id >= size())
      fail(function, "ids", "holds " + std::to_string(id) + ", the vocabulary has " + std::to_string(size()));
    return std::size_t(id);
  }
  static bool marks(piece_kind kind) { return kind == piece_kind::control || kind == piece_kind::user; }
  static std::uint64_t pair(token left, token right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }
  std::string marked(std::string_view text) const {
    return options_.blank == " " ? std::string(text) : detail::replace_all(text, " ", options_.blank);
  }

  std::string normalised(std::string_view stretch) const {
    return (options_.prefix ? options_.blank : std::string()) + marked(stretch);
  }

  /// The id of a piece that text can become, or -1.
  token plain(std::string_view text) const {
    const auto at = ids_.find(text);
    return at != ids_.end() && pieces_[std::size_t(at->second)].kind == piece_kind::normal ? at->second : -1;
  }

  /// Every cut of a piece into two pieces is a join; its rank is the place of the score among all scores.
  void join_by_scores() {
    std::vector<float> scores;
    std::vector<std::size_t> lengths;
    for (const vocabulary_entry& p : pieces_) {
      if (p.kind != piece_kind::normal) continue;
      scores.push_back(p.score);
      lengths.push_back(p.text.size());
    }
    const auto distinct = [](auto& values) {
      std::sort(values.begin(), values.end());
      values.erase(std::unique(values.begin(), values.end()), values.end());
    };
    distinct(scores);
    distinct(lengths);
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      if (pieces_[i].kind != piece_kind::normal) continue;
      const std::string_view text = pieces_[i].text;
      const auto rank =
          std::uint32_t(scores.end() - std::lower_bound(scores.begin(), scores.end(), pieces_[i].score));
      for (const std::size_t length : lengths) {
        if (length >= text.size()) break;
        if (!std::binary_search(lengths.begin(), lengths.end(), text.size() - length)) continue;
        const token left = plain(text.substr(0, length));
        const token right = left < 0 ? -1 : plain(text.substr(length));
        if (right >= 0) joins_.emplace(pair(left, right), join{rank, token(i)});
      }
    }
  }

  std::vector<symbol> cut(std::string_view text, const std::string& name) const {
    std::vector<symbol> symbols;
    symbols.reserve(text.size());
    const auto append = [&](token id) {
      const auto at = std::uint32_t(symbols.size());
      symbols.push_back({id, at - 1, at + 1});
    };
    bool unknown_before = false;
    for (std::size_t at = 0; at < text.size();) {
      const std::string_view character = text.substr(at, detail::character_length(text.substr(at)));
      at += character.size();
      const token id = plain(character);
      const auto byte_piece = [&](char c) { return bytes_[static_cast<unsigned char>(c)]; };
      const bool as_bytes = id < 0 && std::all_of(character.begin(), character.end(),
                                                  [&](char c) { return byte_piece(c) >= 0; });
      const bool unknown = id < 0 && !as_bytes;
      if (id >= 0) append(id);
      if (as_bytes)
        for (const char c : character) append(byte_piece(c));
      if (unknown && options_.unk < 0)
        fail("tokenizer::encode", name,
             "has \"" + std::string(character) + "\", which is no piece, and the vocabulary " + name_ +
                 " has neither bytes nor unk");
      if (unknown && !(unknown_before && options_.fuse_unknown)) append(options_.unk);
      unknown_before = unknown;
    }
    return symbols;
  }

  /// Two characters that stand side by side at the seam of no join are never joined across, whatever is
  /// around them: a text falls apart there into stretches (words, mostly), each with a small heap.
  void find_seams() {
    for (const auto& [key, joined] : joins_) {
      const auto& left = pieces_[std::size_t(key >> 32)];
      const auto& right = pieces_[std::size_t(key & none)];
      const bool plain_text = left.kind == piece_kind::normal && right.kind == piece_kind::normal &&
                              pieces_[std::size_t(joined.result)].text == left.text + right.text;
      falls_apart_ = falls_apart_ && plain_text;
      std::string_view last = left.text;
      for (std::size_t n = 0; (n = detail::character_length(last)) < last.size();) last.remove_prefix(n);
      const auto first = std::string_view(right.text).substr(0, detail::character_length(right.text));
      seams_.insert(pair(plain(last), plain(first)));
    }
  }

  void join_pieces(std::string_view text, std::vector<token>& ids, const std::string& name) const {
    std::vector<symbol> symbols = cut(text, name);
    std::vector<candidate> heap;
    for (std::size_t begin = 0, end = 0; begin < symbols.size(); begin = end) {
      for (end = begin + 1; end < symbols.size(); ++end)
        if (falls_apart_ && !seams_.contains(pair(symbols[end - 1].id, symbols[end].id))) break;
      symbols[begin].before = symbols[end - 1].after = none;
      join_stretch(symbols, std::uint32_t(begin), heap);
      for (auto i = std::uint32_t(begin); i != none; i = symbols[i].after) ids.push_back(symbols[i].id);
    }
  }

  /// A heap of the joins that are possible, over a linked list of the pieces; an entry whose pieces have
  /// changed since is passed over.
  void join_stretch(std::vector<symbol>& symbols, std::uint32_t begin, std::vector<candidate>& heap) const {
    const auto offer = [&](std::uint32_t i) {
      if (i == none || symbols[i].after == none) return;
      const token left = symbols[i].id, right = symbols[symbols[i].after].id;
      const auto found = joins_.find(pair(left, right));
      if (found == joins_.end()) return;
      heap.push_back({found->second.rank, i, left, right, found->second.result});
      std::push_heap(heap.begin(), heap.end());
    };
    for (std::uint32_t i = begin; i != none; i = symbols[i].after) offer(i);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      const candidate c = heap.back();
      heap.pop_back();
      symbol& left = symbols[c.at];
      if (left.id != c.left || left.after == none || symbols[left.after].id != c.right) continue;
      symbol& right = symbols[left.after];
      left.id = c.result;
      left.after = right.after;
      right.id = -1;
      if (left.after != none) symbols[left.after].before = c.at;
      offer(left.before);
      offer(c.at);
    }
  }

  std::string name_;
  std::vector<vocabulary_entry> pieces_;
  tokenizer_options options_;
  std::vector<piece_kind> kinds_;   // where ids become text; those of pieces_ say what text can become them
  std::vector<bool> ends_stretch_;  // encode() begins a stretch, with a blank in front, behind it
  std::vector<std::string> shown_;
  std::unordered_map<std::string, token, detail::text_hash, detail::text_equal> ids_;
  std::unordered_map<std::uint64_t, join> joins_;
  std::unordered_set<std::uint64_t> seams_;  // pairs of the characters on both sides
  bool falls_apart_ = true;
  std::array<token, 256> bytes_{};
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
