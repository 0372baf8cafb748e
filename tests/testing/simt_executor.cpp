// Every operation of the kernel bodies against its formula in double: in float to 1e-5, largest error over
// largest magnitude; in bfloat16 to twice the error of the formula as PyTorch computes it, which rounds the
// result of each of its operations to bfloat16. In any order of threads the same bits.
#include "unroll/testing/simt/executor.hpp"

#include <cmath>
#include <numeric>

#include "tests/support/catch.hpp"
#include "unroll/exec/host.hpp"

using namespace unroll;
namespace simt = unroll::testing::simt;

namespace {

using rounding = double (*)(double);
double as_it_is(double x) { return x; }
double to_bf16(double x) { return double(float(bf16(x))); }

// Numbers around 0 of size 1 that a bfloat16 can hold.
template <class U>
std::vector<U> numbers_like(index_t n, std::uint64_t seed, double size = 1) {
  std::vector<double> z(static_cast<std::size_t>(n));
  draw_normals({seed}, 0, view<double>(z));
  std::vector<U> x;
  for (const double u : z) x.push_back(U(float(bf16(size * u))));
  return x;
}
template <class U>
double distance_of(const std::vector<U>& x, const std::vector<double>& y) {
  REQUIRE(x.size() == y.size());
  double most = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double e = std::abs(double(float(x[i])) - y[i]);
    most = e <= most ? most : e;  // NaN counts
    size = std::max(size, std::abs(y[i]));
  }
  return most / size;
}
std::uint32_t bits(float x) { return __builtin_bit_cast(std::uint32_t, x); }

// f(executor) returns a vector; the same bits in three orders.
template <class N, class F>
auto in_any_order(F&& f) {
  const auto first = f(simt::executor<N>());
  for (const std::uint64_t seed : {1u, 2u}) {
    const auto again = f(simt::executor<N>(key{seed}));
    REQUIRE(again.size() == first.size());
    for (std::size_t i = 0; i < first.size(); ++i) REQUIRE(bits(float(first[i])) == bits(float(again[i])));
  }
  return first;
}

// got against formula(round): the result of each operation of PyTorch goes through `round`.
template <class N, class U, class F>
void check(const std::vector<U>& got, F&& formula) {
  const std::vector<double> want = formula(as_it_is);
  const double limit =
      std::is_same_v<typename N::activation, bf16> ? 2 * distance_of(formula(to_bf16), want) : 1e-5;
  CHECK(distance_of(got, want) <= limit);
}

template <class U>
double at(const matrix<U>& m, index_t i, index_t j) {
  return double(float(m.data[i + j * m.stride]));
}
template <class U>
double at(op o, const matrix<U>& m, index_t i, index_t j) {
  return o == op::none ? at(m, i, j) : at(m, j, i);
}

}  // namespace

using both_kinds = std::tuple<numbers<float>, numbers<bf16>>;

TEMPLATE_LIST_TEST_CASE("simt: numbers move", "[simt]", both_kinds) {
  using T = typename TestType::activation;
  const simt::executor<TestType> e(key{3});
  const index_t rows = 1100, cols = 5;
  auto x = numbers_like<float>(rows * cols, 1);
  std::vector<T> y(x.size());
  e.copy(matrix<const float>(x.data(), rows, cols), matrix<T>(y.data(), rows, cols));
  for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(float(y[i]) == x[i]);
  // two columns to the front
  e.copy(matrix<const float>(x.data() + 2 * rows, rows, 3), matrix<float>(x.data(), rows, 3));
  for (std::size_t i = 0; i < std::size_t(3 * rows); ++i)
    REQUIRE(x[i] == float(y[i + std::size_t(2 * rows)]));
  e.fill(matrix<T>(y.data() + 2, 7, 2, rows), 1.5);
  CHECK(float(y[2]) == 1.5f);
  CHECK(float(y[std::size_t(rows) + 8]) == 1.5f);
  CHECK(float(y[9]) != 1.5f);
  CHECK(float(y[1]) != 1.5f);

  const auto w = numbers_like<T>(40 * 6, 2);
  const std::int32_t ids[] = {3, 0, 3, 5};
  std::vector<T> g(160);
  e.gather_columns(matrix<const T>(w.data(), 40, 6), std::span<const std::int32_t>(ids),
                   matrix<T>(g.data(), 40, 4));
  std::vector<float> sums(240, 1.f);
  e.scatter_add_columns(matrix<const T>(g.data(), 40, 4), std::span<const std::int32_t>(ids),
                        matrix<float>(sums.data(), 40, 6));
  for (std::size_t i = 0; i < 40; ++i) {
    REQUIRE(float(g[80 + i]) == float(w[120 + i]));
    REQUIRE(sums[120 + i] == (1.f + float(w[120 + i])) + float(w[120 + i]));
    REQUIRE(sums[40 + i] == 1.f);
  }
}

TEST_CASE("simt: vectors and their sums", "[simt]") {
  using N = numbers<float>;
  const index_t n = 9001;
  const auto x = numbers_like<float>(n, 3), y = numbers_like<float>(n, 4);
  const auto small = in_any_order<N>([&](const auto& e) {
    std::vector<float> r(8, 7.f), z = y;
    e.sum(x.data(), n, &r[0]);
    e.dot(x.data(), y.data(), n, &r[1]);
    e.norm(x.data(), n, &r[2]);
    e.all_finite(x.data(), n, 2, &r[3]);
    z[5000] = 3e30f;
    e.all_finite(z.data(), n, 1, &r[4]);
    e.all_finite(z.data(), n, 2, &r[5]);
    z[8999] = NAN;
    e.all_finite(z.data(), n, 1, &r[6]);
    return r;
  });
  double sum = 0, dot = 0, squares = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sum += double(x[i]);
    dot += double(x[i]) * double(y[i]);
    squares += double(x[i]) * double(x[i]);
  }
  CHECK(std::abs(double(small[0]) - sum) < 1e-6 * std::abs(sum));
  CHECK(std::abs(double(small[1]) - dot) < 1e-6 * std::abs(dot));
  CHECK(std::abs(double(small[2]) - std::sqrt(squares)) < 1e-6 * std::sqrt(squares));
  CHECK(std::vector<float>(small.begin() + 3, small.end()) == std::vector<float>{1, 1, 0, 0, 7});

  check<N>(in_any_order<N>([&](const auto& e) {
             auto z = y;
             e.axpy(0.3, x.data(), z.data(), n);
             e.scale(-2, z.data(), n);
             e.sum_columns(matrix<const float>(x.data(), 3000, 3), z.data());
             return z;
           }),
           [&](rounding) {
             std::vector<double> z;
             for (std::size_t i = 0; i < x.size(); ++i) {
               z.push_back(-2 * (double(y[i]) + 0.3 * double(x[i])));
               if (i < 3000) z[i] += double(x[i]) + double(x[i + 3000]) + double(x[i + 6000]);
             }
             return z;
           });
}

TEMPLATE_LIST_TEST_CASE("simt: products", "[simt]", both_kinds) {
  using T = typename TestType::activation;
  // whole tiles and 16 bytes at a time; ragged ones
  struct sizes {
    index_t m, n, k, stride;
  };
  for (const auto& [m, n, k, spare] : {sizes{72, 65, 64, 0}, sizes{33, 7, 45, 3}})
    for (const op oa : {op::none, op::transpose})
      for (const op ob : {op::none, op::transpose}) {
        const bool add = oa == ob;
        const auto shaped = [&](op o, index_t rows, index_t cols, auto* data) {
          return o == op::none ? matrix(data, rows, cols, rows + spare)
                               : matrix(data, cols, rows, cols + spare);
        };
        const auto a = numbers_like<T>(5000, 5), b = numbers_like<T>(5000, 6);
        const auto start = numbers_like<float>(m * n, 7);
        const auto A = shaped(oa, m, k, a.data()), B = shaped(ob, k, n, b.data());
        const auto run = [&](auto kind) {
          using U = decltype(kind);
          return in_any_order<TestType>([&](const auto& e) {
            std::vector<U> c;
            for (const float u : start) c.push_back(U(u));
            e.gemm(oa, A, ob, B, add, matrix<U>(c.data(), m, n));
            return c;
          });
        };
        const auto formula = [&](rounding round) {
          std::vector<double> c;
          for (index_t j = 0; j < n; ++j)
            for (index_t i = 0; i < m; ++i) {
              double sum = 0;
              for (index_t q = 0; q < k; ++q) sum += at(oa, A, i, q) * at(ob, B, q, j);
              c.push_back(round(round(sum) + (add ? double(start[c.size()]) : 0)));
            }
          return c;
        };
        check<TestType>(run(T()), formula);
        const std::vector<float> wide = run(0.f);  // no rounding of the result
        CHECK(distance_of(wide, formula(as_it_is)) < 1e-5);
      }
}

TEMPLATE_LIST_TEST_CASE("simt: adapters", "[simt]", both_kinds) {
  using T = typename TestType::activation;
  const index_t in = 24, out = 40, rank = 66, n = 12, sequences = 2;
  const auto a = numbers_like<float>(in * rank, 8), b = numbers_like<float>(rank * out, 9);
  const auto x = numbers_like<T>(in * n, 10), y = numbers_like<T>(out * n, 11);
  const exec::adapter<float> l{{a.data(), in, rank}, {b.data(), rank, out}, 0.125};
  const matrix<const T> X(x.data(), in, n), Y(y.data(), out, n);
  const auto z_of = [&](rounding round, index_t r, index_t j) {
    double z = 0;
    for (index_t i = 0; i < in; ++i) z += at(l.a, i, r) * at(X, i, j);
    return round(l.scale * round(z));
  };
  const auto dz_of = [&](rounding round, index_t r, index_t j) {
    double z = 0;
    for (index_t i = 0; i < out; ++i) z += at(l.b, r, i) * at(Y, i, j);
    return round(l.scale * round(z));
  };
  check<TestType>(in_any_order<TestType>([&](const auto& e) {
                    auto to = y;
                    std::vector<T> work(std::size_t(e.adapter_work(n, false)));
                    e.adapt(l, X, matrix<T>(to.data(), out, n), view<T>(work));
                    return to;
                  }),
                  [&](rounding round) {
                    std::vector<double> to;
                    for (index_t j = 0; j < n; ++j)
                      for (index_t i = 0; i < out; ++i) {
                        double sum = 0;
                        for (index_t r = 0; r < rank; ++r) sum += at(l.b, r, i) * z_of(round, r, j);
                        to.push_back(round(at(Y, i, j) + round(sum)));
                      }
                    return to;
                  });
  const auto gradient = in_any_order<TestType>([&](const auto& e) {
    std::vector<float> g(std::size_t(rank * (in + out)), 0.5f);
    std::vector<T> dx(x.size(), T(0.25f)), work(std::size_t(e.adapter_work(n, true)));
    e.adapt_vjp(l, X, Y, matrix<T>(dx.data(), in, n),
                {{g.data(), in, rank}, {g.data() + in * rank, rank, out}}, sequences, view<T>(work));
    for (const T u : dx) g.push_back(float(u));
    return g;
  });
  const auto part = [&](std::size_t first, std::size_t count) {
    return std::vector<float>(gradient.begin() + index_t(first), gradient.begin() + index_t(first + count));
  };
  check<TestType>(part(0, a.size()), [&](rounding round) {
    std::vector<double> g;
    for (index_t r = 0; r < rank; ++r)
      for (index_t i = 0; i < in; ++i) {
        double sum = 0;
        for (index_t j = 0; j < n; ++j) sum += at(X, i, j) * dz_of(round, r, j);
        g.push_back(0.5 + round(sum));
      }
    return g;
  });
  check<TestType>(part(a.size(), b.size()), [&](rounding round) {
    std::vector<double> g;
    for (index_t i = 0; i < out; ++i)
      for (index_t r = 0; r < rank; ++r) {
        double sum = 0;
        for (index_t j = 0; j < n; ++j) sum += z_of(round, r, j) * at(Y, i, j);
        g.push_back(0.5 + round(sum));
      }
    return g;
  });
  check<TestType>(part(a.size() + b.size(), x.size()), [&](rounding round) {
    std::vector<double> g;
    for (index_t j = 0; j < n; ++j)
      for (index_t i = 0; i < in; ++i) {
        double sum = 0;
        for (index_t r = 0; r < rank; ++r) sum += at(l.a, i, r) * dz_of(round, r, j);
        g.push_back(round(0.25 + round(sum)));
      }
    return g;
  });
}

TEMPLATE_LIST_TEST_CASE("simt: rmsnorm and its vjp", "[simt]", both_kinds) {
  using T = typename TestType::activation;
  const index_t rows = 300, cols = 3;
  const auto x = numbers_like<T>(rows * cols, 12), dy = numbers_like<T>(rows * cols, 13);
  const auto gain = numbers_like<T>(rows, 14), dx0 = numbers_like<T>(rows * cols, 15);
  const matrix<const T> X(x.data(), rows, cols), dY(dy.data(), rows, cols);
  std::vector<double> rstd;
  for (index_t j = 0; j < cols; ++j) {
    double squares = 0;
    for (index_t i = 0; i < rows; ++i) squares += at(X, i, j) * at(X, i, j);
    rstd.push_back(1 / std::sqrt(squares / double(rows) + 1e-3));
  }
  const std::vector<float> r(rstd.begin(), rstd.end());
  check<TestType>(in_any_order<TestType>([&](const auto& e) {
                    auto y = x;
                    std::vector<float> own(std::size_t{3});
                    e.rmsnorm(matrix<const T>(y.data(), rows, cols), gain.data(), 1e-3,
                              matrix<T>(y.data(), rows, cols), own.data());
                    CHECK(distance_of(own, rstd) < 1e-6);
                    return y;
                  }),
                  [&](rounding round) {
                    std::vector<double> y;
                    for (index_t j = 0; j < cols; ++j)
                      for (index_t i = 0; i < rows; ++i)
                        y.push_back(round(round(at(X, i, j) * rstd[std::size_t(j)]) *
                                          double(float(gain[std::size_t(i)]))));
                    return y;
                  });
  check<TestType>(
      in_any_order<TestType>([&](const auto& e) {
        auto dx = dx0;
        e.rmsnorm_vjp(X, gain.data(), r.data(), dY, matrix<T>(dx.data(), rows, cols), nullptr);
        return dx;
      }),
      [&](rounding round) {
        std::vector<double> dx;
        for (index_t j = 0; j < cols; ++j) {
          const double s = rstd[std::size_t(j)];
          double along = 0;
          const auto h = [&](index_t i) { return round(double(float(gain[std::size_t(i)])) * at(dY, i, j)); };
          for (index_t i = 0; i < rows; ++i) along += h(i) * at(X, i, j) / double(rows);
          for (index_t i = 0; i < rows; ++i)
            dx.push_back(
                round(double(float(dx0[dx.size()])) + round(s * h(i) - at(X, i, j) * s * s * s * along)));
        }
        return dx;
      });
  check<TestType>(in_any_order<TestType>([&](const auto& e) {
                    auto dx = dx0;
                    std::vector<float> dgain(std::size_t(rows), 2.f);
                    e.rmsnorm_vjp(X, gain.data(), r.data(), dY, matrix<T>(dx.data(), rows, cols),
                                  dgain.data());
                    return dgain;
                  }),
                  [&](rounding round) {
                    std::vector<double> dgain;
                    for (index_t i = 0; i < rows; ++i) {
                      double sum = 0;
                      for (index_t j = 0; j < cols; ++j)
                        sum += at(dY, i, j) * round(at(X, i, j) * rstd[std::size_t(j)]);
                      dgain.push_back(2 + round(sum));
                    }
                    return dgain;
                  });
}

TEMPLATE_LIST_TEST_CASE("simt: rotary positions turn and turn back", "[simt]", both_kinds) {
  using T = typename TestType::activation;
  const index_t head = 8, heads = 3, n = 6;
  const auto x = numbers_like<T>(head * heads * n, 16);
  const index_t positions[] = {4, 0, 2};
  std::vector<float> table;
  for (index_t p = 0; p < 5; ++p)
    for (const bool sine : {false, true})
      for (index_t i = 0; i < head / 2; ++i) {
        const double angle = double(p) * std::pow(100.0, -2.0 * double(i) / double(head));
        table.push_back(float(sine ? std::sin(angle) : std::cos(angle)));
      }
  for (const bool neighbours : {false, true})
    for (const auto way : {kernels::turn::forward, kernels::turn::back})
      check<TestType>(in_any_order<TestType>([&](const auto& e) {
                        auto y = x;
                        e.rotary(way, kernels::rotary_table<float>{table.data(), head, 5, neighbours},
                                 std::span<const index_t>(positions), matrix<T>(y.data(), head * heads, n));
                        return y;
                      }),
                      [&](rounding round) {
                        std::vector<double> y(x.size());
                        for (index_t j = 0; j < n; ++j)
                          for (index_t h = 0; h < heads; ++h)
                            for (index_t i = 0; i < head / 2; ++i) {
                              const index_t base = j * head * heads + h * head;
                              const auto u = std::size_t(base + (neighbours ? 2 * i : i));
                              const auto v = std::size_t(base + (neighbours ? 2 * i + 1 : i + head / 2));
                              const float* const t = table.data() + positions[j % 3] * head;
                              const double c = round(double(t[i])), s = round(double(t[i + head / 2])) *
                                                                        (way == kernels::turn::back ? -1 : 1);
                              const double a = double(float(x[u])), b = double(float(x[v]));
                              y[u] = round(round(a * c) - round(b * s));
                              y[v] = round(round(b * c) + round(a * s));
                            }
                        return y;
                      });
}

TEMPLATE_LIST_TEST_CASE("simt: swiglu and its vjp", "[simt]", both_kinds) {
  using T = typename TestType::activation;
  const index_t m = 40, n = 5;
  const auto gated = numbers_like<T>(2 * m * n, 17, 3), dout = numbers_like<T>(m * n, 18);
  const matrix<const T> G(gated.data(), 2 * m, n), D(dout.data(), m, n);
  const auto silu = [](double g) { return g / (1 + std::exp(-g)); };
  check<TestType>(in_any_order<TestType>([&](const auto& e) {
                    std::vector<T> out(std::size_t(m * n));
                    e.swiglu(G, matrix<T>(out.data(), m, n));
                    return out;
                  }),
                  [&](rounding round) {
                    std::vector<double> out;
                    for (index_t j = 0; j < n; ++j)
                      for (index_t i = 0; i < m; ++i)
                        out.push_back(round(round(silu(at(G, i, j))) * at(G, i + m, j)));
                    return out;
                  });
  check<TestType>(in_any_order<TestType>([&](const auto& e) {
                    std::vector<T> d(gated.size());  // dout is its second half
                    const matrix<T> to(d.data(), 2 * m, n);
                    e.copy(D, rows_of(to, m, m));
                    e.swiglu_vjp(G, matrix<const T>(rows_of(to, m, m)), to);
                    return d;
                  }),
                  [&](rounding round) {
                    std::vector<double> d;
                    for (index_t j = 0; j < n; ++j) {
                      for (index_t i = 0; i < m; ++i) {
                        const double g = at(G, i, j), s = 1 / (1 + std::exp(-g));
                        d.push_back(round(round(at(D, i, j) * at(G, i + m, j)) * s * (1 + g * (1 - s))));
                      }
                      for (index_t i = 0; i < m; ++i)
                        d.push_back(round(at(D, i, j) * round(silu(at(G, i, j)))));
                    }
                    return d;
                  });
}

namespace {

// Two sequences of `tokens` behind a prefix of two blocks of three keys, of which the second sees one key of
// the second block only.
template <class N>
struct attention_problem {
  using T = typename N::activation;
  kernels::attention_shape shape{4, 2, 10};
  kernels::attention_mask mask;
  index_t tokens, queries;
  std::vector<T> q, k, v, dout, memory;  // memory: both blocks, keys then values
  std::array<const T*, 2> blocks;
  std::array<kernels::prefix_range, 2> ranges{{{0, 2, 3}, {1, 1, 1}}};

  attention_problem(kernels::attention_mask m, index_t n) : mask(m), tokens(n), queries(n - m.first) {
    q = numbers_like<T>(2 * queries * 40, 20);
    k = numbers_like<T>(2 * tokens * 20, 21);
    v = numbers_like<T>(2 * tokens * 20, 22);
    dout = numbers_like<T>(2 * queries * 40, 23);
    memory = numbers_like<T>(2 * 120, 24);
    blocks = {memory.data(), memory.data() + 120};
  }
  exec::attention_call<N> call() const {
    return {shape,
            mask,
            2,
            {q.data(), 40, 2 * queries},
            {k.data(), 20, 2 * tokens},
            {v.data(), 20, 2 * tokens},
            {blocks, 0, 60, 3, ranges}};
  }
  // f(key, value, which): which < 0 is number -which - 1 of the prefix, else a column of k
  template <class F>
  void for_keys(index_t s, index_t i, index_t g, F&& f) const {
    for (index_t b = ranges[std::size_t(s)].first;
         b < ranges[std::size_t(s)].first + ranges[std::size_t(s)].blocks; ++b)
      for (index_t t = 0; t < ranges[std::size_t(s)].keys; ++t)
        f(blocks[std::size_t(b)] + t * 20 + g * 10, blocks[std::size_t(b)] + 60 + t * 20 + g * 10,
          -(b * 3 + t) - 1);
    for (index_t t = 0; t < tokens; ++t)
      if (t < mask.visible(i) || t == mask.first + i)
        f(k.data() + (s * tokens + t) * 20 + g * 10, v.data() + (s * tokens + t) * 20 + g * 10,
          s * tokens + t);
  }
  // out, then log_sum, dq, dk, dv, dbefore
  std::vector<std::vector<double>> formula(rounding round) const {
    std::vector<std::vector<double>> r{
        std::vector<double>(q.size()), std::vector<double>(std::size_t(8 * queries)),
        std::vector<double>(q.size()), std::vector<double>(k.size()),
        std::vector<double>(k.size()), std::vector<double>(memory.size())};
    for (index_t s = 0; s < 2; ++s)
      for (index_t i = 0; i < queries; ++i)
        for (index_t j = 0; j < 4; ++j) {
          const auto column = std::size_t((s * queries + i) * 40 + j * 10);
          std::vector<double> score, dp;
          for_keys(s, i, j / 2, [&](const T* key, const T* value, index_t) {
            double u = 0, d = 0;
            for (std::size_t e = 0; e < 10; ++e) {
              u += double(float(q[column + e])) * double(float(key[e]));
              d += double(float(dout[column + e])) * double(float(value[e]));
            }
            score.push_back(round(round(u) / std::sqrt(10.0)));
            dp.push_back(round(d));
          });
          double sum = 0, along = 0;
          for (const double u : score) sum += std::exp(u);
          for (std::size_t t = 0; t < score.size(); ++t) along += std::exp(score[t]) / sum * dp[t];
          r[1][std::size_t((s * queries + i) * 4 + j)] = std::log(sum);
          std::size_t t = 0;
          for_keys(s, i, j / 2, [&](const T* key, const T* value, index_t which) {
            const double p = std::exp(score[t]) / sum,
                         ds = round(round(p * (dp[t] - along)) / std::sqrt(10.0));
            ++t;
            for (std::size_t e = 0; e < 10; ++e) {
              r[0][column + e] += round(p) * double(float(value[e]));
              r[2][column + e] += ds * double(float(key[e]));
              const double dk = ds * double(float(q[column + e])),
                           dv = round(p) * double(float(dout[column + e]));
              if (which >= 0) {
                r[3][std::size_t(which * 20 + j / 2 * 10) + e] += dk;
                r[4][std::size_t(which * 20 + j / 2 * 10) + e] += dv;
              } else {
                const index_t n = -which - 1, b = n / 3 * 120 + n % 3 * 20 + j / 2 * 10;
                r[5][std::size_t(b) + e] += dk;
                r[5][std::size_t(b + 60) + e] += dv;
              }
            }
          });
        }
    for (std::size_t i : {0u, 2u, 3u, 4u})
      for (double& u : r[i]) u = round(u);
    for (double& u : r[5]) u = 1 + round(u);
    return r;
  }
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("simt: attention and its vjp, a prefix, both masks", "[simt]", both_kinds) {
  using T = typename TestType::activation;
  for (const kernels::attention_mask mask :
       {kernels::attention_mask{}, kernels::attention_mask{6, 4, 0}, kernels::attention_mask{-1, 0, 5},
        kernels::attention_mask{6, 4, 4}}) {
    const attention_problem<TestType> p(mask, mask.ordinals > 0 ? 8 : 7);
    const auto call = p.call();
    const index_t n = 2 * p.queries, m = 2 * p.tokens;
    std::vector<std::vector<double>> want = p.formula(as_it_is), torch = p.formula(to_bf16);
    const auto part_is_near = [&](std::size_t i, const auto& got, double least = 1e-5) {
      const bool rounds = std::is_same_v<T, bf16>;
      CHECK(distance_of(got, want[i]) <=
            (rounds ? std::max(least, 2 * distance_of(torch[i], want[i])) : 1e-5));
    };
    const auto forward = in_any_order<TestType>([&](const auto& e) {
      std::vector<T> out(p.q.size());
      std::vector<float> log_sum(std::size_t(4 * n)), all;
      e.attention(call, matrix<T>(out.data(), 40, n), log_sum.data(), view<T>());
      for (const T u : out) all.push_back(float(u));
      all.insert(all.end(), log_sum.begin(), log_sum.end());
      return all;
    });
    const std::vector<float> log_sum(forward.begin() + index_t(p.q.size()), forward.end());
    std::vector<T> out;
    for (std::size_t i = 0; i < p.q.size(); ++i) out.push_back(T(forward[i]));
    part_is_near(0, out);
    part_is_near(1, log_sum);
    const auto backward = in_any_order<TestType>([&](const auto& e) {
      auto dq = p.q;  // in its place
      auto on = call;
      on.q.data = dq.data();
      std::vector<T> dk(p.k.size()), dv(p.k.size());
      std::vector<float> dmemory(p.memory.size(), 1.f);
      float* const dbefore[] = {dmemory.data(), dmemory.data() + 120};
      e.attention_vjp(on,
                      {{out.data(), 40, n},
                       log_sum.data(),
                       {p.dout.data(), 40, n},
                       {dq.data(), 40, n},
                       {dk.data(), 20, m},
                       {dv.data(), 20, m},
                       dbefore},
                      view<T>());
      std::vector<float> all;
      for (const auto* part : {&dq, &dk, &dv})
        for (const T u : *part) all.push_back(float(u));
      all.insert(all.end(), dmemory.begin(), dmemory.end());
      return all;
    });
    auto from = backward.begin();
    for (std::size_t i = 2; i < 6; ++i) {
      const std::vector<float> part(from, from + index_t(want[i].size()));
      from += index_t(want[i].size());
      part_is_near(i, part);
    }
    CHECK(from == backward.end());
  }
}

TEMPLATE_LIST_TEST_CASE("simt: cross entropy over the output matrix and its vjp", "[simt]", both_kinds) {
  using T = typename TestType::activation;
  const index_t hidden = 24, vocabulary = 70, n = 5;
  const auto output = numbers_like<T>(hidden * vocabulary, 30), normed = numbers_like<T>(hidden * n, 31);
  const std::int32_t targets[] = {3, 69, -1, 0, 7};
  const matrix<const T> W(output.data(), hidden, vocabulary), X(normed.data(), hidden, n);
  const auto logits = [&](rounding round, index_t j) {
    std::vector<double> l;
    for (index_t i = 0; i < vocabulary; ++i) {
      double sum = 0;
      for (index_t r = 0; r < hidden; ++r) sum += at(W, r, i) * at(X, r, j);
      l.push_back(round(sum));
    }
    return l;
  };
  const auto sum_of = [](const std::vector<double>& l) {
    double sum = 0;
    for (const double u : l) sum += std::exp(u);
    return sum;
  };
  const auto run = [&](int part) {
    return in_any_order<TestType>([&](const auto& e) {
      std::vector<float> losses(std::size_t(n), 9.f), again = losses;
      std::vector<float> doutput(output.size(), 0.25f);
      std::vector<T> dnormed(normed.size()), work(std::size_t(e.cross_entropy_work(hidden, vocabulary, n)));
      const exec::cross_entropy_call<TestType> call{W, X, targets, losses.data()};
      e.cross_entropy(call, view<T>(work));
      auto second = call;
      second.losses = again.data();
      e.cross_entropy_vjp(second, {0.5, {dnormed.data(), hidden, n}, doutput.data()}, view<T>(work));
      CHECK(losses == again);
      if (part == 0) return losses;
      if (part == 2) return doutput;
      std::vector<float> wide;
      for (const T u : dnormed) wide.push_back(float(u));
      return wide;
    });
  };
  const auto dlogit = [&](rounding round, index_t j) {
    auto l = logits(round, j);
    const double sum = sum_of(l);
    for (std::size_t i = 0; i < l.size(); ++i)
      l[i] = targets[j] < 0 ? 0 : round(0.5 * (std::exp(l[i]) / sum - (targets[j] == std::int32_t(i))));
    return l;
  };
  check<TestType>(run(0), [&](rounding round) {
    std::vector<double> losses;
    for (index_t j = 0; j < n; ++j) {
      const auto l = logits(round, j);
      losses.push_back(targets[j] < 0 ? 0 : std::log(sum_of(l)) - l[std::size_t(targets[j])]);
    }
    return losses;
  });
  check<TestType>(run(1), [&](rounding round) {
    std::vector<double> d(normed.size());
    for (index_t j = 0; j < n; ++j) {
      const auto l = dlogit(round, j);
      for (index_t r = 0; r < hidden; ++r) {
        double sum = 0;
        for (index_t i = 0; i < vocabulary; ++i) sum += at(W, r, i) * l[std::size_t(i)];
        d[std::size_t(r + j * hidden)] = round(sum);
      }
    }
    return d;
  });
  check<TestType>(run(2), [&](rounding round) {
    std::vector<double> d(output.size());
    for (index_t j = 0; j < n; ++j) {
      const auto l = dlogit(round, j);
      for (index_t i = 0; i < vocabulary; ++i)
        for (index_t r = 0; r < hidden; ++r)
          d[std::size_t(r + i * hidden)] += at(X, r, j) * l[std::size_t(i)];
    }
    for (double& u : d) u = 0.25 + round(u);
    return d;
  });
}

TEST_CASE("simt: tokens are chosen as the host chooses them", "[simt]") {
  using N = numbers<float>;
  const exec::host<N> host;
  const index_t n = 1500;
  auto logits = numbers_like<float>(n, 40, 3);
  for (std::size_t i = 0; i < 40; ++i) logits[37 * i] = logits[11];  // ties
  const auto choose = [&](const auto& e, exec::sampling how, std::int64_t step) {
    std::vector<float> work(std::size_t(e.sample_work(n)));
    std::int32_t token = -1;
    e.sample(logits.data(), n, how, key{5}, step, view<float>(work), &token);
    return token;
  };
  int same = 0, kinds = 0;
  for (const exec::sampling how : {exec::sampling{1, 1}, {0.7, 0.9}, {2, 0.3}, {1.3, 1e-6}, {0, 1}})
    for (std::int64_t step = 0; step < 10; ++step) {
      const auto token = choose(simt::executor<N>(key{std::uint64_t(step)}), how, step);
      same += token == choose(host, how, step);
      kinds += token != choose(host, how, 0);
    }
  CHECK(same == 50);
  CHECK(kinds > 10);
  const std::vector<float> flat(std::size_t(n), 0.5f);  // all equal: in the order of their ids
  std::vector<float> work(std::size_t{1500});
  std::int32_t token = -1;
  simt::executor<N>().sample(flat.data(), n, {1, 0.5}, key{5}, 3, view<float>(work), &token);
  CHECK(token == std::int32_t(std::floor(draw_uniform({5}, 3) * 750)));
  logits[700] = logits[800] = 50;
  simt::executor<N>(key{1}).argmax(logits.data(), n, &token);
  CHECK(token == 700);
}

TEST_CASE("simt: random numbers are the chooser's", "[simt]") {
  using N = numbers<float>;
  const index_t n = 777;
  std::vector<float> host(std::size_t{777});
  const auto drawn = [&](bool normal) {
    return in_any_order<N>([&](const auto& e) {
      std::vector<float> x(std::size_t{777});
      normal ? e.normals({9}, 4, x.data(), n) : e.signs({9}, 4, x.data(), n);
      return x;
    });
  };
  draw_signs({9}, 4, view<float>(host));
  CHECK(drawn(false) == host);
  draw_normals({9}, 4, view<float>(host));
  const auto normals = drawn(true);
  for (std::size_t i = 0; i < host.size(); ++i)
    REQUIRE(std::abs(normals[i] - host[i]) <= 2e-7f * std::abs(host[i]));
}

TEST_CASE("simt: optimisers step as the host's", "[simt]") {
  using N = numbers<float>;
  const index_t n = 1030;
  const auto theta = numbers_like<float>(n, 50), g = numbers_like<float>(n, 51),
             m = numbers_like<float>(n, 52);
  const auto step = [&](const auto& e, int kind, const float* ok) {
    auto t = theta, d = g, a = m, b = m;
    for (float& u : b) u *= u;
    if (kind == 0) e.sgd(0.1, t.data(), d.data(), n, ok);
    if (kind == 1) e.momentum({0.1, 0.9, false}, t.data(), d.data(), a.data(), n, ok);
    if (kind == 2) e.momentum({0.1, 0.9, true}, t.data(), d.data(), a.data(), n, ok);
    if (kind == 3) e.adamw({1e-2, 0.9, 0.99, 1e-6, 0.1, 7}, t.data(), d.data(), a.data(), b.data(), n, ok);
    float norm = 0;
    if (kind == 4) e.clip(2, d.data(), n, &norm);
    t.push_back(norm);
    for (const auto* x : {&d, &a, &b}) t.insert(t.end(), x->begin(), x->end());
    return t;
  };
  const float yes = 1, no = 0;
  for (int kind = 0; kind < 5; ++kind) {
    const auto want = step(exec::host<N>(), kind, nullptr);
    const auto got = in_any_order<N>([&](const auto& e) { return step(e, kind, &yes); });
    CHECK(distance_of(got, std::vector<double>(want.begin(), want.end())) < 1e-6);
    if (kind < 4) {
      auto still = step(simt::executor<N>(), kind, &no);
      still.resize(theta.size());
      CHECK(still == theta);
    }
  }
}

TEST_CASE("simt: blocks are zeroed, copied and moved", "[simt]") {
  const simt::executor<numbers<float>> e;
  auto a = e.allocate<float>(5);
  const std::vector<float> x{1, 2, 3, 4, 5};
  std::vector<float> y(5, 9.f);
  e.download(a.data(), 5, y.data());
  CHECK(y == std::vector<float>(5, 0.f));
  e.upload(x.data(), 5, a.data());
  const auto b = a;
  e.fill(matrix<float>(a.data(), 5, 1), 7);
  auto c = std::move(a);
  e.download(b.data(), 5, y.data());
  CHECK(y == x);
  e.download(c.data(), 5, y.data());
  CHECK(y == std::vector<float>(5, 7.f));
  CHECK(exec::value(e, c.data() + 2) == 7);
}
