#pragma once

#include <optional>

#include "unroll/estimate/policy.hpp"
#include "unroll/memory/costed_model.hpp"

namespace unroll {

/// Bytes of one number of each kind. The default is this library in float.
struct number_bytes {
  double weights = 4;      ///< frozen
  double parameters = 16;  ///< all that is held for a trainable parameter: itself, gradient, two moments
  double graph = 4;        ///< activations of the encoder and of the decoder
  double memory = 4;
  double adjoint = 4;
  double workspace = 4;  ///< everything else
};

/// What the numbers of a costed model take in this library.
template <costed_memory_model C>
constexpr number_bytes number_bytes_of() {
  if constexpr (requires { typename C::numbers; }) {
    using N = typename C::numbers;
    return {sizeof(typename N::weight), 4 * sizeof(typename N::parameter), sizeof(typename N::activation),
            sizeof(typename N::memory), sizeof(typename N::adjoint),       sizeof(typename N::activation)};
  } else {
    return {};
  }
}

/// What training on one document will take, before anything runs.
struct memory_plan {
  policy replay;                    ///< the policy
  index_t segments = 0;             ///< T
  index_t tokens = 0;               ///< of them together; the last one may be shorter
  double writes = 0;                ///< encoders without graph, and those with graph the first time
  double rewrites = 0;              ///< encoders run once more to have their graph
  double write_vjps = 0;            ///< encoders back; of policies that draw, on average
  double reads = 0;                 ///< decoders
  double read_vjps = 0;             ///< decoders back
  index_t live_graphs = 0;          ///< encoder graphs that are alive together
  double write_operations = 0;      ///< of encoders forwards
  double write_vjp_operations = 0;  ///< of encoders back
  double read_operations = 0;       ///< of decoders, forwards and back

  double weight_bytes = 0;         ///< the frozen weights
  double parameter_bytes = 0;      ///< adapters, their gradient, the optimiser
  double memory_bytes = 0;         ///< all memories
  double adjoint_bytes = 0;        ///< all adjoints
  double graph_bytes = 0;          ///< live encoder graphs
  double decoder_graph_bytes = 0;  ///< of one batch of segments, less where encoder graphs lie in turn
  double workspace_bytes = 0;      ///< the rest of the workspace
  double host_bytes = 0;  ///< memories and adjoints that are kept in memory of the host; all else is not

  /// Of everything, multiplications and additions.
  double operations() const { return write_operations + write_vjp_operations + read_operations; }
  /// What the estimator holds.
  double estimator_bytes() const {
    return memory_bytes + adjoint_bytes + graph_bytes + decoder_graph_bytes + workspace_bytes;
  }
  double bytes() const { return weight_bytes + parameter_bytes + estimator_bytes(); }
  /// At the place of the executor.
  double place_bytes() const { return bytes() - host_bytes; }
};

/// What a policy does with the n memories of a sequence, and what it holds beside them.
struct replay_plan {
  index_t batch = 1;          ///< B, segments of a call
  double rewrites = 0;        ///< R; on average where draws are independent
  double write_vjps = 0;      ///< V, on average
  index_t adjoints = 0;       ///< A, accumulators
  index_t graphs = 0;         ///< G, tapes
  bool in_workspace = false;  ///< its graphs lie in the workspace, where the model has write_workspace()
};
/// Of a policy of size S, at most n, in batches of B. [x] is x rounded up to whole batches, K = [min(S, n)].
///
///                    rewrites R        write vjps V                       adjoints A   graphs G
///   rematerialise    n                 n                                  n            B
///   keep_all         0                 n                                  n            [n]
///   keep:S           min(n, [n] - K)   n                                  n            K
///   window:S         0                 n                                  2 S          S
///   reservoir:S      0                 S + sum_{s=S}^{n-1} S / (s + 1)    2 S          S
///   proportional:S   S                 S                                  n            B
///   roulette:S       S                 S, at most                         n            B
inline replay_plan replay_of(const policy& p, index_t n) {
  const index_t most = std::max<index_t>(1, n), size = std::min(p.size, most);
  replay_plan out{.batch = std::min(p.batch, most), .write_vjps = double(n), .adjoints = n};
  const auto exact = [&](index_t keep) {
    const index_t kept = whole_batches(std::min(keep, n), out.batch);
    out.rewrites = double(std::clamp<index_t>(whole_batches(n, out.batch) - kept, 0, n));
    out.graphs = std::max(out.batch, kept);
    out.in_workspace = kept == 0;
  };
  switch (p.name) {
    case policy::kind::rematerialise:
      exact(0);
      break;
    case policy::kind::keep_all:
      exact(n);
      break;
    case policy::kind::keep:
      exact(size);
      break;
    case policy::kind::reservoir:
      for (index_t s = p.size; s < n; ++s) out.write_vjps += double(p.size) / double(s + 1) - 1;
      [[fallthrough]];
    case policy::kind::window:
      out.graphs = size;
      out.adjoints = 2 * size;
      break;
    case policy::kind::proportional:
      out.rewrites = out.write_vjps = double(std::min(p.size, n));
      out.graphs = out.batch;
      break;
    case policy::kind::roulette:
      out.rewrites = out.write_vjps = double(std::min(p.size, n));
      out.graphs = out.batch;
      out.in_workspace = true;
      break;
  }
  return out;
}

/// Bytes and operations of the gradient over segments of `tokens` tokens together: one less than the text
/// has, whose last token is a label only. T segments write n = T - 1 memories, and the policy has R, V, A, G
/// and B of replay_of().
///
///   writes      n; reads T, all but the first with their vjp
///   operations  (1 + R / n) sum_{s<n} write(s)  +  (V / n) sum_{s<n} write_vjp(s)
///               +  read(0)  +  sum_{t=1}^{n} read_vjp(t)
///               (a segment that is written again, or sent back, costs the mean over all segments)
///   numbers     weights(), params (gradient and moments with them), n memories, A adjoints, G tapes, and the
///               workspace W = workspace(n, B), read_tape(B) of which are the decoder's graph.
///               Tapes in the workspace lie behind what writes need:
///               W = max(workspace(n, B), write_workspace(n, B) + G tape), of which G tape count as graphs.
///               Where memories are kept on the host, so are these n memories and A adjoints, and B memories
///               and max(B, 2) adjoints join the workspace
///
/// `bytes` is what each number is taken to take; how many there are is what this library pads them to.
/// Throws unroll::error when the text has more positions than the model, naming the longest one, and where
/// the policy does not fit the model.
template <costed_memory_model C>
memory_plan plan(const C& model, index_t tokens, const policy& p,
                 const number_bytes& bytes = number_bytes_of<C>()) {
  check_at_least("plan", "tokens", tokens, 1);
  const index_t length = model.segment_length(), n = (tokens - 1) / length, last = tokens - n * length;
  if (!model.holds(tokens))
    fail("plan", "tokens",
         "are " + std::to_string(tokens) +
             ", the longest text of whole segments that the model has positions for has " +
             std::to_string(model.longest_text()));
  if (!model.independent() && (needs_independent(p) || p.batch != 1))
    fail("plan", "policy", "\"" + to_string(p) + "\" needs memories that do not depend on earlier ones");
  if (p.batch < 1 || (p.batch > 1 && !takes_batches(p)))
    fail("plan", "policy",
         "\"" + to_string(p) + "\" has a batch of " + std::to_string(p.batch) + ", must be 1");
  const replay_plan replay = replay_of(p, n);

  memory_plan out;
  out.replay = p;
  out.segments = n + 1;
  out.tokens = tokens;
  out.writes = out.read_vjps = double(n);
  out.reads = double(n + 1);
  out.rewrites = replay.rewrites;
  out.write_vjps = replay.write_vjps;
  out.live_graphs = std::min(replay.graphs, n);

  for (index_t s = 0; s < n; ++s) {
    out.write_operations += model.write(s);
    out.write_vjp_operations += model.write_vjp(s);
  }
  if (n > 0) {
    out.write_operations *= 1 + out.rewrites / double(n);
    out.write_vjp_operations = out.write_vjp_operations * out.write_vjps / double(n);
  }
  for (index_t t = 0; t <= n; ++t) {
    const index_t read = t < n ? length : last;
    out.read_operations += t == 0 ? model.read(0, read) : model.read_vjp(t, read);
  }

  const memory_dims d = model.size();
  const double graphs = double(replay.graphs) * double(d.tape);
  double read_tape = double(model.read_tape(replay.batch));
  double workspace = double(model.workspace(n, replay.batch));  // W, less what counts as graphs
  if constexpr (requires { model.write_workspace(n, replay.batch); })
    if (replay.in_workspace) {
      const double of_reads = workspace - read_tape,
                   of_writes = double(model.write_workspace(n, replay.batch));
      workspace = std::max(workspace, of_writes + graphs) - graphs;
      read_tape = std::max(0., workspace - of_reads);
    }
  out.weight_bytes = double(model.weights()) * bytes.weights;
  out.parameter_bytes = double(d.params) * bytes.parameters;
  out.memory_bytes = double(n) * double(d.memory) * bytes.memory;
  out.adjoint_bytes = double(replay.adjoints) * double(d.memory) * bytes.adjoint;
  out.graph_bytes = graphs * bytes.graph;
  out.decoder_graph_bytes = read_tape * bytes.graph;
  out.workspace_bytes = (workspace - read_tape) * bytes.workspace;
  if (memories_on_host(model)) {
    out.host_bytes = out.memory_bytes + out.adjoint_bytes;
    out.workspace_bytes += double(d.memory) * (double(replay.batch) * bytes.memory +
                                               double(adjoints_together(replay.batch)) * bytes.adjoint);
  }
  return out;
}

namespace detail {

/// The largest i from 1 to `most` that fits, where all smaller ones do; 0 where 1 does not.
template <class Fits>
index_t largest_that_fits(index_t most, const Fits& fits) {
  index_t low = 0, high = most;
  while (low < high) {
    const index_t middle = low + (high - low + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace detail

/// The longest text whose plan takes at most `budget` bytes at the place, in tokens, in whole segments; 0
/// where not even one fits. Infinite budget: what the positions allow.
template <costed_memory_model C>
index_t longest_text(const C& model, const policy& p, double budget,
                     const number_bytes& bytes = number_bytes_of<C>()) {
  const index_t length = model.segment_length();
  return length * detail::largest_that_fits(model.longest_text() / length, [&](index_t segments) {
           return plan(model, segments * length, p, bytes).place_bytes() <= budget;
         });
}

/// The cheapest policy without bias that fits: the exact one with the fewest operations, which keeps as many
/// graphs as there is room for, in the end none (rematerialise); where no exact one fits, the largest
/// compensated reservoir, which needs no adjoint for every memory. Nothing where nothing fits.
/// proportional:B costs less than both and needs what keep:1 needs; its variance is for the user to choose.
template <costed_memory_model C>
std::optional<memory_plan> cheapest_unbiased(const C& model, index_t tokens, double budget,
                                             const number_bytes& bytes = number_bytes_of<C>()) {
  const index_t n = (tokens - 1) / model.segment_length();
  const auto fits = [&](const policy& p) { return plan(model, tokens, p, bytes).place_bytes() <= budget; };
  const auto largest = [&](policy::kind name) {
    const auto of_size = [&](index_t size) { return policy{.name = name, .size = size}; };
    return of_size(detail::largest_that_fits(n, [&](index_t size) { return fits(of_size(size)); }));
  };
  policy best{.name = policy::kind::keep_all};
  if (!fits(best)) best = largest(policy::kind::keep);
  if (best.name == policy::kind::keep && best.size == 0) best = policy{};
  if (!fits(best)) {
    if (!model.independent()) return std::nullopt;
    best = largest(policy::kind::reservoir);
    if (best.size == 0) return std::nullopt;
  }
  return plan(model, tokens, best, bytes);
}

}  // namespace unroll
