#include "unroll/ad/tape.hpp"

#include <cmath>
#include <limits>

#include "tests/support/catch.hpp"

namespace {

using namespace unroll;

TEST_CASE("constants cost no node") {
  ad::tape<double> tape;
  const ad::var<double> c = ad::var<double>(2) * 3 + exp(ad::var<double>(0));
  CHECK(c.constant());
  CHECK(c.value() == 7);
  const ad::var<double> x = tape.variable(5);
  const ad::var<double> y = c * x + 1;
  CHECK(tape.size() == 3);  // x, the product, the sum
  tape.zero_adjoints();
  tape.seed(y, 1);
  tape.seed(c, 100);
  tape.propagate();
  CHECK(tape.adjoint(x) == 7);
  CHECK(tape.adjoint(c) == 0);
}

TEST_CASE("a variable used many times collects all its adjoints") {
  ad::tape<double> tape;
  const ad::var<double> x = tape.variable(1.5);
  ad::var<double> y = 1;
  for (int i = 0; i < 5; ++i) y *= x;
  const ad::var<double> z = y + x * x;
  tape.zero_adjoints();
  tape.seed(z, 1);
  tape.propagate();
  CHECK(tape.adjoint(x) == Approx(5 * std::pow(1.5, 4) + 3));
}

TEST_CASE("several outputs can be seeded, and several sweeps run over one record") {
  ad::tape<double> tape;
  const ad::var<double> a = tape.variable(2), b = tape.variable(3), p = a * b, q = a - b;
  tape.zero_adjoints();
  tape.seed(p, 1);
  tape.seed(q, 10);
  tape.propagate();
  CHECK(tape.adjoint(a) == 13);
  CHECK(tape.adjoint(b) == -8);
  tape.zero_adjoints();
  tape.seed(q, 1);
  tape.propagate();
  CHECK(tape.adjoint(a) == 1);
  CHECK(tape.adjoint(b) == -1);
}

TEST_CASE("clear keeps the memory and a copy has the room but not the nodes") {
  ad::tape<double> tape;
  for (int i = 0; i < 1000; ++i) tape.variable(i);
  tape.zero_adjoints();
  const std::size_t bytes = tape.bytes();
  tape.clear();
  CHECK(tape.size() == 0);
  CHECK(tape.bytes() == bytes);
  const ad::tape<double> copy = tape;
  CHECK(copy.size() == 0);
  CHECK(copy.bytes() >= 1000 * (16 + 2 * sizeof(double)) / 2);
}

TEST_CASE("an infinite derivative of a branch that does not count does no harm") {
  ad::tape<double> tape;
  const ad::var<double> x = tape.variable(0), root = sqrt(x), y = 2 * x;
  CHECK(root.value() == 0);
  tape.zero_adjoints();
  tape.seed(y, 1);
  tape.propagate();
  CHECK(tape.adjoint(x) == 2);
}

TEST_CASE("tapes do not see each other") {
  ad::tape<double> one, two;
  const ad::var<double> x = one.variable(2), y = two.variable(3);
  const ad::var<double> p = x * x, q = y * y * y;
  one.zero_adjoints();
  two.zero_adjoints();
  one.seed(p, 1);
  two.seed(q, 1);
  one.propagate();
  two.propagate();
  CHECK(one.adjoint(x) == 4);
  CHECK(two.adjoint(y) == 27);
}

}  // namespace
