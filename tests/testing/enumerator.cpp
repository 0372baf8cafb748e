#include "unroll/testing/enumerator.hpp"

#include <cmath>
#include <map>
#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;
using namespace unroll::testing;

TEST_CASE("the enumerator visits every outcome once, with its probability") {
  enumerator all;
  std::map<std::vector<int>, double> seen;
  double total = 0;
  do {
    enumerating_chooser c(all);
    std::vector<double> signs(2);
    c.signs(1, view<double>(signs));
    const bool coin = c.coin(2, 0.2);
    const index_t i = c.uniform(3, 3);
    const std::vector<int> outcome{int(signs[0]), int(signs[1]), coin, int(i)};
    CHECK(seen.count(outcome) == 0);
    seen[outcome] = all.probability();
    CHECK(all.probability() == Approx(0.25 * (coin ? 0.2 : 0.8) / 3).epsilon(1e-14));
    total += all.probability();
  } while (all.next());
  CHECK(seen.size() == 24);
  CHECK(total == Approx(1).epsilon(1e-14));
}

TEST_CASE("the tree of outcomes may depend on earlier outcomes") {
  // Heads stops; tails goes on, three times at most. P(k tails before the first head) = 0.7^k 0.3.
  enumerator all;
  std::map<int, double> tails;
  int leaves = 0;
  do {
    enumerating_chooser c(all);
    int k = 0;
    while (k < 3 && !c.coin(k, 0.3)) ++k;
    tails[k] += all.probability();
    ++leaves;
  } while (all.next());
  CHECK(leaves == 4);
  CHECK(tails[0] == Approx(0.3));
  CHECK(tails[1] == Approx(0.7 * 0.3));
  CHECK(tails[2] == Approx(0.49 * 0.3));
  CHECK(tails[3] == Approx(0.343));
}

TEST_CASE("asking twice for one draw gives one answer and no new branch, other streams branch") {
  enumerator all;
  int outcomes = 0;
  do {
    enumerating_chooser c(all), other(all);
    other.reset(key{1});
    CHECK(c.uniform(4, 3) == c.uniform(4, 3));
    other.uniform(4, 2);
    ++outcomes;
  } while (all.next());
  CHECK(outcomes == 6);
  do --outcomes;  // after the last outcome it starts over
  while ([&] {
    enumerating_chooser(all).uniform(4, 6);
    return all.next();
  }());
  CHECK(outcomes == 0);
}

TEST_CASE("certain coins do not branch") {
  enumerator all;
  enumerating_chooser c(all);
  CHECK((c.coin(0, 1.0) && !c.coin(1, 0.0)));
  CHECK(all.probability() == 1);
  CHECK_FALSE(all.next());
}

TEST_CASE("Gauss-Hermite rules are exact below degree 2n and only there") {
  for (const int nodes : {3, 5, 7, 9}) {
    const auto rule = make_hermite_rule(nodes);
    REQUIRE(int(rule.node.size()) == nodes);
    double moment = 1;  // E z^d = (d - 1)!! for even d
    for (int d = 0; d <= 2 * nodes; ++d) {
      double sum = 0, odd = 0;
      for (std::size_t i = 0; i < rule.node.size(); ++i) {
        sum += rule.weight[i] * std::pow(rule.node[i], d);
        odd += rule.weight[i] * std::pow(rule.node[i], d + 1);
      }
      if (d % 2 != 0) continue;
      if (d > 0) moment *= d - 1;
      if (d < 2 * nodes)
        CHECK(sum == Approx(moment).epsilon(1e-12));
      else
        CHECK(sum < 0.999 * moment);
      CHECK(std::abs(odd) <= 1e-12 * moment * nodes * nodes);
    }
  }
  CHECK_THROWS_AS(enumerator(4), error);
}

TEST_CASE("enumerated normals integrate a polynomial of two variables exactly") {
  enumerator all(5);
  double mean = 0;
  do {
    enumerating_chooser c(all);
    std::vector<double> z(2);
    c.normals(0, view<double>(z));
    mean += all.probability() * (z[0] * z[0] * std::pow(z[1], 4) + z[0] * z[1] + 2);
  } while (all.next());
  CHECK(mean == Approx(1 * 3 + 2).epsilon(1e-12));
}

TEST_CASE("the mirror of an enumerated draw is its antithetic twin") {
  enumerator all(3);
  do {
    enumerating_chooser a(all), b(all);
    b.mirror(true);
    std::vector<double> x(1), y(1);
    a.signs(1, view<double>(x));
    b.signs(1, view<double>(y));
    CHECK(x[0] == -y[0]);
    a.normals(2, view<double>(x));
    b.normals(2, view<double>(y));
    CHECK(x[0] == -y[0]);
    CHECK(a.uniform(3, 4) + b.uniform(3, 4) == 3);
    CHECK(a.coin(4, 0.5) != b.coin(4, 0.5));
  } while (all.next());
}

TEST_CASE("enumerated coins and their mirrors have the joint law of one uniform number") {
  // u < p and 1 - u < q, whoever asks first and however often
  for (const double p : {0.0, 0.2, 0.5, 0.7, 1.0})
    for (const double q : {0.0, 0.3, 0.5, 0.9, 1.0}) {
      enumerator all;
      double first = 0, second = 0, both = 0, neither = 0, total = 0;
      do {
        enumerating_chooser plain(all), twin(all);
        twin.mirror(true);
        const bool a = plain.coin(6, p), b = twin.coin(6, q);
        CHECK(plain.coin(6, p) == a);
        CHECK(twin.coin(6, q) == b);
        first += all.probability() * a;
        second += all.probability() * b;
        both += all.probability() * (a && b);
        neither += all.probability() * (!a && !b);
        total += all.probability();
      } while (all.next());
      INFO(p << ' ' << q);
      CHECK(total == Approx(1).epsilon(1e-14));
      CHECK(first == Approx(p).margin(1e-14));
      CHECK(second == Approx(q).margin(1e-14));
      CHECK(both == Approx(std::max(0., p + q - 1)).margin(1e-14));
      CHECK(neither == Approx(std::max(0., 1 - p - q)).margin(1e-14));
    }
}
