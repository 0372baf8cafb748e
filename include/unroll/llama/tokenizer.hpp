#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "unroll/llama/config.hpp"
#include "unroll/llama/vocabulary.hpp"

namespace unroll::llama {

/// A vocabulary and the way from text to its ids by byte-pair encoding (Sennrich et al. 2016, with the byte
/// fallback of SentencePiece, Kudo and Richardson 2018): the text is cut into characters; a character that
/// is no piece becomes its bytes, or unk where bytes are no pieces; then the neighbours whose join comes
/// first (highest score, or earliest in the list of merges; leftmost among equals) are joined, until no
/// neighbours can be.
///
/// Any bytes are a text: what is not UTF-8 is cut into single bytes. With byte pieces
/// decode(encode(text)) == text, except that a mark for blanks (U+2581) in the text of a vocabulary that
/// uses it comes back as a blank and an added text of kind control as nothing. Joining by scores never makes
/// a byte or a control, even where characters spell its name.
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
  token bos() const { return options_.bos; }
  token eos() const { return options_.eos; }
  token unk() const { return options_.unk; }

  /// The bytes an id stands for, with real blanks; of a special piece its name.
  std::string_view piece(token id) const { return shown_[checked("tokenizer::piece", id)]; }
  piece_kind kind(token id) const { return pieces_[checked("tokenizer::kind", id)].kind; }
  float score(token id) const { return pieces_[checked("tokenizer::score", id)].score; }
  /// The id of a piece with real blanks (or of a name such as "</s>" or "<0x0A>"), or -1.
  token find(std::string_view text) const {
    const auto at = ids_.find(marked(text));
    return at == ids_.end() ? -1 : at->second;
  }

  /// The ids of a text of n bytes in O(n log n); an empty text has none. `bos` puts the begin in front.
  /// Throws unroll::error when bos is wanted and there is none, when a character has no id and there is no
  /// unk, and on texts of 2^32 bytes and more.
  std::vector<token> encode(std::string_view text, bool bos = false) const {
    std::vector<token> ids;
    if (text.size() >= none) fail("tokenizer::encode", "text", "has 2^32 bytes or more");
    if (bos) {
      if (options_.bos < 0) fail("tokenizer::encode", "bos", "is wanted, the vocabulary has none");
      ids.push_back(options_.bos);
    }
    if (encoder_) {
      encoder_->encode(text, ids);
      return ids;
    }
    split(text, added_, ids, [&](std::string_view stretch) {
      const std::string normal = (options_.prefix ? options_.blank : std::string()) + marked(stretch);
      split(normal, added_normalised_, ids, [&](std::string_view rest) { join_pieces(rest, ids); });
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
      const piece_kind kind = pieces_[i].kind;
      if (kind == piece_kind::user) text.append(shown_[i]);
      if (kind == piece_kind::user || kind == piece_kind::control) {
        start = true;
        continue;
      }
      std::string_view bytes = shown_[i];
      if (kind == piece_kind::unknown) bytes = "\xEF\xBF\xBD";
      if (start && options_.prefix && bytes.front() == ' ') bytes.remove_prefix(1);
      text.append(bytes);
      start = false;
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
      : pieces_(std::move(pieces)), options_(options) {
    if (pieces_.size() >= std::size_t{1} << 31) fail("tokenizer", name, "has 2^31 pieces or more");
    if (options.blank.empty()) fail("tokenizer", name, "has an empty text for a blank");
    bytes_.fill(-1);
    shown_.reserve(pieces_.size());
    ids_.reserve(pieces_.size());
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      const vocabulary_entry& p = pieces_[i];
      const std::string place = "piece " + std::to_string(i);
      if (p.text.empty()) fail("tokenizer", name, place + " has no text");
      if (!std::isfinite(p.score))
        fail("tokenizer", name, place + " has score " + std::to_string(p.score) + ", must be finite");
      const auto [at, fresh] = ids_.emplace(p.text, token(i));
      if (!fresh)
        fail("tokenizer", name, place + " and piece " + std::to_string(at->second) + " have the same text");
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
    for (added_text& a : added) {
      if (a.text.empty()) fail("tokenizer", name, "has an added text that is empty");
      check_id("an added text", a.id, name);
      if (a.normalised) a.text = (options.prefix ? options.blank : std::string()) + marked(a.text);
      (a.normalised ? added_normalised_ : added_).push_back(std::move(a));
    }
    for (auto* texts : {&added_, &added_normalised_})  // the longest first
      std::stable_sort(texts->begin(), texts->end(),
                       [](const auto& a, const auto& b) { return a.text.size() > b.text.size(); });
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
  static std::uint64_t pair(token left, token right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }
  std::string marked(std::string_view text) const {
    return options_.blank == " " ? std::string(text) : detail::replace_all(text, " ", options_.blank);
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

  /// Calls `rest` with the stretches between the added texts, the leftmost and longest of which become ids.
  template <class Rest>
  static void split(std::string_view text, const std::vector<added_text>& added, std::vector<token>& ids,
                    Rest&& rest) {
    std::size_t begin = 0;
    std::array<bool, 256> starts{};
    for (const auto& a : added) starts[static_cast<unsigned char>(a.text[0])] = true;
    for (std::size_t at = 0; at < text.size() && !added.empty();) {
      const added_text* found = nullptr;
      if (starts[static_cast<unsigned char>(text[at])])
        for (const auto& a : added)
          if (!found && text.substr(at, a.text.size()) == a.text) found = &a;
      if (!found) {
        ++at;
        continue;
      }
      if (at > begin) rest(text.substr(begin, at - begin));
      ids.push_back(found->id);
      begin = at += found->text.size();
    }
    if (begin < text.size()) rest(text.substr(begin));
  }

  std::vector<symbol> cut(std::string_view text) const {
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
        fail("tokenizer::encode", "text",
             "has \"" + std::string(character) + "\" at byte " + std::to_string(at - character.size()) +
                 ", which is no piece, and the vocabulary has neither bytes nor unk");
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

  void join_pieces(std::string_view text, std::vector<token>& ids) const {
    std::vector<symbol> symbols = cut(text);
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

  std::vector<vocabulary_entry> pieces_;
  tokenizer_options options_;
  std::vector<std::string> shown_;
  std::unordered_map<std::string, token, detail::text_hash, detail::text_equal> ids_;
  std::unordered_map<std::uint64_t, join> joins_;
  std::unordered_set<std::uint64_t> seams_;  // pairs of the characters on both sides
  bool falls_apart_ = true;
  std::array<token, 256> bytes_{};
  std::vector<added_text> added_, added_normalised_;
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

/// Throws unroll::error unless the model has one embedding for each piece.
inline void check_vocabulary(const tokenizer& t, const config& c) {
  if (t.size() != c.vocabulary)
    fail("check_vocabulary", "tokenizer",
         "has " + std::to_string(t.size()) + " pieces, the model has a vocabulary of " +
             std::to_string(c.vocabulary));
}

}  // namespace unroll::llama
