#pragma once

#include <cstring>

#include "tests/cuda/attention_case.hpp"
#include "unroll/exec/operations.hpp"

// A case of attention through an executor, on the host or on a device.
namespace attention_test {

/// What attention and its vjp have written.
struct outcome {
  std::vector<bf16> out, dq, dk, dv;
  std::vector<float> log_sum, dprefix;
  bool operator==(const outcome& o) const {
    return same(out, o.out) && same(dq, o.dq) && same(dk, o.dk) && same(dv, o.dv) &&
           same(log_sum, o.log_sum) && same(dprefix, o.dprefix);
  }
  template <class U>
  static bool same(const std::vector<U>& x, const std::vector<U>& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(U)) == 0);
  }
};

template <class E, class U>
auto moved(const E& e, const std::vector<U>& x) {
  auto at = e.template allocate<U>(index_t(x.size()));
  e.upload(x.data(), index_t(x.size()), at.data());
  return at;
}
template <class E, class U>
std::vector<U> fetched(const E& e, const U* at, index_t n) {
  std::vector<U> x(static_cast<std::size_t>(n));
  e.download(at, n, x.data());
  e.synchronise();
  return x;
}

inline exec::attention_call<unroll::numbers<bf16>> call_of(const attention_inputs& in, const bf16* q,
                                                           const bf16* k, const bf16* v,
                                                           std::span<const bf16* const> blocks) {
  const attention_case& c = in.of;
  return {.shape = {c.heads, c.kv_heads, c.head},
          .mask = {c.ordinals, c.ratio, c.first},
          .sequences = c.sequences,
          .q = {q, in.qw, in.columns},
          .k = {k, in.kvw, in.tokens},
          .v = {v, in.kvw, in.tokens},
          .before = {blocks, 0, index_t(c.keys) * in.kvw, c.keys, c.ranges}};
}

/// Attention of a case and its vjp by an executor, in a workspace of exactly the size that it asks for;
/// adjoints of the prefix are added to `before`.
template <class E>
outcome run(const E& e, const attention_inputs& in, std::vector<float> before = {}) {
  const attention_case& c = in.of;
  const auto q = moved(e, in.q), k = moved(e, in.k), v = moved(e, in.v), prefix = moved(e, in.prefix),
             dout = moved(e, in.dout);
  auto out = e.template allocate<bf16>(in.qw * in.columns), dq = out;
  auto dk = e.template allocate<bf16>(in.kvw * in.tokens), dv = dk;
  auto log_sum = e.template allocate<float>(c.heads * in.columns);
  before.resize(in.prefix.size());
  auto dprefix = moved(e, before);
  const auto blocks = in.blocks_from(prefix.data());
  const auto dblocks = in.blocks_from(dprefix.data());
  const auto call = call_of(in, q.data(), k.data(), v.data(), blocks);
  for (const bool vjp : {false, true}) {
    auto workspace = e.template allocate<bf16>(
        E::attention_workspace(call.shape, {c.sequences, c.first + c.length, c.blocks, c.keys, vjp}));
    if (!vjp)
      e.attention(call, {out.data(), in.qw, in.columns}, log_sum.data(), workspace);
    else
      e.attention_vjp(call,
                      {{out.data(), in.qw, in.columns},
                       log_sum.data(),
                       {dout.data(), in.qw, in.columns},
                       {dq.data(), in.qw, in.columns},
                       {dk.data(), in.kvw, in.tokens},
                       {dv.data(), in.kvw, in.tokens},
                       dblocks},
                      workspace);
  }
  return {fetched(e, out.data(), out.size()),         fetched(e, dq.data(), dq.size()),
          fetched(e, dk.data(), dk.size()),           fetched(e, dv.data(), dv.size()),
          fetched(e, log_sum.data(), log_sum.size()), fetched(e, dprefix.data(), dprefix.size())};
}

}  // namespace attention_test
