#include "unroll/text/tokenizer.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/slow_encoding.hpp"
#include "unroll/llama/check_vocabulary.hpp"
#include "unroll/rng/draw.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

using ids = std::vector<token>;
using entries = std::vector<vocabulary_entry>;

/// Numbers 0 .. n-1, one after another.
struct dice {
  key k;
  std::int64_t drawn = 0;
  std::size_t operator()(std::size_t n) { return std::size_t(draw_index(k, drawn++, index_t(n))); }
};

const std::vector<std::string> letters{"a", "b", "c", " ", "\xC3\xA9", "\xE2\x96\x81", "\xF0\x9F\x98\x80"};
const std::vector<std::string> rubbish{
    "d",       "\n", "\x80", "\xC3", "\xED\xA0\x80", "\xC0\xAF", "\xFF", "\xE2\x96", "\xF4\x90\x80\x80",
    "\xC3\xA9"};

std::string random_text(dice& d, std::size_t most) {
  std::string s;
  for (std::size_t n = d(most + 1); n > 0; --n)
    s += d(8) == 0 ? rubbish[d(rubbish.size())] : letters[d(letters.size())];
  return s;
}

entries specials() {
  return {
      {"<unk>", 0, piece_kind::unknown}, {"<s>", 0, piece_kind::control}, {"</s>", 0, piece_kind::control}};
}
entries with_bytes() {
  entries e = specials();
  for (unsigned b = 0; b < 256; ++b) e.push_back({llama::detail::byte_name(b), 0, piece_kind::byte});
  return e;
}

/// Single letters and joins of earlier pieces; few different scores, so that ties are common.
entries random_pieces(dice& d, bool bytes, std::size_t joins) {
  entries e = bytes ? with_bytes() : specials();
  const std::size_t first = e.size();
  for (const auto& l : letters)
    if (d(6) > 0) e.push_back({l, -float(d(4))});
  for (std::size_t i = 0; i < joins; ++i) {
    const auto pick = [&] { return e[first + d(e.size() - first)].text; };
    const std::string text = pick() + pick();
    bool found = false;
    for (const auto& p : e) found = found || p.text == text;
    if (!found) e.push_back({text, -float(d(6))});
  }
  return e;
}

}  // namespace

TEST_CASE("the join of the highest score comes first and the leftmost of equals") {
  entries e = specials();
  for (const auto& [text, score] : {std::pair{" ", 0.f}, {"a", 0.f}, {"b", 0.f}, {"ab", 1.f}, {"ba", 2.f}})
    e.push_back({text, score});
  const tokenizer t(e);
  const token blank = t.find(" "), a = t.find("a"), ab = t.find("ab"), ba = t.find("ba");
  CHECK(t.encode("aba") == ids{blank, a, ba});
  CHECK(t.encode("bab") == ids{blank, ba, t.find("b")});
  CHECK(t.encode("ab", true) == ids{1, blank, ab});
  CHECK(t.encode("") == ids{});
  CHECK(t.encode("", true) == ids{1});
  entries tie = specials();
  for (const char* text : {"a", "aa"}) tie.push_back({text, 0});
  const tokenizer left(tie, {.prefix = false});
  CHECK(left.encode("aaa") == ids{4, 3});
  CHECK(left.encode("aaaa") == ids{4, 4});
}

TEST_CASE("encoding gives the ids of the slow definition, whatever the pieces and the text") {
  dice d{key{1}};
  std::size_t joined = 0;
  for (int round = 0; round < 150; ++round) {
    const tokenizer t(random_pieces(d, round % 2 == 0, d(40)));
    const slow_encoding slow(t);
    for (int n = 0; n < 20; ++n) {
      const std::string text = random_text(d, 40);
      const auto found = t.encode(text);
      REQUIRE(found == slow(text));
      joined += text.size() - std::min(text.size(), found.size());
    }
  }
  CHECK(joined > 10000);
}

TEST_CASE("a list of merges gives the ids of the slow definition") {
  dice d{key{2}};
  std::size_t joined = 0;
  for (int round = 0; round < 150; ++round) {
    const entries e = random_pieces(d, round % 2 == 0, 30);
    slow_encoding slow{tokenizer(e)};
    std::vector<merge> merges;
    for (const auto& [left, l] : slow.ids)
      for (const auto& [right, r] : slow.ids)
        if (slow.ids.count(left + right) > 0 && d(4) > 0) merges.push_back({l, r, slow.ids[left + right]});
    for (std::size_t i = 1; i < merges.size(); ++i) std::swap(merges[i], merges[d(i + 1)]);
    if (merges.empty()) continue;
    for (std::size_t i = 0; i < merges.size(); ++i) slow.rank[{merges[i].left, merges[i].right}] = int(i);
    slow.fuse_unknown = round % 3 == 0;
    const tokenizer t(e, merges, {}, {.fuse_unknown = slow.fuse_unknown});
    for (int n = 0; n < 20; ++n) {
      const std::string text = random_text(d, 40);
      const auto found = t.encode(text);
      REQUIRE(found == slow(text));
      joined += text.size() - std::min(text.size(), found.size());
    }
  }
  CHECK(joined > 10000);
}

TEST_CASE("merges may join bytes and may have any result") {
  entries e = with_bytes();
  for (const char* text : {"a", "euro", "b"}) e.push_back({text});
  const std::vector<merge> merges{{3 + 0xC3, 3 + 0xA9, 260}, {260, 259, 261}};
  const tokenizer t(e, merges, {}, {.prefix = false});
  CHECK(t.encode("\xC3\xA9") == ids{260});
  CHECK(t.encode("a\xC3\xA9"
                 "aa") == ids{259, 261, 259});
}

TEST_CASE("merges whose results are their own parts end, as each leaves one id fewer") {
  const std::vector<merge> circle{{0, 1, 1}, {1, 0, 0}}, self{{0, 0, 0}};
  const tokenizer_options none{.unk = -1, .bos = -1, .eos = -1, .prefix = false};
  const tokenizer t({{"a"}, {"b"}}, circle, {}, none);
  CHECK(t.encode("aba") == ids{0});
  CHECK(t.encode("abab") == ids{1, 1});
  CHECK(tokenizer({{"a"}}, self, {}, none).encode(std::string(1000, 'a')) == ids{0});
}

TEST_CASE("with byte pieces every text comes back, UTF-8 or not") {
  dice d{key{3}};
  const auto bytes = byte_tokenizer();
  for (int round = 0; round < 100; ++round) {
    const tokenizer t(random_pieces(d, true, 30));
    for (int n = 0; n < 20; ++n) {
      const std::string text = random_text(d, 30);
      REQUIRE(t.decode(t.encode(text, n % 2 == 0)) == text);
      REQUIRE(bytes.decode(bytes.encode(text, n % 2 == 0)) == text);
      CHECK(bytes.encode(text).size() == text.size());
    }
  }
  std::string all;
  for (int b = 0; b < 256; ++b) all += char(b);
  CHECK(bytes.decode(bytes.encode(all)) == all);
}

TEST_CASE("the byte vocabulary has 258 ids") {
  const auto t = byte_tokenizer();
  CHECK(t.size() == 258);
  CHECK(t.encode("a\xff", true) == ids{256, 'a', 255});
  CHECK(t.bos() == 256);
  CHECK(t.eos() == 257);
  CHECK(t.unk() == -1);
  CHECK(t.decode(ids{256, ' ', 'a', 257}) == " a");
  CHECK(t.piece(10) == "\n");
  CHECK(t.find("<0x0A>") == 10);
}

TEST_CASE("names of bytes and controls that characters spell do not become them") {
  entries e = with_bytes();
  for (const char* text : {"<", "0", "x", "A", ">", "s", "<0", "<0x", "<0x0", "A>", "<s"})
    e.push_back({text, 1});
  const tokenizer t(e, {.prefix = false});
  CHECK(t.encode("<0x0A>") == ids{t.find("<0x0"), t.find("A>")});
  CHECK(t.encode("<s>") == ids{t.find("<s"), t.find(">")});
  CHECK(t.decode(t.encode("<0x0A><s>")) == "<0x0A><s>");
}

TEST_CASE("an unknown character is one id, or a run of them where the vocabulary says so, or an error") {
  entries e = specials();
  e.push_back({"a"});
  const std::string text =
      "a\xC3\xA9\xE2\x82\xAC\x80"
      "a";
  CHECK(tokenizer(e, {.prefix = false}).encode(text) == ids{3, 0, 0, 0, 3});
  CHECK(tokenizer(e, {.prefix = false, .fuse_unknown = true}).encode(text) == ids{3, 0, 3});
  CHECK(tokenizer(e).encode("a") == ids{0, 3});  // the blank in front is unknown
  CHECK_THROWS_WITH(tokenizer(e, {.unk = -1, .prefix = false}).encode("aab"),
                    ContainsSubstring("text: has \"b\"") && ContainsSubstring("pieces has neither"));
  CHECK_THROWS_WITH(tokenizer(e, {.unk = -1, .prefix = false}, "words").encode("b", false, "book"),
                    ContainsSubstring("book: has \"b\"") && ContainsSubstring("words has neither"));
  CHECK_THROWS_WITH(tokenizer(e, {.bos = -1}).encode("a", true), ContainsSubstring("bos"));
  e.push_back({"<0xC3>", 0, piece_kind::byte});  // not all bytes of the character are pieces
  CHECK(tokenizer(e, {.prefix = false}).encode("\xC3\xA9\xC3") == ids{0, 4});
}

TEST_CASE("decoding drops the blank that encoding put in front, and nothing else") {
  entries e = with_bytes();
  for (const char* text : {" ", "a", " a"}) e.push_back({text});
  const tokenizer t(e);
  const token blank = t.find(" "), a = t.find("a"), both = t.find(" a");
  CHECK(t.decode(ids{both, both}) == "a a");
  CHECK(t.decode(ids{both, both}, false) == " a a");
  CHECK(t.decode(ids{1, blank, both, 2}) == " a");
  CHECK(t.decode(ids{1, both, 2, 1, both}) == "aa");
  CHECK(t.decode(ids{a, 0, 1, a}) ==
        "a\xEF\xBF\xBD"
        "a");
  CHECK(t.decode(ids{3 + ' ', a}) == "a");
  CHECK(t.decode(ids{}) == "");
  CHECK(t.piece(1) == "<s>");
  CHECK(t.kind(a) == piece_kind::normal);
  CHECK(t.find("b") == -1);
  CHECK_THROWS_WITH(t.decode(ids{a, 262}), ContainsSubstring("holds 262, the vocabulary has 262"));
  CHECK_THROWS_AS(t.piece(-1), unroll::error);
}

TEST_CASE("added texts become their ids, the longest first, and every stretch between them is a text") {
  entries e = with_bytes();
  const std::string mark = "\xE2\x96\x81";
  for (const auto& text : {mark, std::string("a"), mark + "a", std::string("<x>")}) e.push_back({text});
  e.push_back({"<x><y>", 0, piece_kind::user});
  const std::vector<merge> merges{{259, 260, 261}};
  const tokenizer_options options{.blank = mark};
  const std::vector<added_text> added{{"<s>", 1}, {"<x>", 262}, {"<x><y>", 263}};
  const tokenizer t(e, merges, added, options);
  CHECK(t.encode("a<s>a") == ids{261, 1, 261});
  CHECK(t.encode("<s><x><y><x> a") == ids{1, 263, 262, 259, 261});
  CHECK(t.decode(t.encode("a<s> a<x><y>a")) == "a a<x><y>a");
  std::string one_by_one;
  bool start = true;
  for (const token id : t.encode("a<s> a<x><y>a")) {
    one_by_one += t.decode(std::span(&id, 1), start);
    start = t.ends_stretch(id);
  }
  CHECK(one_by_one == "a a<x><y>a");
  CHECK(t.decode(t.encode(mark)) == " ");
  CHECK(t.find(" a") == 261);
  CHECK(t.piece(261) == " a");
  const tokenizer normalised(e, merges, {{"<s>", 1, true}}, options);
  CHECK(normalised.encode("<s>a") == ids{1, 260});  // found behind the mark, which belongs to it
  CHECK(normalised.encode("a<s>").front() == 261);
  CHECK(normalised.encode("a<s>").size() == 4);
}

TEST_CASE("a special added text that is looked for with its blank keeps its name") {
  entries e = with_bytes();
  e.push_back({"<x>"});
  const tokenizer t(e, {}, {{"<x>", 259, true, true}}, {.blank = "\xE2\x96\x81"});
  CHECK(t.piece(259) == "<x>");
  CHECK(t.find(t.piece(259)) == 259);
}

TEST_CASE("white space that an added text has eaten is not another one's any more") {
  entries e = with_bytes();
  e.push_back({"<x>"});
  const std::vector<added_text> added{{"<x>", 259, false, false, false, true},
                                      {"\n", 13, false, false, true, false}};
  const tokenizer t(e, {}, added, {.prefix = false});
  CHECK(t.encode("<x>\nb") == ids{259, 3 + 'b'});
  CHECK(t.encode("b \n") == ids{3 + 'b', 13});
}

TEST_CASE("only the shortest form of a character is one, and no half of a pair") {
  using llama::detail::character_length;
  CHECK(character_length("\xF0\x90\x80\x80") == 4);
  CHECK(character_length("\xF4\x8F\xBF\xBF") == 4);
  CHECK(character_length("\xED\x9F\xBF") == 3);
  for (const char* wrong : {"\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xED\xA0\x80", "\xE0\x9F\xBF",
                            "\xC1\xBF", "\xE2\x96", "\x80"})
    CHECK(character_length(wrong) == 1);
}

TEST_CASE("added texts of white space share a long run of it in linear time") {
  const std::string run(300000, '\n');
  for (const bool left : {true, false}) {
    const tokenizer t(with_bytes(), {}, {{"\n", 13, false, false, left, !left}}, {.prefix = false});
    CHECK(t.encode("a" + run + "b").size() == run.size() + 2);
  }
}

TEST_CASE("added texts that almost stand everywhere are looked for in linear time") {
  entries e = with_bytes();
  std::vector<added_text> added;
  for (std::size_t n = 1; n <= 500; ++n) {
    added.push_back({std::string(n, 'a') + "b", token(e.size())});
    e.push_back({added.back().text, 0, piece_kind::user});
  }
  const tokenizer t(e, {}, added, {.prefix = false});
  CHECK(t.encode(std::string(100000, 'a')) == ids(100000, 3 + 'a'));
  CHECK(t.encode("c" + std::string(600, 'a') + "bb").size() == 103);
}

TEST_CASE("of added texts that overlap the leftmost is found, of those the longest") {
  entries e = with_bytes();
  std::vector<std::string> texts;
  dice d{{11}};
  std::vector<added_text> added;
  while (texts.size() < 40) {
    std::string s;
    for (std::size_t n = 1 + d(5); n > 0; --n) s += char('a' + d(2));
    if (std::find(texts.begin(), texts.end(), s) != texts.end()) continue;
    texts.push_back(s);
    added.push_back({s, token(e.size())});
    e.push_back({s, 0, piece_kind::user});
  }
  added.resize(20);
  const tokenizer t(e, {}, added, {.prefix = false});
  for (int i = 0; i < 200; ++i) {
    std::string text;
    for (std::size_t n = d(30); n > 0; --n) text += char('a' + d(d(4) == 0 ? 3 : 2));
    ids right;
    for (std::size_t at = 0; at < text.size();) {
      const added_text* best = nullptr;
      for (const auto& a : added)
        if (text.compare(at, a.text.size(), a.text) == 0 && (!best || a.text.size() > best->text.size()))
          best = &a;
      right.push_back(best ? best->id : token(3 + text[at]));
      at += best ? best->text.size() : 1;
    }
    CHECK(t.encode(text) == right);
  }
}

TEST_CASE("pieces that begin and end each other are joined at every cut") {
  entries e = specials();
  for (std::size_t n = 1; n <= 100; ++n) e.push_back({std::string(n, 'a'), 0});
  for (std::size_t n = 0; n < 100; ++n) e.push_back({std::string(100, 'a') + "b" + std::string(n, 'a'), 0});
  const tokenizer t(e, {.prefix = false});
  // with equal scores the leftmost pair is joined first
  CHECK(t.encode(std::string(101, 'a')) == ids{102, 3});
  CHECK(t.encode(std::string(7, 'a')) == ids{9});
}

TEST_CASE("a text of a million characters is encoded at once") {
  entries e = with_bytes();
  e.push_back({"a", 0});
  for (int n = 2; n <= 1 << 10; n *= 2) e.push_back({std::string(std::size_t(n), 'a'), -float(n)});
  const tokenizer t(e, {.prefix = false});
  const auto found = t.encode(std::string(1 << 20, 'a'));
  CHECK(found == ids(1 << 10, t.find(std::string(1 << 10, 'a'))));
  CHECK(t.encode(std::string(1 << 20, 'b')).size() == 1 << 20);
}

TEST_CASE("a copy is a vocabulary of its own") {
  std::vector<tokenizer> copies;
  {
    const tokenizer t = byte_tokenizer();
    copies.push_back(t);
  }
  CHECK(copies[0].encode("ab") == ids{'a', 'b'});
}

TEST_CASE("a vocabulary that contradicts itself is refused by the place") {
  const auto refused = [](entries e, tokenizer_options o, const std::string& why) {
    CHECK_THROWS_WITH(tokenizer(e, o, "file"), ContainsSubstring("file") && ContainsSubstring(why));
  };
  const tokenizer_options none{.unk = -1, .bos = -1, .eos = -1};
  refused({{"a"}, {"b"}, {"a"}}, none, "piece 2 and piece 0 have the same text");
  refused({{"a"}, {""}}, none, "piece 1 has no text");
  refused({{"a", std::numeric_limits<float>::quiet_NaN()}}, none, "piece 0 has score");
  refused({{"a", std::numeric_limits<float>::infinity()}}, none, "must be finite");
  refused({{"a", 0, piece_kind::byte}}, none, "piece 0 is of kind byte");
  refused({{"<0x0a>", 0, piece_kind::byte}}, none, "piece 0 is of kind byte");
  refused({{"a"}}, {.unk = 0, .bos = 1, .eos = -1}, "bos has id 1, the vocabulary has 1");
  refused({{"a"}}, {.unk = -2, .bos = -1, .eos = -1}, "unk has id -2");
  refused({{"a"}}, {.unk = -1, .bos = -1, .eos = -1, .blank = ""}, "empty text for a blank");
  const entries e{{"a"}, {"b"}, {"ab"}};
  const std::vector<merge> twice{{0, 1, 2}, {0, 1, 2}}, beyond{{0, 1, 3}};
  CHECK_THROWS_WITH(tokenizer(e, twice, {}, none), ContainsSubstring("merge 1"));
  CHECK_THROWS_WITH(tokenizer(e, beyond, {}, none),
                    ContainsSubstring("merge 0 has id 3, the vocabulary has 3"));
  CHECK_THROWS_WITH(tokenizer(e, {}, {{"", 0}}, none), ContainsSubstring("added text"));
  CHECK_THROWS_WITH(tokenizer(e, {}, {{"x", 9}}, none), ContainsSubstring("id 9"));
}

TEST_CASE("a vocabulary of fewer pieces than the model has rows is accepted, one of another model refused") {
  config c;
  for (const index_t rows : {258, 320, 515}) {
    c.vocabulary = rows;
    CHECK_NOTHROW(check_vocabulary(byte_tokenizer(), c));
  }
  for (const index_t rows : {257, 516}) {
    c.vocabulary = rows;
    CHECK_THROWS_WITH(check_vocabulary(byte_tokenizer(), c, "words"),
                      ContainsSubstring("words: has 258") && ContainsSubstring(std::to_string(rows)));
  }
}
