#pragma once

// A Llama written with loops over numbers, token by token, to compare with.

#include <algorithm>
#include <cmath>
#include <vector>

#include "unroll/llama/transformer.hpp"

namespace plain_llama {

using unroll::index_t;
using unroll::llama::token;
using numbers = std::vector<double>;

/// The largest difference between what was computed and what is expected.
template <class T>
double distance(unroll::view<const T> got, const numbers& expected) {
  double most = 0;
  for (index_t i = 0; i < got.size(); ++i)
    most = std::max(most, std::abs(double(got[i]) - expected[std::size_t(i)]));
  return most;
}

struct model {
  unroll::llama::config c;
  unroll::llama::weight_map map;
  std::vector<double> w;

  template <class W>
  model(const unroll::llama::config& c_, const W& weights)
      : c(c_), map(c_), w(weights.begin(), weights.end()) {}

  // W' x of the in x out matrix at `offset`.
  numbers product(index_t offset, const numbers& x, index_t out) const {
    const index_t in = index_t(x.size());
    numbers y(std::size_t(out), 0);
    for (index_t o = 0; o < out; ++o)
      for (index_t i = 0; i < in; ++i)
        y[std::size_t(o)] += w[std::size_t(offset + o * in + i)] * x[std::size_t(i)];
    return y;
  }
  numbers norm(index_t gain, const numbers& x) const {
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double scale = 1 / std::sqrt(squares / double(x.size()) + c.norm_epsilon);
    numbers y(x);
    for (std::size_t i = 0; i < x.size(); ++i) y[i] *= scale * w[std::size_t(gain) + i];
    return y;
  }
  // How many times slower pair i turns where positions are stretched: all of them alike, or the first as
  // before, the last by the whole factor and those between them in a geometric row. The tests of frequencies
  // hold the other policies.
  double slower(index_t i) const {
    using unroll::llama::position_policy;
    if (c.beyond == position_policy::linear) return c.position_factor;
    if (c.beyond == position_policy::ntk)
      return std::pow(c.position_factor, double(i) / (double(c.head_dim) / 2 - 1));
    if (c.beyond != position_policy::refuse)
      return std::pow(c.rope_base, -2.0 * double(i) / double(c.head_dim)) /
             unroll::llama::frequencies(c).inverse[std::size_t(i)];
    return 1;
  }
  numbers rotated(numbers x, double position) const {
    const index_t half = c.head_dim / 2;
    const double attention = unroll::llama::frequencies(c).attention;
    for (index_t h = 0; h < index_t(x.size()); h += c.head_dim)
      for (index_t i = 0; i < half; ++i) {
        const bool halves = c.pairs == unroll::llama::rope_pairs::halves;
        double& a = x[std::size_t(h + (halves ? i : 2 * i))];
        double& b = x[std::size_t(h + (halves ? i + half : 2 * i + 1))];
        const double angle =
            position / slower(i) * std::pow(c.rope_base, -2.0 * double(i) / double(c.head_dim));
        const double u = a * std::cos(angle) - b * std::sin(angle);
        b = attention * (b * std::cos(angle) + a * std::sin(angle));
        a = attention * u;
      }
    return x;
  }

  // Logits behind every token. Token t sees the tokens kept[t], in this order at the positions 0, 1, ...; the
  // last of them is t itself.
  std::vector<numbers> logits(const std::vector<token>& ids,
                              const std::vector<std::vector<index_t>>& kept) const {
    const std::size_t n = ids.size();
    std::vector<numbers> x(n), k(n), v(n);
    for (std::size_t t = 0; t < n; ++t) {
      const auto first = w.begin() + map.embedding() + index_t(ids[t]) * c.hidden;
      x[t] = numbers(first, first + c.hidden);
    }
    for (index_t l = 0; l < c.layers; ++l)
      for (std::size_t t = 0; t < n; ++t) {
        const auto& at = map[l];
        const numbers a = norm(at.attention_norm, x[t]);
        k[t] = product(at.k, a, c.kv_width());
        v[t] = product(at.v, a, c.kv_width());
        const numbers q = rotated(product(at.q, a, c.query_width()), double(kept[t].size()) - 1);
        numbers mixed(q.size(), 0);
        for (index_t h = 0; h < c.heads; ++h) {
          const index_t g = h / (c.heads / c.kv_heads) * c.head_dim;
          numbers p;
          double total = 0;
          for (std::size_t i = 0; i < kept[t].size(); ++i) {
            const numbers key = rotated(k[std::size_t(kept[t][i])], double(i));
            double s = 0;
            for (index_t d = 0; d < c.head_dim; ++d)
              s += q[std::size_t(h * c.head_dim + d)] * key[std::size_t(g + d)];
            p.push_back(std::exp(s / std::sqrt(double(c.head_dim))));
            total += p.back();
          }
          for (std::size_t i = 0; i < p.size(); ++i)
            for (index_t d = 0; d < c.head_dim; ++d)
              mixed[std::size_t(h * c.head_dim + d)] +=
                  p[i] / total * v[std::size_t(kept[t][i])][std::size_t(g + d)];
        }
        const numbers o = product(at.o, mixed, c.hidden);
        for (std::size_t i = 0; i < o.size(); ++i) x[t][i] += o[i];
        const numbers b = norm(at.mlp_norm, x[t]);
        numbers gate = product(at.gate, b, c.intermediate_size);
        const numbers up = product(at.up, b, c.intermediate_size);
        for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
        const numbers d = product(at.down, gate, c.hidden);
        for (std::size_t i = 0; i < d.size(); ++i) x[t][i] += d[i];
      }
    for (numbers& out : x) out = product(map.output(), norm(map.norm(), out), c.vocabulary);
    return x;
  }

  // The same when every token sees all earlier ones.
  std::vector<numbers> logits(const std::vector<token>& ids) const {
    std::vector<std::vector<index_t>> kept(ids.size());
    for (std::size_t t = 0; t < ids.size(); ++t)
      for (std::size_t i = 0; i <= t; ++i) kept[t].push_back(index_t(i));
    return logits(ids, kept);
  }
};

// -log p(target) under these logits.
inline double nll(const numbers& logits, token target) {
  double total = 0;
  for (const double l : logits) total += std::exp(l);
  return std::log(total) - logits[std::size_t(target)];
}

// What a cache keeps of a text that it takes in chunks.
inline std::vector<std::vector<index_t>> kept_by(index_t tokens, index_t sinks, index_t window,
                                                 index_t chunk) {
  std::vector<std::vector<index_t>> kept;
  std::vector<index_t> cache;
  for (index_t first = 0; first < tokens; first += chunk) {
    const index_t n = std::min(chunk, tokens - first);
    while (index_t(cache.size()) + n > sinks + window) cache.erase(cache.begin() + sinks);
    for (index_t t = first; t < first + n; ++t) {
      cache.push_back(t);
      kept.push_back(cache);
    }
  }
  return kept;
}

inline unroll::llama::config small(index_t layers = 2,
                                   unroll::llama::rope_pairs pairs = unroll::llama::rope_pairs::halves) {
  return {.hidden = 12,
          .intermediate_size = 20,
          .layers = layers,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 6,
          .vocabulary = 23,
          .context = 40,
          .pairs = pairs,
          .tied = layers % 2 == 0};
}

// The same with an attention factor: the context of 40 was 10.
inline unroll::llama::config small_yarn() {
  unroll::llama::config c = small(2, unroll::llama::rope_pairs::neighbours);
  c.beyond = unroll::llama::position_policy::yarn;
  c.position_factor = 4;
  c.scaling.original_context = 10;
  return c;
}

// Weights that make every part of the model matter, and a text.
template <class T>
struct problem {
  unroll::llama::transformer<T> stack;
  unroll::parameters<T> weights;
  std::vector<token> ids;

  explicit problem(const unroll::llama::config& c, index_t tokens = 40)
      : stack(c), weights(stack.map().size()) {
    std::int64_t n = 0;
    for (const unroll::layout_block& b : stack.map().names().blocks())
      for (index_t i = 0; i < b.size(); ++i)
        weights[b.offset + i] = T((b.cols == 1 ? 1 + 0.2 * unroll::draw_normal(unroll::key{1}, n++)
                                               : 0.4 * unroll::draw_normal(unroll::key{1}, n++)));
    for (index_t i = 0; i < tokens; ++i)
      ids.push_back(token(unroll::draw_index(unroll::key{2}, i, c.vocabulary)));
  }
  model plain() const { return {stack.shape(), weights}; }
  std::span<const token> part(index_t first, index_t n) const {
    return std::span(ids).subspan(std::size_t(first), std::size_t(n));
  }
};

}  // namespace plain_llama
