#pragma once

#include <cmath>

#include "unroll/kernels/body.hpp"

// Vectors, and their sums by fixed trees: the same bits whatever the order of threads and blocks.
namespace unroll::kernels {

/// y += alpha x, n numbers.
template <class U, class P>
struct axpy_body {
  float alpha;
  const U* x;
  P* y;
  index_t n;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD index_t blocks() const { return by_numbers{n, 1}.blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    by_numbers{n, 1}.run(c, [&](index_t i, index_t) { y[i] = P(fmaf(alpha, float(x[i]), float(y[i]))); });
  }
};

/// x *= alpha, or by a factor that `norm` asks for: most / *norm where *norm is above `most` and finite.
template <class P>
struct scale_body {
  float alpha;
  P* x;
  index_t n;
  const P* norm = nullptr;
  float most = 0;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD index_t blocks() const { return by_numbers{n, 1}.blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    float factor = alpha;
    if (norm) {
      if (!(float(*norm) > most && float(*norm) < INFINITY)) return;
      factor = most / float(*norm);
    }
    by_numbers{n, 1}.run(c, [&](index_t i, index_t) { x[i] = P(factor * float(x[i])); });
  }
};

/// x = most with the sign of x, where |x| is above `most` and x is not infinite.
template <class P>
struct clamp_body {
  float most;
  P* x;
  index_t n;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD index_t blocks() const { return by_numbers{n, 1}.blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    by_numbers{n, 1}.run(c, [&](index_t i, index_t) {
      const float size = fabsf(float(x[i]));
      if (size > most && size < INFINITY) x[i] = P(copysignf(most, float(x[i])));
    });
  }
};

/// y += sum_j x_j, columns in order: x is rows x cols, y rows numbers.
template <class U, class P>
struct sum_columns_body {
  matrix<const U> x;
  P* y;

  static constexpr int threads = 64;
  UNROLL_HD index_t blocks() const { return ceil_div(x.rows, threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.phase([&](int t) {
      const index_t i = c.block() * threads + t;
      if (i >= x.rows) return;
      float sum = 0;
      for (index_t j = 0; j < x.cols; ++j) sum += float(x.data[i + j * x.stride]);
      y[i] = P(float(y[i]) + sum);
    });
  }
};

/// What is summed up over vectors of n numbers.
enum class reduction {
  sum,           ///< x
  dot,           ///< x y
  norm,          ///< x^2; the result is the root of the sum
  finite,        ///< the result is 1 where all x are finite, else 0
  finite_square  ///< the same of x^2
};

/// The first half of a reduction, in double: partial[block], one of up to most_parts blocks, which take the
/// numbers in turn.
template <reduction what, class U>
struct reduce_body {
  const U *x, *y;
  index_t n;
  double* partial;

  static constexpr int threads = 256;
  static constexpr index_t most_parts = 512;
  UNROLL_HD static index_t parts(index_t n) {
    return smaller(most_parts, larger(1, ceil_div(n, index_t{16} * threads)));
  }
  UNROLL_HD index_t blocks() const { return parts(n); }
  UNROLL_HD index_t shared_bytes() const { return shared_size<double>(threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    double* const s = c.template shared<double>(threads);
    c.phase([&](int t) {
      double sum = 0;
      for (index_t i = c.block() * threads + t; i < n; i += blocks() * threads) sum += term(i);
      s[t] = sum;
    });
    sum_by_halves(c, s);
    c.phase([&](int t) {
      if (t == 0) partial[c.block()] = s[0];
    });
  }

 private:
  UNROLL_HD double term(index_t i) const {
    const float u = float(x[i]);
    if constexpr (what == reduction::sum) return double(u);
    if constexpr (what == reduction::dot) return double(u) * double(float(y[i]));
    if constexpr (what == reduction::norm) return double(u) * double(u);
    if constexpr (what == reduction::finite) return double(u * 0.f);
    if constexpr (what == reduction::finite_square) return double(u * u * 0.f);
  }
};

/// The second half: *out from the partial sums of n numbers.
template <reduction what, class P>
struct finish_reduction_body {
  const double* partial;
  index_t parts;
  P* out;

  static constexpr int threads = 512;
  UNROLL_HD index_t blocks() const { return 1; }
  UNROLL_HD index_t shared_bytes() const { return shared_size<double>(threads); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    double* const s = c.template shared<double>(threads);
    c.phase([&](int t) { s[t] = t < parts ? partial[t] : 0; });
    sum_by_halves(c, s);
    c.phase([&](int t) {
      if (t != 0) return;
      if constexpr (what == reduction::norm)
        *out = P(sqrt(s[0]));
      else if constexpr (what == reduction::finite || what == reduction::finite_square)
        *out = P(s[0] == 0 ? 1.f : 0.f);
      else
        *out = P(s[0]);
    });
  }
};

}  // namespace unroll::kernels
