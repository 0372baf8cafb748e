#pragma once

// Losses of the segments of a text: by the memory model, and by the plain Llama with windows of several
// kinds.

#include "memory_setup.hpp"

namespace program {

/// A part of a document.
struct document_stretch {
  index_t document;
  std::span<const token> ids;
};
/// The summed nll of each segment of each stretch.
using loss_table = std::vector<std::vector<double>>;

/// How the methods read.
struct eval_choice {
  index_t segments, sinks, chunk, threads;
};

/// Segment t behind the t m tokens in front of it: with m = M as many keys as the memory model has.
template <class X>
std::vector<double> window_losses(const memory_llama<X>& model, std::span<const token> ids, index_t segments,
                                  std::size_t m) {
  using namespace unroll;
  using T = parameter_of<X>;
  const auto length = std::size_t(model.options().segment);
  const llama::transformer<X>& stack = model.stack();
  std::vector<index_t> positions(length + std::size_t(segments) * m);
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = index_t(i);
  llama::pass<T> p;
  p.length = index_t(positions.size() - m);
  p.layers = stack.shape().layers;
  buffer<T> x(stack.shape().hidden * p.length);
  buffer<T> workspace(std::max(stack.workspace_size(p, false),
                               llama::lm_head<exec::of<X>>::workspace_size(stack.shape(), p.length)));
  std::vector<double> out;
  for (std::size_t t = 0; t < std::size_t(segments) && !interrupted; ++t) {
    const std::size_t before = t * m, n = before + length;
    const auto seen = ids.subspan(t * length - before, n);
    p.length = index_t(n);
    p.positions = std::span<const index_t>(positions).first(n);
    const matrix<T> h(x.data(), stack.shape().hidden, p.length);
    llama::embed(stack.executor(), stack.map(), model.weights().data(), seen, h);
    stack.forward(model.weights().data(), {}, p, h, view<T>{}, view<T>(workspace));
    T nll = 0;
    const llama::lm_head<exec::of<X>> head{stack.executor(), stack.map(), model.weights().data(), workspace};
    head.losses(columns_of(h, index_t(before), index_t(length)), ids.subspan(t * length + 1, length), nullptr,
                &nll);
    out.push_back(double(nll));
  }
  return out;
}

template <class X>
std::vector<double> plain_losses(const std::string& method, const memory_llama<X>& model,
                                 std::span<const token> ids, const eval_choice& how) {
  const auto [segments, sinks, chunk, threads] = how;
  using namespace unroll;
  const index_t length = model.options().segment;
  const auto go_on = [](index_t) { return !interrupted.load(); };
  llama::text_score<parameter_of<X>> s;
  if (method == "full") {
    if (segments * length > model.shape().positions())
      fail("memory_llama", "methods",
           "full reads " + std::to_string(segments * length) + " tokens at once, the model has " +
               std::to_string(model.shape().positions()) + " positions");
    s = llama::score<X>(model.stack(), model.weights(), ids, {}, {}, go_on);
  } else {
    const index_t budget = (segments - 1) * model.memory_tokens() + length;
    if (budget <= sinks + chunk)
      fail("memory_llama", "sinks",
           "and chunk take " + std::to_string(sinks + chunk) + " keys, the budget is " +
               std::to_string(budget));
    s = llama::score_streaming<X>(model.stack(), model.weights(), ids,
                                  {.sinks = sinks, .window = budget - sinks, .chunk = chunk}, {}, go_on);
  }
  std::vector<double> out(static_cast<std::size_t>(segments), 0.0);
  for (std::size_t i = 0; i < s.nll.size(); ++i) out[i / std::size_t(length)] += double(s.nll[i]);
  return out;
}

/// By `method`: memory, alone, window, sinks or full.
template <class X>
loss_table segment_losses(const std::string& method, const memory_setup<X>& setup,
                          const std::vector<document_stretch>& texts, const eval_choice& how) {
  using namespace unroll;
  loss_table out(texts.size());
  worker_pool pool(std::min(how.threads, index_t(texts.size())));
  const progress line;
  std::atomic<index_t> done{0};
  const auto& model = setup.model;
  std::vector<memory_reader<memory_llama<X>>> readers;
  if (method == "memory")
    for (index_t i = 0; i < pool.size(); ++i) readers.emplace_back(model, how.segments);
  const auto go_on = [](index_t) { return !interrupted; };
  share_out(pool, index_t(texts.size()), [&](index_t worker, index_t i) {
    if (interrupted) return;
    const auto ids = texts[std::size_t(i)].ids;
    auto& mine = out[std::size_t(i)];
    if (method == "memory")
      mine = readers[std::size_t(worker)].losses(setup.theta,
                                                 llama::segments_of(ids, model.options().segment), go_on);
    else if (method == "window")
      mine = window_losses(model, ids, how.segments, std::size_t(model.memory_tokens()));
    else if (method == "alone")
      mine = window_losses(model, ids, how.segments, 0);
    else
      mine = plain_losses(method, model, ids, how);
    if (worker == 0)
      line.show(method + ": " + std::to_string(done.load()) + " / " + std::to_string(texts.size()));
    ++done;
  });
  return out;
}

}  // namespace program
