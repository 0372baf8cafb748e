#include "unroll/diagnose/text_overlap.hpp"

#include <unroll/core/config.hpp>

#include "tests/support/catch.hpp"

using unroll::bleu4, unroll::rouge_l, unroll::split_words;

namespace {

double bleu_of(const char* reference, const char* candidate) {
  bleu4 score;
  score.add(split_words(reference), split_words(candidate));
  return score.value();
}
double rouge_of(const char* reference, const char* candidate) {
  return rouge_l(split_words(reference), split_words(candidate));
}

}  // namespace

TEST_CASE("BLEU-4 counts as by hand") {
  // candidate: 7 words, 6 of them in the reference; bigrams 4 of 6, trigrams 2 of 5, 4-grams 1 of 4
  const char* reference = "the cat sat on the mat today";
  const char* candidate = "the cat sat on a mat today";
  bleu4 score;
  score.add(split_words(reference), split_words(candidate));
  CHECK(score.precision(1) == Approx(6.0 / 7));
  CHECK(score.precision(2) == Approx(4.0 / 6));
  CHECK(score.precision(3) == Approx(2.0 / 5));
  CHECK(score.precision(4) == Approx(1.0 / 4));
  CHECK(score.brevity() == 1);
  CHECK(score.value() == Approx(std::pow(6.0 / 7 * 4 / 6 * 2 / 5 / 4, 0.25)));
}

TEST_CASE("BLEU-4 counts a word at most as often as the reference has it") {
  // the example of Papineni et al. 2002, section 2.1: 2 of 7
  bleu4 score;
  score.add(split_words("the cat is on the mat"), split_words("the the the the the the the"));
  CHECK(score.precision(1) == Approx(2.0 / 7));
  CHECK(score.value() == 0);
}

TEST_CASE("BLEU-4 is one for equal texts and punishes short ones") {
  CHECK(bleu_of("a b c d e", "a b c d e") == Approx(1));
  // every n-gram of the 5 words is in the 10 of the reference: what remains is exp(1 - 10/5)
  CHECK(bleu_of("a b c d e f g h i j", "a b c d e") == Approx(std::exp(-1.0)));
  CHECK(bleu_of("a b c", "") == 0);
  CHECK(bleu_of("", "a b c d") == 0);
}

TEST_CASE("BLEU-4 of a corpus sums the counts of its pairs") {
  bleu4 score;
  const std::vector<int> first{1, 2, 3, 4, 5}, second{6, 7, 8, 9, 10}, wrong{6, 7, 8, 9, 11};
  score.add(first, first);
  score.add(second, wrong);
  // unigrams 9 of 10, bigrams 7 of 8, trigrams 5 of 6, 4-grams 3 of 4
  CHECK(score.value() == Approx(std::pow(0.9 * 7 / 8 * 5 / 6 * 3 / 4, 0.25)));
}

TEST_CASE("ROUGE-L is the harmonic mean over the longest common subsequence") {
  // the example of Lin 2004, section 2: police ... the gunman -> 3 of 4 and 2 of 4
  CHECK(rouge_of("police killed the gunman", "police kill the gunman") == Approx(0.75));
  CHECK(rouge_of("police killed the gunman", "the gunman kill police") == Approx(0.5));
  // lengths 6 and 3, common subsequence 3: recall 1/2, precision 1
  CHECK(rouge_of("a b c d e f", "a c f") == Approx(2 * 0.5 / 1.5));
  CHECK(rouge_of("a b", "c d") == 0);
  CHECK(rouge_of("a b", "") == 0);
  CHECK(rouge_of("", "") == 1);
}

TEST_CASE("the common subsequence is that of an exhaustive search") {
  const std::vector<int> a{1, 3, 2, 1, 2, 3, 3, 1}, b{3, 1, 2, 2, 3, 1, 1, 2, 3};
  std::int64_t best = 0;
  for (unsigned subset = 0; subset < 1u << a.size(); ++subset) {
    std::size_t at = 0;
    std::int64_t length = 0;
    bool is_subsequence = true;
    for (std::size_t i = 0; i < a.size() && is_subsequence; ++i) {
      if ((subset >> i & 1u) == 0) continue;
      while (at < b.size() && b[at] != a[i]) ++at;
      is_subsequence = at < b.size();
      if (is_subsequence) ++at, ++length;
    }
    if (is_subsequence) best = std::max(best, length);
  }
  CHECK(unroll::common_subsequence(std::span<const int>(a), std::span<const int>(b)) == best);
}

TEST_CASE("words are what stands between blanks") {
  CHECK(split_words("  one\ttwo\n\nthree ") == std::vector<std::string>{"one", "two", "three"});
  CHECK(split_words(" \n").empty());
  CHECK(split_words("").empty());
}
