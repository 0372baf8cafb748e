#include "unroll/llama/lm_head.hpp"

#include "tests/llama/small_llama.hpp"
#include "tests/support/catch.hpp"
#include "unroll/exec/of.hpp"
#include "unroll/testing/allocations.hpp"
#include "unroll/testing/guarded.hpp"

using namespace unroll;
using namespace unroll::llama;
using tests::lively_weights;
using tests::normals;
using tests::small_llama;
using unroll::testing::detail::dot;
using unroll::testing::detail::guarded;

namespace {

using host = exec::of<double>;

struct problem {
  host executor;
  weight_map map;
  std::vector<double> weights, x, workspace;
  std::vector<token> targets;

  problem(const config& c, std::vector<token> t)
      : map(c), weights(lively_weights<double>(map)), targets(std::move(t)) {
    x = normals<double>(c.hidden * tokens(), 3, 1);
    workspace.resize(std::size_t(lm_head<host>::workspace_size(c, tokens())));
  }
  index_t tokens() const { return index_t(targets.size()); }
  matrix<double> columns(std::vector<double>& v) const { return {v.data(), map.shape().hidden, tokens()}; }
  lm_head<host> head() { return {executor, map, weights.data(), view<double>(workspace)}; }
  double nll(double* out = nullptr) {
    double total;
    head().losses(columns(x), targets, out, &total);
    return total;
  }
  /// -log softmax by its definition.
  double by_hand(index_t n) const {
    const config& c = map.shape();
    const double* xn = x.data() + n * c.hidden;
    double squares = 0;
    for (index_t i = 0; i < c.hidden; ++i) squares += xn[i] * xn[i];
    const double rstd = 1 / std::sqrt(squares / double(c.hidden) + c.norm_epsilon);
    std::vector<double> logits;
    for (index_t v = 0; v < c.vocabulary; ++v) {
      double sum = 0;
      for (index_t i = 0; i < c.hidden; ++i)
        sum += weights[std::size_t(map.output() + v * c.hidden + i)] * xn[i] * rstd *
               weights[std::size_t(map.norm() + i)];
      logits.push_back(sum);
    }
    double total = 0;
    for (const double l : logits) total += std::exp(l);
    return std::log(total) - logits[std::size_t(targets[std::size_t(n)])];
  }
};

std::vector<token> some_targets(index_t n, const config& c, index_t unscored_every) {
  std::vector<token> t;
  for (index_t i = 0; i < n; ++i) t.push_back(i % unscored_every == 2 ? -1 : token(i * 7 % c.vocabulary));
  return t;
}

}  // namespace

TEST_CASE("The loss of the output layer is the cross entropy of every scored token") {
  for (const bool tied : {true, false}) {
    config c = small_llama();
    c.tied = tied;
    problem at(c, some_targets(9, c, 4));
    std::vector<double> each(9, -1);
    const double sum = at.nll(each.data());
    double expected = 0;
    for (index_t n = 0; n < 9; ++n) {
      const double e = at.targets[std::size_t(n)] < 0 ? 0 : at.by_hand(n);
      CHECK(each[std::size_t(n)] == Approx(e).margin(1e-13));
      expected += e;
    }
    CHECK(sum == Approx(expected).epsilon(1e-13));
    CHECK(at.nll() == sum);
  }
}

TEST_CASE(
    "The gradients of the output layer agree with differences, also over several chunks and unscored ones") {
  for (const bool tied : {true, false})
    for (const index_t unscored : {4, 3}) {
      config c = small_llama();
      c.tied = tied;
      auto targets = some_targets(540, c, unscored);  // chunks of 512
      if (unscored == 3) std::fill(targets.begin() + 512, targets.end(), -1);
      problem at(c, targets);
      CHECK(lm_head<host>::chunk(c, 540) == 512);
      std::vector<double> dx(at.x.size(), 5), dw(at.weights.size(), 0.25), each(540, -1), scores(540, -1);
      double sum;
      at.head().losses_vjp(at.columns(at.x), at.targets, {at.columns(dx), dw.data(), 1.5}, each.data(), &sum);
      CHECK(sum == Approx(at.nll(scores.data())).epsilon(1e-14));
      for (std::size_t i = 0; i < each.size(); ++i) CHECK(each[i] == Approx(scores[i]).margin(1e-13));
      const auto slope = [&](std::vector<double>& values, index_t first, index_t n) {
        const auto u = normals<double>(n, 50, 1);
        const double h = 1e-3 / std::sqrt(dot(u, u));
        const auto moved = [&](double step) {
          for (index_t i = 0; i < n; ++i) values[std::size_t(first + i)] += step * u[std::size_t(i)];
          const double loss = at.nll();
          for (index_t i = 0; i < n; ++i) values[std::size_t(first + i)] -= step * u[std::size_t(i)];
          return loss;
        };
        return 1.5 * (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
      };
      const auto along = [&](const std::vector<double>& g, index_t first, index_t n, double offset) {
        const auto u = normals<double>(n, 50, 1);
        double s = 0;
        for (index_t i = 0; i < n; ++i) s += (g[std::size_t(first + i)] - offset) * u[std::size_t(i)];
        return s;
      };
      const auto agrees = [](double slope_, double expected) {
        return std::abs(slope_ - expected) <= 1e-6 * (1 + std::abs(expected));
      };
      CHECK(agrees(along(dx, 0, index_t(dx.size()), 0), slope(at.x, 0, index_t(dx.size()))));
      for (const index_t first : {at.map.norm(), at.map.output()}) {
        const index_t n = first == at.map.norm() ? c.hidden : c.hidden * c.vocabulary;
        CHECK(agrees(along(dw, first, n, 0.25), slope(at.weights, first, n)));
      }
      // Frozen, and in place: the same dx.
      auto in_place = at.x;
      at.head().losses_vjp(at.columns(in_place), at.targets, {at.columns(in_place), nullptr, 1.5}, nullptr,
                           &sum);
      CHECK(in_place == dx);
    }
}

TEST_CASE("Logits of any size give a finite loss") {
  const config c = small_llama();
  problem at(c, some_targets(4, c, 100));
  for (index_t i = 0; i < c.hidden; ++i) at.weights[std::size_t(at.map.norm() + i)] *= 1e6;
  CHECK(std::isfinite(at.nll()));
}

TEST_CASE("Logits are what the loss is made of, over several chunks") {
  const config c = small_llama();
  problem at(c, some_targets(600, c, 1000));
  std::vector<double> logits(std::size_t(c.vocabulary * 600)), each(600);
  at.head().logits(at.columns(at.x), matrix<double>(logits.data(), c.vocabulary, 600));
  at.nll(each.data());
  for (index_t n = 0; n < 600; n += 7) {
    double total = 0;
    for (index_t v = 0; v < c.vocabulary; ++v) total += std::exp(logits[std::size_t(v + n * c.vocabulary)]);
    CHECK(std::log(total) - logits[std::size_t(at.targets[std::size_t(n)] + n * c.vocabulary)] ==
          Approx(each[std::size_t(n)]).margin(1e-12));
  }
}

TEST_CASE("The output layer keeps to its memory and allocates nothing") {
  const config c = small_llama();
  const weight_map map(c);
  const auto w = lively_weights<float>(map);
  auto x = normals<float>(c.hidden * 5, 3, 1);
  std::vector<float> dw(w.size()), logits(std::size_t(c.vocabulary * 5));
  const auto targets = some_targets(5, c, 100);
  const exec::of<float> e;
  guarded<float> workspace(lm_head<exec::of<float>>::workspace_size(c, 5));
  lm_head<exec::of<float>> head{e, map, w.data(), {workspace.data(), workspace.size()}};
  float total;
  const matrix<float> columns(x.data(), c.hidden, 5);
  const unroll::testing::allocation_counter counter;
  head.losses(columns, targets, nullptr, &total);
  head.logits(columns, matrix<float>(logits.data(), c.vocabulary, 5));
  head.losses_vjp(columns, targets, {columns, dw.data()}, nullptr, &total);
  CHECK(counter.count() == 0);
  CHECK(workspace.intact());
  head.workspace = head.workspace.part(0, 20);
  CHECK_THROWS_WITH(head.losses(columns, targets, nullptr, &total),
                    Catch::Matchers::ContainsSubstring("workspace"));
}
