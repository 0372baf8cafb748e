#include "unroll/cells/readout.hpp"

#include <limits>
#include <vector>

#include "tests/support/catch.hpp"

using namespace unroll;
using cells::example;
using cells::readout;

namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("the squared error is half the squared distance, summed over lanes") {
  const readout<double> r(2, 0, loss_kind::squared_error, 2);
  const std::vector<double> h{1, 2, 3, 4}, target{0, 2, 5, 1};
  std::vector<double> dy(4, nan_value);
  double loss = nan_value;
  const example<double> x{nullptr, target.data(), nullptr, nullptr};
  r.forward(nullptr, {&x, 1}, {h.data(), 2, 2}, {dy.data(), 2, 2}, &loss);
  CHECK(loss == 0.5 * (1 + 0 + 4 + 9));
  CHECK(dy == std::vector<double>{1, 0, -2, 3});
}

TEST_CASE("lanes that the mask leaves out have no squared error, whatever their target is") {
  const std::vector<double> h{1, 2, 3, 4, 5, 6}, target{0, 2, nan_value, 1, 5, 5};
  const std::vector<std::uint8_t> mask{7, 0, 1};
  const example<double> x{.target = target.data(), .mask = mask.data()};
  std::vector<double> dy(6, nan_value);
  double loss = nan_value;
  const readout<double> r(2, 0, loss_kind::squared_error, 3);
  r.forward(nullptr, {&x, 1}, {h.data(), 2, 3}, {dy.data(), 2, 3}, &loss);
  CHECK(loss == 0.5 * (1 + 1));
  CHECK(dy == std::vector<double>{1, 0, 0, 0, 0, 1});
  CHECK(r.scored(x) == 2);
  CHECK(r.finite("cell", x));
  const std::vector<std::uint8_t> all(3, 1), later{0, 1};
  CHECK_FALSE(r.finite("cell", {.target = target.data(), .mask = all.data()}));
  CHECK(cells::lanes_from(x, 1, 0, 2).mask == mask.data() + 1);
  CHECK(r.scored({.mask = mask.data()}) == 0);
  const readout<double> entropy(2, 2, loss_kind::cross_entropy, 3);
  CHECK_THROWS_WITH(entropy.finite("cell", {.mask = mask.data()}),
                    Catch::Matchers::ContainsSubstring("x.mask: is given"));

  // through a readout matrix: y = W h of the lanes that have a loss, nothing of the others
  const readout<double> y(2, 1, loss_kind::squared_error, 2);
  const std::vector<double> w{1, 10, 0}, t{0, 0};
  const example<double> e{.target = t.data(), .mask = later.data()};
  std::vector<double> d(2, nan_value), dh(4, nan_value), dw(3);
  y.forward(w.data(), {&e, 1}, {h.data(), 2, 2}, {d.data(), 1, 2}, &loss);
  CHECK(loss == 0.5 * 43 * 43);
  y.backward(w.data(), {&e, 1}, {h.data(), 2, 2}, {d.data(), 1, 2}, nullptr, {dh.data(), 2, 2}, dw.data(),
             nullptr);
  CHECK(dh == std::vector<double>{0, 0, 43, 430});
  CHECK(dw == std::vector<double>{43 * 3, 43 * 4, 43});
}

TEST_CASE("a step is scored in the lanes that have a label, and wholly where it has a target") {
  const std::vector<double> target{0, 2, 5};
  const std::vector<std::int32_t> label{1, -1, 0};
  const readout<double> squared(2, 1, loss_kind::squared_error, 3);
  CHECK(squared.scored({}) == 0);
  CHECK(squared.scored({nullptr, target.data(), nullptr, nullptr}) == 3);
  const readout<double> entropy(2, 2, loss_kind::cross_entropy, 3);
  CHECK(entropy.scored({}) == 0);
  CHECK(entropy.scored({nullptr, nullptr, nullptr, label.data()}) == 2);
}

TEST_CASE("without parameters the cotangent of h is that of y times the weight of its step") {
  const readout<double> r(2, 0, loss_kind::squared_error, 2);
  const std::vector<double> target(12), h(12), dy{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, weight{3, 0, 0.5};
  std::vector<example<double>> xs(3);
  for (std::size_t i = 0; i < 3; ++i) xs[i].target = target.data() + 4 * i;
  std::vector<double> dh(12, nan_value);
  const auto backward = [&](const double* weights) {
    r.backward(nullptr, {xs.data(), 3}, {h.data(), 2, 6}, {dy.data(), 2, 6}, weights, {dh.data(), 2, 6},
               nullptr, nullptr);
    return dh;
  };
  CHECK(backward(weight.data()) == std::vector<double>{3, 6, 9, 12, 0, 0, 0, 0, 4.5, 5, 5.5, 6});
  CHECK(backward(nullptr) == dy);
}

TEST_CASE("the cross entropy of equal logits is the log of their number") {
  const readout<double> r(3, 3, loss_kind::cross_entropy, 2);
  REQUIRE(r.params() == 12);
  std::vector<double> w(12, 0.0);
  w[9] = w[10] = w[11] = 700;  // exp(700) squared would overflow
  const std::vector<double> h{1, 2, 3, 4, 5, 6};
  const std::vector<std::int32_t> label{1, -1};
  std::vector<double> dy(6, nan_value);
  double loss = nan_value;
  const example<double> x{nullptr, nullptr, nullptr, label.data()};
  r.forward(w.data(), {&x, 1}, {h.data(), 3, 2}, {dy.data(), 3, 2}, &loss);
  CHECK(loss == Approx(std::log(3.0)).epsilon(1e-15));
  CHECK(dy[0] == Approx(1.0 / 3));
  CHECK(dy[1] == Approx(-2.0 / 3));
  CHECK(dy[2] == Approx(1.0 / 3));
  CHECK(std::vector<double>(dy.begin() + 3, dy.end()) == std::vector<double>(3, 0.0));
}

// The hidden vectors of an LSTM lie at a stride in states of [h; c], its tape holds more than dloss/dy.
TEST_CASE("the readout reads and writes columns at a stride") {
  constexpr index_t hidden = 2, out = 3, lanes = 2, steps = 4, n = lanes * steps, stride = 5, tape_stride = 7;
  const readout<double> r(hidden, out, loss_kind::squared_error, lanes);
  std::vector<double> w(std::size_t(r.params())), target(out * n), dense(hidden * n), weight{1, 0, 0.5, 2};
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = 0.1 * double(i) - 0.3;
  for (std::size_t i = 0; i < target.size(); ++i) target[i] = 0.05 * double(i % 7);
  for (std::size_t i = 0; i < dense.size(); ++i) dense[i] = 0.2 * double(i % 5) - 0.4;
  std::vector<example<double>> xs(steps);
  for (std::size_t i = 0; i < steps; ++i)
    if (i != 2) xs[i].target = target.data() + i * out * lanes;

  struct result {
    std::vector<double> dy, loss, dh, dw;
  };
  const auto run = [&](index_t h_stride, index_t dy_stride) {
    std::vector<double> h(std::size_t(n * h_stride), nan_value), dy(std::size_t(n * dy_stride), nan_value),
        dh = h;
    result q{{}, std::vector<double>(steps, nan_value), {}, std::vector<double>(w.size(), 1)};
    std::vector<double> workspace(std::size_t(r.workspace(steps)), nan_value);
    for (index_t k = 0; k < n; ++k)
      for (index_t i = 0; i < hidden; ++i)
        h[std::size_t(k * h_stride + i)] = dense[std::size_t(k * hidden + i)];
    r.forward(w.data(), {xs.data(), xs.size()}, {h.data(), hidden, n, h_stride},
              {dy.data(), out, n, dy_stride}, q.loss.data());
    r.backward(w.data(), {xs.data(), xs.size()}, {h.data(), hidden, n, h_stride},
               {dy.data(), out, n, dy_stride}, weight.data(), {dh.data(), hidden, n, h_stride}, q.dw.data(),
               workspace.data());
    for (index_t k = 0; k < n; ++k) {
      for (index_t i = 0; i < hidden; ++i) q.dh.push_back(dh[std::size_t(k * h_stride + i)]);
      for (index_t i = 0; i < out; ++i) q.dy.push_back(dy[std::size_t(k * dy_stride + i)]);
      for (index_t i = hidden; i < h_stride; ++i) CHECK(std::isnan(dh[std::size_t(k * h_stride + i)]));
      for (index_t i = out; i < dy_stride; ++i) CHECK(std::isnan(dy[std::size_t(k * dy_stride + i)]));
    }
    return q;
  };
  const auto tight = run(hidden, out), loose = run(stride, tape_stride);
  for (std::size_t i = 0; i < tight.dy.size(); ++i) CHECK(loose.dy[i] == Approx(tight.dy[i]).margin(1e-15));
  for (std::size_t i = 0; i < tight.dh.size(); ++i) CHECK(loose.dh[i] == Approx(tight.dh[i]).margin(1e-15));
  for (std::size_t i = 0; i < tight.dw.size(); ++i) CHECK(loose.dw[i] == Approx(tight.dw[i]).margin(1e-14));

  // against the definition
  for (std::size_t step = 0; step < steps; ++step) {
    double loss = 0;
    for (std::size_t k = step * lanes; k < (step + 1) * lanes; ++k)
      for (std::size_t i = 0; i < out; ++i) {
        const double y = w[6 + i] + w[i] * dense[2 * k] + w[3 + i] * dense[2 * k + 1];
        const double d = step == 2 ? 0 : y - target[k * out + i];
        CHECK(tight.dy[k * out + i] == Approx(d).margin(1e-15));
        loss += d * d / 2;
      }
    CHECK(tight.loss[step] == Approx(loss).margin(1e-15));
  }
  double db = 1;
  for (std::size_t k = 0; k < std::size_t(n); ++k) db += weight[k / lanes] * tight.dy[k * out + 1];
  CHECK(tight.dw[6 + 1] == Approx(db).epsilon(1e-14));
}
