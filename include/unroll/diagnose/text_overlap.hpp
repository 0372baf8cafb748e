#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/config.hpp"

namespace unroll {

/// BLEU-4 (Papineni et al. 2002) of a corpus of pairs, each a candidate and its one reference: sequences of
/// anything that has an order (words, token ids).
///
///   BLEU = min(1, exp(1 - r / c)) (p_1 p_2 p_3 p_4)^(1/4)
///
/// p_n is the share of the candidates' n-grams that their reference has too, each counted at most as often as
/// the reference has it; c and r are the total lengths. Counts are summed over the pairs before anything is
/// divided. No smoothing: the value is 0 when no 4-gram matches. O(length log length) a pair.
class bleu4 {
 public:
  /// One pair of texts, in words.
  template <class Word>
  void add(std::span<const Word> reference, std::span<const Word> candidate) {
    reference_ += std::int64_t(reference.size());
    candidate_ += std::int64_t(candidate.size());
    for (std::size_t n = 1; n <= 4; ++n) {
      const auto expected = sorted_grams(reference, n), found = sorted_grams(candidate, n);
      found_[n - 1] += std::int64_t(found.size());
      for (auto e = expected.begin(), f = found.begin(); e != expected.end() && f != found.end();)
        if (comes_before(*e, *f))
          ++e;
        else if (comes_before(*f, *e))
          ++f;
        else
          ++matched_[n - 1], ++e, ++f;
    }
  }
  /// One pair of texts, in words.
  template <class Word>
  void add(const std::vector<Word>& reference, const std::vector<Word>& candidate) {
    add(std::span<const Word>(reference), std::span<const Word>(candidate));
  }

  /// p_n, n = 1 .. 4; 0 when the candidates have no n-gram.
  double precision(int n) const {
    const auto i = std::size_t(n - 1);
    return found_[i] > 0 ? double(matched_[i]) / double(found_[i]) : 0;
  }
  /// min(1, exp(1 - r / c)).
  double brevity() const {
    if (candidate_ == 0) return 0;
    return std::min(1.0, std::exp(1 - double(reference_) / double(candidate_)));
  }
  double value() const {
    double product = 1;
    for (int n = 1; n <= 4; ++n) product *= precision(n);
    return brevity() * std::pow(product, 0.25);
  }

 private:
  template <class Word>
  static bool comes_before(std::span<const Word> a, std::span<const Word> b) {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  }
  // All of them: where one stands twice in the text, twice.
  template <class Word>
  static std::vector<std::span<const Word>> sorted_grams(std::span<const Word> text, std::size_t n) {
    std::vector<std::span<const Word>> grams;
    for (std::size_t i = 0; i + n <= text.size(); ++i) grams.push_back(text.subspan(i, n));
    std::sort(grams.begin(), grams.end(), comes_before<Word>);
    return grams;
  }

  std::array<std::int64_t, 4> matched_{}, found_{};
  std::int64_t reference_ = 0, candidate_ = 0;
};

/// Length of the longest common subsequence. O(|a| |b|) time, O(|b|) memory.
template <class Word>
std::int64_t common_subsequence(std::span<const Word> a, std::span<const Word> b) {
  std::vector<std::int64_t> row(b.size() + 1);
  for (const Word& word : a) {
    std::int64_t diagonal = 0;  // row[j - 1] of the line above
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::int64_t above = row[j];
      row[j] = word == b[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
      diagonal = above;
    }
  }
  return row.back();
}

/// ROUGE-L (Lin 2004) of one pair: with l the length of the longest common subsequence, recall l /
/// |reference| and precision l / |candidate|, their harmonic mean 2 l / (|reference| + |candidate|). Two
/// empty sequences score 1.
template <class Word>
double rouge_l(std::span<const Word> reference, std::span<const Word> candidate) {
  if (reference.empty() && candidate.empty()) return 1;
  return 2 * double(common_subsequence(reference, candidate)) / double(reference.size() + candidate.size());
}
/// ROUGE-L of two texts in words; see above.
template <class Word>
double rouge_l(const std::vector<Word>& reference, const std::vector<Word>& candidate) {
  return rouge_l(std::span<const Word>(reference), std::span<const Word>(candidate));
}

/// The words of a text: what stands between blanks, tabs and line breaks.
inline std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  constexpr std::string_view blanks = " \t\r\n\f\v";
  for (std::size_t at = text.find_first_not_of(blanks); at < text.size();) {
    const std::size_t end = std::min(text.find_first_of(blanks, at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = std::min(text.find_first_not_of(blanks, end), text.size());
  }
  return words;
}

}  // namespace unroll
