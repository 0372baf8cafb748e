#pragma once

#include <cstdint>
#include <span>

#include "unroll/core/matrix.hpp"
#include "unroll/core/numbers.hpp"
#include "unroll/kernels/attention_shape.hpp"

// The arguments of an executor's operations that have more than a few. Pointers and matrices live at the
// executor's place, spans are host memory.
namespace unroll::exec {

/// A low-rank adapter, y += scale b' (a' x).
template <class P>
struct adapter {
  matrix<const P> a;  ///< in x rank
  matrix<const P> b;  ///< rank x out
  double scale = 1;
};
/// Where its gradient is added; null data: not wanted.
template <class P>
struct adapter_gradient {
  matrix<P> a;  ///< in x rank
  matrix<P> b;  ///< rank x out
};
/// What adapt_vjp is given beside the adapter, and where it adds. Terms of the gradient are added one
/// sequence after another.
template <class N>
struct adapter_adjoint {
  matrix<const typename N::activation> x;                 ///< in x tokens
  matrix<const typename N::activation> dy;                ///< out x tokens: the cotangent of y
  matrix<typename N::activation> dx = {};                 ///< in x tokens; null data: not wanted
  adapter_gradient<typename N::parameter> gradient = {};  ///< of the adapter
  index_t sequences = 1;                                  ///< equal parts of the columns
};

/// One of several adapters that take the same x, and what it adds to.
template <class N>
struct adapted {
  adapter<typename N::parameter> l;  ///< the adapter
  matrix<typename N::activation> y;  ///< out x tokens
};
/// What adapt_all_vjp is given for each of them.
template <class N>
struct adapted_adjoint {
  adapter<typename N::parameter> l;                       ///< the adapter
  matrix<const typename N::activation> dy;                ///< out x tokens: the cotangent of y
  adapter_gradient<typename N::parameter> gradient = {};  ///< of the adapter
};

/// Attention of `sequences` sequences of k.cols / sequences tokens each, one behind the other in the columns;
/// the queries are those of their tokens from mask.first on.
template <class N>
struct attention_call {
  kernels::attention_shape shape;
  kernels::attention_mask mask;                         ///< which keys of its own sequence a query sees
  index_t sequences = 1;                                ///< that the columns are made of
  matrix<const typename N::activation> q;               ///< query_width x queries
  matrix<const typename N::activation> k, v;            ///< kv_width x tokens
  kernels::key_prefix<typename N::memory> before = {};  ///< keys and values in front of the sequences
};

/// How large a call is, for the workspace of attention.
struct attention_size {
  index_t sequences = 1;  ///< of a call
  index_t length = 0;     ///< tokens of a sequence
  index_t blocks = 0;     ///< of the prefix
  index_t keys = 0;       ///< columns of a block
  bool vjp = false;       ///< whether the vjp is called as well
};

/// What attention_vjp is given beside the call, and where it writes.
template <class N>
struct attention_adjoint {
  matrix<const typename N::activation> out;            ///< query_width x queries, of the forward call
  const typename N::accumulator* log_sum = nullptr;    ///< heads x queries, of the forward call
  matrix<const typename N::activation> dout;           ///< query_width x queries: the cotangent of out
  matrix<typename N::activation> dq;                   ///< as q, written; may be the memory of q or of dout
  matrix<typename N::activation> dk, dv;               ///< as k and v, written
  std::span<typename N::adjoint* const> dbefore = {};  ///< added to: one for a block of the prefix, laid out
                                                       ///< as it; null: not wanted; empty: none is
  kernels::attention_cut cut = {};  ///< pairs that may be left out; of executors that say so
};

/// The losses of tokens under the output layer of a language model.
template <class N>
struct cross_entropy_call {
  matrix<const typename N::weight> lm_head;     ///< hidden x vocabulary
  matrix<const typename N::activation> normed;  ///< hidden x tokens
  std::span<const std::int32_t> targets;        ///< one a token; -1: not scored
  typename N::accumulator* losses = nullptr;    ///< one a token: -log p(target) in nats, 0 if not scored
};
/// What cross_entropy_vjp is given beside the call, and where it writes.
template <class N>
struct cross_entropy_adjoint {
  double dloss = 1;                           ///< cotangent of the summed loss
  matrix<typename N::activation> dnormed;     ///< hidden x tokens, written
  typename N::parameter* dlm_head = nullptr;  ///< hidden x vocabulary, added to; null: not wanted
};

/// What a step of an optimiser changes: n parameters theta, by their gradient g. Nothing changes where *ok is
/// 0 (all_finite's); null: it is not looked at.
template <class P>
struct optimised {
  P* theta = nullptr;     ///< n numbers
  const P* g = nullptr;   ///< n numbers
  index_t n = 0;          ///< parameters
  const P* ok = nullptr;  ///< one number
};

/// One step of AdamW (Loshchilov & Hutter 2019), number `step` from 1.
struct adamw_step {
  /// Learning rate, the decay of both moments, what is added to the root, decoupled decay of theta.
  double rate = 1e-3, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0;
  std::int64_t step = 1;
};
/// One step of momentum; see optim/momentum.hpp.
struct momentum_step {
  double rate = 1e-2, momentum = 0.9;  ///< learning rate, and the share of the old direction that is kept
  bool nesterov = false;               ///< the gradient is taken ahead of the step
};

/// How a token is drawn from logits: the temperature divides them, 0 takes the most probable token; only the
/// fewest most probable tokens that have top_p of the probability together are drawn from.
struct sampling {
  double temperature = 1;  ///< divides the logits; 0: the most probable token
  double top_p = 1;        ///< probability of the tokens that are drawn from; 1: all
};

}  // namespace unroll::exec
