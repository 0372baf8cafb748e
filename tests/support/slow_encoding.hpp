#pragma once

#include <map>
#include <string>
#include <vector>

#include "unroll/text/tokenizer.hpp"

/// Byte-pair encoding as its definition says it, with strings and in quadratic time.
struct slow_encoding {
  using token = unroll::llama::token;
  struct item {
    std::string text;  // empty: a byte or unknown, which joins nothing
    token id;
  };

  std::map<std::string, token> ids;             // of the pieces that text can become
  std::map<std::string, float> scores;          // joins by score,
  std::map<std::pair<token, token>, int> rank;  // or by a list where it is not empty
  std::map<int, token> bytes;
  token unk = 0;
  bool prefix = true;
  std::string blank = " ";
  bool fuse_unknown = false;

  slow_encoding() = default;
  /// The vocabulary of a tokenizer that joins by scores and has no other text for blanks.
  explicit slow_encoding(const unroll::llama::tokenizer& t) : unk(t.unk()) {
    for (token i = 0; i < t.size(); ++i) {
      const std::string text(t.piece(i));
      if (t.kind(i) == unroll::llama::piece_kind::byte) bytes[static_cast<unsigned char>(text[0])] = i;
      if (t.kind(i) != unroll::llama::piece_kind::normal) continue;
      ids[text] = i;
      scores[text] = t.score(i);
    }
  }

  /// Bytes of the character at `at`: what std::mbrtowc would take, or 1.
  static std::size_t length(const std::string& s, std::size_t at) {
    const auto byte = [&](std::size_t i) { return at + i < s.size() ? unsigned(s[at + i]) & 255u : 0u; };
    const std::size_t n = byte(0) < 0x80   ? 1
                          : byte(0) < 0xC0 ? 0
                          : byte(0) < 0xE0 ? 2
                          : byte(0) < 0xF0 ? 3
                                           : 4;
    unsigned code = n == 1 ? byte(0) : byte(0) & (0xFFu >> (n + 1));
    for (std::size_t i = 1; i < n; ++i) {
      if ((byte(i) & 0xC0) != 0x80) return 1;
      code = code << 6 | (byte(i) & 0x3F);
    }
    const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool valid =
        n > 0 && byte(0) < 0xF8 && code >= least[n] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    return valid ? n : 1;
  }

  std::vector<token> operator()(const std::string& text) const {
    std::string s = prefix && !text.empty() ? blank : "";
    for (const char c : text) s += c == ' ' ? blank : std::string(1, c);
    std::vector<item> items;
    bool unknown = false;
    for (std::size_t at = 0; at < s.size();) {
      const std::string character = s.substr(at, length(s, at));
      at += character.size();
      const bool known = ids.count(character) > 0;
      bool as_bytes = !known;
      for (const char c : character) as_bytes = as_bytes && bytes.count(static_cast<unsigned char>(c)) > 0;
      if (known) items.push_back({character, ids.at(character)});
      if (as_bytes)
        for (const char c : character) items.push_back({"", bytes.at(static_cast<unsigned char>(c))});
      if (!known && !as_bytes && !(unknown && fuse_unknown)) items.push_back({"", unk});
      unknown = !known && !as_bytes;
    }
    for (;;) {
      std::size_t best = items.size();
      double best_score = 0;
      for (std::size_t i = 0; i + 1 < items.size(); ++i) {
        const item &a = items[i], &b = items[i + 1];
        double score = 0;
        if (!rank.empty()) {
          const auto found = rank.find({a.id, b.id});
          if (found == rank.end()) continue;
          score = -found->second;
        } else {
          if (a.text.empty() || b.text.empty() || ids.count(a.text + b.text) == 0) continue;
          score = double(scores.at(a.text + b.text));
        }
        if (best == items.size() || score > best_score) {
          best = i;
          best_score = score;
        }
      }
      if (best == items.size()) break;
      items[best].text += items[best + 1].text;
      items[best].id = ids.at(items[best].text);
      items.erase(items.begin() + std::ptrdiff_t(best) + 1);
    }
    std::vector<token> out;
    for (const item& i : items) out.push_back(i.id);
    return out;
  }
};
