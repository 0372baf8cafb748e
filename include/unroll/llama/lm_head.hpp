#pragma once

#include <algorithm>
#include <span>

#include "unroll/core/arena.hpp"
#include "unroll/exec/operations.hpp"
#include "unroll/llama/weights.hpp"
#include "unroll/text/token.hpp"

namespace unroll::llama {

/// What stands above the layers of a Llama: the final norm, with gains g, the output matrix W, hidden x
/// vocabulary, and cross entropy:
///
///   logits = W' rmsnorm(x, g),    loss of a token = -log softmax(logits)[target],  in nats
///
/// Tokens go through it in chunks, so that the logits of few of them are alive together. A target of -1 is
/// not scored, its loss is 0; chunks in which nothing is scored cost nothing. Weights and matrices live at
/// the place of the executor, targets on the host. A view of all it needs, made for one call.
template <class E>
struct lm_head {
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using P = typename E::numbers::parameter;

  const E& e;             ///< whose operations it takes
  const weight_map& map;  ///< where g and W lie
  const W* weights;       ///< map.size() numbers
  view<A> workspace;      ///< workspace_size(map.shape(), tokens) numbers

  /// What the vjp is asked for.
  struct gradient {
    matrix<A> dx;           ///< written: the cotangent of x, hidden x tokens; may be x
    P* dweights = nullptr;  ///< added to: map.size() numbers, those of g and W; null: not wanted
    double dloss = 1;       ///< cotangent of the summed loss
  };

  /// Tokens of a chunk: their logits are about 2^23 numbers.
  static index_t chunk(const config& c, index_t tokens) {
    return std::min(tokens, std::clamp<index_t>((index_t{1} << 23) / c.vocabulary, 16, 512));
  }
  /// Numbers of the workspace for so many tokens.
  static index_t workspace_size(const config& c, index_t tokens) {
    arena<A> counting;
    buffers(counting, c, tokens);
    return counting.used();
  }

  /// x, hidden x tokens: outputs of the last layer. WRITES the sum of the losses to *total and, unless null,
  /// each one to `each`, one a token. 2 hidden vocabulary flops a token.
  void losses(matrix<const A> x, std::span<const token> targets, P* each, P* total) const {
    check("lm_head::losses", x);
    check_size("lm_head::losses", "targets", index_t(targets.size()), x.cols);
    arena<A> space(workspace);
    const buffers t(space, map.shape(), x.cols);
    if (!each) each = t.losses;
    for_chunks(
        x, targets, each, t,
        [&](const auto& call, index_t, const buffers& part) { e.cross_entropy(call, part.products); },
        [](index_t, index_t) {});
    e.sum(each, x.cols, total);
  }

  /// The same of the same x, and the vjp. 6 hidden vocabulary flops a token, 4 without dweights.
  void losses_vjp(matrix<const A> x, std::span<const token> targets, const gradient& to, P* each,
                  P* total) const {
    UNROLL_ASSERT(to.dx.rows == x.rows && to.dx.cols == x.cols);
    check("lm_head::losses_vjp", x);
    check_size("lm_head::losses_vjp", "targets", index_t(targets.size()), x.cols);
    arena<A> space(workspace);
    const buffers t(space, map.shape(), x.cols);
    if (!each) each = t.losses;
    const auto one = [&](const auto& call, index_t n0, const buffers& part) {
      const index_t n = part.normed.cols;
      P* const g = to.dweights;
      e.cross_entropy_vjp(call, {to.dloss, part.dnormed, g ? g + map.output() : nullptr}, part.products);
      e.fill(part.normed, 0);  // dx may be x, which the norm's vjp reads: its result goes through here
      e.rmsnorm_vjp(columns_of(x, n0, n), weights + map.norm(), part.rstd, matrix<const A>(part.dnormed),
                    part.normed, g ? g + map.norm() : nullptr);
      e.copy(part.normed, columns_of(to.dx, n0, n));
    };
    for_chunks(x, targets, each, t, one, [&](index_t n0, index_t n) { e.fill(columns_of(to.dx, n0, n), 0); });
    e.sum(each, x.cols, total);
  }

  /// WRITES the logits to `out`, vocabulary x tokens, of every column of x, hidden x tokens.
  void logits(matrix<const A> x, matrix<P> out) const {
    const config& m = map.shape();
    check("lm_head::logits", x);
    check_size("lm_head::logits", "out (rows)", out.rows, m.vocabulary);
    check_size("lm_head::logits", "out (columns)", out.cols, x.cols);
    arena<A> space(workspace);
    const buffers all(space, m, x.cols);
    for (index_t n0 = 0; n0 < x.cols; n0 += all.normed.cols) {
      const index_t n = std::min(all.normed.cols, x.cols - n0);
      const buffers t = all.of(n);
      e.rmsnorm(columns_of(x, n0, n), weights + map.norm(), m.norm_epsilon, t.normed, nullptr);
      e.gemm(op::transpose, output(), op::none, t.normed, false, columns_of(out, n0, n));
    }
  }

 private:
  // What one chunk works in, and the losses of all tokens where nobody wants them.
  struct buffers {
    matrix<A> normed, dnormed;  // hidden x tokens of a chunk
    P *rstd, *losses;           // one a token of a chunk, one a token
    view<A> products;           // of the cross entropy

    buffers(arena<A>& space, const config& m, index_t tokens) {
      const index_t n = chunk(m, tokens);
      normed = space.cut(m.hidden, n);
      dnormed = space.cut(m.hidden, n);
      rstd = space.template cut_as<P>(n).data;
      losses = space.template cut_as<P>(tokens).data;
      products = space.cut_flat(E::cross_entropy_workspace(m.hidden, m.vocabulary, n));
    }
    buffers of(index_t n) const {
      buffers part = *this;
      part.normed.cols = part.dnormed.cols = n;
      return part;
    }
  };

  matrix<const W> output() const {
    return {weights + map.output(), map.shape().hidden, map.shape().vocabulary};
  }
  void check(const char* function, matrix<const A> x) const {
    check_size(function, "x (rows)", x.rows, map.shape().hidden);
    check_at_least(function, "workspace", workspace.size(), workspace_size(map.shape(), x.cols));
  }
  /// f(call, first token, buffers) for every chunk of x, hidden x tokens, with a scored token, after the
  /// norm; the losses of other chunks, in `each`, one a token, become 0, and none(first token, tokens) is
  /// called.
  template <class F, class G>
  void for_chunks(matrix<const A> x, std::span<const token> targets, P* each, const buffers& all, F&& f,
                  G&& none) const {
    for (index_t n0 = 0; n0 < x.cols; n0 += all.normed.cols) {
      const index_t n = std::min(all.normed.cols, x.cols - n0);
      const auto wanted = targets.subspan(std::size_t(n0), std::size_t(n));
      if (std::any_of(wanted.begin(), wanted.end(), [](token id) { return id >= 0; })) {
        const buffers t = all.of(n);
        e.rmsnorm(columns_of(x, n0, n), weights + map.norm(), map.shape().norm_epsilon, t.normed, t.rstd);
        f(exec::cross_entropy_call<typename E::numbers>{output(), t.normed, wanted, each + n0}, n0, t);
      } else {
        e.fill(matrix<P>(each + n0, n, 1), 0);
        none(n0, n);
      }
    }
  }
};

}  // namespace unroll::llama
