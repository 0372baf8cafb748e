#include "unroll/sample/reservoir.hpp"

#include <cmath>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/testing/enumerator.hpp"

using namespace unroll;

namespace {

// Which items are held after 0, 1, ..., n items.
template <class C>
std::vector<std::vector<bool>> history(const reservoir& r, C& choose, index_t n) {
  std::vector<index_t> holder(static_cast<std::size_t>(r.size()), -1);
  std::vector<std::vector<bool>> held;
  for (index_t item = 0; item <= n; ++item) {
    std::vector<bool> now(static_cast<std::size_t>(n));
    for (const index_t h : holder)
      if (h >= 0) now[std::size_t(h)] = true;
    held.push_back(now);
    if (item == n) break;
    const index_t slot = r.slot(choose, item);
    if (slot >= 0) holder[std::size_t(slot)] = item;
  }
  return held;
}

}  // namespace

TEST_CASE("a reservoir holds every item, and every two, with the probabilities it states") {
  const index_t n = 6;
  for (index_t size = 1; size <= 3; ++size) {
    const reservoir r(size);
    testing::enumerator all;
    std::vector<std::vector<double>> one(7, std::vector<double>(6));
    std::vector<double> two(7);  // of items 0 and 1
    do {
      testing::enumerating_chooser choose(all);
      const auto held = history(r, choose, n);
      for (std::size_t m = 0; m <= 6; ++m) {
        for (std::size_t i = 0; i < 6; ++i) one[m][i] += all.probability() * double(held[m][i]);
        two[m] += all.probability() * double(held[m][0] && held[m][1]);
      }
    } while (all.next());
    for (index_t m = 1; m <= n; ++m) {
      for (index_t i = 0; i < m; ++i)
        CHECK(std::abs(one[std::size_t(m)][std::size_t(i)] - r.inclusion(m)) < 1e-14);
      if (m >= 2) CHECK(std::abs(two[std::size_t(m)] - r.inclusion_of_two(m)) < 1e-14);
      CHECK(std::abs(r.inclusion(m) * r.weight(m) - 1) < 1e-15);
    }
  }
}

TEST_CASE("the covariance of the weighted indicators does not depend on the later time") {
  const index_t n = 6;
  for (index_t size = 1; size <= 3; ++size) {
    const reservoir r(size);
    const auto for_all = [&](auto&& f) {  // f(a, b, s, u)
      for (index_t a = 1; a <= n; ++a)
        for (index_t b = a; b <= n; ++b)
          for (index_t s = 0; s < a; ++s)
            for (index_t u = 0; u < b; ++u) f(a, b, s, u);
    };
    double mean[n + 1][n + 1][n][n] = {};
    testing::enumerator all;
    do {
      testing::enumerating_chooser choose(all);
      const auto held = history(r, choose, n);
      for_all([&](index_t a, index_t b, index_t s, index_t u) {
        if (held[std::size_t(a)][std::size_t(s)] && held[std::size_t(b)][std::size_t(u)])
          mean[a][b][s][u] += all.probability() * r.weight(a) * r.weight(b);
      });
    } while (all.next());
    for_all([&](index_t a, index_t b, index_t s, index_t u) {
      const double expected = u < a ? r.covariance(a, s == u) : 0;
      INFO("size " << size << " after " << a << " and " << b << ", items " << s << " and " << u);
      CHECK(std::abs(mean[a][b][s][u] - 1 - expected) < 1e-12);
    });
  }
}

TEST_CASE("a reservoir takes the first items, and the same key the same ones") {
  const reservoir r(3);
  philox_chooser a(key{1}), b(key{1}), c(key{2});
  for (index_t n = 0; n < 3; ++n) CHECK(r.slot(a, n) == n);
  CHECK(history(r, a, 40) == history(r, b, 40));
  CHECK(history(r, a, 40) != history(r, c, 40));
  CHECK_THROWS_AS(reservoir(0), error);
}
