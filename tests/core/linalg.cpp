#include "unroll/core/linalg.hpp"

#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

// Counts every allocation of the process, whoever asks for it.
#if defined(__GLIBC__) && !defined(SANITIZED)
#define COUNTS_ALLOCATIONS 1
#include <pthread.h>
namespace {
long allocations = 0;
}
extern "C" {
void* __libc_malloc(std::size_t);
void* malloc(std::size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
}
#endif

using namespace unroll;

namespace {

// Small integers: every product and sum is exact in float, so results must be equal, in any order of
// summation.
template <class T>
struct integers {
  std::uint32_t state = 12345;
  T next() {
    state = state * 1664525u + 1013904223u;
    return T(int(state >> 28) - 8);
  }
};
template <class T>
std::vector<T> random_integers(index_t n, std::uint32_t seed) {
  integers<T> source{seed};
  std::vector<T> x(std::size_t(n), T(0));
  for (T& v : x) v = source.next();
  return x;
}
template <class T>
std::vector<T> random_numbers(index_t n, std::uint32_t seed) {
  std::uint32_t s = seed;
  std::vector<T> x(std::size_t(n), T(0));
  for (T& v : x) {
    s = s * 1664525u + 1013904223u;
    v = T(s) / T(1u << 31) - T(1);
  }
  return x;
}
template <class T>
std::vector<T> transposed(const std::vector<T>& a, index_t rows, index_t cols) {
  std::vector<T> b(a.size());
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) b[std::size_t(j + i * cols)] = a[std::size_t(i + j * rows)];
  return b;
}

// Products of the leading parts of two 70 x 70 matrices. The sums for every inner size are kept, so that one
// table serves all sizes.
template <class T>
struct products {
  static constexpr index_t most = 70, stride = 77;
  std::vector<T> a = random_integers<T>(most * most, 1), b = random_integers<T>(most * most, 2);
  std::vector<T> at = transposed(a, most, most), bt = transposed(b, most, most);
  std::vector<T> expected = std::vector<T>(std::size_t((most + 1) * most * most), T(0));
  std::vector<T> c = std::vector<T>(std::size_t(stride * (most + 1)), T(0));

  products() {
    for (index_t k = 1; k <= most; ++k)
      for (index_t j = 0; j < most; ++j)
        for (index_t i = 0; i < most; ++i)
          want(i, j, k) =
              want(i, j, k - 1) + a[std::size_t(i + (k - 1) * most)] * b[std::size_t(k - 1 + j * most)];
  }
  T& want(index_t i, index_t j, index_t k) { return expected[std::size_t(i + (j + k * most) * most)]; }

  // Whether the product is right and nothing around it was touched.
  bool right(index_t m, index_t n, index_t k, op oa, op ob, bool add) {
    const T before = T(1000);
    std::fill(c.begin(), c.end(), before);
    const matrix<const T> A =
        oa == op::none ? matrix<const T>(a.data(), m, k, most) : matrix<const T>(at.data(), k, m, most);
    const matrix<const T> B =
        ob == op::none ? matrix<const T>(b.data(), k, n, most) : matrix<const T>(bt.data(), n, k, most);
    linalg::gemm<T>(oa, A, ob, B, add, {c.data() + 3, m, n, stride});
    index_t wrong = 0;
    for (index_t j = 0; j <= most; ++j)
      for (index_t i = -3; i < stride - 3; ++i) {
        const bool inside = i >= 0 && i < m && j < n;
        const T w = inside ? want(i, j, k) + (add ? before : T(0)) : before;
        wrong += c[std::size_t(3 + i + j * stride)] != w;
      }
    return wrong == 0;
  }
};

constexpr op ops[] = {op::none, op::transpose};

}  // namespace

TEMPLATE_TEST_CASE(
    "gemm is exact on integers for every m, n and a tenth of the k up to 70, and writes nothing else",
    "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  products<TestType> p;
  const index_t most = p.most;
  std::vector<std::array<index_t, 4>> wrong;
  for (index_t m = 0; m <= most; ++m)
    for (index_t n = 0; n <= most; ++n)
      for (index_t k = (5 * m + 3 * n) % 10; k <= most; k += 10) {
        const index_t mode = (m + 2 * n + k / 10) % 8;  // every op, with and without add, in turn
        if (!p.right(m, n, k, ops[mode & 1], ops[(mode >> 1) & 1], mode >> 2 != 0))
          wrong.push_back({m, n, k, mode});
        if (!p.right(m, n, k, op::none, op::none, false)) wrong.push_back({m, n, k, -1});
      }
  CAPTURE(wrong);
  CHECK(wrong.empty());
}

namespace {

template <class T>
using eigen_matrix =
    Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>, 0, Eigen::OuterStride<>>;

// Products of corners of two 70 x 70 matrices of numbers in [-1, 1), ours and Eigen's. Each sum of k terms
// is within k eps / 2 (first order) of sum |a b| <= k, plus one rounding of the addition to C in [-1, 1).
template <class T>
struct against_eigen {
  static constexpr index_t most = 70;
  std::vector<T> a = random_numbers<T>(most * most, 40), b = random_numbers<T>(most * most, 41);
  std::vector<T> before = random_numbers<T>(most * most, 42), c = before;

  static eigen_matrix<T> corner(const std::vector<T>& x, index_t rows, index_t cols) {
    return {x.data(), rows, cols, Eigen::OuterStride<>(most)};
  }
  bool agrees(index_t m, index_t n, index_t k, op oa, op ob, bool add) {
    const auto A = oa == op::none ? corner(a, m, k) : corner(a, k, m);
    const auto B = ob == op::none ? corner(b, k, n) : corner(b, n, k);
    auto expected = want.topLeftCorner(m, n);
    if (oa == op::none && ob == op::none)
      expected.noalias() = A * B;
    else if (oa == op::transpose && ob == op::none)
      expected.noalias() = A.transpose() * B;
    else if (oa == op::none)
      expected.noalias() = A * B.transpose();
    else
      expected.noalias() = A.transpose() * B.transpose();
    if (add) expected += corner(before, m, n);
    c = before;
    linalg::gemm<T>(oa, {A.data(), A.rows(), A.cols(), most}, ob, {B.data(), B.rows(), B.cols(), most}, add,
                    {c.data(), m, n, most});
    const double tolerance = double(k + 1) * double(k + 1) * double(std::numeric_limits<T>::epsilon());
    return m * n == 0 || double((corner(c, m, n) - expected).cwiseAbs().maxCoeff()) <= tolerance;
  }

 private:
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> want{most, most};
};

}  // namespace

TEMPLATE_TEST_CASE("gemm agrees with Eigen for every m, n and a tenth of the k up to 70", "[linalg]", float,
                   double) {
  FOR_EACH_INSTRUCTION_SET();
  against_eigen<TestType> p;
  std::vector<std::array<index_t, 4>> wrong;
  for (index_t m = 0; m <= p.most; ++m)
    for (index_t n = 0; n <= p.most; ++n)
      for (index_t k = (5 * m + 3 * n) % 10; k <= p.most; k += 10) {
        const index_t mode = (m + 2 * n + k / 10) % 8;
        if (!p.agrees(m, n, k, ops[mode & 1], ops[(mode >> 1) & 1], mode >> 2 != 0))
          wrong.push_back({m, n, k, mode});
      }
  CAPTURE(wrong);
  CHECK(wrong.empty());
}

TEMPLATE_TEST_CASE("products and rank-one updates keep their bits wherever the operands lie", "[linalg]",
                   float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  struct shape {
    index_t m, n, k;
  };
  for (const shape s : {shape{37, 1, 45},
                        {1, 37, 45},
                        {70, 1, 19},
                        {200, 1, 300},
                        {600, 1, 130},
                        {45, 37, 1},
                        {45, 9, 33},
                        {1, 1, 300},
                        {130, 101, 300}})
    for (const op oa : ops)
      for (const op ob : ops)
        for (const bool add : {false, true}) {
          CAPTURE(s.m, s.n, s.k, oa == op::none, ob == op::none, add);
          const auto a = random_numbers<T>(s.m * s.k, 50), b = random_numbers<T>(s.k * s.n, 51);
          const auto before = random_numbers<T>(s.m * s.n, 52);
          const index_t a_rows = oa == op::none ? s.m : s.k, b_rows = ob == op::none ? s.k : s.n;
          std::vector<T> first, updated;
          for (std::size_t shift = 0; shift < 16; shift += shift < 4 ? 1 : 5) {
            const auto moved = [shift](const std::vector<T>& x, std::size_t by) {
              std::vector<T> y(x.size() + 32);
              std::copy(x.begin(), x.end(), y.begin() + std::ptrdiff_t((shift * by) % 32));
              return y;
            };
            const auto A = moved(a, 1), B = moved(b, 3);
            auto C = moved(before, 7), D = C;
            T* const c = C.data() + (shift * 7) % 32;
            T* const d = D.data() + (shift * 7) % 32;
            linalg::gemm<T>(oa, {A.data() + shift % 32, a_rows, s.m * s.k / a_rows}, ob,
                            {B.data() + (shift * 3) % 32, b_rows, s.k * s.n / b_rows}, add, {c, s.m, s.n});
            linalg::ger<T>(T(0.3), A.data() + shift % 32, B.data() + (shift * 3) % 32, {d, s.m, s.n});
            const std::vector<T> result(c, c + s.m * s.n), update(d, d + s.m * s.n);
            if (shift == 0) first = result, updated = update;
            CHECK(result == first);
            CHECK(update == updated);
          }
        }
}

TEMPLATE_TEST_CASE("the bits of a column of a product do not depend on how many there are", "[linalg]", float,
                   double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const index_t most = 100;                        // A is packed for as many
  for (const index_t m : {3, 6, 14, 28, 70, 128})  // 128: columns in few sets of a cache
    for (const index_t k : {3, 28, 600})
      for (const op oa : ops)
        for (const bool add : {false, true}) {
          CAPTURE(m, k, oa == op::none, add);
          const auto a = random_numbers<T>(m * k, 60), b = random_numbers<T>(k * most, 61);
          const matrix<const T> A =
              oa == op::none ? matrix<const T>(a.data(), m, k) : matrix<const T>(a.data(), k, m);
          auto all = random_numbers<T>(m * most, 62);
          const auto before = all;
          linalg::gemm<T>(oa, A, op::none, {b.data(), k, most}, add, {all.data(), m, most});
          for (const index_t n : {2, 3, 5, 11, 50}) {
            auto c = before;
            for (index_t j = 0; j + n <= most; j += n)
              linalg::gemm<T>(oa, A, op::none, {b.data() + j * k, k, n}, add, {c.data() + j * m, m, n});
            const auto end = index_t(c.size()) - most % n * m;
            CHECK(std::equal(c.begin(), c.begin() + end, all.begin()));
          }
        }
}

TEMPLATE_TEST_CASE("gemm is right beyond its blocks, for all four forms", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  struct shape {
    index_t m, n, k;
  };
  for (const shape s : {shape{200, 101, 300},
                        {5, 3, 513},
                        {129, 7, 257},
                        {65, 200, 256},
                        {1, 130, 600},
                        {300, 1, 300},
                        {403, 13, 9},
                        {700, 9, 200}})
    for (const op oa : ops)
      for (const op ob : ops)
        for (const bool add : {false, true}) {
          CAPTURE(s.m, s.n, s.k, oa == op::none, ob == op::none, add);
          const auto a = random_integers<T>(s.m * s.k, 3), b = random_integers<T>(s.k * s.n, 4);
          const auto at = transposed(a, s.m, s.k), bt = transposed(b, s.k, s.n);
          std::vector<T> c(std::size_t(s.m * s.n), T(1)), want(c.size(), add ? T(1) : T(0));
          for (index_t j = 0; j < s.n; ++j)
            for (index_t q = 0; q < s.k; ++q)
              for (index_t i = 0; i < s.m; ++i)
                want[std::size_t(i + j * s.m)] += a[std::size_t(i + q * s.m)] * b[std::size_t(q + j * s.k)];
          const matrix<const T> A =
              oa == op::none ? matrix<const T>(a.data(), s.m, s.k) : matrix<const T>(at.data(), s.k, s.m);
          const matrix<const T> B =
              ob == op::none ? matrix<const T>(b.data(), s.k, s.n) : matrix<const T>(bt.data(), s.n, s.k);
          linalg::gemm<T>(oa, A, ob, B, add, {c.data(), s.m, s.n});
          CHECK(c == want);
        }
}

#if defined(COUNTS_ALLOCATIONS)
namespace {

// Bytes of stack that f uses, on a thread whose stack is painted first: all above the lowest that changed.
template <class F>
index_t stack_of(F f) {
  static constexpr unsigned char paint = 0xa5;
  static constexpr std::size_t bytes = std::size_t{2} << 20;
  static unsigned char* const stack = static_cast<unsigned char*>(std::aligned_alloc(4096, bytes));
  std::fill_n(stack, bytes, paint);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, bytes);
  pthread_t thread;
  const auto run = [](void* what) -> void* {
    (*static_cast<F*>(what))();
    return nullptr;
  };
  REQUIRE(pthread_create(&thread, &attributes, run, &f) == 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  return index_t(bytes) - (std::find_if(stack, stack + bytes, [](auto b) { return b != paint; }) - stack);
}

}  // namespace

TEMPLATE_TEST_CASE("gemm uses no more stack than it says, whatever the rows", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const index_t k = 40, n = 20;
  const auto a = random_integers<T>(k * k, 1), b = random_integers<T>(k * n, 2);
  std::vector<T> c(std::size_t((k + 1) * n));
  const index_t idle = stack_of([] {});
  for (const index_t m : {1, 2, 3, 5, 9, 17, 40}) {
    const index_t used = stack_of([&] {
      linalg::gemm<T>(op::transpose, {a.data(), k, m}, op::transpose, {b.data(), n, k}, false,
                      {c.data(), m, n, m + 1});
    });
    CAPTURE(m);
    CHECK(used - idle <= 330 * 1024);
  }
}
#endif

TEMPLATE_TEST_CASE("the rounding error of gemm stays below k eps |A||B|", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const index_t m = 37, n = 21, k = 700;
  const auto a = random_numbers<T>(m * k, 5), b = random_numbers<T>(k * n, 6);
  std::vector<T> c(std::size_t(m * n));
  linalg::gemm<T>(op::none, {a.data(), m, k}, op::none, {b.data(), k, n}, false, {c.data(), m, n});
  for (index_t j = 0; j < n; ++j)
    for (index_t i = 0; i < m; ++i) {
      long double exact = 0, size = 0;
      for (index_t q = 0; q < k; ++q) {
        const long double t = static_cast<long double>(a[std::size_t(i + q * m)]) * b[std::size_t(q + j * k)];
        exact += t;
        size += std::abs(t);
      }
      CHECK(std::abs(double(c[std::size_t(i + j * m)] - exact)) <=
            double(k) * double(std::numeric_limits<T>::epsilon()) * double(size));
    }
}

TEMPLATE_TEST_CASE("gemv and ger are exact on integers", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  for (const index_t m : {0, 1, 2, 7, 16, 33, 70, 300})
    for (const index_t n : {0, 1, 3, 8, 17, 64, 129}) {
      CAPTURE(m, n);
      const index_t stride = m + 3;
      auto a = random_integers<T>(stride * n, 7);
      const auto x = random_integers<T>(n, 8), u = random_integers<T>(m, 9);
      std::vector<T> y(std::size_t(m + 1), T(5)), yt(std::size_t(n + 1), T(5));
      auto ax = y, atu = yt;
      for (index_t j = 0; j < n; ++j)
        for (index_t i = 0; i < m; ++i) {
          ax[std::size_t(i)] += a[std::size_t(i + j * stride)] * x[std::size_t(j)];
          atu[std::size_t(j)] += a[std::size_t(i + j * stride)] * u[std::size_t(i)];
        }
      linalg::gemv<T>(op::none, {a.data(), m, n, stride}, x.data(), true, y.data());
      linalg::gemv<T>(op::transpose, {a.data(), m, n, stride}, u.data(), true, yt.data());
      CHECK(y == ax);
      CHECK(yt == atu);
      linalg::gemv<T>(op::transpose, {a.data(), m, n, stride}, u.data(), false, yt.data());
      for (index_t j = 0; j < n; ++j) atu[std::size_t(j)] -= 5;
      CHECK(yt == atu);
      linalg::gemv<T>(op::none, {a.data(), m, n, stride}, x.data(), false, y.data());
      for (index_t i = 0; i < m; ++i) ax[std::size_t(i)] -= 5;
      CHECK(y == ax);

      auto want = a;
      for (index_t j = 0; j < n; ++j)
        for (index_t i = 0; i < m; ++i)
          want[std::size_t(i + j * stride)] += 2 * u[std::size_t(i)] * x[std::size_t(j)];
      linalg::ger<T>(2, u.data(), x.data(), {a.data(), m, n, stride});
      CHECK(a == want);
    }
}

TEST_CASE("the transposed gemv of a matrix beyond the caches is exact on integers", "[linalg]") {
  FOR_EACH_INSTRUCTION_SET();
  const index_t m = 290, n = 15000;
  const auto a = random_integers<float>(m * n, 7), x = random_integers<float>(m, 8);
  std::vector<float> y(std::size_t(n), 2.f), want(y);
  for (index_t j = 0; j < n; ++j)
    for (index_t i = 0; i < m; ++i) want[std::size_t(j)] += a[std::size_t(i + j * m)] * x[std::size_t(i)];
  linalg::gemv<float>(op::transpose, {a.data(), m, n}, x.data(), true, y.data());
  CHECK(y == want);
}

TEMPLATE_TEST_CASE("vector operations are exact on integers", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  for (const index_t n : {0, 1, 5, 16, 31, 64, 65, 1000, 1024, 3000}) {
    CAPTURE(n);
    const auto x = random_integers<T>(n, 10), y = random_integers<T>(n, 11);
    T xy = 0, xx = 0;
    for (std::size_t i = 0; i < x.size(); ++i) xy += x[i] * y[i], xx += x[i] * x[i];
    CHECK(linalg::dot(x.data(), y.data(), n) == xy);
    CHECK(linalg::norm(x.data(), n) == T(std::sqrt(double(xx))));
    auto z = y, w = x;
    linalg::axpy(3, x.data(), z.data(), n);
    linalg::scale(-2, w.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK((z[i] == y[i] + 3 * x[i] && w[i] == -2 * x[i]));
  }
}

TEMPLATE_TEST_CASE("column helpers and transpose", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  for (const index_t m : {1, 3, 16, 17, 70})
    for (const index_t n : {0, 1, 5, 33}) {
      CAPTURE(m, n);
      const index_t sa = m + 2, sb = n + 1;
      const auto a = random_integers<T>(sa * n, 12), v = random_integers<T>(m, 13);
      std::vector<T> b(std::size_t(sb * m), T(99)), sums(std::size_t(m), T(4)), added = a, set = a;
      linalg::transpose<T>({a.data(), m, n, sa}, {b.data(), n, m, sb});
      linalg::sum_columns<T>({a.data(), m, n, sa}, sums.data());
      linalg::add_columns<T>(v.data(), {added.data(), m, n, sa});
      linalg::set_columns<T>(v.data(), {set.data(), m, n, sa});
      for (index_t i = 0; i < m; ++i) {
        T sum = 4;
        for (index_t j = 0; j < n; ++j) {
          const auto at = std::size_t(i + j * sa);
          sum += a[at];
          CHECK((b[std::size_t(j + i * sb)] == a[at] && added[at] == a[at] + v[std::size_t(i)] &&
                 set[at] == v[std::size_t(i)]));
        }
        CHECK(sums[std::size_t(i)] == sum);
        CHECK(b[std::size_t(n + i * sb)] == T(99));
      }
      for (index_t j = 0; j < n; ++j)
        for (index_t i = m; i < sa; ++i) {
          const auto at = std::size_t(i + j * sa);
          CHECK((added[at] == a[at] && set[at] == a[at]));
        }
    }
}

TEMPLATE_TEST_CASE("one element that is not finite is found wherever it is", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const T bad[] = {std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity(),
                   std::numeric_limits<T>::quiet_NaN()};
  for (const index_t n : {1, 7, 16, 65, 1025}) {
    std::vector<T> x(std::size_t(n), std::numeric_limits<T>::max());
    CHECK(linalg::all_finite(x.data(), n));
    for (index_t i = 0; i < n; ++i)
      for (const T b : bad) {
        x[std::size_t(i)] = b;
        CHECK_FALSE(linalg::all_finite(x.data(), n));
        x[std::size_t(i)] = std::numeric_limits<T>::lowest();
      }
  }
  CHECK(linalg::all_finite<T>(nullptr, 0));
}

namespace {

template <class T, class Function, class Exact>
double worst_ulp(Function f, Exact exact, T least, T most) {
  double worst = 0;
  const index_t n = 1000;
  std::vector<T> x(n), y(n);
  for (int pass = 0; pass < 40; ++pass) {
    const auto r = random_numbers<T>(n, std::uint32_t(100 + pass));
    for (std::size_t i = 0; i < x.size(); ++i) {  // half of them evenly spread, half over the exponents
      const T u = (r[i] + 1) / 2;
      x[i] = i % 2 == 0 ? least + (most - least) * u
                        : std::exp2(std::log2(most) - 40 * u) * (i % 4 == 1 && least < 0 ? T(-1) : T(1));
      x[i] = std::max(x[i], least);
    }
    f(x.data(), y.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const long double e = exact(static_cast<long double>(x[i]));
      const T rounded = T(e);
      const T ulp = std::nextafter(std::abs(rounded), std::numeric_limits<T>::infinity()) - std::abs(rounded);
      worst = std::max(worst, double(std::abs(y[i] - e) / ulp));
    }
  }
  return worst;
}

}  // namespace

TEMPLATE_TEST_CASE("exp, logistic and tanh are as accurate as they say", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const T range = sizeof(T) == 4 ? T(86.9) : T(708);
  CHECK(worst_ulp<T>(
            linalg::exp<T>, [](long double x) { return std::exp(x); }, -range, range) < 4);
  CHECK(worst_ulp<T>(
            linalg::logistic<T>, [](long double x) { return 1 / (1 + std::exp(-x)); }, -range, range) < 4);
  CHECK(worst_ulp<T>(
            linalg::tanh<T>, [](long double x) { return std::tanh(x); }, -T(22), T(22)) <
        (sizeof(T) == 4 ? 6 : 4));
  CHECK(worst_ulp<T>(
            linalg::tanh<T>, [](long double x) { return std::tanh(x); }, -T(1), T(1)) <
        (sizeof(T) == 4 ? 6 : 4));
}

TEMPLATE_TEST_CASE("exp, logistic and tanh of the ends of the number line", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const T inf = std::numeric_limits<T>::infinity(), tiny = std::numeric_limits<T>::min();
  const T x[] = {inf, -inf, T(0), T(-0.0), tiny, -tiny, T(1e30), T(-1e30)};
  T y[8];
  linalg::tanh(x, y, 8);
  CHECK((y[0] == 1 && y[1] == -1 && y[2] == 0 && y[3] == 0 && std::signbit(y[3]) && y[4] == tiny &&
         y[5] == -tiny && y[6] == 1 && y[7] == -1));
  linalg::exp(x, y, 8);
  CHECK((y[0] == inf && y[1] == 0 && y[2] == 1 && y[3] == 1 && y[4] == 1 && y[5] == 1 && y[6] == inf &&
         y[7] == 0));
  linalg::logistic(x, y, 8);
  CHECK((y[0] == 1 && y[1] == 0 && y[2] == T(0.5) && y[3] == T(0.5) && y[6] == 1 && y[7] == 0));
  for (const auto f : {linalg::tanh<T>, linalg::exp<T>, linalg::logistic<T>}) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    f(&nan, y, 1);
    CHECK(std::isnan(y[0]));
  }
}

TEMPLATE_TEST_CASE("results do not depend on where in memory the operands lie", "[linalg]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const index_t n = 45;
  const auto x = random_numbers<T>(n, 20);
  std::vector<T> y(x.size()), moved(std::size_t(n + 8)), out(std::size_t(n + 8));
  const T d = linalg::dot(x.data(), x.data(), n);
  linalg::tanh(x.data(), y.data(), n);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    std::copy(x.begin(), x.end(), moved.begin() + std::ptrdiff_t(shift));
    CHECK(linalg::dot(moved.data() + shift, moved.data() + shift, n) == d);
    linalg::tanh(moved.data() + shift, out.data() + 8 - shift, n);
    CHECK(std::equal(y.begin(), y.end(), out.begin() + std::ptrdiff_t(8 - shift)));
    T z = 0;
    linalg::tanh(x.data() + shift, &z, 1);
    CHECK(z == y[shift]);
  }
}

#if defined(COUNTS_ALLOCATIONS)
TEMPLATE_TEST_CASE("nothing allocates up to 1024 units, 128 lanes and windows of 12800", "[linalg]", float,
                   double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const auto none_in = [](auto f) {
    const long before = allocations;
    f();
    return allocations - before;
  };
  const index_t h = 1024, lanes = 128, window = 12800;
  std::vector<T> w(std::size_t(h * h)), x(std::size_t(h * lanes)), y(std::size_t(h * lanes));
  for (const op o : ops) {
    CHECK(none_in([&] {
            linalg::gemm<T>(o, {w.data(), h, h}, op::none, {x.data(), h, lanes}, true, {y.data(), h, lanes});
          }) == 0);
    CHECK(none_in([&] {
            linalg::gemm<T>(o, {w.data(), h, h}, op::transpose, {x.data(), lanes, h}, false,
                            {y.data(), h, lanes});
          }) == 0);
    CHECK(none_in([&] { linalg::gemv<T>(o, {w.data(), h, h}, x.data(), true, y.data()); }) == 0);
  }
  CHECK(none_in([&] { linalg::ger<T>(2, x.data(), y.data(), {w.data(), h, h}); }) == 0);
  const index_t units = 48;
  std::vector<T> d(std::size_t(units * window)), g(std::size_t(units * units));
  CHECK(none_in([&] {
          linalg::gemm<T>(op::none, {d.data(), units, window}, op::transpose, {d.data(), units, window}, true,
                          {g.data(), units, units});
        }) == 0);
  CHECK(none_in([&] { linalg::tanh(w.data(), w.data(), h); }) == 0);
}

TEST_CASE("the allocation counter counts", "[linalg]") {
  const long before = allocations;
  std::vector<int>* volatile leakless = new std::vector<int>(10);
  delete leakless;
  CHECK(allocations > before);
}
#endif
