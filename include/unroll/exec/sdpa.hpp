#pragma once

#include <concepts>
#include <cstdint>
#include <string>

#include "unroll/core/bf16.hpp"
#include "unroll/core/view.hpp"

// Scaled dot product attention as libraries offer it: what exec::sdpa_executor asks of one.
namespace unroll::exec {

/// Attention of one sequence in bfloat16. A token's heads lie side by side, and tokens lie `stride` numbers
/// apart. Of `keys` columns of keys and values the last may be padding, which is finite and which no query
/// sees: a call says how many queries n and keys m there are, and query i sees key t where t <= i + m - n,
/// causal with the last query on the last key.
struct sdpa_shape {
  index_t heads = 0;        ///< query heads
  index_t kv_heads = 0;     ///< query head j reads key-value head j / (heads / kv_heads)
  index_t head_dim = 0;     ///< numbers in a head
  index_t queries = 0;      ///< columns of q, out and dout
  index_t keys = 0;         ///< columns of k and v, with the padding
  index_t q_stride = 0;     ///< of q
  index_t kv_stride = 0;    ///< of k and v
  index_t out_stride = 0;   ///< of out
  bool vjp = false;         ///< whether it is the vjp
  index_t dout_stride = 0;  ///< of dout; the vjp's
  bool operator==(const sdpa_shape&) const = default;

  index_t query_width() const { return heads * head_dim; }  ///< numbers of all queries of a token
  index_t kv_width() const { return kv_heads * head_dim; }  ///< numbers of all keys of a token
};

/// Where a call reads and writes, at the executor's place.
struct sdpa_call {
  const bf16* q;          ///< query_width x queries
  const bf16 *k, *v;      ///< kv_width x keys
  const std::int32_t* n;  ///< one number: how many queries there are
  const std::int32_t* m;  ///< one number: how many keys
  bf16* out;              ///< query_width x queries, written
  float* log_sum;         ///< queries x heads, written: a head's queries side by side
};
/// The same of the vjp. Outputs are packed: their stride is their width.
struct sdpa_vjp_call {
  const bf16* q;           ///< query_width x queries
  const bf16 *k, *v;       ///< kv_width x keys
  const bf16 *out, *dout;  ///< query_width x queries
  const std::int32_t* n;   ///< one number: how many queries there are
  const std::int32_t* m;   ///< one number: how many keys
  const float* log_sum;    ///< queries x heads, of the forward call
  bf16* dq;                ///< query_width x queries, written
  bf16 *dk, *dv;           ///< kv_width x keys, written; columns behind the m-th are undefined
};

/// A library of attention.
///   workspace_bound(shape)         bytes of workspace at most, of sizes alone: what a plan of memory counts
///   refuses(shape)                 why it does not run this shape; empty: it does
///   workspace(shape)               bytes of workspace of a shape that it runs
///   forward(shape, call, workspace), vjp(shape, call, workspace)
///                                  enqueue; p = softmax of q . k / sqrt(head_dim), sums in float
template <class S>
concept sdpa_library = requires(S s, const sdpa_shape& shape, const sdpa_call& call, const sdpa_vjp_call& vjp,
                                void* workspace) {
  { S::workspace_bound(shape) } -> std::same_as<index_t>;
  { s.refuses(shape) } -> std::convertible_to<const std::string&>;
  { s.workspace(shape) } -> std::same_as<index_t>;
  s.forward(shape, call, workspace);
  s.vjp(shape, vjp, workspace);
};

}  // namespace unroll::exec
