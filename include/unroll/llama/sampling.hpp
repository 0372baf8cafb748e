#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "unroll/core/linalg.hpp"
#include "unroll/llama/config.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::llama {

/// How the next token is drawn from the logits.
struct sampling {
  double temperature = 1;  ///< divides the logits; 0: greedy, the most probable token
  double top_p = 1;        ///< draw from the fewest most probable tokens that have this probability together
};

/// The most probable token, the lowest id where several are. Throws unroll::error on logits that are not
/// finite.
template <class T>
token most_probable(view<const T> logits) {
  check_at_least("most_probable", "logits", logits.size(), 1);
  if (!linalg::all_finite(logits.data(), logits.size())) fail("most_probable", "logits", "are not finite");
  return token(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// Draws tokens. What is drawn depends on the logits, the key and the number of the draw only. Nucleus
/// sampling
/// (`top_p` below 1) is that of Holtzman et al. 2020, arXiv 1904.09751; equally probable tokens are ordered
/// by their ids. Probabilities are computed in double. Draws allocate nothing.
class sampler {
 public:
  explicit sampler(index_t vocabulary, sampling how = {}) : how_(how) {
    check_at_least("sampler", "vocabulary", vocabulary, 1);
    if (!(how.temperature >= 0 && std::isfinite(how.temperature)))
      fail("sampler", "temperature", "is " + std::to_string(how.temperature) + ", must be at least 0");
    if (!(how.top_p > 0 && how.top_p <= 1))
      fail("sampler", "top_p", "is " + std::to_string(how.top_p) + ", must be inside (0, 1]");
    weight_.resize(std::size_t(vocabulary));
    candidates_.reserve(weight_.size());
  }

  const sampling& how() const { return how_; }
  index_t vocabulary() const { return index_t(weight_.size()); }

  /// Draw number `n` of the stream `k`. O(V), and a sort of the candidates where top_p is below 1. Throws
  /// unroll::error on logits that are not finite or not V.
  template <class T>
  token draw(view<const T> logits, key k, std::int64_t n) {
    check_size("sampler::draw", "logits", logits.size(), index_t(weight_.size()));
    const token top = most_probable(logits);
    if (how_.temperature == 0) return top;
    const double largest = double(logits[top]);
    for (index_t i = 0; i < logits.size(); ++i)
      at(token(i)) = (double(logits[i]) - largest) / how_.temperature;
    linalg::exp(weight_.data(), weight_.data(), logits.size());
    const double mass = choose_candidates();
    double below = 0;
    const double u = draw_uniform(k, n) * mass;
    for (const token t : candidates_)
      if (u < (below += at(t))) return t;
    return candidates_.back();  // the sum of the loop was rounded otherwise
  }

 private:
  double& at(token t) { return weight_[std::size_t(t)]; }

  /// Fills candidates_ and returns their weight. The tokens from the last of the nucleus on have more than
  /// 1 - top_p together, so each of the nucleus has more than a V-th of that: few are left to be sorted.
  double choose_candidates() {
    double total = 0;
    for (const double w : weight_) total += w;
    const double least = (1 - how_.top_p) * total / double(weight_.size());
    candidates_.clear();
    for (token t = 0; t < token(weight_.size()); ++t)
      if (at(t) > 0 && at(t) >= least) candidates_.push_back(t);
    if (how_.top_p == 1) return total;
    std::sort(candidates_.begin(), candidates_.end(),
              [this](token a, token b) { return at(a) > at(b) || (at(a) == at(b) && a < b); });
    double mass = 0;
    std::size_t count = 0;
    while (count < candidates_.size() && mass < how_.top_p * total) mass += at(candidates_[count++]);
    candidates_.resize(count);
    return mass;
  }

  sampling how_;
  std::vector<double> weight_;  // exp((logit - largest) / temperature)
  std::vector<token> candidates_;
};

}  // namespace unroll::llama
