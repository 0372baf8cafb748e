#include "unroll/sample/proportional.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/mutants/sampling_mutants.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/testing/enumerator.hpp"

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

/// P(i and j are taken) over every outcome of `draw(choose, taken)`, i = j on the diagonal.
template <class Draw>
std::vector<std::vector<double>> pairs(std::size_t n, Draw&& draw) {
  std::vector<std::vector<double>> joint(n, std::vector<double>(n));
  testing::enumerator all;
  double total = 0;
  do {
    testing::enumerating_chooser choose(all);
    const std::vector<char> taken = draw(choose);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) joint[i][j] += all.probability() * (taken[i] && taken[j]);
    total += all.probability();
  } while (all.next());
  CHECK(std::abs(total - 1) < 1e-12);
  return joint;
}
std::vector<std::vector<double>> pairs(sampling_design design, const std::vector<double>& p) {
  proportional_sampler sampler(index_t(p.size()), design);
  return pairs(p.size(), [&](testing::enumerating_chooser& choose) {
    std::vector<char> taken(p.size());
    const index_t count = sampler.draw(choose, 0, p, taken);
    const bool fixed = std::abs(double(count) - sum(p)) < 1 + 1e-12;
    if (count != std::count(taken.begin(), taken.end(), 1) ||
        (design != sampling_design::independent && !fixed))
      FAIL("a sample of " << count << " items in place of " << sum(p));
    return taken;
  });
}

/// The largest difference to the probabilities that the design should have.
double error_of(const std::vector<std::vector<double>>& joint, sampling_design design,
                const std::vector<double>& p) {
  double worst = 0;
  for (std::size_t i = 0; i < p.size(); ++i)
    for (std::size_t j = 0; j < p.size(); ++j)
      worst = std::max(worst, std::abs(joint[i][j] - memory_task::inclusion_of_two(design, p, i, j)));
  return worst;
}

/// The variance of sum_{i taken} a_i / p_i.
double variance(const std::vector<std::vector<double>>& joint, const std::vector<double>& a) {
  double v = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (std::size_t j = 0; j < a.size(); ++j)
      v += (joint[i][j] / (joint[i][i] * joint[j][j]) - 1) * a[i] * a[j];
  return v;
}

constexpr sampling_design designs[] = {sampling_design::systematic, sampling_design::random_order,
                                       sampling_design::independent};

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
  std::vector<double> written(4, 1);  // what stood there before does not matter
  inclusion_probabilities(std::vector<double>{1, 2, 3, 2}, 2, written);
  CHECK(written == std::vector<double>{.25, .5, .75, .5});
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
    testing::enumerator all;
    std::vector<double> seen(p.size());
    double total = 0;
    do {
      testing::enumerating_chooser choose(all);
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

TEST_CASE("every design includes each item and each pair with its probability, over every outcome") {
  for (const auto& p : {std::vector<double>{.25, .5, .75, .5},
                        {1, .25, .25, .5},
                        {.1, 1, .2, .3, .4, .9, .1},
                        {.3, .3, .3},
                        {0, .5, 0, .5, 1},
                        {1, 1},
                        {0, 0},
                        {.7},
                        {},
                        std::vector<double>(5, .4)})
    for (const sampling_design design : designs) {
      INFO("design " << int(design) << ", " << p.size() << " items");
      CHECK(error_of(pairs(design, p), design, p) < 1e-13);
    }
}

TEST_CASE("which design has the least variance depends on where the contributions cancel") {
  // n equal norms, half of them drawn
  const auto of = [](sampling_design design, std::size_t n, std::size_t period) {
    std::vector<double> a(n);  // `period` with one sign, `period` with the other
    for (std::size_t i = 0; i < n; ++i) a[i] = i / period % 2 == 0 ? 1 : -1;
    return variance(pairs(design, std::vector<double>(n, .5)), a);
  };
  using enum sampling_design;
  CHECK(std::abs(of(systematic, 8, 8)) < 1e-12);
  CHECK(of(independent, 8, 8) == Approx(8));
  CHECK(of(systematic, 8, 1) == Approx(64));  // two of the 70 subsets can be drawn
  CHECK(of(independent, 8, 1) == Approx(8));
  CHECK(std::abs(of(systematic, 8, 4)) < 1e-12);  // neighbours alike: an even share of either half
  // a random order of equal probabilities is a simple random sample: n^2 / (n - 1) in place of n
  CHECK(std::abs(of(random_order, 6, 6)) < 1e-10);
  for (const std::size_t period : {1u, 3u}) CHECK(of(random_order, 6, period) == Approx(36. / 5));
  CHECK(of(systematic, 6, 1) == Approx(36));
}

TEST_CASE("sabotaged samples have the wrong probability for an item or for a pair") {
  using enum mutants::sampling_mistake;
  const std::vector<double> p{.2, .3, .4, .5, .6};
  const auto wrong = [&](mutants::sampling_mistake m, sampling_design design) {
    return error_of(pairs(p.size(), [&](auto& choose) { return mutants::draw_sample(m, choose, p); }), design,
                    p);
  };
  CHECK(wrong(none_in_random_order, sampling_design::random_order) < 1e-13);
  CHECK(wrong(none_independent, sampling_design::independent) < 1e-13);
  for (const auto m : {order_is_forgotten, sizes_keep_their_place, order_is_rotated})
    CHECK(wrong(m, sampling_design::random_order) > 1e-2);
  for (const auto m : {one_coin_for_all, complement}) CHECK(wrong(m, sampling_design::independent) > 1e-2);
}

TEST_CASE("samples of every design follow their key and its mirror image") {
  const auto p = inclusion({3, 1, 4, 1, 5, 9, 2, 6}, 3);
  const index_t draws = 2000;
  for (const sampling_design design : designs)
    for (const bool mirrored : {false, true}) {
      proportional_sampler sampler(8, design);
      std::vector<double> mean(8);
      for (index_t i = 0; i < draws; ++i) {
        philox_chooser choose(fold(key{1}, std::uint64_t(i)));
        choose.mirror(mirrored);
        std::vector<char> taken(8), again(8);
        sampler.draw(choose, 0, p, taken);
        sampler.draw(choose, 0, p, again);
        CHECK(taken == again);
        for (std::size_t j = 0; j < 8; ++j) mean[j] += double(taken[j]) / double(draws);
      }
      for (std::size_t j = 0; j < 8; ++j)  // five standard errors
        CHECK(std::abs(mean[j] - p[j]) <= 5 * std::sqrt(p[j] * (1 - p[j]) / double(draws)));
    }
}

TEST_CASE("samplers of every design refuse other sizes") {
  const std::vector<double> p(3, .5);
  for (const sampling_design design : designs) {
    philox_chooser choose;
    std::vector<char> taken(3), short_taken(2);
    CHECK_THROWS_AS(proportional_sampler(3, design).draw(choose, 0, p, short_taken), error);
    if (design != sampling_design::independent)
      CHECK_THROWS_AS(proportional_sampler(2, design).draw(choose, 0, p, taken), error);
  }
}
