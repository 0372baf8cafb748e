#pragma once

// Losses of the segments of a text: by the memory model, and by the plain Llama with windows of several
// kinds.

#include "memory_setup.hpp"
#include "plain_losses.hpp"

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

template <class Model>
plain_reading reading_of(const Model& model, const eval_choice& how) {
  return {model.options().segment, how.segments, model.memory_tokens(), how.sinks, how.chunk};
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
  const auto more = [](index_t) { return !interrupted.load(); };
  share_out(pool, index_t(texts.size()), [&](index_t worker, index_t i) {
    if (interrupted) return;
    const auto ids = texts[std::size_t(i)].ids;
    auto& mine = out[std::size_t(i)];
    if (method == "memory")
      mine = readers[std::size_t(worker)].losses(setup.theta,
                                                 llama::segments_of(ids, model.options().segment), more);
    else
      mine = plain_losses<X>(method, model.stack(), model.weights(), ids, reading_of(model, how), more);
    if (worker == 0)
      line.show(method + ": " + std::to_string(done.load()) + " / " + std::to_string(texts.size()));
    ++done;
  });
  return out;
}
/// The same on a device, text by text.
template <>
inline loss_table segment_losses<on_device>(const std::string& method, const memory_setup<on_device>& setup,
                                            const std::vector<document_stretch>& texts,
                                            const eval_choice& how) {
  loss_table out(texts.size());
  const progress line;
  const auto& model = setup.model;
  const auto more = [](index_t) { return !interrupted.load(); };
  params<const float> theta;
  if (method == "memory") theta = model.brought().theta(setup.theta);
  for (std::size_t i = 0; i < texts.size() && !interrupted; ++i) {
    const auto ids = texts[i].ids;
    line.show(method + ": " + std::to_string(i) + " / " + std::to_string(texts.size()));
    out[i] = method == "memory"
                 ? model.calls().losses(theta, unroll::llama::segments_of(ids, model.options().segment), more)
                 : model.llama().plain_losses(method, ids, reading_of(model, how), more);
  }
  return out;
}

}  // namespace program
