// The library against the loop one would write by hand for one cell, with Eigen: forward and backward through
// 100 steps, loss 1/2 ||h - y||^2, input as wide as the state. Both sides alternate within one row; the
// counter `ratio` is the median of hand / ours over the pairs (1: the generality costs nothing). In the rows
// of window/, cells with their window passes against themselves step by step: `ratio` is steps / windows.
// Arguments of a row: hidden units, lanes.
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <unroll/cells/elman.hpp>
#include <unroll/cells/gru.hpp>
#include <unroll/cells/lru.hpp>
#include <unroll/cells/lstm.hpp>
#include <unroll/cells/min_gru.hpp>
#include <unroll/cells/rtu.hpp>
#include <unroll/estimate/bptt.hpp>

#include <algorithm>
#include <ctime>
#include <string>
#include <vector>

using namespace unroll;

namespace {

constexpr index_t steps = 100;

template <class T>
using mat = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
template <class T>
using vec = Eigen::Matrix<T, Eigen::Dynamic, 1>;
template <class T>
using map = Eigen::Map<const mat<T>>;

template <class D>
auto sigmoid(const D& x) {
  return x.array().logistic();
}

/// What the three loops below share: weights as the library lays them out, gradients, the input projection.
template <class T>
struct hand {
  index_t h, b, gates;
  mat<T> w_h, w_x, w_ht, dw_h, dw_x, z, dz, states, dh;
  vec<T> bias, dbias;

  hand(index_t hidden, index_t lanes, index_t gates_, const T* theta)
      : h(hidden),
        b(lanes),
        gates(gates_),
        w_h(map<T>(theta, gates * h, h)),
        w_x(map<T>(theta + gates * h * h, gates * h, h)),
        w_ht(w_h.transpose()),
        dw_h(gates * h, h),
        dw_x(gates * h, h),
        z(gates * h, b * steps),
        dz(gates * h, b * steps),
        states(mat<T>::Zero(h, b * (steps + 1))),
        dh(h, b),
        bias(map<T>(theta + 2 * gates * h * h, gates * h, 1)),
        dbias(gates * h) {}
  auto at(mat<T>& m, index_t t) { return m.middleCols(t * b, b); }
  void project(const map<T>& x) {
    z.noalias() = w_x * x;
    z.colwise() += bias;
  }
  void collect(const map<T>& x, const mat<T>& d) {
    dw_h.noalias() = d * states.leftCols(b * steps).transpose();
    dw_x.noalias() = dz * x.transpose();
    dbias = dz.rowwise().sum();
  }
};

template <class T>
struct hand_elman : hand<T> {
  using hand<T>::hand;
  static constexpr index_t gate_count = 1;
  void run(const map<T>& x, const map<T>& y) {
    auto& q = *this;
    q.project(x);
    for (index_t t = 0; t < steps; ++t) {
      q.at(q.z, t).noalias() += q.w_h * q.at(q.states, t);
      q.at(q.states, t + 1) = q.at(q.z, t).array().tanh();
    }
    q.dh.setZero();
    for (index_t t = steps - 1; t >= 0; --t) {
      const auto s = q.at(q.states, t + 1);
      q.dh += s - y.middleCols(t * q.b, q.b);
      q.at(q.dz, t) = q.dh.array() * (1 - s.array().square());
      q.dh.noalias() = q.w_ht * q.at(q.dz, t);
    }
    q.collect(x, q.dz);
  }
};

template <class T>
struct hand_gru : hand<T> {
  static constexpr index_t gate_count = 3;
  mat<T> u, du;
  vec<T> b_hn;
  hand_gru(index_t hidden, index_t lanes, index_t count, const T* theta)
      : hand<T>(hidden, lanes, count, theta),
        u(3 * hidden, lanes * steps),
        du(3 * hidden, lanes * steps),
        b_hn(map<T>(theta + 6 * hidden * hidden + 3 * hidden, hidden, 1)) {}
  void run(const map<T>& x, const map<T>& y) {
    auto& q = *this;
    const index_t n = q.h;
    q.project(x);
    for (index_t t = 0; t < steps; ++t) {
      auto gate = q.at(q.z, t);
      auto u_t = q.at(q.u, t);
      const auto s = q.at(q.states, t);
      u_t.noalias() = q.w_h * s;
      u_t.bottomRows(n).colwise() += q.b_hn;
      gate.topRows(2 * n) = sigmoid(gate.topRows(2 * n) + u_t.topRows(2 * n));
      gate.bottomRows(n) =
          (gate.bottomRows(n).array() + gate.topRows(n).array() * u_t.bottomRows(n).array()).tanh();
      q.at(q.states, t + 1) = gate.bottomRows(n).array() +
                              gate.middleRows(n, n).array() * (s.array() - gate.bottomRows(n).array());
    }
    q.dh.setZero();
    for (index_t t = steps - 1; t >= 0; --t) {
      const auto gate = q.at(q.z, t);
      auto d = q.at(q.dz, t);
      auto e = q.at(q.du, t);
      const auto s = q.at(q.states, t);
      const auto r = gate.topRows(n).array(), g = gate.middleRows(n, n).array(),
                 c = gate.bottomRows(n).array();
      q.dh += q.at(q.states, t + 1) - y.middleCols(t * q.b, q.b);
      d.bottomRows(n) = q.dh.array() * (1 - g) * (1 - c.square());
      d.middleRows(n, n) = q.dh.array() * (s.array() - c) * g * (1 - g);
      d.topRows(n) = d.bottomRows(n).array() * q.at(q.u, t).bottomRows(n).array() * r * (1 - r);
      e.topRows(2 * n) = d.topRows(2 * n);
      e.bottomRows(n) = d.bottomRows(n).array() * r;
      q.dh.array() *= g;
      q.dh.noalias() += q.w_ht * e;
    }
    q.collect(x, q.du);
  }
};

template <class T>
struct hand_lstm : hand<T> {
  static constexpr index_t gate_count = 4;
  mat<T> c, tc, dc;
  hand_lstm(index_t hidden, index_t lanes, index_t count, const T* theta)
      : hand<T>(hidden, lanes, count, theta),
        c(mat<T>::Zero(hidden, lanes * (steps + 1))),
        tc(hidden, lanes * steps),
        dc(hidden, lanes) {}
  void run(const map<T>& x, const map<T>& y) {
    auto& q = *this;
    const index_t n = q.h;
    q.project(x);
    for (index_t t = 0; t < steps; ++t) {
      auto gate = q.at(q.z, t);
      gate.noalias() += q.w_h * q.at(q.states, t);
      gate.topRows(2 * n) = sigmoid(gate.topRows(2 * n)).eval();
      gate.middleRows(2 * n, n) = gate.middleRows(2 * n, n).array().tanh();
      gate.bottomRows(n) = sigmoid(gate.bottomRows(n)).eval();
      q.at(q.c, t + 1) = gate.middleRows(n, n).array() * q.at(q.c, t).array() +
                         gate.topRows(n).array() * gate.middleRows(2 * n, n).array();
      q.at(q.tc, t) = q.at(q.c, t + 1).array().tanh();
      q.at(q.states, t + 1) = gate.bottomRows(n).array() * q.at(q.tc, t).array();
    }
    q.dh.setZero();
    q.dc.setZero();
    for (index_t t = steps - 1; t >= 0; --t) {
      const auto gate = q.at(q.z, t);
      auto d = q.at(q.dz, t);
      const auto i = gate.topRows(n).array(), f = gate.middleRows(n, n).array(),
                 g = gate.middleRows(2 * n, n).array(), o = gate.bottomRows(n).array();
      const auto th = q.at(q.tc, t).array();
      q.dh += q.at(q.states, t + 1) - y.middleCols(t * q.b, q.b);
      q.dc.array() += q.dh.array() * o * (1 - th.square());
      d.topRows(n) = q.dc.array() * g * i * (1 - i);
      d.middleRows(n, n) = q.dc.array() * q.at(q.c, t).array() * f * (1 - f);
      d.middleRows(2 * n, n) = q.dc.array() * i * (1 - g.square());
      d.bottomRows(n) = q.dh.array() * th * o * (1 - o);
      q.dc.array() *= f;
      q.dh.noalias() = q.w_ht * d;
    }
    q.collect(x, q.dz);
  }
};

/// Sequences of a row, and the library's bptt on them.
template <class Cell>
struct task {
  using T = typename Cell::scalar;
  index_t h, b;
  Cell cell{{.in = h, .hidden = h, .out = 0, .lanes = b}};
  parameters<T> theta{cell.size().params};
  gradient<T> g{theta.size()};
  std::vector<T> x = std::vector<T>(std::size_t(steps * h * b)), y = x;
  std::vector<cells::example<T>> xs;

  task(index_t hidden, index_t lanes) : h(hidden), b(lanes) {
    cell.init(theta, key{1});
    draw_normals(key{2}, 0, view<T>(x));
    draw_normals(key{3}, 0, view<T>(y));
    for (index_t t = 0; t < steps; ++t)
      xs.push_back({.x = x.data() + t * h * b, .target = y.data() + t * h * b});
  }
  template <class Estimator>
  void run(Estimator& e) {
    g.zero();
    e.reset(key{});
    e.advance(theta, xs, g);
    e.finish(theta, g);
  }
};

/// Times `ours` and `other` in turns: microseconds of a step of ours, and the ratio other / ours.
template <class Ours, class Other>
void compare(benchmark::State& state, const Ours& ours, const Other& other) {
  const auto once = [](const auto& f, int n) {
    const std::clock_t start = std::clock();  // processor time: what else runs does not count
    for (int i = 0; i < n; ++i) f();
    return double(std::clock() - start) / CLOCKS_PER_SEC / n;
  };
  const int n = std::max(1, int(4e-3 / once(ours, 20)));
  std::vector<double> ratios, seconds;
  for (auto _ : state) {
    const double a = once(ours, n), c = once(other, n);
    ratios.push_back(c / a);
    seconds.push_back(a);
  }
  const auto median = [](std::vector<double>& v) {
    std::nth_element(v.begin(), v.begin() + std::ptrdiff_t(v.size() / 2), v.end());
    return v[v.size() / 2];
  };
  state.counters["us/step"] = median(seconds) / steps * 1e6;
  state.counters["ratio"] = median(ratios);
  state.counters["low"] = *std::min_element(ratios.begin(), ratios.end());
  state.counters["high"] = *std::max_element(ratios.begin(), ratios.end());
}

template <class T>
bool near(map<T> a, map<T> b) {
  return double((a - b).norm()) <= (sizeof(T) == 4 ? 1e-4 : 1e-11) * double(b.norm());
}

template <class Cell, class Hand>
void against_hand(benchmark::State& state) {
  using T = typename Cell::scalar;
  task<Cell> of(state.range(0), state.range(1));
  const index_t h = of.h, columns = of.b * steps, rows = Hand::gate_count * h;
  bptt ours(of.cell, {.max_steps = steps});
  Hand hand(h, of.b, Hand::gate_count, of.theta.data());
  const auto run_ours = [&] { of.run(ours); };
  const auto run_hand = [&] { hand.run(map<T>(of.x.data(), h, columns), map<T>(of.y.data(), h, columns)); };
  run_ours();
  run_hand();
  if (!near<T>({of.g.data(), rows, h}, {hand.dw_h.data(), rows, h}))
    return state.SkipWithError("the two gradients differ");
  compare(state, run_ours, run_hand);
}

/// A cell without its window passes: what takes windows then calls step and vjp.
template <class Cell>
struct step_by_step : Cell {
  using Cell::Cell;
  void forward() const = delete;
};

template <class Cell>
void against_steps(benchmark::State& state) {
  static_assert(has_window<Cell> && !has_window<step_by_step<Cell>>);
  using T = typename Cell::scalar;
  task<Cell> of(state.range(0), state.range(1));
  bptt windows(of.cell, {.max_steps = steps});
  bptt single(step_by_step<Cell>(of.cell.options()), {.max_steps = steps});
  const auto run_windows = [&] { of.run(windows); };
  const auto run_single = [&] { of.run(single); };
  run_windows();
  const gradient<T> g = of.g;
  run_single();
  if (!near<T>({g.data(), g.size(), 1}, {of.g.data(), g.size(), 1}))
    return state.SkipWithError("the two gradients differ");
  compare(state, run_windows, run_single);
}

void add(const std::string& name, void (*run)(benchmark::State&), const std::vector<index_t>& units) {
  auto* row = benchmark::RegisterBenchmark(name.c_str(), run);
  for (index_t h : units)
    for (index_t b : {1, 32}) row->Args({h, b});
  row->Iterations(9)->Unit(benchmark::kMillisecond);
}

template <class Cell, class Hand>
void add_hand(const std::string& name) {
  add(name, against_hand<Cell, Hand>, {16, 64, 256, 1024});
}
template <class Cell>
void add_windows(const std::string& name) {
  add("window/" + name, against_steps<Cell>, {16, 64, 256});
}

}  // namespace

int main(int argc, char** argv) {
  add_hand<cells::elman<float>, hand_elman<float>>("elman/f32");
  add_hand<cells::gru<float>, hand_gru<float>>("gru/f32");
  add_hand<cells::lstm<float>, hand_lstm<float>>("lstm/f32");
  add_hand<cells::elman<double>, hand_elman<double>>("elman/f64");
  add_hand<cells::gru<double>, hand_gru<double>>("gru/f64");
  add_hand<cells::lstm<double>, hand_lstm<double>>("lstm/f64");
  add_windows<cells::elman<float>>("elman/f32");
  add_windows<cells::lstm<float>>("lstm/f32");
  add_windows<cells::lru<float>>("lru/f32");
  add_windows<cells::rtu<float>>("rtu/f32");
  add_windows<cells::min_gru<float>>("min_gru/f32");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
