#pragma once

// The losses of the segments of a text by the plain Llama, with windows of several kinds, on any executor.

#include "device_model.hpp"

namespace program {

/// Segment t behind the t m tokens in front of it: with m = M as many keys as the memory model has.
template <class X>
std::vector<double> window_losses(const unroll::llama::transformer<X>& stack,
                                  unroll::params<const typename unroll::llama::transformer<X>::W> weights,
                                  std::span<const token> ids, const plain_reading& how, index_t keep,
                                  const go_on& more) {
  using namespace unroll;
  using E = exec::of<X>;
  using A = typename E::numbers::activation;
  using P = typename E::numbers::parameter;
  const E& e = stack.executor();
  const auto length = std::size_t(how.length), m = std::size_t(keep);
  std::vector<index_t> positions(length + std::size_t(how.segments) * m);
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = index_t(i);
  llama::pass<typename E::numbers::memory> p;
  p.length = index_t(positions.size() - m);
  p.layers = stack.shape().layers;
  auto x = e.template allocate<A>(stack.shape().hidden * p.length);
  auto workspace = e.template allocate<A>(
      std::max(stack.workspace_size(p, false), llama::lm_head<E>::workspace_size(stack.shape(), p.length)));
  auto nll = e.template allocate<P>(1);
  std::vector<double> out;
  for (std::size_t t = 0; t < std::size_t(how.segments) && more(index_t(t)); ++t) {
    const std::size_t before = t * m, n = before + length;
    const auto seen = ids.subspan(t * length - before, n);
    p.length = index_t(n);
    p.positions = std::span<const index_t>(positions).first(n);
    const matrix<A> h(x.data(), stack.shape().hidden, p.length);
    llama::embed(e, stack.map(), weights.data(), seen, h);
    stack.forward(weights.data(), {}, p, h, view<A>{}, view<A>(workspace));
    const llama::lm_head<E> head{e, stack.map(), weights.data(), view<A>(workspace)};
    head.losses(columns_of(h, index_t(before), index_t(length)), ids.subspan(t * length + 1, length), nullptr,
                nll.data());
    out.push_back(double(exec::value(e, nll.data())));
  }
  return out;
}

/// By `method`: window, alone, sinks or full.
template <class X>
std::vector<double> plain_losses(const std::string& method, const unroll::llama::transformer<X>& stack,
                                 unroll::params<const typename unroll::llama::transformer<X>::W> weights,
                                 std::span<const token> ids, const plain_reading& how, const go_on& more) {
  using namespace unroll;
  if (method == "window") return window_losses(stack, weights, ids, how, how.memories, more);
  if (method == "alone") return window_losses(stack, weights, ids, how, 0, more);
  llama::text_score<typename llama::transformer<X>::P> s;
  if (method == "full") {
    if (how.segments * how.length > stack.shape().positions())
      fail("memory_llama", "methods",
           "full reads " + std::to_string(how.segments * how.length) + " tokens at once, the model has " +
               std::to_string(stack.shape().positions()) + " positions");
    s = llama::score<X>(stack, weights, ids, {}, {}, more);
  } else {
    const index_t budget = (how.segments - 1) * how.memories + how.length;
    if (budget <= how.sinks + how.chunk)
      fail("memory_llama", "sinks",
           "and chunk take " + std::to_string(how.sinks + how.chunk) + " keys, the budget is " +
               std::to_string(budget));
    s = llama::score_streaming<X>(stack, weights, ids,
                                  {.sinks = how.sinks, .window = budget - how.sinks, .chunk = how.chunk}, {},
                                  more);
  }
  std::vector<double> out(static_cast<std::size_t>(how.segments), 0.0);
  for (std::size_t i = 0; i < s.nll.size(); ++i) out[i / std::size_t(how.length)] += double(s.nll[i]);
  return out;
}

}  // namespace program
