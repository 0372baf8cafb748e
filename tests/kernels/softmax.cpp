#include "unroll/kernels/softmax.hpp"

#include "tests/kernels/differences.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/kernels/cross_entropy.hpp"

using namespace unroll;
using namespace unroll::kernels;

TEMPLATE_TEST_CASE("softmax cross entropy agrees with its definition and does not overflow", "[softmax]",
                   float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const double eps = double(std::numeric_limits<T>::epsilon());
  for (const index_t n : {1, 2, 10, 65, 300}) {
    auto logits = tests::random_numbers<T>(n, 30);
    for (const T offset : {T(0), T(1000), T(-1000)}) {
      auto l = logits;
      for (T& v : l) v = 4 * v + offset;
      long double sum = 0;
      for (const T v : l) sum += std::exp(static_cast<long double>(v) - offset);
      std::vector<T> p(l.size());
      const index_t label = n / 2;
      const T loss = softmax_cross_entropy(l.data(), n, label, p.data());
      const double exact = double(std::log(sum) - (static_cast<long double>(l[std::size_t(label)]) - offset));
      CHECK(std::abs(double(loss) - exact) <= 20 * eps * (1 + std::abs(exact) + 8));
      for (std::size_t i = 0; i < p.size(); ++i) {
        const double q = double(std::exp(static_cast<long double>(l[i]) - offset) / sum);
        CHECK(std::abs(double(p[i]) - q) <= 30 * eps * q);
      }
      CHECK(softmax_cross_entropy(l.data(), n, -1, l.data()) == 0);  // in place, without a label
      CHECK(l == p);
    }
  }
}

TEMPLATE_TEST_CASE(
    "exponentials and their sum have the bits of a map and of a sum, and nothing behind them is touched",
    "[softmax]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  for (const index_t n : {1, 3, 7, 16, 33, 300, 9001}) {
    const auto logits = tests::random_numbers<T>(n, 31);
    const T largest = *std::max_element(logits.begin(), logits.end());
    std::vector<T> p(logits.size() + 16, T(7)), e(logits.size());
    simd::map([&](const auto& u) UNROLL_INLINE { return simd::exp(u - largest); }, n, e.data(),
              logits.data());
    const T sum = T(simd::sum<T>([](const auto& u) UNROLL_INLINE { return u; }, n, e.data()));
    const softmax_scale<T> scale = exponentials(logits.data(), n, p.data());
    CHECK(scale.largest == largest);
    CHECK(scale.sum == sum);
    CHECK(std::equal(e.begin(), e.end(), p.begin()));
    CHECK(std::all_of(p.begin() + n, p.end(), [](T x) { return x == 7; }));
    std::copy(logits.begin(), logits.end(), p.begin());
    CHECK(exponentials(p.data(), n, p.data()).sum == sum);  // in place
    CHECK(std::equal(e.begin(), e.end(), p.begin()));
  }
}

TEMPLATE_TEST_CASE("cross entropy and its vjp share the softmax of the logits", "[softmax]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  using T = TestType;
  const double eps = double(std::numeric_limits<T>::epsilon());
  for (const index_t n : {1, 5, 64, 1003}) {
    const auto logits = tests::random_numbers<T>(n, 32);
    std::vector<T> p(logits.size()), used = logits, dlogits = logits;
    const index_t target = n / 3;
    const double loss = double(softmax_cross_entropy(logits.data(), n, target, p.data()));
    CHECK(std::abs(double(cross_entropy(used.data(), n, target)) - loss) <= 8 * eps * (1 + loss));
    CHECK(std::abs(double(cross_entropy_vjp(dlogits.data(), n, target, T(0.5))) - loss) <=
          8 * eps * (1 + loss));
    for (index_t i = 0; i < n; ++i) {
      const double slope = 0.5 * (double(p[std::size_t(i)]) - (i == target));
      CHECK(std::abs(double(dlogits[std::size_t(i)]) - slope) <= 2 * eps);
    }
    CHECK(cross_entropy(used.data(), n, -1) == 0);
    CHECK(cross_entropy_vjp(dlogits.data(), n, -1, T(0.5)) == 0);
    CHECK(std::all_of(dlogits.begin(), dlogits.end(), [](T x) { return x == 0; }));
  }
}
