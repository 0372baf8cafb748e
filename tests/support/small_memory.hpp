#pragma once

// Small memory models with weights and parameters of which nothing is zero, and texts for them.

#include <memory>
#include <vector>

#include "unroll/memory/memory_llama/start.hpp"

namespace small_memory {

using unroll::index_t;
using namespace unroll::llama;

inline config shape(index_t layers = 2, bool tied = true, rope_pairs pairs = rope_pairs::halves) {
  config c;
  c.hidden = 12;
  c.intermediate_size = 20;
  c.layers = layers;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 4;
  c.vocabulary = 17;
  c.context = 40;
  c.pairs = pairs;
  c.tied = tied;
  return c;
}

inline memory_options options() {
  memory_options o;
  o.segment = 6;
  o.ratio = 3;
  o.encoder.rank = 2;
  o.encoder.alpha = 3;
  o.transfer_head.rank = 3;
  o.transfer_head.alpha = 4;
  return o;
}

template <class T>
memory_llama<T> make(const config& c, const memory_options& o) {
  unroll::parameters<double> w(weight_map(c).size());
  init_weights<double>(weight_map(c), w, {11});
  for (double& x : w)
    if (x != 1) x *= 15;
  unroll::parameters<T> weights(w.size());
  for (index_t i = 0; i < w.size(); ++i) weights[i] = T(w[i]);
  return {c, std::make_shared<const unroll::parameters<T>>(std::move(weights)), o};
}

template <class T>
unroll::parameters<T> start(const memory_llama<T>& m) {
  unroll::parameters<T> theta(m.names().size());
  init_memory<T>(m, theta, {5}, {-1, 0.3});
  for (T& x : m.trainable().memory_part(unroll::params<T>(theta))) x *= 30;
  return theta;
}

inline std::vector<token> text(index_t tokens, index_t vocabulary = 17, std::uint64_t seed = 3) {
  std::vector<token> ids;
  for (index_t i = 0; i < tokens; ++i) ids.push_back(token(unroll::draw_index({seed}, i, vocabulary)));
  return ids;
}

// All memories, losses and, if wanted, the exact gradient, with everything kept.
template <class T>
struct pass_over {
  std::vector<std::vector<T>> m, dm, tapes;
  std::vector<T> losses;
  std::vector<T> g;
  double loss = 0;

  pass_over(const memory_llama<T>& model, unroll::params<const T> theta, const std::vector<segment>& text,
            bool gradient) {
    const index_t n = index_t(text.size());
    std::vector<T> work(std::size_t(model.workspace(n)));
    std::vector<const T*> past;
    std::vector<T*> dpast;
    m.resize(text.size());
    dm = tapes = m;
    g.resize(std::size_t(theta.size()));
    const auto earlier = [&](index_t s) { return std::span<const T* const>(past.data(), std::size_t(s)); };
    for (index_t s = 0; s < n; ++s) {
      const auto i = std::size_t(s);
      const std::span<T* const> to(dpast.data(), i);
      losses.push_back(gradient ? model.read_vjp(text[i], s, theta, earlier(s), {.dpast = to}, work)
                                : model.read(text[i], s, theta, earlier(s), work));
      loss += double(losses.back());
      if (s + 1 == n) break;
      m[i].resize(std::size_t(model.size().memory));
      dm[i] = m[i];
      if (gradient) tapes[i].resize(std::size_t(model.size().tape));
      model.write(text[i], s, theta, earlier(s), m[i], tapes[i], work);
      past.push_back(m[i].data());
      dpast.push_back(dm[i].data());
    }
    if (!gradient) return;
    for (index_t s = n - 2; s >= 0; --s)
      model.write_vjp(text[std::size_t(s)], s, theta, earlier(s),
                      {.tape = tapes[std::size_t(s)], .dm = dm[std::size_t(s)]},
                      {.dpast = {dpast.data(), std::size_t(s)}, .dtheta = g}, work);
  }
};

// A central difference of f with an error of about h^4.
template <class F>
double slope(double& x, F&& f, double h = 1e-3) {
  const double centre = x;
  const auto at = [&](double step) {
    x = centre + step;
    const double y = f();
    x = centre;
    return y;
  };
  return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
}

}  // namespace small_memory
