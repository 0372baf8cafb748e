#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "unroll/kernels/rotary.hpp"
#include "unroll/llama/config.hpp"

namespace unroll::llama {

/// What rotary positions are made of: kernels::rotary has the formula.
struct rotary_frequencies {
  std::vector<double> inverse;  ///< of the head_dim / 2 pairs
  double attention = 1;         ///< factor of cosines and sines
};

namespace detail {

// Between a pair's own frequency (share 1) and the slowed one.
inline double blend(double inverse, double factor, double share) {
  return (1 - share) * inverse / factor + share * inverse;
}

// Llama 3.1: share of a pair that turns r times over the original context,
//   (r - low) / (high - low), within 0 and 1.
inline void slow_llama3(const config& c, std::vector<double>& inverse) {
  const auto& s = c.scaling;
  for (double& f : inverse) {
    const double turns = double(c.original_context()) * f / (2 * std::numbers::pi);
    const double share = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
    f = share <= 0 ? f / c.position_factor : share >= 1 ? f : blend(f, c.position_factor, share);
  }
}

// YaRN (arXiv 2309.00071, section 3.2): share 1 up to the pair that turns beta_fast times over the original
// context, 0 from the one that turns beta_slow times, linear in the number of the pair between them.
inline void slow_yarn(const config& c, std::vector<double>& inverse) {
  const auto& s = c.scaling;
  const auto pair_that_turns = [&](double times) {
    return double(c.head_dim) * std::log(double(c.original_context()) / (times * 2 * std::numbers::pi)) /
           (2 * std::log(c.rope_base));
  };
  double low = pair_that_turns(s.beta_fast), high = pair_that_turns(s.beta_slow);
  if (s.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, double(c.head_dim - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < inverse.size(); ++i)
    inverse[i] =
        blend(inverse[i], c.position_factor, 1 - std::clamp((double(i) - low) / (high - low), 0.0, 1.0));
}

// YaRN's, equation 22, and as DeepSeek's models change it: 1 + 0.1 mscale ln factor.
inline double yarn_attention(const config& c) {
  const auto& s = c.scaling;
  const auto grown = [&](double mscale) { return 0.1 * mscale * std::log(c.position_factor) + 1; };
  return s.mscale != 0 && s.mscale_all_dim != 0 ? grown(s.mscale) / grown(s.mscale_all_dim) : grown(1);
}

}  // namespace detail

/// The inverse frequencies of a model's pairs and its attention factor, whatever its position_policy; the
/// values are those of transformers 5.24. With b the base, h the head_dim, f the factor, b_i = b^(-2i / h):
///
///   refuse    b_i                        linear    b_i / f
///   ntk       b_i of the base b f^(h / (h - 2))
///   dynamic   ntk with f length / context - (f - 1) in place of f; b_i up to the context
///   llama3    b_i, slowed by f where a pair turns seldom over the original context, between them a blend
///   yarn      the same with other limits, and an attention factor of 1 + 0.1 ln f
///   longrope  b_i / short_factor[i], for lengths beyond the original context b_i / long_factor[i]; attention
///             factor sqrt(1 + ln f / ln original context)
///
/// length is c.positions(). transformers takes that of the longest pass so far instead and leaves the keys of
/// its cache as they were turned before, so that texts written with a cache differ from those without; here
/// a model has one length, and is made again for another. Throws unroll::error where check(c) would.
inline rotary_frequencies frequencies(const config& c) {
  check(c, "frequencies");
  const double f = c.position_factor, head = double(c.head_dim);
  const auto with_base = [&](double times) {
    return kernels::inverse_frequencies(
        c.head_dim, c.head_dim > 2 ? c.rope_base * std::pow(times, head / (head - 2)) : c.rope_base);
  };
  rotary_frequencies out;
  switch (c.beyond) {
    case position_policy::linear:
      out.inverse = kernels::inverse_frequencies(c.head_dim, c.rope_base, f);
      break;
    case position_policy::ntk:
      out.inverse = with_base(f);
      break;
    case position_policy::dynamic:
      out.inverse = with_base(std::max(1.0, f * double(c.positions()) / double(c.context) - (f - 1)));
      break;
    default:
      out.inverse = kernels::inverse_frequencies(c.head_dim, c.rope_base);
  }
  const auto& s = c.scaling;
  if (c.beyond == position_policy::llama3) detail::slow_llama3(c, out.inverse);
  if (c.beyond == position_policy::yarn) {
    detail::slow_yarn(c, out.inverse);
    out.attention = detail::yarn_attention(c);
  }
  if (c.beyond == position_policy::longrope) {
    const double original = double(c.original_context());
    const auto& slower = c.positions() > c.original_context() ? s.long_factor : s.short_factor;
    for (std::size_t i = 0; i < out.inverse.size(); ++i) out.inverse[i] /= slower[i];
    if (f > 1) out.attention = std::sqrt(1 + std::log(f) / std::log(original));
  }
  if (s.attention_factor > 0) out.attention = s.attention_factor;
  return out;
}

/// The positions 0, 1, 2, ..., of which passes over consecutive tokens take a part.
class consecutive_positions {
 public:
  explicit consecutive_positions(index_t n) : all_(std::size_t(n)) {
    std::iota(all_.begin(), all_.end(), index_t{0});
  }
  /// first, first + 1, ..., n of them, all below what it was made with; valid while this lives.
  std::span<const index_t> part(index_t first, index_t n) const {
    return {all_.data() + first, std::size_t(n)};
  }

 private:
  std::vector<index_t> all_;
};

/// The cosines and sines of a model's positions: c.positions() rows.
template <class T>
kernels::rotary<T> make_rotary(const config& c) {
  const rotary_frequencies f = frequencies(c);
  return {f.inverse, f.attention, c.pairs == rope_pairs::neighbours, c.positions()};
}

}  // namespace unroll::llama
