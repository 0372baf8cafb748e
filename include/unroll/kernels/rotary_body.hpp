#pragma once

#include <cmath>

#include "unroll/kernels/body.hpp"
#include "unroll/kernels/rotary_table.hpp"

namespace unroll::kernels {

/// Turns pair i of every head of every column by the angle of its position, in place:
///   (a, b) <- (a cos - b sin, b cos + a sin), and with -sin for turn::back.
/// x: a multiple of table.head_dim rows x cols; column j has the position positions[j % period].
template <class T, class P>
struct rotary_body {
  turn way;
  rotary_table<P> table;
  const index_t* positions;
  index_t period;
  matrix<T> x;

  static constexpr int threads = by_eights::threads;
  UNROLL_HD by_eights grid() const { return {x.rows / 2, x.cols}; }
  UNROLL_HD index_t blocks() const { return grid().blocks(); }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    const int half = int(table.head_dim / 2);
    grid().run(c, [&](index_t first, int n, index_t j) {
      const P* const at = table.data + positions[j % period] * table.head_dim;
      T* const column = x.data + j * x.stride;
      if (!table.neighbours && half % 8 == 0) {  // eight pairs of one head
        const int head = int(first) / half * 2 * half, i = int(first) % half;
        float cosine[8], sine[8], u[8], v[8];
        load_eight(at + i, 8, cosine);
        load_eight(at + i + half, 8, sine);
        load_eight(column + head + i, 8, u);
        load_eight(column + head + i + half, 8, v);
        UNROLL_UNROLLED
        for (int e = 0; e < 8; ++e) turn_pair(u[e], v[e], cosine[e], sine[e]);
        store_eight(u, 8, column + head + i);
        store_eight(v, 8, column + head + i + half);
        return;
      }
      for (int e = 0; e < n; ++e) {
        const int pair = int(first) + e, head = pair / half * 2 * half, i = pair % half;
        T& u = column[table.neighbours ? head + 2 * i : head + i];
        T& v = column[table.neighbours ? head + 2 * i + 1 : head + i + half];
        float a = float(u), b = float(v);
        turn_pair(a, b, float(at[i]), float(at[i + half]));
        u = T(a);
        v = T(b);
      }
    });
  }

 private:
  UNROLL_HD void turn_pair(float& a, float& b, float cosine, float sine) const {
    if (way == turn::back) sine = -sine;
    const float u = a;
    a = fmaf(u, cosine, -(b * sine));
    b = fmaf(b, cosine, u * sine);
  }
};

}  // namespace unroll::kernels
