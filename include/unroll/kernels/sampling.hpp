#pragma once

#include <algorithm>
#include <cstdint>

#include "unroll/core/arena.hpp"
#include "unroll/core/linalg.hpp"

namespace unroll::kernels {

namespace detail {

struct sampling_arrays {
  std::span<double> weight;  // exp((logit - largest) / temperature)
  std::span<std::int32_t> candidates;

  template <class T>
  sampling_arrays(arena<T>& c, index_t n)
      : weight(c.template cut_objects<double>(n)), candidates(c.template cut_objects<std::int32_t>(n)) {}
};

/// Fills candidates; returns their number and adds up their weight. The tokens from the last of the nucleus
/// on have more than 1 - top_p together, so each of the nucleus has more than a V-th of that: few are left to
/// be sorted.
inline index_t choose_candidates(const sampling_arrays& a, double top_p, double& mass) {
  double total = 0;
  for (const double w : a.weight) total += w;
  const double least = (1 - top_p) * total / double(a.weight.size());
  const auto at = [&](std::int32_t t) { return a.weight[std::size_t(t)]; };
  std::size_t count = 0;
  for (std::int32_t t = 0; t < std::int32_t(a.weight.size()); ++t)
    if (at(t) > 0 && at(t) >= least) a.candidates[count++] = t;
  mass = total;
  if (top_p == 1) return index_t(count);
  std::sort(a.candidates.begin(), a.candidates.begin() + index_t(count),
            [&](std::int32_t s, std::int32_t t) { return at(s) > at(t) || (at(s) == at(t) && s < t); });
  mass = 0;
  std::size_t kept = 0;
  while (kept < count && mass < top_p * total) mass += at(a.candidates[kept++]);
  return index_t(kept);
}

}  // namespace detail

/// Numbers T of workspace for the draw of one of n tokens.
template <class T>
index_t sampling_workspace(index_t n) {
  arena<T> counting;
  detail::sampling_arrays(counting, n);
  return counting.used();
}

/// The token that the number u, uniform on [0, 1), draws from softmax(logits / temperature), among the fewest
/// most probable tokens that have the probability top_p together (Holtzman et al. 2020, arXiv 1904.09751);
/// equally probable ones are ordered by their ids. Temperature 0: the most probable one. Probabilities are
/// computed in double. O(n), and a sort of the candidates where top_p is below 1. The workspace has
/// sampling_workspace<U>(n) numbers.
template <class T, class U>
std::int32_t sample(const T* logits, index_t n, double temperature, double top_p, double u,
                    view<U> workspace) {
  const index_t top = std::max_element(logits, logits + n) - logits;
  if (temperature == 0) return std::int32_t(top);
  arena<U> cut(workspace);
  const detail::sampling_arrays a(cut, n);
  for (index_t i = 0; i < n; ++i)
    a.weight[std::size_t(i)] = (double(logits[i]) - double(logits[top])) / temperature;
  linalg::exp(a.weight.data(), a.weight.data(), n);
  double mass, below = 0;
  const index_t count = detail::choose_candidates(a, top_p, mass);
  for (const std::int32_t* t = a.candidates.data(); t < a.candidates.data() + count; ++t)
    if (u * mass < (below += a.weight[std::size_t(*t)])) return *t;
  return a.candidates[std::size_t(count - 1)];  // the sum of the loop was rounded otherwise
}

}  // namespace unroll::kernels
