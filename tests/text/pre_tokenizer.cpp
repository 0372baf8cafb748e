#include "unroll/text/pre_tokenizer.hpp"

#include "tests/support/catch.hpp"

using namespace unroll::llama;

namespace {

using pieces = std::vector<std::string>;

pieces cut(std::string_view text, const std::vector<cut_rule>& rules) {
  pieces out;
  pre_tokenize(text, rules, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

const std::vector<std::vector<cut_rule>> kinds{
    {cut_rule::gpt2}, {cut_rule::llama3}, {cut_rule::qwen2}, {cut_rule::digits, cut_rule::gpt2}};

}  // namespace

// The pieces are those of tokenizers 0.23.3: of every kind, in their order.
TEST_CASE("texts are cut as by the expressions of GPT-2, Llama 3, Qwen 2 and SmolLM2") {
  const std::pair<const char*, std::vector<pieces>> golden[] = {
      {"I'LL  pay 12345 dollars\n\n now",
       {
           {"I", "'", "LL", " ", " pay", " 12345", " dollars", "\n\n", " now"},
           {"I", "'LL", " ", " pay", " ", "123", "45", " dollars", "\n\n", " now"},
           {"I", "'LL", " ", " pay", " ", "1", "2", "3", "4", "5", " dollars", "\n\n", " now"},
           {"I", "'", "LL", " ", " pay", " ", "1", "2", "3", "4", "5", " dollars", "\n\n", " now"},
       }},
      {"\xC3\xA9\t\xE6\x97\xA5",
       {
           {"\xC3\xA9", "\t", "\xE6\x97\xA5"},
           {"\xC3\xA9", "\t\xE6\x97\xA5"},
           {"\xC3\xA9", "\t\xE6\x97\xA5"},
           {"\xC3\xA9", "\t", "\xE6\x97\xA5"},
       }},
      {"don't he'\xC5\xBF 'RE\xD9\xA0\xD9\xA1\xD9\xA2\xD9\xA3 x\xC2\xB2",
       {
           {"don", "'t", " he", "'", "\xC5\xBF", " '", "RE", "\xD9\xA0\xD9\xA1\xD9\xA2\xD9\xA3", " x",
            "\xC2\xB2"},
           {"don", "'t", " he", "'\xC5\xBF", " '", "RE", "\xD9\xA0\xD9\xA1\xD9\xA2", "\xD9\xA3", " x",
            "\xC2\xB2"},
           {"don", "'t", " he", "'\xC5\xBF", " '", "RE", "\xD9\xA0", "\xD9\xA1", "\xD9\xA2", "\xD9\xA3", " x",
            "\xC2\xB2"},
           {"don", "'t", " he", "'", "\xC5\xBF", " '", "RE", "\xD9\xA0", "\xD9\xA1", "\xD9\xA2", "\xD9\xA3",
            " x", "\xC2\xB2"},
       }},
      {"  \n\n \t the  ",
       {
           {"  \n\n \t", " the", "  "},
           {"  \n\n", " \t", " the", "  "},
           {"  \n\n", " \t", " the", "  "},
           {"  \n\n \t", " the", "  "},
       }},
      {"a\r\n\r\n  cat...\n\n 7\xCC\x80",
       {
           {"a", "\r\n\r\n ", " cat", "...", "\n\n", " 7", "\xCC\x80"},
           {"a", "\r\n\r\n", " ", " cat", "...\n\n", " ", "7", "\xCC\x80"},
           {"a", "\r\n\r\n", " ", " cat", "...\n\n", " ", "7", "\xCC\x80"},
           {"a", "\r\n\r\n ", " cat", "...", "\n\n ", "7", "\xCC\x80"},
       }},
      {"\xC2\xA0the\xE3\x80\x80 cat'll'd",
       {
           {"\xC2\xA0", "the", "\xE3\x80\x80", " cat", "'ll", "'d"},
           {"\xC2\xA0the", "\xE3\x80\x80", " cat", "'ll", "'d"},
           {"\xC2\xA0the", "\xE3\x80\x80", " cat", "'ll", "'d"},
           {"\xC2\xA0", "the", "\xE3\x80\x80", " cat", "'ll", "'d"},
       }},
      {"\xF0\x91\xB7\xA0\xF0\x9C\xB3\xB0 \xE2\x92\xB6 9",
       {
           {"\xF0\x91\xB7\xA0", "\xF0\x9C\xB3\xB0", " \xE2\x92\xB6", " 9"},
           {"\xF0\x91\xB7\xA0", "\xF0\x9C\xB3\xB0", " \xE2\x92\xB6", " ", "9"},
           {"\xF0\x91\xB7\xA0", "\xF0\x9C\xB3\xB0", " \xE2\x92\xB6", " ", "9"},
           {"\xF0\x91\xB7\xA0", "\xF0\x9C\xB3\xB0", " \xE2\x92\xB6", " ", "9"},
       }},
      {" we've_x",
       {
           {" we", "'ve", "_", "x"},
           {" we", "'ve", "_x"},
           {" we", "'ve", "_x"},
           {" we", "'ve", "_", "x"},
       }},
      {"\n",
       {
           {"\n"},
           {"\n"},
           {"\n"},
           {"\n"},
       }},
      {" ",
       {
           {" "},
           {" "},
           {" "},
           {" "},
       }},
  };
  for (const auto& [text, right] : golden)
    for (std::size_t k = 0; k < kinds.size(); ++k) CHECK(cut(text, kinds[k]) == right[k]);
}

TEST_CASE("digits are cut one by one or in runs, words at their marks, and no rule leaves a text whole") {
  CHECK(cut("a12 b3", {cut_rule::digits}) == pieces{"a", "1", "2", " b", "3"});
  const std::string later = "\xF0\x91\xB7\xA0";  // U+11DE0, a number since Unicode 17.0
  CHECK(cut(later + later, {cut_rule::digits}) == pieces{later, later});
  CHECK(cut(later + later, {cut_rule::llama3}) == pieces{later + later});
  CHECK(cut("\na\tb", {cut_rule::llama3}) == pieces{"\n", "a", "\tb"});
  CHECK(cut("a12 b3", {cut_rule::digit_runs}) == pieces{"a", "12", " b", "3"});
  const std::string mark(blank_mark);
  CHECK(cut("a" + mark + "b" + mark + mark + "c", {cut_rule::words}) ==
        pieces{"a", mark + "b", mark, mark + "c"});
  CHECK(cut("a b", {}) == pieces{"a b"});
  CHECK(cut("", {}).empty());
  CHECK(cut("", {cut_rule::gpt2}).empty());
}

TEST_CASE("bytes that are no UTF-8 are signs") {
  for (const auto& rules : kinds)
    CHECK(cut("a\xFF\xC3 b\x80", rules) == pieces{"a", "\xFF\xC3", " b", "\x80"});
}

TEST_CASE("the categories are those of Unicode 16.0") {
  std::size_t letters = 0, numbers = 0, digits = 0, words = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    letters += detail::in_runs(detail::letter_runs, c);
    numbers += detail::in_runs(detail::number_runs, c);
    digits += detail::in_runs(detail::number_runs, c) || detail::in_runs(detail::later_number_runs, c);
    words += detail::in_runs(detail::letter_runs, c) || detail::in_runs(detail::word_runs, c);
  }
  // as many as tokenizers 0.23.3 finds, which tokenizer_compare.py compares one by one
  CHECK(letters == 141028);
  CHECK(numbers == 1911);
  CHECK(digits == 1924);
  CHECK(words == 144667);
}
