#include "unroll/diagnose/interval.hpp"

#include "tests/support/catch.hpp"
#include "unroll/diagnose/bias_interval.hpp"
#include "unroll/rng/draw.hpp"

using namespace unroll;

TEST_CASE("the incomplete gamma function has its known values") {
  for (double x : {0.1, 0.7, 1.0, 3.0, 20.0})
    CHECK(gamma_cdf(1, x) == Approx(1 - std::exp(-x)).epsilon(1e-13));
  for (double x : {0.01, 0.5, 2.0, 9.0})
    CHECK(gamma_cdf(0.5, x) == Approx(std::erf(std::sqrt(x))).epsilon(1e-13));
  for (double x : {0.5, 4.0, 12.0})
    CHECK(gamma_cdf(3, x) == Approx(1 - std::exp(-x) * (1 + x + x * x / 2)).epsilon(1e-12));
  CHECK(gamma_cdf(2, 0) == 0);
  CHECK(gamma_cdf(2, -1) == 0);
  CHECK_THROWS_AS(gamma_cdf(0, 1), unroll::error);
}

TEST_CASE("the approximation for large shapes joins the exact function") {
  for (double z : {-3.0, -1.0, 0.0, 1.0, 3.0}) {
    const double x = 1000 + z * std::sqrt(1000.0);
    CHECK(gamma_cdf(1000.0 + 1e-9, x) == Approx(gamma_cdf(1000.0 - 1e-9, x)).margin(1e-5));
  }
}

TEST_CASE("quantiles of the normal and of Student's t are those of the tables") {
  CHECK(normal_quantile(0.975) == Approx(1.959963984540054).epsilon(1e-14));
  CHECK(normal_quantile(0.5) == Approx(0).margin(1e-16));
  CHECK(normal_quantile(1e-6) == Approx(-4.753424308822899).epsilon(1e-14));
  CHECK(normal_quantile(1e-12) == Approx(-7.034483825301131).epsilon(1e-13));
  for (double p = 1e-15; p < 1; p = p < 0.01 ? p * 3 : p + 0.01)
    CHECK(normal_cdf(normal_quantile(p)) == Approx(p).epsilon(1e-12));
  CHECK(student_quantile(0.975, 1) == Approx(12.706204736174696).epsilon(1e-12));
  CHECK(student_quantile(0.975, 2) == Approx(4.302652729749464).epsilon(1e-12));
  CHECK(student_quantile(0.975, 3) == Approx(3.182446305284263).epsilon(1e-12));
  CHECK(student_quantile(0.975, 4) == Approx(2.7764451051977987).epsilon(1e-12));
  for (double freedom : {1.0, 2.0, 3.0, 4.0, 5.0, 30.0}) {
    CHECK(student_quantile(0.5, freedom) == Approx(0).margin(1e-7));
    CHECK(student_quantile(0.025, freedom) == -student_quantile(0.975, freedom));
  }
  CHECK(student_quantile(0.9999, 3) == Approx(22.20374).epsilon(1e-6));
  CHECK_THROWS_AS(student_quantile(0.975, 0), unroll::error);
  CHECK_THROWS_AS(student_quantile(1, 5), unroll::error);
  CHECK(student_quantile(0.975, 5) == Approx(2.570582).epsilon(3e-3));
  CHECK(student_quantile(0.975, 30) == Approx(2.042272).epsilon(1e-5));
  CHECK_THROWS_AS(normal_quantile(0), unroll::error);
  CHECK_THROWS_AS(normal_quantile(1), unroll::error);
}

TEST_CASE("the margin of a mean is that of Student's t, none of one number") {
  const std::vector<double> x{1, 2, 6};  // variance 7
  const auto m = student_mean(x, .95);
  CHECK(m.mean == 3);
  CHECK(m.margin == Approx(4.302653 * std::sqrt(7 / 3.)));
  CHECK(student_mean(std::span(x).first(1), .95).margin == 0);
  CHECK(student_mean(std::span(x).first(1), .95).mean == 1);
  CHECK(std::isnan(student_mean({}, .95).mean));
}

TEST_CASE("the distance of a count is its score interval, and of symmetric noise the usual one") {
  // a count of k events: variance k, slope 1; the score limits of a Poisson mean are k + q^2 / 2 +- q sqrt(k
  // + q^2 / 4)
  CHECK(score_distance(1.96, 4, 1, 1) == Approx(1.96 * 1.96 / 2 + 1.96 * std::sqrt(4 + 1.96 * 1.96 / 4)));
  CHECK(score_distance(2, 9, 0, 4) == Approx(3));
  CHECK(score_distance(2, 9, -5, 4) == Approx(3));
  CHECK(score_distance(2, 0, 0, 4) == 0);
}

TEST_CASE("the interval of a norm has the unit of the vectors, whatever it is") {
  const auto one = norm_interval(7, 1, 0.5, 0.95);
  for (const double unit : {1e-75, 1e-30, 1e30, 1e75}) {
    const double u = unit * unit;
    const auto i = norm_interval(7 * u, u, 0.5 * u * u, 0.95);
    CHECK(i.low == Approx(one.low * unit).epsilon(1e-9).margin(0));
    CHECK(i.high == Approx(one.high * unit).epsilon(1e-9).margin(0));
  }
  CHECK(norm_interval(1e-180, 1e-180, 0, 0.95).high == std::numeric_limits<double>::infinity());
  const auto sharp = norm_interval(1, 1e-120, 1e-240, 0.95);  // noise far below the rounding of the mean
  CHECK(sharp.low == Approx(1));
  CHECK(sharp.high == Approx(1));
}

TEST_CASE("the interval of a norm degenerates, begins at zero and widens as it must") {
  const auto exact = norm_interval(9, 0, 0, 0.95);
  CHECK(exact.low == 3);
  CHECK(exact.high == 3);
  // one dimension: ||m||^2 / trace is chi-square with one degree of freedom, 97.5 % quantile 5.02389
  CHECK(norm_interval(5.02, 1, 1, 0.95).low == 0);
  CHECK(norm_interval(5.03, 1, 1, 0.95).low > 0);
  // far away the interval is that of a normal mean
  const auto far = norm_interval(1e6, 1, 1, 0.95);
  CHECK(far.low == Approx(1000 - 1.96).margin(0.01));
  CHECK(far.high == Approx(1000 + 1.96).margin(0.01));
  CHECK(norm_interval(4, 1, 1, 0.99).high > norm_interval(4, 1, 1, 0.9).high);
  CHECK_THROWS_AS(norm_interval(1, 1, 1, 1), unroll::error);
}

namespace {

struct toy {
  const char* name;
  index_t size;
  double first;  // standard deviation of the first coordinate; the others have 1
  double beta;   // length of the bias, along the first coordinate when `along`, else along the last
  bool along;
};

// Share of 1000 samples whose interval holds the length of the bias.
double coverage(const toy& t, index_t n) {
  index_t hits = 0;
  for (index_t repetition = 0; repetition < 1000; ++repetition) {
    const auto draw = [&](key k, dparams<double> x) {
      draw_normals(k, 0, x);
      x[0] *= t.first;
      (t.along ? x[0] : x[t.size - 1]) += t.beta;
      return report{};
    };
    const auto sample = draw_sample<double>(draw, t.size, {}, n,
                                            {.seed = fold(key{11}, std::uint64_t(repetition)), .threads = 1});
    const double N = double(n), trace = sample.total_variance() / N;
    const auto mean = sample.x().mean();
    const auto i = bias_interval(sample,
                                 {.square = linalg::dot(mean.data(), mean.data(), t.size),
                                  .trace = trace,
                                  .trace_of_square = sample.trace_of_square() / (N * (N - 1))},
                                 0.95);
    hits += i.low <= t.beta && t.beta <= i.high;
  }
  return double(hits) / 1000;
}

}  // namespace

TEST_CASE("the interval of the bias covers at its confidence") {
  // 1000 repetitions: the standard deviation of a coverage of 95 % is 0.7 %, and 2 % is allowed
  const index_t n = 100;
  for (double beta : {0.0, 0.5, 5.0}) {
    CAPTURE(beta);
    CHECK(coverage({"one dimension", 1, 1, beta, true}, n) >= 0.93);
    CHECK(coverage({"isotropic", 10, 1, beta, true}, n) >= 0.93);
    CHECK(coverage({"one loud direction, bias along it", 6, 10, beta, true}, n) >= 0.93);
    CHECK(coverage({"one loud direction, bias across it", 6, 10, beta, false}, n) >= 0.93);
  }
  CHECK(coverage({"isotropic, few draws", 10, 1, 0.5, true}, 24) >= 0.93);
}

TEST_CASE("the trace of the squared covariance is estimated without bias") {
  // V = diag(4, 1, 1): tr V^2 = 18; the mean over 4000 groups of four
  const index_t size = 3;
  const auto draw = [](key k, dparams<double> x) {
    draw_normals(k, 0, x);
    x[0] = 2 * x[0] + 100;  // a bias far above the noise changes nothing
    return report{};
  };
  const auto sample = draw_sample<double>(draw, size, {}, 16000, {.seed = key{3}, .threads = 1});
  CHECK(sample.trace_of_square() == Approx(18).epsilon(0.1));
  CHECK(sample.max_over_sum() < 0.01);
}
