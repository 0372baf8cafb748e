#pragma once

#include <optional>

#include "unroll/estimate/policy.hpp"
#include "unroll/llama/memory_costs.hpp"

namespace unroll {

/// Bytes of one number of each kind. The default is this library in float.
struct number_bytes {
  double weights = 4;      ///< frozen
  double parameters = 16;  ///< all that is held for a trainable parameter: itself, gradient, two moments
  double graph = 4;        ///< activations of the encoder and of the decoder
  double memory = 4;
  double adjoint = 4;
  double work = 4;  ///< everything else
};

/// What training on one document will take, before anything runs.
struct memory_plan {
  policy replay;
  index_t segments = 0;         ///< T
  index_t tokens = 0;           ///< of them together; the last one may be shorter
  double writes = 0;            ///< encoders without graph, and those with graph the first time
  double rewrites = 0;          ///< encoders run once more to have their graph
  double write_vjps = 0;        ///< encoders back; of policies that draw, on average
  double reads = 0;             ///< decoders
  double read_vjps = 0;         ///< decoders back
  index_t live_graphs = 0;      ///< encoder graphs that are alive together
  double write_operations = 0;  ///< of encoders forwards
  double write_vjp_operations = 0;
  double read_operations = 0;  ///< of decoders, forwards and back

  double weight_bytes = 0;
  double parameter_bytes = 0;  ///< adapters, their gradient, the optimiser
  double memory_bytes = 0;
  double adjoint_bytes = 0;
  double graph_bytes = 0;          ///< live encoder graphs
  double decoder_graph_bytes = 0;  ///< of one segment
  double work_bytes = 0;

  double operations() const { return write_operations + write_vjp_operations + read_operations; }
  /// What the estimator holds.
  double estimator_bytes() const {
    return memory_bytes + adjoint_bytes + graph_bytes + decoder_graph_bytes + work_bytes;
  }
  double bytes() const { return weight_bytes + parameter_bytes + estimator_bytes(); }
};

/// Whether the policy's gradient has no bias, and whether it has neither bias nor variance.
inline bool is_unbiased(const policy& p) { return p.name != policy::kind::window && p.compensated; }
inline bool is_exact(const policy& p) {
  return p.name == policy::kind::rematerialise || p.name == policy::kind::keep_all ||
         p.name == policy::kind::keep;
}

/// Bytes and operations of the gradient over segments of `tokens` tokens together: one less than the text
/// has, whose last token is a target only. T decides what a number of the library takes where padding is
/// concerned; `bytes` what it is taken to take. Throws unroll::error when the text has more positions than
/// the model, naming the longest one.
template <class T>
memory_plan plan(const llama::memory_costs<T>& model, index_t tokens, const policy& p,
                 const number_bytes& bytes = {}) {
  const auto& o = model.options();
  check_at_least("plan", "tokens", tokens, 1);
  const index_t length = o.segment, segments = (tokens + length - 1) / length, n = segments - 1;
  if (n > model.segments() || n * o.memory_tokens() + tokens - n * length > model.shape().positions() ||
      (n > 0 && !model.can_write(n - 1)))
    fail("plan", "tokens",
         "are " + std::to_string(tokens) + ", the longest text of whole segments that the " +
             std::to_string(model.shape().positions()) + " positions allow has " +
             std::to_string(o.longest_text(model.shape())));
  if (o.recurrent && (p.name == policy::kind::reservoir || p.name == policy::kind::proportional))
    fail("plan", "policy", "\"" + to_string(p) + "\" needs memories that do not depend on earlier ones");

  memory_plan out;
  out.replay = p;
  out.segments = segments;
  out.tokens = tokens;
  const index_t most = std::max<index_t>(1, n);
  const index_t size = std::min(p.size, most);
  index_t adjoints = n;
  out.live_graphs = std::min<index_t>(1, n);
  double slots = 1;
  const double all = double(n);
  out.write_vjps = all;
  out.rewrites = 0;
  switch (p.name) {
    case policy::kind::rematerialise:
      out.rewrites = all;
      break;
    case policy::kind::keep_all:
      slots = double(most);
      out.live_graphs = n;
      break;
    case policy::kind::keep:
      slots = double(size);
      out.live_graphs = std::min(size, n);
      out.rewrites = double(n - std::min(size, n));
      break;
    case policy::kind::reservoir:
      for (index_t s = p.size; s < n; ++s) out.write_vjps += double(p.size) / double(s + 1) - 1;
      [[fallthrough]];
    case policy::kind::window:
      slots = double(size);
      adjoints = 2 * size;
      out.live_graphs = std::min(size, n);
      break;
    case policy::kind::proportional:  // of independent draws on average
      out.rewrites = out.write_vjps = double(std::min(p.size, n));
      break;
  }
  out.writes = all;
  out.reads = double(segments);
  out.read_vjps = all;

  double write = 0, write_vjp = 0;
  for (index_t s = 0; s < n; ++s) {
    write += model.write(s);
    write_vjp += model.write_vjp(s);
    out.read_operations += s == 0 ? model.read(0, length) : model.read_vjp(s, length);
  }
  const index_t last = tokens - n * length;
  out.read_operations += n == 0 ? model.read(0, last) : model.read_vjp(n, last);
  if (n > 0) {  // those that are run again, or back, are taken to be average ones
    out.write_operations = write * (1 + out.rewrites / all);
    out.write_vjp_operations = write_vjp * out.write_vjps / all;
  }

  const memory_dims d = model.size();
  const double decoder = double(model.decoder_tape());
  out.weight_bytes = double(model.weights()) * bytes.weights;
  out.parameter_bytes = double(d.params) * bytes.parameters;
  out.memory_bytes = all * double(d.memory) * bytes.memory;
  out.adjoint_bytes = double(adjoints) * double(d.memory) * bytes.adjoint;
  out.graph_bytes = slots * double(d.tape) * bytes.graph;
  out.decoder_graph_bytes = decoder * bytes.graph;
  out.work_bytes = (double(model.workspace(n)) - decoder) * bytes.work;
  return out;
}

/// The longest text whose plan takes at most `budget` bytes, in tokens, in whole segments; 0 where not even
/// one fits. Infinite budget: what the positions allow.
template <class T>
index_t longest_text(const llama::memory_costs<T>& model, const policy& p, double budget,
                     const number_bytes& bytes = {}) {
  const index_t length = model.options().segment;
  index_t low = 0, high = model.segments();
  while (low < high) {
    const index_t middle = low + (high - low + 1) / 2;
    if (plan(model, middle * length, p, bytes).bytes() <= budget)
      low = middle;
    else
      high = middle - 1;
  }
  return low * length;
}

/// The cheapest policy without bias that fits: the exact one with the fewest operations, which keeps as many
/// graphs as there is room for; where no exact one fits, the largest compensated reservoir, which needs no
/// adjoint for every memory. Nothing where nothing fits. proportional:B costs less than both and needs what
/// rematerialise needs; its variance is for the user to choose.
template <class T>
std::optional<memory_plan> cheapest_unbiased(const llama::memory_costs<T>& model, index_t tokens,
                                             double budget, const number_bytes& bytes = {}) {
  const auto fits = [&](const policy& p) { return plan(model, tokens, p, bytes).bytes() <= budget; };
  const auto largest = [&](policy::kind name, index_t most) {  // the largest size that fits, or 0
    index_t low = 0, high = most;
    while (low < high) {
      const index_t middle = low + (high - low + 1) / 2;
      if (fits({name, middle, true}))
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  };
  const index_t length = model.options().segment, n = (tokens + length - 1) / length - 1;
  policy best{policy::kind::keep_all, 0, true};
  if (!fits(best)) {
    best = {policy::kind::keep, largest(policy::kind::keep, n), true};
    if (best.size == 0 && !model.options().recurrent)
      best = {policy::kind::reservoir, largest(policy::kind::reservoir, n), true};
    if (best.size == 0) return std::nullopt;
  }
  return plan(model, tokens, best, bytes);
}

}  // namespace unroll
