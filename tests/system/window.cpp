#include "unroll/system/window.hpp"

#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/testing/oracle.hpp"

using unroll::index_t;
using unroll::testing::relative_error;

namespace {

// The memory of a window over f, with the forward pass done.
template <class F>
struct memory {
  using T = typename F::scalar;
  std::vector<T> theta, states, tape, loss, workspace;
  unroll::window<T> w;

  memory(const F& f, std::vector<T> p, std::span<const typename F::input> xs) : theta(std::move(p)) {
    const auto d = f.size();
    const auto k = index_t(xs.size());
    states.resize(std::size_t((k + 1) * d.state));
    tape.resize(std::size_t(k * d.tape));
    loss.resize(std::size_t(k));
    workspace.resize(std::size_t(unroll::window_workspace(f, k)));
    unroll::start_state(f, {states.data(), d.state});
    w = {theta, k, states.data(), tape.data(), loss.data(), workspace, 0};
    unroll::window_forward(f, xs, w);
  }
};

std::vector<double> golden_theta() {
  const auto p = golden::theta();
  return {p.begin(), p.end()};
}

}  // namespace

TEST_CASE("a window over the whole sequence gives the golden states, loss and gradient") {
  const golden::rnn<> f;
  const auto xs = golden::inputs();
  memory<golden::rnn<>> m(f, golden_theta(), xs);
  for (std::size_t t = 0; t < 3; ++t)
    for (std::size_t i = 0; i < 2; ++i)
      CHECK(m.states[2 * (t + 1) + i] == Approx(golden::states[t][i]).epsilon(1e-13));
  std::vector<double> ds(2), g(8);
  unroll::window_backward(f, xs, m.w, {}, ds, g);
  CHECK(relative_error(g, golden::gradient) < 1e-14);
}

TEST_CASE("cuts everywhere leave each step alone, and one cut leaves two pieces") {
  const golden::rnn<> f;
  const auto xs = golden::inputs();
  memory<golden::rnn<>> m(f, golden_theta(), xs);
  std::vector<double> ds(2), g(8);
  const std::vector<double> cut{0, 0, 0};
  unroll::window_backward(f, xs, m.w, {nullptr, cut.data()}, ds, g);
  CHECK(relative_error(g, golden::lag_below_1) < 1e-9);  // the constants have ten digits

  std::vector<double> compensated(8);
  ds.assign(2, 0);
  const std::vector<double> artbp{0, 2, 1};  // cut after the first step, survived the second with c = 1/2
  unroll::window_backward(f, xs, m.w, {nullptr, artbp.data()}, ds, compensated);
  CHECK(relative_error(compensated, golden::artbp_cut_1) < 1e-13);
}

TEST_CASE("a cut drops a cotangent that is not finite") {
  const golden::rnn<> f;
  const auto xs = golden::inputs();
  memory<golden::rnn<>> m(f, golden_theta(), xs);
  const std::vector<double> carry{1, 1, 0};
  std::vector<double> ds(2, std::numeric_limits<double>::infinity()), g(8);
  unroll::window_backward(f, xs, m.w, {nullptr, carry.data()}, ds, g);
  CHECK(relative_error(g, golden::gradient) < 1e-14);
}

TEST_CASE("two windows one behind the other equal one, the cotangent passing between them") {
  const support::complete<double> f{3, 2};
  const auto theta = support::complete_theta<double>(3);
  const auto xs = support::complete_inputs<double>(7);
  const std::span<const double> all(xs);
  memory<support::complete<double>> first(f, theta, all.first(3)), second(f, theta, all.subspan(3));
  std::copy(first.states.end() - 6, first.states.end(), second.states.begin());
  unroll::window_forward(f, all.subspan(3), second.w);
  std::vector<double> ds(6), g(9);
  unroll::window_backward(f, all.subspan(3), second.w, {}, ds, g);
  unroll::window_backward(f, all.first(3), first.w, {}, ds, g);
  CHECK(relative_error(g, unroll::testing::backward_gradient(f, theta, xs)) < 1e-14);
}

TEST_CASE("loss weights multiply the local cotangents, and the gradient is added") {
  const golden::rnn<> f;
  const auto xs = golden::inputs();
  memory<golden::rnn<>> m(f, golden_theta(), xs);
  std::vector<double> sum(8, 1.0);
  for (std::size_t t = 0; t < 3; ++t) {
    std::vector<double> weight(3), ds(2);
    weight[t] = 1;
    unroll::window_backward(f, xs, m.w, {weight.data(), nullptr}, ds, sum);
  }
  for (double& v : sum) v -= 1;
  CHECK(relative_error(sum, golden::gradient) < 1e-14);
}

TEST_CASE("the edges of a window lie side by side") {
  const support::complete<double> f{2, 1};
  const auto xs = support::complete_inputs<double>(3);
  memory<support::complete<double>> m(f, support::complete_theta<double>(), xs);
  m.w.t = 10;
  const auto e = unroll::edge_of(f, m.w, 2);
  CHECK(e.s.data() == m.states.data() + 4);
  CHECK(e.next.data() == m.states.data() + 6);
  CHECK(e.tape.data() == m.tape.data() + 4);
  CHECK(e.loss == m.loss.data() + 2);
  CHECK(e.t == 12);
  CHECK(e.workspace.size() == f.size().workspace);
}

TEST_CASE("a window without steps does nothing") {
  const golden::rnn<> f;
  memory<golden::rnn<>> m(f, golden_theta(), {});
  std::vector<double> ds{1, 2}, g(8);
  unroll::window_backward(f, {}, m.w, {}, ds, g);
  CHECK(ds == std::vector<double>{1, 2});
  CHECK(g == std::vector<double>(8));
}
