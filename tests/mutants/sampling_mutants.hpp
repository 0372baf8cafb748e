#pragma once

#include <vector>

#include "unroll/sample/proportional.hpp"

// Samples with given inclusion probabilities, written plainly, with a mistake to choose: each has the wrong
// probability for some item or for some pair.
namespace mutants {

using unroll::index_t;

enum class sampling_mistake {
  none_in_random_order,
  order_is_forgotten,      ///< what is taken in the random order is reported in that order
  sizes_keep_their_place,  ///< items are put in order, their probabilities are not
  order_is_rotated,        ///< a random item comes first, the others follow in their order
  none_independent,
  one_coin_for_all,  ///< the coins of all items have one name
  complement         ///< an item is left out with its probability
};

/// Items 0 .. n-1 with 0 < p < 1; returns marks.
template <class C>
std::vector<char> draw_sample(sampling_mistake m, C& choose, const std::vector<double>& p) {
  using enum sampling_mistake;
  const auto n = index_t(p.size());
  std::vector<char> taken(p.size());
  if (m == none_independent || m == one_coin_for_all || m == complement) {
    for (index_t i = 0; i < n; ++i)
      taken[std::size_t(i)] =
          choose.coin(m == one_coin_for_all ? 0 : i, p[std::size_t(i)]) != (m == complement);
    return taken;
  }
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < p.size(); ++i) order.push_back(i);
  if (m == order_is_rotated) {
    std::rotate(order.begin(), order.begin() + choose.uniform(0, n), order.end());
  } else {
    for (index_t i = n - 1; i > 0; --i)
      std::swap(order[std::size_t(i)], order[std::size_t(choose.uniform(i, i + 1))]);
  }
  std::vector<double> turned(p);
  for (std::size_t i = 0; i < p.size(); ++i)
    if (m != sizes_keep_their_place) turned[i] = p[order[i]];
  unroll::systematic_sampler systematic(n);
  std::vector<char> found(p.size());
  systematic.draw(choose, 0, turned, found);
  if (m == order_is_forgotten) return found;
  for (std::size_t i = 0; i < p.size(); ++i) taken[order[i]] = found[i];
  return taken;
}

}  // namespace mutants
