#include <cmath>
#include <utility>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/data/adding.hpp"
#include "unroll/data/anbn.hpp"
#include "unroll/data/copy.hpp"
#include "unroll/data/delay.hpp"
#include "unroll/data/marschall_add.hpp"

using namespace unroll;

TEST_CASE("delay shows in every lane the sign of `lag` steps ago") {
  auto s = data::delay<float>({.steps = 50, .lag = 3, .lanes = 4}, key{1});
  const auto xs = s.inputs();
  REQUIRE(xs.size() == 50);
  double sum = 0;
  for (std::size_t t = 0; t < 50; ++t) {
    CHECK(xs[t].token == nullptr);
    CHECK((xs[t].target == nullptr) == (t < 3));
    for (std::size_t l = 0; l < 4; ++l) {
      CHECK(std::abs(xs[t].x[l]) == 1);
      sum += double(xs[t].x[l]);
      if (t >= 3) CHECK(xs[t].target[l] == xs[t - 3].x[l]);
    }
  }
  CHECK(std::abs(sum) < 4 * std::sqrt(200.0));
}

TEST_CASE("the same key gives the same task, and moving it keeps the examples") {
  auto a = data::delay<double>({.steps = 20}, key{5});
  auto b = data::delay<double>({.steps = 20}, key{5});
  auto c = data::delay<double>({.steps = 20}, key{6});
  const auto before = a.inputs();
  const auto moved = std::move(a);
  CHECK(moved.inputs().data() == before.data());
  index_t different = 0;
  for (std::size_t t = 0; t < 20; ++t) {
    CHECK(before[t].x[0] == b.inputs()[t].x[0]);
    different += before[t].x[0] != c.inputs()[t].x[0];
  }
  CHECK(different > 0);
}

TEST_CASE("adding marks one number in each half and asks for their sum at the end") {
  const index_t lanes = 2000, steps = 11;
  auto s = data::adding<double>({.steps = steps, .lanes = lanes}, key{2});
  const auto xs = s.inputs();
  double error = 0;
  std::vector<index_t> marked(std::size_t(steps), 0);
  for (index_t l = 0; l < lanes; ++l) {
    double sum = 0;
    index_t marks = 0;
    for (index_t t = 0; t < steps; ++t) {
      const double* x = xs[std::size_t(t)].x + 2 * l;
      CHECK_FALSE((x[0] < 0 || x[0] >= 1));
      if (x[1] == 1) {
        sum += x[0];
        CHECK((t < steps / 2) == (marks == 0));
        ++marks;
        ++marked[std::size_t(t)];
      }
    }
    CHECK(marks == 2);
    const double target = xs[std::size_t(steps - 1)].target[l];
    CHECK(target == sum);
    error += (target - 1) * (target - 1) / double(lanes);
  }
  CHECK(error == Approx(1.0 / 6).epsilon(0.1));  // the documented floor; deviation of the mean 2.6 %
  for (index_t t = 0; t < steps; ++t) {          // uniform in either half, to five standard errors
    const double p = 1. / double(t < steps / 2 ? steps / 2 : steps - steps / 2);
    CHECK(std::abs(double(marked[std::size_t(t)]) - lanes * p) < 5 * std::sqrt(lanes * p * (1 - p)));
  }
  CHECK(xs[0].target == nullptr);
}

TEST_CASE("copy presents the symbols, the signal, and asks for the symbols at the end") {
  const data::copy_options o{.blanks = 7, .lanes = 3};
  auto s = data::copy<double>(o, key{3});
  REQUIRE(s.steps() == 27);
  const auto xs = s.inputs();
  std::vector<index_t> seen(8);
  for (std::size_t l = 0; l < 3; ++l) {
    for (std::size_t t = 0; t < 27; ++t) {
      const auto token = xs[t].token[l], label = xs[t].label[l];
      if (t < 10) {
        REQUIRE((token >= 0 && token < 8));
        ++seen[std::size_t(token)];
        CHECK(xs[17 + t].label[l] == token);
      } else {
        CHECK(token == (t == 16 ? 9 : 8));
      }
      if (t < 17) CHECK(label == 8);
    }
  }
  CHECK(data::copy_floor({.blanks = 100}) == Approx(10 * std::log(8.0) / 120));
}

TEST_CASE("the labels of the Add task reach the documented entropies") {
  const index_t steps = 200000;
  auto s = data::marschall_add<double>({.steps = steps, .first = 4, .second = 6}, key{4});
  const auto xs = s.inputs();
  CHECK(xs[5].label == nullptr);
  CHECK(xs[6].label != nullptr);
  // counts of labels given nothing, x_{t-4}, both
  double count[7][2] = {};
  for (std::size_t t = 6; t < std::size_t(steps); ++t) {
    const auto a = std::size_t(xs[t - 4].token[0]), b = std::size_t(xs[t - 6].token[0]);
    const auto y = std::size_t(xs[t].label[0]);
    ++count[0][y];
    ++count[1 + a][y];
    ++count[3 + 2 * a + b][y];
  }
  const auto entropy = [&](int from, int to) {
    double sum = 0, all = 0;
    for (int i = from; i < to; ++i) {
      const double n = count[i][0] + count[i][1];
      all += n;
      for (double c : count[i])
        if (c > 0) sum -= c * std::log(c / n);
    }
    return sum / all;
  };
  CHECK(entropy(0, 1) == Approx(0.6616).margin(0.004));
  CHECK(entropy(1, 3) == Approx(0.5192).margin(0.004));
  CHECK(entropy(3, 7) == Approx(0.4544).margin(0.004));
}

TEST_CASE("anbn is a stream of pairs with the documented entropy") {
  const index_t steps = 70000;
  auto s = data::anbn<double>({.steps = steps, .lanes = 2}, key{5});
  const auto xs = s.inputs();
  for (std::size_t l = 0; l < 2; ++l) {
    index_t pairs = 0, a = 0, b = 0;
    bool second = false;
    for (std::size_t t = 0; t < std::size_t(steps); ++t) {
      const auto token = xs[t].token[l];
      if (t + 1 < std::size_t(steps)) CHECK(xs[t].label[l] == xs[t + 1].token[l]);
      if (token == 2 && second) {
        CHECK(a == b);
        CHECK_FALSE((a < 1 || a > 32));
        ++pairs;
        a = b = 0;
      }
      if (token == 2) second = !second;
      if (token == 0) ++a;
      if (token == 1) ++b;
    }
    CHECK(5.0 * double(pairs) / double(steps) == Approx(0.142857).epsilon(0.06));
  }
  const auto last = xs.back().label[0];
  CHECK_FALSE((last < 0 || last > 2));
}

TEST_CASE("tasks refuse impossible options") {
  CHECK_THROWS_AS(data::adding<double>({.steps = 1}, key{}), unroll::error);
  CHECK_THROWS_AS(data::delay<double>({.lag = -1}, key{}), unroll::error);
  CHECK_THROWS_AS(data::copy<double>({.blanks = 0}, key{}), unroll::error);
  CHECK_THROWS_AS(data::delay<double>({.lanes = 0}, key{}), unroll::error);
}
