#pragma once

#include <cmath>

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/device_math.hpp"

namespace unroll::kernels {

/// *out = the lowest index of the largest of n logits. One block.
template <class P>
struct argmax_body {
  const P* logits;
  index_t n;
  std::int32_t* out;

  static constexpr int threads = 256;
  UNROLL_HD index_t blocks() const { return 1; }
  UNROLL_HD index_t shared_bytes() const { return shared_size<index_t>(threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    index_t* const s = c.template shared<index_t>(threads);
    c.phase([&](int t) {
      index_t best = t;
      for (index_t i = t + threads; i < n; i += threads)
        if (float(logits[i]) > float(logits[best])) best = i;
      s[t] = t < n ? best : n;
    });
    join_by_halves(c, s, [&](index_t a, index_t b) {
      if (a == n || b == n) return smaller(a, b);
      const float u = float(logits[a]), v = float(logits[b]);
      return u > v || (u == v && a < b) ? a : b;
    });
    c.phase([&](int t) {
      if (t == 0) *out = std::int32_t(s[0]);
    });
  }
};

/// *out = the token that u, uniform on [0, 1), draws from softmax(logits / temperature) among the fewest most
/// probable ones that have the probability top_p together, equally probable ones in the order of their ids.
/// In this order, or by their ids where top_p is 1, it is the first one at which the weights exp((logit -
/// largest) / temperature), added up, exceed u times the weight of all that are drawn from. Without sorting:
/// the weight of that token is the largest w for which tokens of a weight of at least w have enough, found
/// bit by bit; then its id. n logits; weight: n numbers of workspace; one block. temperature > 0.
template <class P>
struct sample_body {
  const P* logits;
  index_t n;
  float temperature;
  double top_p, u;
  P* weight;
  std::int32_t* out;

  static constexpr int threads = 512;
  UNROLL_HD index_t blocks() const { return 1; }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<double>(threads) + shared_size<index_t>(threads);
  }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    double* const s = c.template shared<double>(threads);
    index_t* const counts = c.template shared<index_t>(threads);
    largest_by_halves(c, s, logits, n);
    c.phase([&](int t) {
      for (index_t i = t; i < n; i += threads)
        weight[i] = P(math::exp((float(logits[i]) - float(s[0])) / temperature));
    });
    if (top_p < 1) {
      const double all = weight_of(c, s, [](float) { return true; });
      const double mass = reach(c, s, counts, top_p * all, false);
      reach(c, s, counts, u * mass, true);
    } else {
      draw_by_id(c, s);
    }
  }

 private:
  /// The weight of all tokens whose weight is as `counted` says, for every thread.
  template <class Context, class F>
  UNROLL_HD double weight_of(Context& c, double* s, F&& counted) const {
    c.phase([&](int t) {
      double sum = 0;
      for (index_t i = t; i < n; i += threads)
        if (counted(float(weight[i]))) sum += double(float(weight[i]));
      s[t] = sum;
    });
    sum_by_halves(c, s);
    const double sum = s[0];
    c.phase([](int) {});  // s[0] has been read
    return sum;
  }
  /// The first token, by id, at which the weights added up exceed u times all of them.
  template <class Context>
  UNROLL_HD void draw_by_id(Context& c, double* s) const {
    const index_t chunk = ceil_div(n, threads);
    c.phase([&](int t) {
      s[t] = 0;
      for (index_t i = t * chunk; i < smaller(n, (t + 1) * chunk); ++i) s[t] += double(float(weight[i]));
    });
    c.phase([&](int t) {
      if (t != 0) return;
      double all = 0, below = 0;
      for (int i = 0; i < threads; ++i) all += s[i];
      int in = 0;
      for (; in + 1 < ceil_div(n, chunk) && !(below + s[in] > u * all); ++in) below += s[in];
      index_t i = in * chunk;
      for (; i + 1 < n && !((below += double(float(weight[i]))) > u * all); ++i) {
      }
      *out = std::int32_t(i);
    });
  }
  /// Adds up weights from the largest on until they reach `goal`, or are beyond it; *out is the last one's
  /// token. Returns the sum.
  template <class Context>
  UNROLL_HD double reach(Context& c, double* s, index_t* counts, double goal, bool beyond) const {
    const auto enough = [&](double sum) { return beyond ? sum > goal : sum >= goal; };
    std::uint32_t bits = 0;
    for (int bit = 30; bit >= 0; --bit) {
      const std::uint32_t trial = bits | std::uint32_t{1} << bit;
      if (enough(weight_of(c, s, [&](float w) { return w >= math::detail::float_of(trial); }))) bits = trial;
    }
    const float last = math::detail::float_of(bits);
    double sum = weight_of(c, s, [&](float w) { return w > last; });
    const index_t chunk = ceil_div(n, threads);
    c.phase([&](int t) {
      counts[t] = 0;
      for (index_t i = t * chunk; i < smaller(n, (t + 1) * chunk); ++i) counts[t] += float(weight[i]) == last;
    });
    index_t wanted = 1, ties = 0;  // of the tokens that weigh `last`, the wanted-th
    for (int t = 0; t < threads; ++t) ties += counts[t];
    for (sum += double(last); !enough(sum) && wanted < ties; ++wanted) sum += double(last);
    c.phase([&](int t) {
      if (t != 0) return;
      int in = 0;
      for (; in + 1 < threads && wanted > counts[in]; ++in) wanted -= counts[in];
      index_t i = in * chunk;
      for (; i + 1 < n; ++i)
        if (float(weight[i]) == last && --wanted == 0) break;
      *out = std::int32_t(i);
    });
    return sum;
  }
};

}  // namespace unroll::kernels
