#pragma once

#include "unroll/llama/embedding.hpp"
#include "unroll/llama/lm_head.hpp"
#include "unroll/llama/transformer.hpp"
#include "unroll/memory/memory_llama/tables.hpp"

namespace unroll::llama {

/// What reads the memories of a memory_llama: the losses J_t, and in the vjp dJ_t/dm_s, which is added to A_s
/// of the gradient (UIO-LLMs, arXiv 2406.18173, equation 5).
///
/// The frozen Llama alone runs over segment t behind m_0 .. m_{t-1}, with positions from t M on. Whole
/// segments that follow each other are one pass of as many sequences, each of which sees the memories in
/// front of it.
///
/// A view of all it needs, made for one call.
template <class X>
class memory_decoder {
  using E = exec::of<X>;
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

 public:
  const transformer<X>& stack;
  const memory_tables<E>& tables;  ///< sizes and positions
  const W* weights;                ///< stack.map().size() numbers

  /// WRITES the losses, one a segment; null, of one segment: to the workspace. Returns where the last one is;
  /// null: it is 0, nothing is scored. past: at least as many memories as stand in front of the last segment,
  /// each of sizes().memory() numbers; workspace: sizes().decoder_workspace().
  const P* read(std::span<const segment> xs, index_t t, std::span<const M* const> past, P* losses,
                view<A> workspace) const {
    return for_passes(xs, t, past, losses, [&](auto part, index_t u, P* to) {
      return run(part, u, past, nullptr, to, workspace);
    });
  }
  /// The same, and ADDS the vjp to the adjoints of the memories, one for each in `past`; null: not wanted. A
  /// segment's draws of pairs are named by its number.
  const P* read_vjp(std::span<const segment> xs, index_t t, std::span<const M* const> past,
                    std::span<P* const> dpast, P* losses, view<A> workspace,
                    const kernels::attention_cut& cut = {}) const {
    if (std::all_of(dpast.begin(), dpast.end(), [](const P* d) { return !d; }))
      return read(xs, t, past, losses, workspace);
    check_size("memory_llama::read_vjp", "dpast", index_t(dpast.size()), index_t(past.size()));
    return for_passes(xs, t, past, losses, [&](auto part, index_t u, P* to) {
      return run(part, u, past, dpast.data(), to, workspace, cut);
    });
  }

 private:
  const memory_sizes<E>& sizes() const { return tables.sizes; }
  const memory_options& options() const { return sizes().options(); }

  pass<M> pass_of(std::span<const segment> xs, index_t t, std::span<const M* const> past) const {
    const index_t n = index_t(xs.size()), m = sizes().memory_tokens();
    pass<M> p =
        stack.pass_over(t * m, index_t(xs.front().tokens.size()), {past.first(std::size_t(t + n - 1)), m, m});
    p.before.on_host = options().memories_on_host;
    p.keep = options().decoder_tape;
    if (n == 1) return p;
    p.sequences = n;
    p.positions = tables.segment_positions_of(t, n);
    p.before.ranges = tables.seen_by(t, n);
    return p;
  }

  /// One pass over segments of equal length, with the shapes of read; dpast null: without the vjp. Returns
  /// where the last loss is.
  const P* run(std::span<const segment> xs, index_t t, std::span<const M* const> past, P* const* dpast,
               P* losses, view<A> workspace, const kernels::attention_cut& cut = {}) const {
    const bool vjp = dpast != nullptr;
    pass<M> p = pass_of(xs, t, past);
    p.cut = cut;
    p.cut.first = t;
    sizes().check_workspace(vjp ? "memory_llama::read_vjp" : "memory_llama::read", workspace.size(),
                            sizes().decoder_workspace(p, vjp), p.sequences);
    const E& e = stack.executor();
    arena<A> space(workspace);
    const matrix<A> h = space.cut(stack.shape().hidden, p.tokens());
    P* const of_tokens = space.template cut_as<P>(p.tokens()).data;
    P* const total = space.template cut_as<P>(1).data;
    const matrix<A> dh = vjp ? space.cut(h.rows, h.cols) : matrix<A>();
    const view<A> tape = vjp ? space.cut_flat(stack.tape_size(p)) : view<A>{}, left = space.rest();
    for (index_t b = 0; b < p.sequences; ++b)
      embed(e, stack.map(), weights, xs[std::size_t(b)].tokens, columns_of(h, b * p.length, p.length));
    stack.forward(weights, {}, p, h, tape, left);
    const lm_head<E> head{e, stack.map(), weights, left};
    for (index_t b = 0; b < p.sequences; ++b) {
      const std::span<const token> targets = xs[std::size_t(b)].targets;
      const index_t first = b * p.length, scored = index_t(targets.size());
      const matrix<const A> x(columns_of(h, first, scored));
      if (vjp)
        head.losses_vjp(x, targets, {.dx = columns_of(dh, first, scored)}, of_tokens + first, total);
      else
        head.losses(x, targets, of_tokens + first, total);
    }
    if (vjp) stack.vjp(weights, {}, p, tape, dh, {.before = {dpast, p.before.blocks.size()}}, left);
    P* const to = losses ? losses : total;
    for (index_t b = 0; b < p.sequences; ++b) e.sum(of_tokens + b * p.length, p.length, to + b);
    return to + p.sequences - 1;
  }

  /// f(segments, the first one's number, their losses) for segments that make one pass, after all have been
  /// checked. Only whole segments go together.
  template <class F>
  const P* for_passes(std::span<const segment> xs, index_t t, std::span<const M* const> past, P* losses,
                      F&& f) const {
    check_at_least("memory_llama::read", "t", t, 0);
    check_size("memory_llama::read", "past", index_t(past.size()), t + index_t(xs.size()) - 1);
    for (std::size_t i = 0; i < xs.size(); ++i) check(xs[i], t + index_t(i));
    const auto whole = [&](const segment& x) {
      return x.scored() > 0 && index_t(x.tokens.size()) == options().segment && x.tokens.size() > 1;
    };
    const P* last = nullptr;
    for (std::size_t i = 0, n = 1; i < xs.size(); i += n) {
      n = 1;
      P* const to = losses ? losses + i : nullptr;
      last = to;
      if (xs[i].scored() == 0) {
        if (to) stack.executor().fill(matrix<P>(to, 1, 1), 0);
        continue;
      }
      while (i + n < xs.size() && whole(xs[i]) && whole(xs[i + n])) ++n;
      last = f(xs.subspan(i, n), t + index_t(i), to);
    }
    return last;
  }

  void check(const segment& x, index_t t) const {
    const index_t n = index_t(x.tokens.size());
    check_at_least("memory_llama::read", "x.tokens", n, 1);
    if (n > options().segment)
      fail("memory_llama::read", "x.tokens",
           "are " + std::to_string(n) + ", a segment has " + std::to_string(options().segment));
    if (!x.targets.empty()) check_size("memory_llama::read", "x.targets", index_t(x.targets.size()), n);
    check_tokens("memory_llama::read", "tokens", stack.shape(), x.tokens);
    check_tokens("memory_llama::read", "targets", stack.shape(), x.targets, true);
    sizes().check_positions("memory_llama::read", t, n);
  }
};

}  // namespace unroll::llama
