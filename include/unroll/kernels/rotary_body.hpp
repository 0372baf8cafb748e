#pragma once

#include <cmath>

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/rotary_table.hpp"

namespace unroll::kernels {

/// Turns pair i of every head of every column by the angle of its position, in place:
///   (a, b) <- (a cos - b sin, b cos + a sin), and with -sin for turn::back.
/// x: a multiple of table.head rows x cols; column j has the position positions[j % period].
template <class T, class P>
struct rotary_body {
  turn way;
  rotary_table<P> table;
  const index_t* positions;
  index_t period;
  matrix<T> x;

  static constexpr int threads = by_numbers::threads;
  UNROLL_HD by_numbers grid() const { return {x.rows / 2, x.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  UNROLL_HD index_t shared_bytes() const { return 0; }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    c.phase([&](int t) {
      const index_t half = table.head / 2;
      grid().for_each(c.block(), t, [&](index_t pair, index_t j) {
        const index_t i = pair % half;
        T* const head = x.data + pair / half * table.head + j * x.stride;
        T& u = table.neighbours ? head[2 * i] : head[i];
        T& v = table.neighbours ? head[2 * i + 1] : head[i + half];
        const P* const at = table.data + positions[j % period] * table.head;
        const float cosine = float(at[i]);
        const float sine = way == turn::back ? -float(at[i + half]) : float(at[i + half]);
        const float a = float(u), b = float(v);
        u = T(fmaf(a, cosine, -(b * sine)));
        v = T(fmaf(b, cosine, a * sine));
      });
    });
  }
};

}  // namespace unroll::kernels
