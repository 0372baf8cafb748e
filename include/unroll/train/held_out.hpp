#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "unroll/core/worker_pool.hpp"
#include "unroll/llama/language_model.hpp"
#include "unroll/memory/reader.hpp"
#include "unroll/ranks/ranks.hpp"
#include "unroll/text/segments.hpp"

namespace unroll::training {

/// A text with the token behind its end, as data::stretches gives them.
using stretch = std::span<const llama::token>;

/// The mean nll a token of texts dealt to ranks, each of which knows the sums of losses and the numbers of
/// tokens of its own; added in the order of the texts. All ranks call it. 0 where there are no tokens.
inline double mean_of_dealt(std::vector<double> sums, std::vector<double> tokens, const ranks& among) {
  const auto all = index_t(sums.size());
  for (index_t r = 0; r < among.size(); ++r) {
    const index_t begin = among.begin_of(all, r), count = among.begin_of(all, r + 1) - begin;
    for (std::vector<double>* of : {&sums, &tokens}) among.broadcast(r, view<double>(*of).part(begin, count));
  }
  double sum = 0, n = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) sum += sums[i], n += tokens[i];
  return n > 0 ? sum / n : 0;
}

/// Mean nll a token that a memory model over segments of text has on stretches cut into segments of `length`.
/// Up to `threads` stretches are read side by side on each of the ranks, which share them and all call
/// this; the result does not depend on them. more(segments read of
/// a stretch) is asked before each segment, by all these threads at once, whether to go on with that stretch;
/// the mean is over what was read. 0 where there is nothing to score.
template <class Model, class More>
double mean_nll(const Model& model, params<const typename Model::scalar> theta,
                std::span<const stretch> texts, index_t length, index_t threads, More&& more,
                const ranks& among = {}) {
  check_at_least("mean_nll", "threads", threads, 1);
  if (texts.empty()) return 0;
  index_t longest = 1;
  for (const stretch& text : texts)
    longest = std::max(longest, segmenter(index_t(text.size()) - 1, length, 0, "mean_nll").size());
  std::vector<double> sums(texts.size()), tokens(sums);
  const auto all = index_t(texts.size()), first = among.begin(all), own = among.end(all) - first;
  worker_pool pool(std::min(threads, own));
  std::vector<memory_reader<Model>> readers;
  for (index_t i = 0; i < pool.size(); ++i) readers.emplace_back(model, longest);
  share_out(pool, own, [&](index_t worker, index_t mine) {
    const index_t i = first + mine;
    const auto text = llama::segments_of(texts[std::size_t(i)], length);
    const std::vector<double> losses = readers[std::size_t(worker)].losses(theta, text, more);
    for (const double loss : losses) sums[std::size_t(i)] += loss;
    tokens[std::size_t(i)] = double(llama::scored({text.data(), losses.size()}));
  });
  return mean_of_dealt(std::move(sums), std::move(tokens), among);
}

/// Mean nll a token that a plain Llama has on stretches of options().length tokens, options().sequences at
/// once. Throws unroll::error on a stretch of another length.
template <class X>
double mean_nll(llama::language_model<X>& model, params<const typename exec::of<X>::numbers::weight> weights,
                std::span<const stretch> texts) {
  if (texts.empty()) return 0;
  const auto together = std::size_t(model.options().sequences), n = std::size_t(model.options().length);
  for (const stretch& text : texts) check_size("mean_nll", "a text", index_t(text.size()), index_t(n) + 1);
  std::vector<llama::token> ids(together * n), targets(together * n);
  double sum = 0;
  for (std::size_t first = 0; first < texts.size(); first += together) {
    std::fill(ids.begin(), ids.end(), 0);
    std::fill(targets.begin(), targets.end(), -1);
    for (std::size_t i = 0; i < together && first + i < texts.size(); ++i) {
      const stretch& text = texts[first + i];
      std::copy_n(text.begin(), n, ids.begin() + std::ptrdiff_t(i * n));
      std::copy_n(text.begin() + 1, n, targets.begin() + std::ptrdiff_t(i * n));
    }
    sum += double(model.nll(weights, ids, targets));
  }
  return sum / double(texts.size() * n);
}

}  // namespace unroll::training
