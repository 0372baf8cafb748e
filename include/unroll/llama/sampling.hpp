#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/exec/operations.hpp"
#include "unroll/kernels/sampling.hpp"
#include "unroll/llama/config.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::llama {

/// How tokens are drawn from logits, in the order of transformers: the logits of tokens that the text has are
/// divided by `repetition_penalty` where they are positive and multiplied where not (Keskar et al. 2019,
/// arXiv 1909.05858); all are divided by the temperature; the top_k largest stay, with all that equal the
/// last of them; of these the fewest that have the probability top_p.
struct sampling {
  double temperature = 1;         ///< 0: the most probable token
  double top_p = 1;               ///< above 0 and at most 1
  index_t top_k = 0;              ///< 0: all
  double repetition_penalty = 1;  ///< above 0
};

/// The most probable token, the lowest id where several are; one logit a token of the vocabulary. Throws
/// unroll::error on logits that are not finite.
template <class T>
token most_probable(view<const T> logits) {
  check_at_least("most_probable", "logits", logits.size(), 1);
  if (!linalg::all_finite(logits.data(), logits.size())) fail("most_probable", "logits", "are not finite");
  return token(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// Draws tokens, as kernels::sample does: what is drawn depends on the logits, the key, the number of the
/// draw and, with repetition_penalty, what was seen. Draws allocate nothing.
class sampler {
 public:
  explicit sampler(index_t vocabulary, sampling how = {}) : how_(how), vocabulary_(vocabulary) {
    check_at_least("sampler", "vocabulary", vocabulary, 1);
    if (!(how.temperature >= 0 && std::isfinite(how.temperature)))
      fail("sampler", "temperature", "is " + std::to_string(how.temperature) + ", must be at least 0");
    if (!(how.top_p > 0 && how.top_p <= 1))
      fail("sampler", "top_p", "is " + std::to_string(how.top_p) + ", must be inside (0, 1]");
    check_at_least("sampler", "top_k", how.top_k, 0);
    if (!(how.repetition_penalty > 0 && std::isfinite(how.repetition_penalty)))
      fail("sampler", "repetition_penalty",
           "is " + std::to_string(how.repetition_penalty) + ", must be above 0");
    workspace_ = buffer<double>(kernels::sampling_workspace<double>(vocabulary));
    if (changes()) logits_ = buffer<double>(2 * vocabulary);
    if (how.repetition_penalty != 1) seen_.assign(std::size_t(vocabulary), false);
  }

  const sampling& how() const { return how_; }        ///< what it was made with
  index_t vocabulary() const { return vocabulary_; }  ///< ids that it draws from

  /// Draw number `n` of the stream `k`. O(V), and a sort of the candidates where top_p is below 1. Throws
  /// unroll::error on logits that are not finite or not V.
  template <class T>
  token draw(view<const T> logits, key k, std::int64_t n) {
    check_size("sampler::draw", "logits", logits.size(), vocabulary_);
    most_probable(logits);
    if (!changes()) return sample(logits, k, n);
    change(logits);
    return sample(view<const double>(logits_.data(), vocabulary_), k, n);
  }
  /// Tokens that the text has from here on, for repetition_penalty; ids outside the vocabulary count for
  /// nothing.
  void saw(std::span<const token> ids) {
    if (seen_.empty()) return;
    for (const token t : ids)
      if (t >= 0 && t < vocabulary_) seen_[std::size_t(t)] = true;
  }
  /// Begins another text.
  void forget() { std::fill(seen_.begin(), seen_.end(), false); }

 private:
  bool changes() const {
    return (how_.top_k > 0 && how_.top_k < vocabulary_) || how_.repetition_penalty != 1;
  }
  template <class T>
  token sample(view<const T> logits, key k, std::int64_t n) {
    return kernels::sample(logits.data(), logits.size(), how_.temperature, how_.top_p, draw_uniform(k, n),
                           view<double>(workspace_));
  }
  /// WRITES to logits_, V numbers and V of workspace, what stays of the logits: those outside the top_k
  /// become minus infinity. Throws unroll::error where the penalty makes one infinite.
  template <class T>
  void change(view<const T> logits) {
    double *const to = logits_.data(), *const sorted = to + vocabulary_;
    for (index_t i = 0; i < vocabulary_; ++i) {
      const double x = double(logits[i]), p = how_.repetition_penalty;
      to[i] = seen_.empty() || !seen_[std::size_t(i)] ? x : x > 0 ? x / p : x * p;
    }
    if (!linalg::all_finite(to, vocabulary_))
      fail("sampler::draw", "logits",
           "are not finite behind a repetition_penalty of " + number_text(how_.repetition_penalty));
    if (how_.top_k == 0 || how_.top_k >= vocabulary_) return;
    std::copy_n(to, vocabulary_, sorted);
    std::nth_element(sorted, sorted + how_.top_k - 1, sorted + vocabulary_,
                     [](double a, double b) { return a > b; });
    const double least = sorted[how_.top_k - 1];
    constexpr double none = -std::numeric_limits<double>::infinity();
    for (index_t i = 0; i < vocabulary_; ++i)
      if (to[i] < least) to[i] = none;
  }

  sampling how_;
  index_t vocabulary_;
  buffer<double> workspace_, logits_;
  std::vector<bool> seen_;  // by id; empty where nothing asks
};

}  // namespace unroll::llama
