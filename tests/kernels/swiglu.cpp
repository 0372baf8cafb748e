#include "unroll/kernels/swiglu.hpp"

#include "tests/kernels/differences.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "unroll/testing/allocations.hpp"

using namespace unroll;

namespace {

template <class T>
struct numbers {
  index_t n;
  std::vector<T> gate, up, out, dout, dgate, dup;
  explicit numbers(index_t size)
      : n(size),
        gate(tests::random_numbers<T>(n, 1)),
        up(tests::random_numbers<T>(n, 2)),
        out(gate.size()),
        dout(tests::random_numbers<T>(n, 3)),
        dgate(gate.size(), T(9)),
        dup(gate.size(), T(9)) {
    for (T& g : gate) g *= 6;
  }
  void forward() { kernels::swiglu(gate.data(), up.data(), out.data(), n); }
  void backward() { kernels::swiglu_vjp(gate.data(), up.data(), dout.data(), dgate.data(), dup.data(), n); }
};

constexpr index_t sizes[] = {0, 1, 7, 16, 33, 100};

}  // namespace

TEST_CASE("swiglu is its definition", "[swiglu]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const index_t n : sizes) {
    numbers<double> a(n);
    a.forward();
    for (std::size_t i = 0; i < a.out.size(); ++i)
      CHECK(a.out[i] == Approx(a.up[i] * a.gate[i] / (1 + std::exp(-a.gate[i]))).epsilon(1e-14));
  }
}

TEST_CASE("swiglu_vjp agrees with finite differences and is the transpose of the derivative", "[swiglu]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const index_t n : sizes) {
    numbers<double> a(n);
    a.backward();
    const auto loss = [&] {
      a.forward();
      return tests::dot(a.out, a.dout);
    };
    CHECK(tests::worst_slope(loss, a.gate, a.dgate) < 1e-10);
    CHECK(tests::worst_slope(loss, a.up, a.dup) < 1e-10);
    const auto d = tests::random_numbers<double>(n, 7);
    CHECK(tests::derivative_along(loss, a.gate, d) == Approx(tests::dot(d, a.dgate)).margin(1e-10));
  }
}

TEST_CASE("the outputs of swiglu and of its vjp may take the memory of any input", "[swiglu]") {
  FOR_EACH_INSTRUCTION_SET();
  numbers<float> a(33);
  a.forward();
  a.backward();
  using member = std::vector<float> numbers<float>::*;
  for (const member m : {&numbers<float>::gate, &numbers<float>::up}) {
    numbers<float> b(33);
    kernels::swiglu(b.gate.data(), b.up.data(), (b.*m).data(), b.n);
    CHECK(b.*m == a.out);
  }
  const member inputs[] = {&numbers<float>::gate, &numbers<float>::up, &numbers<float>::dout};
  for (const member first : inputs)
    for (const member second : inputs) {
      if (first == second) continue;
      numbers<float> b(33);
      kernels::swiglu_vjp(b.gate.data(), b.up.data(), b.dout.data(), (b.*first).data(), (b.*second).data(),
                          b.n);
      CHECK(b.*first == a.dgate);
      CHECK(b.*second == a.dup);
    }
}

TEST_CASE("swiglu in float is that in double rounded, also far from 0, and nothing allocates", "[swiglu]") {
  FOR_EACH_INSTRUCTION_SET();
  numbers<float> a(100);
  numbers<double> b(100);
  const double far[] = {-1e4, -100, -88, 88, 100, 1e4};
  for (std::size_t i = 0; i < 6; ++i) {
    a.gate[i] = float(far[i]);
    b.gate[i] = far[i];
  }
  const testing::allocation_counter counter;
  a.forward();
  a.backward();
  b.forward();
  b.backward();
  CHECK(counter.count() == 0);
  CHECK((testing::allocations_are_counted() || testing::counting_is_replaced()));
  for (std::size_t i = 0; i < a.out.size(); ++i) {
    CHECK(double(a.out[i]) == Approx(b.out[i]).epsilon(2e-6).margin(1e-6));
    CHECK(double(a.dgate[i]) == Approx(b.dgate[i]).epsilon(2e-6).margin(1e-6));
    CHECK(double(a.dup[i]) == Approx(b.dup[i]).epsilon(2e-6).margin(1e-6));
  }
}
