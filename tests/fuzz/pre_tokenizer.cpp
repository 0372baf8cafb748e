// Rules and a text made of the bytes: the pieces are those that the expressions give when they are tried
// alternative by alternative, longest first; and a byte-level vocabulary gives the text back.
#include "tests/fuzz/target.hpp"
#include "unroll/text/byte_level_tokenizer.hpp"

using namespace unroll::llama;

// First byte: the rules. The rest is the text.
std::vector<std::string> seeds() {
  return {"0I'LL  pay 12345 dollars\n\n now",
          "1he'\xC5\xBF  x\xC2\xA0y \xD9\xA1\xD9\xA2 \r\n\r\n z",
          "2...\n\n \t a1b2",
          "3\xFF\xC3 \xF0\x91\xB7\xA0 12 'll",
          "4a12b3 \xC2\xB2",
          "5\xE2\x96\x81"
          "ab\xE2\x96\x81\xE2\x96\x81"
          "c"};
}

namespace {

using characters = std::vector<detail::character>;

bool is(const characters& t, std::size_t i, detail::character_kind kind) {
  return i < t.size() && t[i].kind == kind;
}
bool space(const characters& t, std::size_t i) { return is(t, i, detail::character_kind::space); }
bool line_end(const characters& t, std::size_t i) {
  return i < t.size() && (t[i].code == 10 || t[i].code == 13);
}

/// Characters from `at` on that `wanted` wants.
template <class Wanted>
std::size_t run(const characters& t, std::size_t at, Wanted&& wanted) {
  std::size_t n = 0;
  while (at + n < t.size() && wanted(at + n)) ++n;
  return n;
}
std::size_t run(const characters& t, std::size_t at, detail::character_kind kind) {
  return run(t, at, [&](std::size_t i) { return is(t, i, kind); });
}

std::size_t contraction(const characters& t, std::size_t at, bool fold) {
  for (const char* word : {"s", "t", "re", "ve", "m", "ll", "d"}) {
    const std::size_t n = std::string_view(word).size();
    bool same = at + n < t.size() && t[at].code == '\'';
    for (std::size_t i = 0; same && i < n; ++i) {
      const auto want = char32_t(word[i]), got = t[at + 1 + i].code;
      same = got == want || (fold && (got == want - 32 || (want == 's' && got == 0x17F)));
    }
    if (same) return n + 1;
  }
  return 0;
}

/// \s+(?!\S)|\s+
std::size_t spaces(const characters& t, std::size_t at) {
  const std::size_t all = run(t, at, detail::character_kind::space);
  for (std::size_t n = all; n > 0; --n)
    if (at + n == t.size() || space(t, at + n)) return n;
  return all;
}

std::size_t gpt2(const characters& t, std::size_t at) {
  using enum detail::character_kind;
  if (const auto n = contraction(t, at, false)) return n;
  for (const auto kind : {letter, number, sign})
    for (const std::size_t blank : {1, 0})
      if (blank == 0 || t[at].code == ' ')
        if (const auto n = run(t, at + blank, kind)) return blank + n;
  return spaces(t, at);
}

std::size_t llama3(const characters& t, std::size_t at, std::size_t digits) {
  using enum detail::character_kind;
  if (const auto n = contraction(t, at, true)) return n;
  for (const std::size_t any : {1, 0})
    if (any == 0 || (!line_end(t, at) && !is(t, at, letter) && !is(t, at, number)))
      if (const auto n = run(t, at + any, letter)) return any + n;
  if (const auto n = run(t, at, number)) return std::min(n, digits);
  for (const std::size_t blank : {1, 0})
    if (blank == 0 || t[at].code == ' ')
      if (const auto n = run(t, at + blank, sign))
        return blank + n + run(t, at + blank + n, [&](std::size_t i) { return line_end(t, i); });
  for (std::size_t n = run(t, at, space) + 1; n-- > 0;)
    if (const auto ends = run(t, at + n, [&](std::size_t i) { return line_end(t, i); })) return n + ends;
  return spaces(t, at);
}

/// The pieces of `text` by one rule.
std::vector<std::string> slow(const std::string& text, cut_rule rule) {
  characters t;
  for (std::size_t at = 0; at < text.size(); at += t.back().length)
    t.push_back(detail::first_character(std::string_view(text).substr(at)));
  std::vector<std::string> out;
  for (std::size_t at = 0, byte = 0; at < t.size();) {
    std::size_t n = rule == cut_rule::gpt2 ? gpt2(t, at) : llama3(t, at, rule == cut_rule::llama3 ? 3 : 1);
    out.emplace_back();
    for (; n > 0; --n, ++at) {
      out.back() += text.substr(byte, t[at].length);
      byte += t[at].length;
    }
  }
  return out;
}

}  // namespace

void parse(std::string_view bytes) {
  if (bytes.empty()) return;
  const std::vector<cut_rule> all[] = {{cut_rule::gpt2},       {cut_rule::llama3},
                                       {cut_rule::qwen2},      {cut_rule::digits, cut_rule::gpt2},
                                       {cut_rule::digit_runs}, {cut_rule::words, cut_rule::digits}};
  const auto& rules = all[static_cast<unsigned char>(bytes[0]) % 6];
  const std::string text(bytes.substr(1));
  std::vector<std::string> pieces;
  std::string together;
  pre_tokenize(text, rules, [&](std::string_view piece) {
    if (piece.empty()) std::abort();
    pieces.emplace_back(piece);
    together += piece;
  });
  if (together != text) std::abort();
  if (rules.size() == 1 && rules[0] != cut_rule::digit_runs && pieces != slow(text, rules[0])) std::abort();
  static const auto vocabulary = [] {
    std::vector<vocabulary_entry> p;
    for (unsigned b = 0; b < 256; ++b) p.push_back({detail::byte_level_spelling(std::string(1, char(b)))});
    return p;
  }();
  const auto t =
      byte_level_tokenizer(vocabulary, {}, {.unk = -1, .bos = -1, .eos = -1, .cuts = rules}, "input");
  if (t.decode(t.encode(text)) != text) std::abort();
}
