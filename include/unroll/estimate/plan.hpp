#pragma once

#include <optional>

#include "unroll/estimate/policy.hpp"

namespace unroll {

/// A memory model over text that can say what its calls take without making one: numbers held, by kind, and
/// floating-point operations. n tokens are cut into segments of segment_length() tokens, the last of which
/// may be shorter.
///
///   memory_dims size() const, bool independent() const, index_t workspace(earlier, batch) const
///                                            as of the memory model
///   index_t weights() const                  frozen numbers
///   index_t segment_length() const           tokens
///   index_t longest_text() const             tokens, in whole segments
///   bool holds(index_t tokens) const         whether segments of so many tokens together have positions
///   index_t read_tape(index_t batch) const   the part of the workspace that a batch of reads keeps for its
///   vjp double write(s), write_vjp(s), read(t, tokens), read_vjp(t, tokens) const
///                                            operations of the call on one segment
///
/// Optional: `using numbers`, what the numbers are stored in; floats without it. write_workspace(earlier,
/// batch), as of the memory model.
template <class C>
concept costed_memory_model = requires(const C& c, index_t n) {
  { c.size() } -> std::same_as<memory_dims>;
  { c.independent() } -> std::same_as<bool>;
  { c.workspace(n, n) } -> std::same_as<index_t>;
  { c.weights() } -> std::same_as<index_t>;
  { c.segment_length() } -> std::same_as<index_t>;
  { c.longest_text() } -> std::same_as<index_t>;
  { c.holds(n) } -> std::same_as<bool>;
  { c.read_tape(n) } -> std::same_as<index_t>;
  { c.write(n) } -> std::convertible_to<double>;
  { c.write_vjp(n) } -> std::convertible_to<double>;
  { c.read(n, n) } -> std::convertible_to<double>;
  { c.read_vjp(n, n) } -> std::convertible_to<double>;
};

/// Bytes of one number of each kind. The default is this library in float.
struct number_bytes {
  double weights = 4;      ///< frozen
  double parameters = 16;  ///< all that is held for a trainable parameter: itself, gradient, two moments
  double graph = 4;        ///< activations of the encoder and of the decoder
  double memory = 4;
  double adjoint = 4;
  double work = 4;  ///< everything else
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
  double work_bytes = 0;           ///< the workspace

  /// Of everything, multiplications and additions.
  double operations() const { return write_operations + write_vjp_operations + read_operations; }
  /// What the estimator holds.
  double estimator_bytes() const {
    return memory_bytes + adjoint_bytes + graph_bytes + decoder_graph_bytes + work_bytes;
  }
  double bytes() const { return weight_bytes + parameter_bytes + estimator_bytes(); }
};

/// Bytes and operations of the gradient over segments of `tokens` tokens together: one less than the text
/// has, whose last token is a target only. `bytes` is what numbers are taken to take; how many they are is
/// what this library pads them to. Throws unroll::error when the text has more positions than the model,
/// naming the longest one, and where the policy does not fit the model.
template <costed_memory_model C>
memory_plan plan(const C& model, index_t tokens, const policy& p,
                 const number_bytes& bytes = number_bytes_of<C>()) {
  check_at_least("plan", "tokens", tokens, 1);
  const index_t length = model.segment_length(), segments = (tokens - 1) / length + 1, n = segments - 1;
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

  memory_plan out;
  out.replay = p;
  out.segments = segments;
  out.tokens = tokens;
  const index_t most = std::max<index_t>(1, n);
  const index_t size = std::min(p.size, most), batch = std::min(p.batch, most);
  index_t adjoints = n, slots = batch;
  const double all = double(n);
  out.write_vjps = all;
  out.rewrites = 0;
  switch (p.name) {
    case policy::kind::rematerialise:
      out.rewrites = all;
      break;
    case policy::kind::keep_all:
      slots = whole_batches(most, batch);
      break;
    case policy::kind::keep:  // the last whole batches
      slots = whole_batches(size, batch);
      out.rewrites = double(std::max<index_t>(0, whole_batches(n, batch) - slots));
      break;
    case policy::kind::reservoir:
      for (index_t s = p.size; s < n; ++s) out.write_vjps += double(p.size) / double(s + 1) - 1;
      [[fallthrough]];
    case policy::kind::window:
      slots = size;
      adjoints = 2 * size;
      break;
    case policy::kind::proportional:  // of independent draws on average
      out.rewrites = out.write_vjps = double(std::min(p.size, n));
      break;
  }
  out.live_graphs = std::min(slots, n);
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
  double read_tape = double(model.read_tape(batch)), work = double(model.workspace(n, batch));
  if constexpr (requires { model.write_workspace(n, batch); })
    if (p.name == policy::kind::rematerialise) {  // graphs lie where reads work, behind what writes need
      const double graphs = double(slots) * double(d.tape), others = work - read_tape;
      work = std::max(work, double(model.write_workspace(n, batch)) + graphs) - graphs;
      read_tape = std::max(0., work - others);
    }
  out.weight_bytes = double(model.weights()) * bytes.weights;
  out.parameter_bytes = double(d.params) * bytes.parameters;
  out.memory_bytes = all * double(d.memory) * bytes.memory;
  out.adjoint_bytes = double(adjoints) * double(d.memory) * bytes.adjoint;
  out.graph_bytes = double(slots) * double(d.tape) * bytes.graph;
  out.decoder_graph_bytes = read_tape * bytes.graph;
  out.work_bytes = (work - read_tape) * bytes.work;
  return out;
}

/// The longest text whose plan takes at most `budget` bytes, in tokens, in whole segments; 0 where not even
/// one fits. Infinite budget: what the positions allow.
template <costed_memory_model C>
index_t longest_text(const C& model, const policy& p, double budget,
                     const number_bytes& bytes = number_bytes_of<C>()) {
  const index_t length = model.segment_length();
  index_t low = 0, high = model.longest_text() / length;
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
/// graphs as there is room for, in the end none (rematerialise); where no exact one fits, the largest
/// compensated reservoir, which needs no adjoint for every memory. Nothing where nothing fits.
/// proportional:B costs less than both and needs what keep:1 needs; its variance is for the user to choose.
template <costed_memory_model C>
std::optional<memory_plan> cheapest_unbiased(const C& model, index_t tokens, double budget,
                                             const number_bytes& bytes = number_bytes_of<C>()) {
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
  const index_t length = model.segment_length(), n = (tokens - 1) / length;
  policy best{policy::kind::keep_all, 0, true};
  if (!fits(best)) {
    const index_t graphs = largest(policy::kind::keep, n);
    best = graphs > 0 ? policy{policy::kind::keep, graphs, true} : policy{};
    if (graphs == 0 && !fits(best)) {
      const index_t size = model.independent() ? largest(policy::kind::reservoir, n) : 0;
      if (size == 0) return std::nullopt;
      best = {policy::kind::reservoir, size, true};
    }
  }
  return plan(model, tokens, best, bytes);
}

}  // namespace unroll
