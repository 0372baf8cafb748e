#pragma once

#include <algorithm>
#include <cmath>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/exec/operations.hpp"
#include "unroll/kernels/sampling.hpp"
#include "unroll/llama/config.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll::llama {

using exec::sampling;

/// The most probable token, the lowest id where several are; one logit a token of the vocabulary. Throws
/// unroll::error on logits that are not finite.
template <class T>
token most_probable(view<const T> logits) {
  check_at_least("most_probable", "logits", logits.size(), 1);
  if (!linalg::all_finite(logits.data(), logits.size())) fail("most_probable", "logits", "are not finite");
  return token(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// Draws tokens, as kernels::sample does: what is drawn depends on the logits, the key and the number of the
/// draw only. Draws allocate nothing.
class sampler {
 public:
  explicit sampler(index_t vocabulary, sampling how = {}) : how_(how), vocabulary_(vocabulary) {
    check_at_least("sampler", "vocabulary", vocabulary, 1);
    if (!(how.temperature >= 0 && std::isfinite(how.temperature)))
      fail("sampler", "temperature", "is " + std::to_string(how.temperature) + ", must be at least 0");
    if (!(how.top_p > 0 && how.top_p <= 1))
      fail("sampler", "top_p", "is " + std::to_string(how.top_p) + ", must be inside (0, 1]");
    workspace_ = buffer<double>(kernels::sampling_workspace<double>(vocabulary));
  }

  const sampling& how() const { return how_; }        ///< temperature and top_p
  index_t vocabulary() const { return vocabulary_; }  ///< ids that it draws from

  /// Draw number `n` of the stream `k`. O(V), and a sort of the candidates where top_p is below 1. Throws
  /// unroll::error on logits that are not finite or not V.
  template <class T>
  token draw(view<const T> logits, key k, std::int64_t n) {
    check_size("sampler::draw", "logits", logits.size(), vocabulary_);
    most_probable(logits);
    return kernels::sample(logits.data(), logits.size(), how_.temperature, how_.top_p, draw_uniform(k, n),
                           view<double>(workspace_));
  }

 private:
  sampling how_;
  index_t vocabulary_;
  buffer<double> workspace_;
};

}  // namespace unroll::llama
