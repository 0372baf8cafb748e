// The vocabularies of real models on real books. Needs UNROLL_DATA_DIR.
#include "tests/support/catch.hpp"

#if __has_include(<nlohmann/json.hpp>)

#include <cstdio>
#include <cstdlib>

#include "tests/support/slow_encoding.hpp"
#include "unroll/text/tokenizer_file.hpp"

using namespace unroll;
using llama::load_tokenizer;
using ids = std::vector<llama::token>;

namespace {

/// The file under UNROLL_DATA_DIR; empty, and said so, where there is none.
std::filesystem::path data(const char* file) {
  const char* folder = std::getenv("UNROLL_DATA_DIR");
  const auto path = std::filesystem::path(folder ? folder : "") / file;
  if (folder && std::filesystem::exists(path)) return path;
  std::printf("skipped: UNROLL_DATA_DIR %s%s\n", folder ? "has no " : "is not set", folder ? file : "");
  return {};
}

constexpr const char* moby_dick = "corpora/books/test/melville_moby-dick.txt";
constexpr const char* huge = "models/llama2-tokenizer/tokenizer.bin";
constexpr const char* stories = "models/stories260K/tok512.bin";
constexpr const char* letters = "models/babyllama105/tok105.bin";

/// A few hundred bytes here and there.
std::vector<std::string> excerpts(const std::string& book) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at + 400 < book.size(); at += book.size() / 25)
    all.push_back(book.substr(at, 300 + at % 100));
  return all;
}

}  // namespace

TEST_CASE("real vocabularies encode a book as the slow definition does") {
  const auto path = data(moby_dick);
  if (path.empty()) return;
  const std::string book = read_file(path);
  for (const char* file : {stories, letters, huge}) {
    const auto t = load_tokenizer(data(file));
    const slow_encoding slow(t);
    for (const auto& text : excerpts(book)) REQUIRE(t.encode(text) == slow(text));
    for (const char* text : {"  two  blanks ", "\n\n\t", "na\xC3\xAFve \xF0\x9F\x98\x80 \xE6\x97\xA5",
                             "<s></s><0x0A>", "\xFF\xC3"})
      CHECK(t.encode(text) == slow(text));
  }
}

TEST_CASE("a whole book in the 32,000 pieces of Llama-2 comes back from as many ids as others count") {
  const auto path = data(moby_dick);
  if (path.empty()) return;
  const std::string book = read_file(path);
  const auto t = load_tokenizer(data(huge));
  CHECK(t.size() == 32000);
  const auto found = t.encode(book);
  CHECK(found.size() == 320931);  // of the manifest of the books, counted by SentencePiece
  CHECK(t.decode(found) == book);
  CHECK(t.encode("Hello world", true) == ids{1, 15043, 3186});
}

TEST_CASE("a tokenizer.json gives the ids of its .bin on a book") {
  const auto path = data(moby_dick);
  if (path.empty()) return;
  const std::string book = read_file(path);
  const auto json = load_tokenizer(data("models/stories260K-hf")), bin = load_tokenizer(data(stories));
  CHECK(json.encode(book) == bin.encode(book));
  CHECK(json.decode(json.encode(book, true)) == book);
  CHECK(json.encode("a</s>b") == ids{bin.find(" a"), 2, bin.find(" b")});
  CHECK(bin.encode("a</s>b").size() > 3);

  // 105 characters: what the vocabulary lacks is one unk each, or one for neighbours
  const auto few = load_tokenizer(data("models/babyllama105-hf")), one_each = load_tokenizer(data(letters));
  CHECK(few.encode("a\n\nb") == ids{3, few.find("a"), 0, few.find("b")});
  CHECK(one_each.encode("a\n\nb") == ids{3, few.find("a"), 0, 0, few.find("b")});
  std::string line = book.substr(0, 100000);
  for (char& c : line) c = c == '\n' ? ' ' : c;
  CHECK(few.encode(line) == one_each.encode(line));
}

#if UNROLL_HAS_SENTENCEPIECE
TEST_CASE("a SentencePiece model gives the ids of its .bin but for blanks that it drops and unknowns") {
  const auto path = data(moby_dick);
  if (path.empty()) return;
  const std::string book = read_file(path).substr(0, 200000);
  const auto big = load_tokenizer(data("models/llama2-tokenizer/tokenizer.model")),
             bin = load_tokenizer(data(huge));
  CHECK(big.encode(book) == bin.encode(book));
  CHECK(big.decode(big.encode(book, true)) == book);
  CHECK(big.encode("  two  blanks ") == bin.encode("  two  blanks "));
  const auto dropping = load_tokenizer(data("models/stories260K/tok512.model")),
             small = load_tokenizer(data(stories));
  CHECK(dropping.encode("  two  blanks ") == small.encode("two blanks"));
  CHECK(dropping.encode("two blanks") == small.encode("two blanks"));
  const auto few = load_tokenizer(data("models/babyllama105/tok105.model"));
  CHECK(few.encode("a\n\nb") == load_tokenizer(data("models/babyllama105-hf")).encode("a\n\nb"));
}
#endif

#endif
