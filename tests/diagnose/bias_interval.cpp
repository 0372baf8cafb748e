#include "unroll/diagnose/bias_interval.hpp"

#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/diagnose/measure.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/lane_parallel.hpp"
#include "unroll/estimate/mean_of.hpp"
#include "unroll/estimate/tbptt.hpp"

using namespace unroll;

namespace {

const golden::rnn<double> rnn;
const auto theta = golden::theta<double>();
const auto xs = golden::inputs<double>();

// Unit noise in all of `size` directions, and in one, not an axis, jumps of +-50 in 4 % of the draws.
struct rare_direction {
  index_t size;
  report operator()(key k, dparams<double> x) const {
    draw_normals(k, 0, x);
    const double u = draw_uniform(k, 1), jump = u < 0.02 ? 50 : u < 0.04 ? -50 : 0;
    for (index_t j = 0; j < size; ++j) x[j] += (j % 2 == 0 ? jump : -jump) / std::sqrt(double(size));
    return {};
  }
};

gradient_sample sample_of(const std::vector<std::vector<double>>& draws, bool keep_batches = true) {
  const auto size = index_t(draws.front().size());
  gradient_sample all(size, keep_batches);
  draw_block part(size);
  for (const auto& x : draws) {
    part.clear();
    part.add(dparams<const double>(x.data(), size), {}, report{}, 0);
    all.append(part);
  }
  return all;
}

}  // namespace

TEST_CASE("an estimator that is unbiased, with a cut in 2 % of its draws, is not called biased") {
  const artbp estimator(rnn, fixed_truncation(100));
  int excluded = 0, points = 0, unflagged = 0, smaller = 0;
  for (std::uint64_t k = 0; k < 200; ++k) {
    const key seed = fold(key{5}, k);
    const auto many = measure(estimator, theta, xs, {.replicas = 1000, .seed = seed, .threads = 1});
    excluded += many.relative_bias_low > 0;
    const auto few = measure(estimator, theta, xs, {.replicas = 30, .seed = seed, .threads = 1});
    points += few.relative_bias_low > 0 || (few.variance == 0 && !std::isinf(few.relative_bias_high));
    unflagged += !few.heavy_tails;
    const auto aimed =
        measure(estimator, theta, xs, {.replicas = 30, .precision = 0.01, .seed = seed, .threads = 1});
    smaller += aimed.replicas < 30;
  }
  CHECK(excluded <= 13);  // 4 % of 200, and two standard errors
  CHECK(points == 0);
  CHECK(unflagged == 0);
  CHECK(smaller == 0);
}

TEST_CASE("draws of a random estimator that agree prove nothing, of a deterministic one everything") {
  const auto never = fixed_truncation(1e9);  // no cut in any draw
  for (const auto& m : {measure(artbp(rnn, never), theta, xs, {.replicas = 20}),
                        measure(mean_of(artbp(rnn, never), 2), theta, xs, {.replicas = 20})}) {
    CHECK(m.replicas == 20);
    CHECK(m.variance == 0);
    CHECK(m.relative_bias_low == 0);
    CHECK(std::isinf(m.relative_bias_high));
    CHECK(std::isinf(m.descent_high));
    CHECK(m.heavy_tails);
  }
  const auto cut = measure(mean_of(tbptt(rnn, {.k1 = 1, .k2 = 1}), 2), theta, xs, {.replicas = 20});
  CHECK(cut.replicas == 4);
  CHECK(cut.relative_bias_low == cut.relative_bias_high);
  CHECK_FALSE(cut.heavy_tails);
  STATIC_REQUIRE(artbp<golden::rnn<double>, fixed_truncation>::random);
  STATIC_REQUIRE_FALSE(tbptt<golden::rnn<double>>::random);
}

TEST_CASE("a coordinate that waits for its first event is no bias") {
  // coordinate 0 is 1 / p with probability p, and in none of the draws; coordinate 1 is noise around 0
  std::vector<std::vector<double>> draws;
  for (index_t i = 0; i < 200; ++i) draws.push_back({-1, draw_normal(key{4}, i)});
  const auto sample = sample_of(draws);
  const double trace = sample.total_variance() / 200,
               square = linalg::dot(sample.x().mean().data(), sample.x().mean().data(), 2);
  const mean_norm all{.square = square, .trace = trace, .trace_of_square = trace * trace};
  mean_norm told = all;
  told.silent = 1;
  CHECK(bias_interval(sample, all, 0.95).low > 0.8);
  CHECK(bias_interval(sample, told, 0.95).low == 0);
  CHECK(bias_interval(sample, told, 0.95).high > 1);
}

TEST_CASE("coordinates without noise that are off by rounding alone wait for no event") {
  const auto flagged = [](double off) {
    std::vector<std::vector<double>> draws;
    for (index_t i = 0; i < 100; ++i) {
      std::vector<double> difference(100, off);
      difference[0] = draw_normal(key{4}, i);
      draws.push_back(std::move(difference));
    }
    detail::reference_gradient reference;
    reference.mean = reference.variance = block<double>(100);
    reference.mean[0] = 1;
    return detail::summarise(sample_of(draws), reference, true, 1, 64 * 2.22e-16, .95).heavy_tails > 0;
  };
  CHECK_FALSE(flagged(1e-14));  // sums of terms that cancel
  CHECK(flagged(1e-12));
}

TEST_CASE("a bias that only the direction of the mean itself shows is none yet") {
  // five events in 20 draws: the first gives the direction, so that four are left to lie along it
  std::vector<std::vector<double>> draws(20, {0});
  for (const std::size_t i : {0u, 4u, 8u, 12u}) draws[i] = {1};
  draws[16] = {0.3};
  const auto sample = sample_of(draws);
  const double mean = sample.x().mean()[0], trace = sample.total_variance() / 20;
  const mean_norm m{.square = mean * mean, .trace = trace, .trace_of_square = trace * trace};
  CHECK(norm_interval(m.square, m.trace, m.trace_of_square, 0.95).low > 0.03);
  CHECK(bias_interval(sample, m, 0.95).low == 0);
}

TEST_CASE("batch sums see noise along a direction that few draws hold") {
  // tr V^2 = 255 + (1 + 0.04 * 2500)^2 = 10456
  int seen = 0, missed = 0;
  double batches = 0;
  for (std::uint64_t k = 0; k < 20; ++k) {
    const sample_options how{.seed = fold(key{6}, k), .threads = 1};
    const auto with = draw_sample<double>(rare_direction{256}, 256, {}, 400, how);
    auto without = how;
    without.keep_batches = false;
    const auto plain = draw_sample<double>(rare_direction{256}, 256, {}, 400, without);
    CHECK(plain.batches().count() == 0);
    CHECK(with.batches().count() == 32);
    CHECK(with.bytes() == plain.bytes() + 32 * 256 * sizeof(double));
    CHECK(with.trace_of_square() >= plain.trace_of_square());
    batches += with.batches().trace_of_square(with.x().mean()) / 20;
    seen += with.trace_of_square() > 0.25 * 10456;
    missed += plain.trace_of_square() < 0.25 * 10456;
  }
  CHECK(batches == Approx(10456).epsilon(0.35));
  CHECK(seen == 20);
  CHECK(missed > 5);
}

TEST_CASE("the trace of the squared covariance from batches is right, for any bias and down to 8 draws") {
  for (index_t n : {8, 30, 200}) {
    double sum = 0;
    for (std::uint64_t k = 0; k < 100; ++k) {
      const auto draw = [](key seed, dparams<double> x) {
        draw_normals(seed, 0, x);
        x[0] = 2 * x[0] + 1e6;
        return report{};
      };
      const auto s = draw_sample<double>(draw, 40, {}, n, {.seed = fold(key{8}, k), .threads = 1});
      CHECK(s.batches().count() == std::min<index_t>(n, 32));
      sum += s.batches().trace_of_square(s.x().mean()) / 100;
    }
    CAPTURE(n);
    const auto K = double(std::min<index_t>(n, 32));
    const double centring = 1 - 2 / K - 2 / (K * K) + 6 / (K * K * K);
    CHECK(sum == Approx(centring * (16 + 39)).epsilon(0.1));
  }
}

TEST_CASE("lengths that vary widely are no rare direction") {
  // isotropic normal noise times a log-normal length: tr V^2 = (tr V)^2 / size
  const index_t size = 1000;
  double sum = 0;
  for (std::uint64_t k = 0; k < 10; ++k) {
    const auto draw = [](key seed, dparams<double> x) {
      draw_normals(seed, 0, x);
      const double length = std::exp(draw_normal(seed, 1));
      for (double& v : x) v *= length;
      return report{};
    };
    const auto s = draw_sample<double>(draw, size, {}, 200, {.seed = fold(key{12}, k), .threads = 1});
    const double trace = s.total_variance();
    sum += s.batches().trace_of_square(s.x().mean()) / (trace * trace / double(size)) / 10;
  }
  CHECK(sum > 0.8);
  CHECK(sum < 1.5);
}

TEST_CASE("projections on the mean so far are those of the definition") {
  const std::vector<std::vector<double>> draws{{3, 4}, {1, 0}, {0, 2}, {-2, 1}};
  along_mean along(2);
  double sum = 0, squares = 0;
  std::vector<double> s{0, 0};
  for (const auto& x : draws) {
    along.add(view<const double>(x));
    const double length = std::hypot(s[0], s[1]);
    if (length > 0) {
      const double u = (x[0] * s[0] + x[1] * s[1]) / length;
      sum += u;
      squares += u * u;
    }
    for (std::size_t j = 0; j < 2; ++j) s[j] += x[j];
  }
  CHECK(along.count() == 3);
  CHECK(along.mean() == Approx(sum / 3));
  CHECK(along.variance() == Approx((squares - sum * sum / 3) / 2));
}

TEST_CASE("the shape of the noise along the mean does not depend on how large the mean is") {
  for (const double mean : {10., 1e8}) {
    along_mean along(1);
    for (int i = 0; i < 512; ++i) along.add(std::vector<double>{mean + (i % 2 == 0 ? 1 : -1)});
    CHECK(along.shape().variance == Approx(1).epsilon(0.02));
    CHECK(std::abs(along.shape().third) < 0.05);
  }
}

TEST_CASE("the effective number of events counts them") {
  // 400 draws, an event in every 50th: 8 of them
  std::vector<std::vector<double>> rare, normal;
  for (index_t i = 0; i < 400; ++i) {
    rare.push_back({i % 50 == 17 ? 51.0 : 1.0});
    normal.push_back({draw_normal(key{9}, i)});
  }
  const gradient_sample few = sample_of(rare), many = sample_of(normal);
  CHECK(few.along().shape().events == Approx(8).epsilon(0.2));
  CHECK(few.along().shape().third > 0);
  CHECK(many.along().shape().events == Approx(400.0 / 3).epsilon(0.2));
  CHECK(many.along().shape().variance == Approx(1).epsilon(0.2));
}

TEST_CASE("without batches the result says so") {
  const artbp estimator(rnn, fixed_truncation(3));
  const auto with = measure(estimator, theta, xs, {.replicas = 100});
  const auto without = measure(estimator, theta, xs, {.replicas = 100, .keep_batches = false});
  CHECK(with.batches == 32);
  CHECK(without.batches == 0);
  CHECK(with.sample_bytes == without.sample_bytes + 32 * 8 * sizeof(double));
  CHECK(without.variance == with.variance);
  CHECK(without.worst_z == with.worst_z);
  CHECK(without.worst_z_events == 0);
}

TEST_CASE("a reference that is all noise leaves nothing known") {
  const std::vector<double> zero(8, 0.0);
  const auto m = measure(artbp(rnn, fixed_truncation(3)), theta, xs, {.replicas = 50, .reference = zero});
  CHECK(m.relative_bias_low == 0);
  CHECK(std::isinf(m.relative_bias_high));
  CHECK(std::isinf(m.descent_low));
  int unknown = 0;
  for (std::uint64_t k = 0; k < 30; ++k) {
    const auto noisy = measure(es(rnn, {.sigma = 3}), theta, xs, {.replicas = 30, .seed = fold(key{3}, k)});
    unknown += noisy.exact_norm == 0;
    CHECK_FALSE(std::isnan(noisy.relative_bias_low));
    CHECK_FALSE(std::isnan(noisy.relative_bias_high));
    CHECK_FALSE(std::isnan(noisy.descent_low));
    CHECK_FALSE(std::isnan(noisy.descent_high));
  }
  CHECK(unknown > 0);
}

TEST_CASE("noise does not pull the cosine to 0") {
  double mean = 0;
  for (std::uint64_t k = 0; k < 100; ++k)
    mean += measure(artbp(rnn, fixed_truncation(1.5)), theta, xs,
                    {.replicas = 30, .seed = fold(key{2}, k), .threads = 1})
                .cosine /
            100;
  CHECK(mean == Approx(1).margin(0.02));
}
