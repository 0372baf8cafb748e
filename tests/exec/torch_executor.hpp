#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "unroll/testing/simt/executor.hpp"

namespace tests {

using namespace unroll;

/// testing::simt::executor, or by pytorch() one that computes a model in bfloat16 as PyTorch's own operations
/// do: the result of each of them is rounded, also inside of what an executor has as one operation; sums in
/// one of them are exact. What testing::simt is measured by; one type, so that models compile once for both.
class torch_executor final : public testing::simt::executor<unroll::numbers<bf16>> {
  using base = testing::simt::executor<unroll::numbers<bf16>>;
  using N = unroll::numbers<bf16>;
  using T = bf16;
  using P = float;
  using access = testing::simt::device_memory::access;

 public:
  explicit torch_executor(key order = {}) : base(order) {}
  static torch_executor pytorch() {
    torch_executor e;
    e.torch_ = true;
    return e;
  }

  template <class A, class B, class C>
  void gemm(op oa, matrix<A> a, op ob, matrix<B> b, bool add, matrix<C> c) const {
    if (!torch_) return base::gemm(oa, a, ob, b, add, c);
    product(oa, a, ob, b, 1, add, c);
  }
  void adapt(const exec::adapter<P>& l, matrix<const T> x, matrix<T> y, view<T> workspace) const {
    if (!torch_) return base::adapt(l, x, y, workspace);
    std::vector<T> z(std::size_t(l.a.cols * x.cols));
    const matrix<T> Z(z.data(), l.a.cols, x.cols);
    product(op::transpose, l.a, op::none, x, l.scale, false, Z);
    product(op::transpose, l.b, op::none, Z, 1, true, y);
  }
  void adapt_vjp(const exec::adapter<P>& l, const exec::adapter_adjoint<N>& d, view<T> workspace) const {
    if (!torch_) return base::adapt_vjp(l, d, workspace);
    std::vector<T> z(std::size_t(l.a.cols * d.x.cols)), dz = z;
    const matrix<T> Z(z.data(), l.a.cols, d.x.cols), dZ(dz.data(), l.a.cols, d.x.cols);
    product(op::transpose, l.a, op::none, d.x, l.scale, false, Z);
    product(op::none, l.b, op::none, d.dy, l.scale, false, dZ);
    if (d.dx.data) product(op::none, l.a, op::none, dZ, 1, true, d.dx);
    if (d.gradient.b.data) product(op::none, Z, op::transpose, d.dy, 1, true, d.gradient.b);
    if (d.gradient.a.data) product(op::none, d.x, op::transpose, dZ, 1, true, d.gradient.a);
  }

  void adapt_all(std::span<const exec::adapted<N>> of, matrix<const T> x, view<T> workspace) const {
    if (!torch_) return base::adapt_all(of, x, workspace);
    for (const auto& one : of) adapt(one.l, x, one.y, workspace);
  }
  void adapt_all_vjp(std::span<const exec::adapted_adjoint<N>> of, matrix<const T> x, matrix<T> dx,
                     index_t sequences, view<T> workspace) const {
    if (!torch_) return base::adapt_all_vjp(of, x, dx, sequences, workspace);
    for (const auto& one : of) adapt_vjp(one.l, {x, one.dy, dx, one.gradient, sequences}, workspace);
  }

  void rmsnorm(matrix<const T> x, const T* gain, double epsilon, matrix<T> y, P* rstd) const {
    if (!torch_) return base::rmsnorm(x, gain, epsilon, y, rstd);
    const access open(*machine().memory());
    for (index_t j = 0; j < x.cols; ++j) {
      double squares = 0;
      for (index_t i = 0; i < x.rows; ++i) squares += at(x, i, j) * at(x, i, j);
      const double r = 1 / std::sqrt(squares / double(x.rows) + epsilon);
      for (index_t i = 0; i < x.rows; ++i)
        y.data[i + j * y.stride] = T(round(at(x, i, j) * r) * double(float(gain[i])));
      if (rstd) rstd[j] = P(r);
    }
  }
  void rmsnorm_vjp(matrix<const T> x, const T* gain, const P* rstd, matrix<const T> dy, matrix<T> dx,
                   P* dgain) const {
    if (!torch_) return base::rmsnorm_vjp(x, gain, rstd, dy, dx, dgain);
    const access open(*machine().memory());
    for (index_t j = 0; j < x.cols; ++j) {
      const double r = double(rstd[j]);
      const auto h = [&](index_t i) { return round(at(dy, i, j) * double(float(gain[i]))); };
      double along = 0;
      for (index_t i = 0; i < x.rows; ++i) along += h(i) * at(x, i, j) / double(x.rows);
      for (index_t i = 0; i < x.rows; ++i) {
        add(dx, i, j, round(r * h(i) - at(x, i, j) * r * r * r * along));
        if (dgain) dgain[i] += P(round(at(dy, i, j) * round(at(x, i, j) * r)));
      }
    }
  }
  template <class U>
  void rotary(kernels::turn way, const kernels::rotary_table<P>& table, std::span<const index_t> positions,
              matrix<U> x) const {
    if (!torch_) return base::rotary(way, table, positions, x);
    const access open(*machine().memory());
    const index_t half = table.head_dim / 2;
    for (index_t j = 0; j < x.cols; ++j)
      for (index_t pair = 0; pair < x.rows / 2; ++pair) {
        const index_t i = pair % half, head = pair / half * table.head_dim;
        const index_t u = head + (table.neighbours ? 2 * i : i), v = table.neighbours ? u + 1 : u + half;
        const P* const t = table.data + positions[std::size_t(j) % positions.size()] * table.head_dim;
        const double c = round(double(t[i])),
                     s = round(double(t[i + half])) * (way == kernels::turn::back ? -1 : 1);
        const double a = at(x, u, j), b = at(x, v, j);
        x.data[u + j * x.stride] = U(float(round(a * c) - round(b * s)));
        x.data[v + j * x.stride] = U(float(round(b * c) + round(a * s)));
      }
  }
  void swiglu(matrix<const T> gated, matrix<T> out) const {
    if (!torch_) return base::swiglu(gated, out);
    const access open(*machine().memory());
    for (index_t j = 0; j < out.cols; ++j)
      for (index_t i = 0; i < out.rows; ++i)
        out.data[i + j * out.stride] = T(silu(at(gated, i, j)) * at(gated, i + out.rows, j));
  }
  void swiglu_vjp(matrix<const T> gated, matrix<const T> dout, matrix<T> dgated) const {
    if (!torch_) return base::swiglu_vjp(gated, dout, dgated);
    const access open(*machine().memory());
    const index_t m = dout.rows;
    for (index_t j = 0; j < dout.cols; ++j)
      for (index_t i = 0; i < m; ++i) {
        const double g = at(gated, i, j), up = at(gated, i + m, j), d = at(dout, i, j),
                     s = 1 / (1 + std::exp(-g));
        dgated.data[i + j * dgated.stride] = T(round(d * up) * s * (1 + g * (1 - s)));
        dgated.data[i + m + j * dgated.stride] = T(d * silu(g));
      }
  }

  void attention(const exec::attention_call<N>& c, matrix<T> out, P* log_sum, view<T> workspace) const {
    if (!torch_) return base::attention(c, out, log_sum, workspace);
    const access open(*machine().memory());
    for_queries(c, [&](const row& r) {
      const auto [score, sum] = scores(r);
      for (index_t e = 0; e < c.shape.head_dim; ++e) {
        double o = 0;
        for (std::size_t t = 0; t < score.size(); ++t)
          o += round(std::exp(score[t]) / sum) * double(float(r.keys[t].v[e]));
        out.data[r.head + e + r.column * out.stride] = T(o);
      }
      if (log_sum) log_sum[r.j + r.column * c.shape.heads] = P(std::log(sum));
    });
  }
  void attention_vjp(const exec::attention_call<N>& c, const exec::attention_adjoint<N>& d,
                     view<T> workspace) const {
    if (!torch_ || d.cut.pairs > 0) return base::attention_vjp(c, d, workspace);
    const access open(*machine().memory());
    std::vector<double> dq(std::size_t(d.dq.rows * d.dq.cols)), dk(std::size_t(d.dk.rows * d.dk.cols)),
        dv = dk;
    const std::size_t size = d.dbefore.empty() ? 0 : std::size_t(2 * c.before.keys * c.shape.kv_width());
    std::vector<std::vector<double>> dbefore(d.dbefore.size(), std::vector<double>(size));
    for_queries(c, [&](const row& r) {
      const auto [score, sum] = scores(r);
      std::vector<double> dp;
      double along = 0;
      for (std::size_t t = 0; t < score.size(); ++t) {
        double x = 0;
        for (index_t e = 0; e < c.shape.head_dim; ++e)
          x += at(d.dout, r.head + e, r.column) * double(float(r.keys[t].v[e]));
        dp.push_back(round(x));
        along += std::exp(score[t]) / sum * dp.back();
      }
      for (std::size_t t = 0; t < score.size(); ++t) {
        const double p = std::exp(score[t]) / sum;
        const double ds = round(round(p * (dp[t] - along)) / std::sqrt(double(c.shape.head_dim)));
        for (index_t e = 0; e < c.shape.head_dim; ++e) {
          dq[std::size_t(r.head + e + r.column * d.dq.rows)] += ds * double(float(r.keys[t].k[e]));
          const double to_k = ds * double(float(r.q[e])), to_v = round(p) * at(d.dout, r.head + e, r.column);
          const index_t in = r.keys[t].at + e;
          if (r.keys[t].block < 0) {
            dk[std::size_t(in)] += to_k;
            dv[std::size_t(in)] += to_v;
          } else if (!dbefore.empty()) {
            auto& b = dbefore[std::size_t(r.keys[t].block)];
            b[std::size_t(in)] += to_k;
            b[b.size() / 2 + std::size_t(in)] += to_v;
          }
        }
      }
    });
    const auto write = [](const std::vector<double>& from, const matrix<T>& to) {
      for (index_t i = 0; i < to.rows * to.cols; ++i)
        to.data[i % to.rows + i / to.rows * to.stride] = T(from[std::size_t(i)]);
    };
    write(dq, d.dq);
    write(dk, d.dk);
    write(dv, d.dv);
    for (std::size_t b = 0; b < dbefore.size(); ++b)
      for (std::size_t i = 0; i < size; ++i)
        if (d.dbefore[b]) {
          const bool value = i >= size / 2;
          d.dbefore[b][(value ? c.before.value_offset : c.before.key_offset) +
                       index_t(i - (value ? size / 2 : 0))] += P(round(dbefore[b][i]));
        }
  }

  void cross_entropy(const exec::cross_entropy_call<N>& c, view<T> workspace) const {
    if (!torch_) return base::cross_entropy(c, workspace);
    losses(c, nullptr);
  }
  void cross_entropy_vjp(const exec::cross_entropy_call<N>& c, const exec::cross_entropy_adjoint<N>& d,
                         view<T> workspace) const {
    if (!torch_) return base::cross_entropy_vjp(c, d, workspace);
    losses(c, &d);
  }

 private:
  static double round(double x) { return double(float(bf16(x))); }
  static double silu(double g) { return round(g / (1 + std::exp(-g))); }
  template <class U>
  static double at(const matrix<U>& m, index_t i, index_t j) {
    return double(float(m.data[i + j * m.stride]));
  }
  static void add(const matrix<T>& m, index_t i, index_t j, double x) {
    m.data[i + j * m.stride] = T(at(m, i, j) + x);
  }
  template <class A, class B, class C>
  void product(op oa, matrix<A> a, op ob, matrix<B> b, double alpha, bool adds, matrix<C> c) const {
    const access open(*machine().memory());
    const index_t k = oa == op::none ? a.cols : a.rows;
    for (index_t j = 0; j < c.cols; ++j)
      for (index_t i = 0; i < c.rows; ++i) {
        double sum = 0;
        for (index_t q = 0; q < k; ++q)
          sum += round(oa == op::none ? at(a, i, q) : at(a, q, i)) *
                 round(ob == op::none ? at(b, q, j) : at(b, j, q));
        const double y = round(alpha * round(sum));
        c.data[i + j * c.stride] = C(float(adds ? at(c, i, j) + y : y));
      }
  }

  struct key_of {
    const T *k, *v;
    index_t block, at;  // -1: its own keys, where `at` is in dk; else in the block
  };
  struct row {
    const T* q;
    index_t j, head, column, size;
    std::vector<key_of> keys;
  };
  /// f(row) for every query and head.
  template <class F>
  static void for_queries(const exec::attention_call<N>& c, F&& f) {
    const index_t n = c.q.cols / c.sequences, tokens = c.k.cols / c.sequences, head = c.shape.head_dim;
    for (index_t s = 0; s < c.sequences; ++s)
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < c.shape.heads; ++j) {
          const index_t g = j / (c.shape.heads / c.shape.kv_heads) * head, column = s * n + i;
          row r{c.q.data + j * head + column * c.q.stride, j, j * head, column, head, {}};
          const auto seen = c.before.range(s);
          for (index_t b = seen.first; b < seen.first + seen.blocks; ++b)
            for (index_t t = 0; t < seen.keys; ++t) {
              const index_t in = g + t * c.shape.kv_width();
              const T* const from = c.before.blocks[std::size_t(b)];
              r.keys.push_back({from + c.before.key_offset + in, from + c.before.value_offset + in, b, in});
            }
          for (index_t t = 0; t < tokens; ++t)
            if (t < c.mask.visible(i) || t == c.mask.first + i) {
              const index_t in = s * tokens + t;
              r.keys.push_back({c.k.data + g + in * c.k.stride, c.v.data + g + in * c.v.stride, -1,
                                g + in * c.shape.kv_width()});
            }
          f(r);
        }
  }
  static std::pair<std::vector<double>, double> scores(const row& r) {
    std::vector<double> score;
    double sum = 0;
    for (const key_of& key : r.keys) {
      double s = 0;
      for (index_t e = 0; e < r.size; ++e) s += double(float(r.q[e])) * double(float(key.k[e]));
      score.push_back(round(round(s) / std::sqrt(double(r.size))));
      sum += std::exp(score.back());
    }
    return {score, sum};
  }
  void losses(const exec::cross_entropy_call<N>& c, const exec::cross_entropy_adjoint<N>* d) const {
    const index_t n = c.lm_head.cols;
    std::vector<T> logits(std::size_t(n * c.normed.cols));
    const matrix<T> L(logits.data(), n, c.normed.cols);
    product(op::transpose, c.lm_head, op::none, c.normed, 1, false, L);
    {
      const access open(*machine().memory());
      for (index_t j = 0; j < L.cols; ++j) {
        const std::int32_t target = c.targets[std::size_t(j)];
        double most = at(L, 0, j), sum = 0;
        for (index_t i = 0; i < n; ++i) most = std::max(most, at(L, i, j));
        for (index_t i = 0; i < n; ++i) sum += std::exp(at(L, i, j) - most);
        c.losses[j] = target < 0 ? 0 : P(most + std::log(sum) - at(L, target, j));
        for (index_t i = 0; d && i < n; ++i)
          L.data[i + j * n] =
              T(target < 0 ? 0 : d->dloss * (std::exp(at(L, i, j) - most) / sum - (i == target)));
      }
    }
    if (!d) return;
    product(op::none, c.lm_head, op::none, L, 1, false, d->dnormed);
    if (d->dlm_head)
      product(op::none, c.normed, op::transpose, L, 1, true,
              matrix<P>(d->dlm_head, c.lm_head.rows, c.lm_head.cols));
  }

  bool torch_ = false;
};

}  // namespace tests
