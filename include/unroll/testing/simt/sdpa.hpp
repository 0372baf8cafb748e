#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/exec/sdpa.hpp"
#include "unroll/testing/simt/device_memory.hpp"

namespace unroll::testing::simt {

/// A library of attention that the host plays, see exec/sdpa.hpp: it takes what cuDNN takes (cuda/cudnn.hpp),
/// by dimensions and strides, and rounds where cuDNN rounds: operands in bfloat16, scores, softmax and sums
/// in float, probabilities and ds in bfloat16 for the products that follow. Keys are taken in tiles of 128,
/// those behind the last one with a probability of 0, so that padding that is not finite is seen in the
/// result; columns of dk and dv behind the last key become NaN, and so does the whole workspace that a shape
/// asks for. Throws unroll::error where operands or the workspace are not aligned as cuDNN takes them for.
class sdpa_double {
 public:
  explicit sdpa_double(std::shared_ptr<device_memory> memory) : memory_(std::move(memory)) {}

  index_t forwards = 0, vjps = 0;             ///< calls
  index_t break_in = -1;                      ///< calls until one writes a NaN: what reports say of libraries
  bool break_log_sum = false;                 ///< a forward call writes it into log_sum, not into out
  std::string refusal = {};                   ///< of every shape
  std::vector<exec::sdpa_shape> shapes = {};  ///< of the calls so far

  /// See sdpa_library.
  static index_t workspace_bound(const exec::sdpa_shape& s) {
    return s.vjp ? 2 * s.heads * s.queries * s.keys : 256;
  }
  /// See sdpa_library.
  const std::string& refuses(const exec::sdpa_shape&) const { return refusal; }
  /// See sdpa_library.
  index_t workspace(const exec::sdpa_shape& s) const { return workspace_bound(s); }

  /// See sdpa_library.
  void forward(const exec::sdpa_shape& s, const exec::sdpa_call& c, void* workspace) {
    const device_memory::access open(*memory_);
    begin(s, workspace, c.n, c.m, {c.q, c.k, c.v, c.out, c.log_sum});
    ++forwards;
    for_rows(s, c.n, c.m, [&](const row& r) {
      const std::vector<float> scores = of(s, c.q, c.k, r);
      float most = -std::numeric_limits<float>::infinity(), sum = 0;
      for (const float x : scores) most = x > most ? x : most;
      std::vector<float> out(std::size_t(s.head_dim), 0);
      for (index_t t = 0; t < r.tiles; ++t) {
        const float p = t < r.visible ? std::exp(scores[std::size_t(t)] - most) : 0;
        sum += p;
        for (index_t d = 0; d < s.head_dim; ++d)
          out[std::size_t(d)] += float(bf16(p)) * float(c.v[r.key(s, t) + d]);
      }
      for (index_t d = 0; d < s.head_dim; ++d)
        c.out[r.query * s.out_stride + r.head * s.head_dim + d] = bf16(out[std::size_t(d)] / sum);
      c.log_sum[r.head * s.queries + r.query] = most + std::log(sum);
    });
    if (!breaks()) return;
    if (break_log_sum)
      c.log_sum[s.heads * s.queries - 1] = NAN;
    else
      c.out[s.query_width() - 1] = bf16(NAN);
  }

  /// See sdpa_library.
  void vjp(const exec::sdpa_shape& s, const exec::sdpa_vjp_call& c, void* workspace) {
    const device_memory::access open(*memory_);
    begin(s, workspace, c.n, c.m, {c.q, c.k, c.v, c.out, c.dout, c.log_sum, c.dq, c.dk, c.dv});
    ++vjps;
    const index_t kv = s.kv_width(), width = s.query_width();
    std::vector<float> dk(std::size_t(s.keys * kv), 0), dv = dk;
    for_rows(s, c.n, c.m, [&](const row& r) {
      const std::vector<float> scores = of(s, c.q, c.k, r);
      const bf16* const q = c.q + r.query * s.q_stride + r.head * s.head_dim;
      const bf16* const out = c.out + r.query * s.out_stride + r.head * s.head_dim;
      const bf16* const dout = c.dout + r.query * s.dout_stride + r.head * s.head_dim;
      float delta = 0;
      for (index_t d = 0; d < s.head_dim; ++d) delta += float(out[d]) * float(dout[d]);
      std::vector<float> dq(std::size_t(s.head_dim), 0);
      for (index_t t = 0; t < r.tiles; ++t) {
        const bool seen = t < r.visible;
        const float p = seen ? std::exp(scores[std::size_t(t)] - c.log_sum[r.head * s.queries + r.query]) : 0;
        float dp = 0;
        for (index_t d = 0; d < s.head_dim; ++d) dp += float(c.v[r.key(s, t) + d]) * float(dout[d]);
        const float p16 = float(bf16(p)), ds = float(bf16(p * (dp - delta) * root(s)));
        const auto at = std::size_t(t * kv + r.group * s.head_dim);
        for (index_t d = 0; d < s.head_dim; ++d) {
          dq[std::size_t(d)] += ds * float(c.k[r.key(s, t) + d]);
          dk[at + std::size_t(d)] += ds * float(q[d]);
          dv[at + std::size_t(d)] += p16 * float(dout[d]);
        }
      }
      for (index_t d = 0; d < s.head_dim; ++d)
        c.dq[r.query * width + r.head * s.head_dim + d] = bf16(dq[std::size_t(d)]);
    });
    for (index_t i = 0; i < s.keys * kv; ++i) {
      const bool there = i < *c.m * kv;
      c.dk[i] = there ? bf16(dk[std::size_t(i)]) : bf16(NAN);
      c.dv[i] = there ? bf16(dv[std::size_t(i)]) : bf16(NAN);
    }
    if (breaks()) c.dv[*c.m * kv - 1] = bf16(NAN);
  }

 private:
  struct row {
    index_t query, head, group, visible, tiles, stride;
    index_t key(const exec::sdpa_shape& s, index_t t) const { return t * stride + group * s.head_dim; }
  };
  static float root(const exec::sdpa_shape& s) { return 1 / std::sqrt(float(s.head_dim)); }

  template <class F>
  static void for_rows(const exec::sdpa_shape& s, const std::int32_t* n, const std::int32_t* m, F&& f) {
    for (index_t i = 0; i < *n; ++i)
      for (index_t h = 0; h < s.heads; ++h) {
        const index_t visible = i + *m - *n + 1 < *m ? i + *m - *n + 1 : *m;
        const index_t tiles = (visible + 127) / 128 * 128;
        f(row{i, h, h / (s.heads / s.kv_heads), visible, tiles < s.keys ? tiles : s.keys, s.kv_stride});
      }
  }
  /// Scores of the keys that a row sees.
  static std::vector<float> of(const exec::sdpa_shape& s, const bf16* q, const bf16* k, const row& r) {
    std::vector<float> scores;
    for (index_t t = 0; t < r.visible; ++t) {
      float sum = 0;
      for (index_t d = 0; d < s.head_dim; ++d)
        sum += float(q[r.query * s.q_stride + r.head * s.head_dim + d]) * float(k[r.key(s, t) + d]);
      scores.push_back(sum * root(s));
    }
    return scores;
  }
  /// What cuDNN assumes of its operands and does not ask: alignments, counts that the shape has.
  void begin(const exec::sdpa_shape& s, void* workspace, const std::int32_t* n, const std::int32_t* m,
             std::initializer_list<const void*> operands) {
    check_aligned("workspace", workspace, 256);
    for (const void* at : operands) check_aligned("an operand", at, 16);
    for (const index_t stride : {s.q_stride, s.kv_stride, s.out_stride, s.dout_stride})
      if (stride % 8 != 0)
        fail("simt::sdpa_double", "stride", "is " + std::to_string(stride) + ", no multiple of 8");
    if (*n != s.queries)
      fail("simt::sdpa_double", "n",
           "is " + std::to_string(*n) + ", queries are " + std::to_string(s.queries));
    if (*m < 1 || *m > s.keys)
      fail("simt::sdpa_double", "m", "is " + std::to_string(*m) + ", keys are " + std::to_string(s.keys));
    shapes.push_back(s);
    std::fill_n(static_cast<unsigned char*>(workspace), workspace_bound(s), static_cast<unsigned char>(0xff));
  }
  static void check_aligned(std::string_view what, const void* at, std::uintptr_t bytes) {
    if (reinterpret_cast<std::uintptr_t>(at) % bytes != 0)
      fail("simt::sdpa_double", what, "is not aligned to " + std::to_string(bytes) + " bytes");
  }
  bool breaks() { return break_in >= 0 && break_in-- == 0; }

  std::shared_ptr<device_memory> memory_;
};

static_assert(exec::sdpa_library<sdpa_double>);

}  // namespace unroll::testing::simt
