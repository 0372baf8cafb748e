// One of the two files of a program that check.sh compiles for different processors: what its kernels
// compute, as bytes. With -DMAIN it is the program: it says whether both files have the same bits, and a hash
// of them.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "unroll/core/bf16_products.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/kernels/attention.hpp"
#include "unroll/kernels/rmsnorm.hpp"
#include "unroll/kernels/swiglu.hpp"

using namespace unroll;

namespace {

template <class T>
void append(std::string& all, const std::vector<T>& x) {
  all.append(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(T));
}

template <class T>
void compute(std::string& all) {
  const index_t n = 37;
  std::vector<T> a(std::size_t(n * n)), b(a), c(a);
  std::uint32_t state = 1;
  for (auto* x : {&a, &b})
    for (T& v : *x) v = T((state = state * 1664525u + 1013904223u) >> 8) / T(1 << 23) - 1;
  const matrix<const T> A(a.data(), n, n), B(b.data(), n, n);
  const matrix<T> C(c.data(), n, n);
  for (const op oa : {op::none, op::transpose})
    for (const op ob : {op::none, op::transpose}) {
      linalg::gemm<T>(oa, A, ob, B, true, C);
      append(all, c);
      linalg::gemm<T>(oa, oa == op::none ? rows_of(A, 0, 5) : columns_of(A, 0, 5), ob, B, false,
                      {c.data(), 5, n});
      linalg::gemv<T>(oa, A, b.data(), true, c.data());
      append(all, c);
    }
  linalg::tanh(a.data(), c.data(), n * n);
  append(all, c);
  linalg::logistic(a.data(), c.data(), n * n);
  append(all, c);
  kernels::rmsnorm<T>(A, b.data(), T(1e-5), C, nullptr);
  kernels::swiglu(a.data(), c.data(), c.data(), n * n);
  append(all, c);
  append(all, std::vector<T>{linalg::dot(a.data(), b.data(), n * n), linalg::norm(a.data(), n * n)});
  const kernels::attention_shape shape{4, 2, 8};
  std::vector<T> workspace(std::size_t(kernels::attention_workspace(shape, n, 0, 0)));
  kernels::attention<T>({shape, {}, part(A, 0, 32, 0, n), {}, {part(B, 0, 16, 0, n), part(B, 16, 16, 0, n)}},
                        part(C, 0, 32, 0, n), nullptr, workspace);
  append(all, c);
}

}  // namespace

std::string plain_file(), other_file();
std::string FILE_NAME() {
  std::string all;
  compute<float>(all);
  std::vector<bf16> w(37 * 19);
  std::vector<float> x(37), y(19);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = bf16(float(i % 29) / 7 - 2);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i % 11) / 3 - 1;
  linalg::gemv(op::transpose, matrix<const bf16>(w.data(), 37, 19), x.data(), false, y.data());
  append(all, y);
  return all;
}

#if defined(MAIN)
int main() {
  const std::string a = plain_file(), b = other_file();
  std::uint64_t hash = 14695981039346656037u;
  for (const char c : a) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  std::printf("%s %016llx\n", a == b ? "same" : "different", static_cast<unsigned long long>(hash));
  return a == b ? 0 : 1;
}
#endif
