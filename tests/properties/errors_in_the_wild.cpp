// What docs/errors-in-the-wild.md says of published formulas and programs, each on a system of a few numbers:
// the gradient they give, beside the right one. Nothing here is their code.

#include <Eigen/Dense>
#include <cmath>
#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/delayed_golden.hpp"
#include "tests/support/memory_models.hpp"
#include "unroll/estimate/chunked_tbptt.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/estimate/reservoir_tbptt.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/testing/enumerate.hpp"
#include "unroll/testing/oracle.hpp"

namespace {

using namespace unroll;
using vec2 = Eigen::Vector2d;
using vec8 = Eigen::Matrix<double, 8, 1>;

/// One step of the golden network: J = ds_t/ds_{t-1}, F = ds_t/dtheta, q = dl_t/ds_t.
struct derivatives {
  Eigen::Matrix2d J;
  Eigen::Matrix<double, 2, 8> F;
  vec2 q;
};

std::vector<derivatives> derivatives_of(params<const double> theta) {
  std::vector<derivatives> all;
  testing::edge_memory<golden::rnn<>> m(golden::rnn<>{});
  for (const auto& in : golden::inputs()) {
    golden::rnn<>{}.step(in, m.at(theta));
    derivatives d;
    for (index_t i = 0; i < 2; ++i) {
      std::vector<double> unit(2), row(2), f(8);
      unit[std::size_t(i)] = 1;
      golden::rnn<>{}.vjp(in, m.at(theta), dstate<const double>(unit), 0, dstate<double>(row),
                          dparams<double>(f));
      for (index_t j = 0; j < 2; ++j) d.J(i, j) = row[std::size_t(j)];
      for (index_t p = 0; p < 8; ++p) d.F(i, p) = f[std::size_t(p)];
      d.q[i] = m.next[std::size_t(i)] - in.y[std::size_t(i)];
    }
    all.push_back(d);
    m.s.swap(m.next);
  }
  return all;
}

const vec8 gradient_of_golden = Eigen::Map<const vec8>(golden::gradient.data());

double relative_bias(const vec8& mean) {
  return (mean - gradient_of_golden).norm() / gradient_of_golden.norm();
}
double cosine(const vec8& mean) {
  return mean.dot(gradient_of_golden) / mean.norm() / gradient_of_golden.norm();
}

/// Signs that are smaller by a factor, so that their variance is its square.
struct scaled_signs : testing::enumerating_chooser {
  double factor;
  scaled_signs(testing::enumerator& all, double by) : enumerating_chooser(all), factor(by) {}
  template <class T, class Space>
  void signs(std::int64_t t, view<T, Space> out) {
    enumerating_chooser::signs(t, out);
    for (T& c : out) c *= T(factor);
  }
};

}  // namespace

TEST_CASE("errors in the wild: a trace without the discount teaches no lambda-return") {
  // s' = s / 2, loss s'^2 / 2, S = 0 held still; lambda = 1: what s_0 is owed is sum_k gamma^(k-1) s_k 2^-k
  const double gamma = .5, a = .5;
  double owed = 0, right = 0, without = 0, trace = 0, lost = 0;
  double s = 1;
  for (int k = 0; k < 30; ++k) {
    trace = gamma * a * trace + (k == 0 ? 1 : 0);  // of s_0 alone
    lost = a * lost + (k == 0 ? 1 : 0);
    const double d = a * s * a;  // q_{k+1} J_{k+1}
    right += d * trace;
    without += d * lost;
    owed += std::pow(gamma, k) * std::pow(a, k + 1) * (a * s);
    s *= a;
  }
  CHECK(right == Approx(owed).epsilon(1e-14));
  CHECK(owed == Approx(2 / 7.).epsilon(1e-9));
  CHECK(without == Approx(1 / 3.).epsilon(1e-9));  // as if gamma were 1
}

TEST_CASE("errors in the wild: a state detached at every step keeps lag 0 and no other") {
  const auto steps = derivatives_of(golden::theta());
  vec8 immediate = vec8::Zero(), exact = vec8::Zero();
  Eigen::Matrix<double, 2, 8> influence = Eigen::Matrix<double, 2, 8>::Zero();
  for (const auto& d : steps) {
    influence = d.J * influence + d.F;
    exact += influence.transpose() * d.q;
    immediate += d.F.transpose() * d.q;
  }
  CHECK(relative_bias(exact) < 1e-12);
  CHECK(golden::relative_error(immediate, golden::lag_below_1) < 1e-9);
  CHECK(relative_bias(immediate) == Approx(.39959).epsilon(1e-4));
  gradient<double> g(8);
  chunked_tbptt detached(golden::rnn<>{}, {.window = 1});
  detached.advance(golden::theta(), golden::inputs(), g);
  detached.finish(golden::theta(), g);
  CHECK(golden::relative_error(g, immediate) < 1e-14);
}

TEST_CASE(
    "errors in the wild: the loss of the new state with the influence on the old one lacks the newest step") {
  vec8 late = vec8::Zero();
  Eigen::Matrix<double, 2, 8> influence = Eigen::Matrix<double, 2, 8>::Zero();
  for (const auto& d : derivatives_of(golden::theta())) {
    late += influence.transpose() * d.q;
    influence = d.J * influence + d.F;
  }
  CHECK(relative_bias(late) == Approx(.3101).epsilon(1e-3));
}

TEST_CASE("errors in the wild: signs of variance 1/3 leave a third of the gradient") {
  testing::enumerator all;
  const uoro estimator(golden::delayed_rnn{}, {.epsilon = 0}, scaled_signs(all, 1 / std::sqrt(3.)));
  const auto r = testing::enumerate(all, estimator, golden::theta(), golden::delayed_inputs());
  const vec8 mean = Eigen::Map<const vec8>(r.mean.data());
  CHECK(relative_bias(mean) == Approx(2 / 3.).epsilon(1e-12));
  CHECK(cosine(mean) == Approx(1).epsilon(1e-12));
}

TEST_CASE("errors in the wild: a factor recovered by dividing shrinks by the share of saturated units") {
  auto theta = golden::theta();
  theta[3] = 40;  // the bias of unit 0: tanh' is 0 in double
  const auto d = derivatives_of(theta).front();
  vec2 slope;
  Eigen::Matrix<double, 1, 4> a = Eigen::Matrix<double, 1, 4>::Zero();
  for (int i = 0; i < 2; ++i) {
    const Eigen::Matrix<double, 1, 4> row = d.F.block<1, 4>(i, 4 * i);
    slope[i] = row[3];  // its input is 1
    a += row / std::max(slope[i], 1e-12) / 2;
  }
  REQUIRE(slope[0] == 0);
  const Eigen::Matrix<double, 1, 4> input(.3, .3, 1, 1);
  CHECK((a - input / 2).norm() < 1e-15);
  CHECK((slope[1] * a - d.F.block<1, 4>(1, 4) / 2).norm() < 1e-15);
}

TEST_CASE("errors in the wild: a telescope that multiplies by the probability instead of dividing") {
  // ladder: losses reach back 1, 2, 3 steps; the third rung is the gradient
  const vec8 rung[3] = {Eigen::Map<const vec8>(golden::lag_below_1.data()),
                        Eigen::Map<const vec8>(golden::lag_below_2.data()), gradient_of_golden};
  vec8 divided = vec8::Zero(), multiplied = vec8::Zero();
  double normaliser = 0;
  for (int n = 0; n < 3; ++n) normaliser += std::pow(.5, n);
  for (int n = 0; n < 3; ++n) {
    const double q = std::pow(.5, n) / normaliser;
    const vec8 difference = n == 0 ? rung[0] : vec8(rung[n] - rung[n - 1]);
    divided += q * (difference / q);
    multiplied += q * (difference * q);
  }
  CHECK(relative_bias(divided) < 1e-9);
  CHECK(relative_bias(multiplied) > .7);
}

TEST_CASE("errors in the wild: adjoints that are not cleared between overlapping windows are counted again") {
  // x_t = w x_{t-1}; the gradient of x_3 alone through three steps
  const double w = .2, x0 = .9;
  const double x[4] = {x0, w * x0, w * w * x0, w * w * w * x0};
  const auto last_window = [&](bool clear) {
    double adjoint[4] = {};  // .grad of the detached states
    double g = 0;
    for (int t = 1; t <= 3; ++t) {  // every step sends its loss x_t back
      if (clear) std::fill(std::begin(adjoint), std::end(adjoint), 0);
      g = 0;  // only the parameters are cleared
      double sent = 1;
      for (int s = t; s >= 1; --s) {
        g += sent * x[s - 1];
        adjoint[s - 1] += sent * w;
        sent = adjoint[s - 1];
      }
    }
    return g;
  };
  CHECK(last_window(true) == Approx(3 * w * w * x0));  // .108
  CHECK(last_window(false) == Approx(.288));
}

TEST_CASE("errors in the wild: errors carried forward from zero are not the adjoints") {
  const auto steps = derivatives_of(golden::theta());
  const std::size_t T = steps.size();
  // delta_t = J_{t+1}' delta_{t+1} + q_t, solved for delta_{t+1}; q_0 is 0 and delta_T must come out as q_T
  const auto forwards = [&](const vec2& first, vec8& g) {
    vec2 delta = first;
    g.setZero();
    for (std::size_t t = 0; t < T; ++t) {
      const vec2 q = t == 0 ? vec2(vec2::Zero()) : steps[t - 1].q;
      delta = steps[t].J.transpose().inverse() * (delta - q);
      g += steps[t].F.transpose() * delta;
    }
    return delta;
  };
  vec8 g;
  const vec2 missed = forwards(vec2::Zero(), g) - steps.back().q;
  CHECK(relative_bias(g) > 1);  // a second phase that begins at 0 repeats the first
  Eigen::Matrix2d product = Eigen::Matrix2d::Identity();
  for (const auto& d : steps) product = product * d.J.transpose();
  forwards(product * missed, g);
  CHECK(relative_bias(g) > 1);  // the printed sign
  forwards(-product * missed, g);
  CHECK(relative_bias(g) < 1e-12);
}

TEST_CASE("errors in the wild: a ratio of norms near 1 says nothing of bias") {
  const memory_task::task k(memory_task::make_linear(), 8);
  const auto exact = memory_task::run(rematerialise(k.model, {.segments = 8}), k.theta, k.xs);
  const auto norm = [](const auto& g) {  // of the entries of the writes, which are what is sampled
    double squares = 0;
    for (std::size_t i = 0; i < 6; ++i) squares += g.data()[i] * g.data()[i];
    return std::sqrt(squares);
  };
  const auto of = [&](auto make) {  // E |g| / |exact|, and |E g - exact| / |exact|
    testing::enumerator all;
    auto estimator = make(all);
    const auto n = std::size_t(k.theta.size());
    const auto r = testing::enumerate_outcomes(all, k.theta.size() + 1, [&](view<double> out) {
      gradient<double> g(k.theta.size());
      estimator.reset(key{}, {});
      estimator.advance(k.theta, k.xs, g);
      estimator.finish(k.theta, g);
      for (index_t i = 0; i < g.size(); ++i) out[i] = g[i];
      out[g.size()] = norm(g);
    });
    std::vector<double> error(exact);
    for (std::size_t i = 0; i < n; ++i) error[i] -= r.mean[i];
    return std::pair{r.mean[n] / norm(exact), norm(error) / norm(exact)};
  };
  const reservoir_tbptt_options how{.segments = 8, .size = 1};
  const auto [ratio, bias] =
      of([&](auto& all) { return reservoir_tbptt(k.model, how, testing::enumerating_chooser(all)); });
  const auto [bare_ratio, bare_bias] = of([&](auto& all) {
    return uncompensated_reservoir<memory_task::linear, testing::enumerating_chooser>(
        k.model, how, testing::enumerating_chooser(all));
  });
  INFO(ratio << " " << bias << " " << bare_ratio << " " << bare_bias);
  CHECK(bias < 1e-11);
  CHECK(ratio > 1.1);
  CHECK(bare_bias > .2);
  CHECK(std::abs(bare_ratio - 1) < std::abs(ratio - 1));
}

TEST_CASE("errors in the wild: t of k chunks without replacement weigh a path of m chunks by less than one") {
  // a loss behind the last of six chunks, each of which multiplies the adjoint by a: the path to chunk 6 - m
  // + 1 has a^{m-1}
  const int k = 6, t = 4;
  const auto weights = [&](double a) {
    double mean = 0;
    int subsets = 0;
    for (unsigned kept = 0; kept < 1u << k; ++kept) {
      if (__builtin_popcount(kept) != t) continue;
      ++subsets;
      double adjoint = 0, g = 0;
      for (int chunk = k; chunk-- > 0;) {
        if (!(kept >> chunk & 1)) {
          adjoint = 0;  // no graph, nothing goes on
          continue;
        }
        const double weight = double(k) / t;
        adjoint = (chunk == k - 1 ? 1 : adjoint) * weight;
        g += adjoint;  // d theta of this chunk
        adjoint *= a;
      }
      mean += g;
    }
    return mean / subsets;
  };
  CHECK(weights(0) == Approx(1));
  const double w[] = {1, .9, .675, .3375, 0, 0};
  for (const double a : {.5, 1., -2.}) {
    double expected = 0;
    for (int m = 0; m < k; ++m) expected += w[m] * std::pow(a, m);
    CHECK(weights(a) == Approx(expected));
  }
  // of a path through m chunks; hop: the factor behind the first, k/t as printed, at most 2 as trained
  const auto weight = [](double chunks, double taken, int m, double hop) {
    double product = 1;
    for (int i = 0; i < m; ++i) product *= (taken - i) / (chunks - i) * (i == 0 ? chunks / taken : hop);
    return product;
  };
  const auto row = [&](double chunks, double taken, double hop, std::vector<double> expected) {
    for (std::size_t m = 1; m <= expected.size(); ++m)
      CHECK(std::abs(weight(chunks, taken, int(m), hop) - expected[m - 1]) < 5.1e-5);
  };
  row(6, 4, 1.5, {1, .9000, .6750, .3375, 0, 0});
  row(128, 8, 16, {1, .8819, .6719, .4300, .2219, .0866});
  row(128, 8, 2, {1, .1102, .0105, .0008});
  row(128, 8, 1, {1, .0551});
  row(128, 16, 8, {1, .9449, .8399, .6988, .5410, .3871});
  row(128, 16, 2, {1, .2362, .0525, .0109});
  row(128, 32, 4, {1, .9764, .9299, .8629, .7794, .6844});
  row(128, 32, 2, {1, .4882, .2325, .1079});
}

TEST_CASE("errors in the wild: noise drawn with one sigma and divided by another weighs windows unequally") {
  // x_1 = theta, x_2 = x_1 + theta, loss x_2^2 / 2, a window a step: gradient 4 theta, quadratic, so
  // smoothing keeps it
  const double theta = .7;
  const auto rule = testing::make_hermite_rule(5);
  const auto pes = [&](double first, double second, double divisor_of_first) {
    double mean = 0;
    for (std::size_t i = 0; i < 5; ++i)
      for (std::size_t j = 0; j < 5; ++j) {
        const double e1 = first * rule.node[i], e2 = second * rule.node[j];
        const double x2 = 2 * theta + e1 + e2;
        mean += rule.weight[i] * rule.weight[j] * x2 * x2 / 2 *
                (e1 / (divisor_of_first * divisor_of_first) + e2 / (second * second));
      }
    return mean;
  };
  CHECK(pes(.1, .1, .1) == Approx(4 * theta));
  CHECK(pes(.1, .05, .1) == Approx(4 * theta));
  CHECK(pes(.1, .05, .05) == Approx((4 + 1) * 2 * theta));  // sigma_1^2 / sigma_2^2 = 4 for the first window
}

TEST_CASE("errors in the wild: a kernel fitted to noise that is not in the network yet is too small") {
  // one linear unit, s' = w s, kernel w exactly: e' = w (e + z), then a new z', W' = w W + z', and A W fitted
  // to e
  const double w = .6;
  double e_W = 0, W_W = 0;
  const auto fitted = [&](bool late) {
    e_W = 0, W_W = 0;
    for (int t = 0; t < 200; ++t) {
      // z is in W, z' is not in e: E e'W' = w^2 (E eW + 1); noise that acts at once, e' = w e + z', has E
      // e'W' = w^2 E eW + 1
      e_W = late ? w * w * (e_W + 1) : w * w * e_W + 1;
      W_W = w * w * W_W + 1;
    }
    return e_W / W_W;
  };
  CHECK(fitted(false) == Approx(1));     // what a step does to its own state
  CHECK(fitted(true) == Approx(w * w));  // the gradient shrinks by as much
}

TEST_CASE(
    "errors in the wild: a loss in front of an episode's end that meets few of the older perturbations") {
  // s' = s + theta, an episode of three steps in windows of two, the loss s_3 = 3 theta stands behind the
  // first step of the second window. Perturbations e1, e2 a window: s_3 = 3 theta + 2 e1 + e2
  const auto rule = testing::make_hermite_rule(3);
  const double sigma = .1, theta = .7;
  const auto mean = [&](double share_of_older) {
    double g = 0;
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 3; ++j) {
        const double e1 = sigma * rule.node[i], e2 = sigma * rule.node[j];
        const double plus = 3 * theta + 2 * e1 + e2, minus = 3 * theta - 2 * e1 - e2;
        g += rule.weight[i] * rule.weight[j] * (plus - minus) / (2 * sigma * sigma) *
             (share_of_older * e1 + e2);
      }
    return g;
  };
  CHECK(mean(1) == Approx(3));
  // a window of W steps whose k-th is the last of its episode: (k - 1) / W of the older ones
  const auto share = [](double k, double W) { return (k - 1) / W; };
  CHECK(mean(share(1, 2)) == Approx(1));
  CHECK(mean(share(2, 2)) == Approx(2));
}

TEST_CASE(
    "errors in the wild: sums of norms are above the norm of the gradient, whose relative bias they make "
    "small") {
  const auto steps = derivatives_of(golden::theta());
  const auto last = steps.size() - 1;
  Eigen::RowVector2d adjoint = steps[last].q.transpose();
  vec2 sum = vec2::Zero();
  double norms = 0;
  for (auto t = last; t > 0; --t) {  // dl_3/ds_t of the last loss
    sum += adjoint.transpose();
    norms += adjoint.norm();
    adjoint = adjoint * steps[t].J;
  }
  sum += adjoint.transpose();
  norms += adjoint.norm();
  INFO(norms << " " << sum.norm());
  CHECK(norms > 1.05 * sum.norm());
}

TEST_CASE("errors in the wild: a decay fitted to all lags is not that of the late ones") {
  // norms by lag that fall by .3 up to lag 5 and by .95 from there on; what lags from 10 on hold is what
  // counts
  double x = 0, y = 0, xx = 0, xy = 0, beyond = 0, log_norm = 0, at_10 = 0;
  const int lags = 21;
  for (int k = 0; k < 2000; ++k) {
    if (k > 0) log_norm += std::log(k <= 5 ? .3 : .95);
    if (k == 10) at_10 = std::exp(log_norm);
    if (k >= 10) beyond += std::exp(log_norm);
    if (k >= lags) continue;
    x += k, y += log_norm, xx += double(k) * k, xy += k * log_norm;
  }
  const double beta = std::exp((xy - x * y / lags) / (xx - x * x / lags));
  CHECK(beta < .9);
  CHECK(at_10 / (1 - .95) == Approx(beyond));  // fitted from lag 5 on
  CHECK(at_10 / (1 - beta) < .5 * beyond);
}

TEST_CASE("errors in the wild: a reset that multiplies by zero keeps what is not a number") {
  const auto steps = derivatives_of(golden::theta());
  const auto estimate = [&](bool select) {
    vec2 s = vec2::Constant(std::numeric_limits<double>::infinity()), sign(1, -1);
    vec8 carried = vec8::Constant(std::nan(""));  // of an episode that overflowed
    const double keep = 0;
    s = select ? vec2(vec2::Zero()) : vec2(keep * s);
    carried = select ? vec8(vec8::Zero()) : vec8(keep * carried);
    vec8 g = vec8::Zero();
    for (const auto& d : steps) {
      s = d.J * s + sign;
      carried += d.F.transpose() * sign;
      g += d.q.dot(s) * carried;
    }
    return g;
  };
  CHECK(estimate(true).allFinite());
  CHECK_FALSE(estimate(false).allFinite());
}
