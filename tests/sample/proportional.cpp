#include "unroll/sample/proportional.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;

namespace {

std::vector<double> inclusion(const std::vector<double>& a, index_t budget) {
  std::vector<double> p(a.size());
  inclusion_probabilities(a, budget, p);
  return p;
}

double sum(const std::vector<double>& v) {
  double s = 0;
  for (const double x : v) s += x;
  return s;
}

}  // namespace

TEST_CASE("inclusion probabilities are proportional, capped at one, and sum to the budget") {
  CHECK(inclusion({1, 2, 3, 2}, 2) == std::vector<double>{.25, .5, .75, .5});
  CHECK(inclusion({1, 1, 10, 2}, 2) == std::vector<double>{.25, .25, 1, .5});
  // the second is capped only when the first no longer counts
  CHECK(inclusion({100, 10, 1, 1, 2}, 3) == std::vector<double>{1, 1, .25, .25, .5});
  CHECK(inclusion({0, 4, 0, 4, 4}, 2) == std::vector<double>{0, 2. / 3, 0, 2. / 3, 2. / 3});
  CHECK(inclusion({1, 0, 2}, 2) == std::vector<double>{1, 0, 1});
  CHECK(inclusion({1, 0, 2}, 9) == std::vector<double>{1, 0, 1});
  CHECK(inclusion({0, 0}, 1) == std::vector<double>{0, 0});
  CHECK(inclusion({}, 1).empty());
  const double big = std::numeric_limits<double>::max();
  CHECK(inclusion({big, big, big, big}, 1) == std::vector<double>(4, .25));
  CHECK_THROWS_AS(inclusion({1, 2}, 0), error);
  std::vector<double> a(50), p;
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = std::exp(.3 * double(i * 7 % 50));
  for (index_t budget = 1; budget < 50; ++budget) {
    p = inclusion(a, budget);
    CHECK(std::abs(sum(p) - double(budget)) < 1e-12);
    double ratio = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      CHECK((p[i] > 0 && p[i] <= 1));
      if (p[i] < 1) {
        if (ratio == 0) ratio = p[i] / a[i];
        CHECK(std::abs(p[i] / a[i] - ratio) < 1e-12 * ratio);
      }
    }
  }
}

TEST_CASE("a systematic sample includes every item with its probability and has a fixed size") {
  for (const auto& p : {std::vector<double>{.25, .5, .75, .5},
                        {1, .25, .25, .5},
                        {.1, 1, .2, .3, .4, 1, .9, .1},
                        {.3, .3, .3},
                        {0, .5, 0, .5},
                        {1, 1},
                        {0, 0},
                        {.7},
                        {},
                        std::vector<double>(7, 3. / 7)}) {
    systematic_sampler sampler(index_t(p.size()));
    enumerator all;
    std::vector<double> seen(p.size());
    double total = 0;
    do {
      enumerating_chooser choose(all);
      std::vector<char> taken(p.size());
      const index_t count = sampler.draw(choose, 0, p, taken);
      index_t marks = 0;
      for (std::size_t i = 0; i < p.size(); ++i) {
        seen[i] += all.probability() * taken[i];
        marks += taken[i];
      }
      CHECK(count == marks);
      total += all.probability();
      // an interval that is only there by rounding may miss the size, with a probability of that order
      const double low = std::floor(sum(p) + 1e-12), high = std::ceil(sum(p) - 1e-12);
      if (all.probability() > 1e-12) CHECK((double(count) >= low && double(count) <= high));
    } while (all.next());
    CHECK(std::abs(total - 1) < 1e-14);
    for (std::size_t i = 0; i < p.size(); ++i) CHECK(std::abs(seen[i] - p[i]) < 1e-14);
  }
}

TEST_CASE("systematic samples follow their key and its mirror image") {
  const auto p = inclusion({3, 1, 4, 1, 5, 9, 2, 6}, 3);
  systematic_sampler sampler(8);
  const index_t draws = 4000;
  for (const bool mirrored : {false, true}) {
    std::vector<double> mean(8);
    for (index_t i = 0; i < draws; ++i) {
      philox_chooser choose(fold(key{1}, std::uint64_t(i)));
      choose.mirror(mirrored);
      std::vector<char> taken(8), again(8);
      CHECK(sampler.draw(choose, 0, p, taken) == 3);
      sampler.draw(choose, 0, p, again);
      CHECK(taken == again);
      for (std::size_t j = 0; j < 8; ++j) mean[j] += double(taken[j]) / double(draws);
    }
    for (std::size_t j = 0; j < 8; ++j)  // five standard errors
      CHECK(std::abs(mean[j] - p[j]) <= 5 * std::sqrt(p[j] * (1 - p[j]) / double(draws)));
  }
}

TEST_CASE("a systematic sampler refuses other sizes") {
  systematic_sampler sampler(2);
  philox_chooser choose;
  std::vector<double> p(3);
  std::vector<char> taken(3), short_taken(2);
  CHECK_THROWS_AS(sampler.draw(choose, 0, p, taken), error);
  CHECK_THROWS_AS(sampler.draw(choose, 0, view<const double>(p).part(0, 1), short_taken), error);
}
