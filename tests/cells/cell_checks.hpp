#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/bare_system.hpp"
#include "tests/support/catch.hpp"
#include "unroll/cells/example.hpp"
#include "unroll/core/block.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/system/window.hpp"
#include "unroll/testing/system_conformance.hpp"

// What every cell must satisfy. One line checks a cell with options {in, hidden, out, loss, lanes}:
//
//     cell_checks::everything<unroll::cells::elman, unroll::cells::elman_options>();
namespace cell_checks {

using namespace unroll;

enum class inputs { dense, scattered, tokens, mixed };

/// Random examples and the memory they look at.
template <class T>
struct sequence {
  std::vector<cells::example<T>> xs;

  template <class Options>
  sequence(const Options& o, index_t steps, inputs kind, key k)
      : x(size_t(steps * (o.in * o.lanes + 1))),
        target(size_t(steps * width(o) * o.lanes)),
        token(size_t(steps * o.lanes)),
        label(size_t(steps * o.lanes)),
        xs_(size_t(steps)) {
    draw_normals(k, 0, view<T>(x));
    draw_normals(k, 1, view<T>(target));
    for (index_t i = 0; i < steps * o.lanes; ++i) {
      token[size_t(i)] = o.in ? std::int32_t(draw_index(k, 2, o.in, std::uint32_t(i))) : 0;
      label[size_t(i)] = std::int32_t(draw_index(k, 3, width(o) + 1, std::uint32_t(i))) - 1;
      mask.push_back(i % 3 != 1);
    }
    const index_t gap = kind == inputs::scattered ? 1 : 0;  // one number between the x of two steps
    for (index_t i = 0; i < steps; ++i) {
      auto& e = xs_[size_t(i)];
      const bool by_token = kind == inputs::tokens || (kind == inputs::mixed && i % 3 == 1);
      if (o.in > 0 && by_token) e.token = token.data() + i * o.lanes;
      if (o.in > 0 && !by_token) e.x = x.data() + i * (o.in * o.lanes + gap);
      if (steps > 1 && i % 4 == 2) continue;  // a step without loss
      if (o.loss == loss_kind::squared_error) {
        e.target = target.data() + i * width(o) * o.lanes;
        if (i % 3 == 1) e.mask = mask.data() + i * o.lanes;
      } else {
        e.label = label.data() + i * o.lanes;
      }
    }
    xs = xs_;
  }
  sequence(const sequence&) = delete;

  template <class Options>
  static index_t width(const Options& o) {
    return o.out == 0 ? o.hidden : o.out;
  }

 private:
  std::vector<T> x, target;
  std::vector<std::int32_t> token, label;
  std::vector<std::uint8_t> mask;
  std::vector<cells::example<T>> xs_;
};

template <class T>
std::vector<T> normals(index_t n, key k, std::int64_t draw, double size = 1) {
  std::vector<T> v(static_cast<std::size_t>(n));
  draw_normals(k, draw, view<T>(v));
  for (T& x : v) x *= T(size);
  return v;
}
template <class T>
std::vector<T> nans(index_t n) {
  return std::vector<T>(static_cast<std::size_t>(n), std::numeric_limits<T>::quiet_NaN());
}
template <class T>
double dot(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}
/// max |a - b| relative to 1 + max |b|; NaN counts as infinitely far.
template <class A, class B>
double distance(const A& a, const B& b) {
  double far = 0, scale = 1;
  REQUIRE(index_t(a.size()) == index_t(b.size()));
  for (std::size_t i = 0; i < std::size_t(b.size()); ++i) {
    const double d = std::abs(double(a.data()[i]) - double(b.data()[i]));
    if (!(d <= far)) far = d == d ? d : std::numeric_limits<double>::infinity();
    scale = std::max(scale, 1 + std::abs(double(b.data()[i])));
  }
  return far / scale;
}
/// Rounding of sums of some hundred terms of order one.
template <class T>
constexpr double rounding = 1000 * double(std::numeric_limits<T>::epsilon());

/// One edge with its memory. What the step must write starts as NaN.
template <class F>
struct edge_data {
  using T = typename F::scalar;
  const F& f;
  dims d = f.size();
  std::vector<T> theta, s, next = nans<T>(d.state), tape = nans<T>(d.tape), workspace = nans<T>(d.workspace);
  T loss = std::numeric_limits<T>::quiet_NaN();

  edge_data(const F& cell, key k)
      : f(cell), theta(normals<T>(d.params, k, 10, 0.4)), s(normals<T>(d.state, k, 11, 0.5)) {}
  edge<T> view_of() { return {theta, s, next, tape, &loss, workspace}; }
  void step(const typename F::input& x) { f.step(x, view_of()); }
  /// <u, s'> + c loss
  double value(const typename F::input& x, const std::vector<T>& u, T c) {
    step(x);
    return dot(u, next) + double(c) * double(loss);
  }
  void spoil_workspace() {
    std::fill(workspace.begin(), workspace.end(), std::numeric_limits<T>::quiet_NaN());
  }
};

/// vjp and jvp against central differences; vjp adds; empty arguments; <vjp u, v> = <u, jvp v>.
template <class F>
void derivatives(const F& f, const typename F::input& x, key k) {
  using T = typename F::scalar;
  static_assert(std::is_same_v<T, double>);
  edge_data<F> e(f, k);
  const dims d = f.size();
  const auto u = normals<T>(d.state, k, 20);
  const T c = T(0.7);

  e.step(x);
  REQUIRE(std::isfinite(e.loss));
  std::vector<T> ds(size_t(d.state)), dtheta(size_t(d.params));
  e.spoil_workspace();
  f.vjp(x, const_edge<T>(e.view_of()), u, c, ds, dtheta);

  // central differences: h^2/6 f''' + eps |f| / h
  const double h = 1e-5, tolerance = 1e-8;
  edge_data<F> p(f, k);
  const auto difference = [&](T& v) {
    const T before = v;
    v = before + h;
    const double up = p.value(x, u, c);
    v = before - h;
    const double down = p.value(x, u, c);
    v = before;
    return (up - down) / (2 * h);
  };
  std::vector<T> ds_fd, dtheta_fd;
  for (T& v : p.s) ds_fd.push_back(difference(v));
  for (T& v : p.theta) dtheta_fd.push_back(difference(v));
  CHECK(distance(ds, ds_fd) < tolerance);
  CHECK(distance(dtheta, dtheta_fd) < tolerance);

  // adds, and takes empty arguments
  auto ds2 = ds, dtheta2 = dtheta;
  e.spoil_workspace();
  f.vjp(x, const_edge<T>(e.view_of()), u, 0, ds2, {});
  e.spoil_workspace();
  f.vjp(x, const_edge<T>(e.view_of()), {}, c, ds2, {});
  e.spoil_workspace();
  f.vjp(x, const_edge<T>(e.view_of()), u, 0, {}, dtheta2);
  e.spoil_workspace();
  f.vjp(x, const_edge<T>(e.view_of()), {}, c, {}, dtheta2);
  for (T& v : ds) v *= 2;
  for (T& v : dtheta) v *= 2;
  CHECK(distance(ds2, ds) < rounding<T>);
  CHECK(distance(dtheta2, dtheta) < rounding<T>);

  // adjointness; the jvp of each part alone adds up to the jvp of both
  const auto vs = normals<T>(d.state, k, 21), vt = normals<T>(d.params, k, 22);
  auto next = nans<T>(d.state), a = next, b = next;
  T loss = 0, loss_a = 0, loss_b = 0;
  e.spoil_workspace();
  f.jvp(x, const_edge<T>(e.view_of()), vt, vs, next, &loss);
  e.spoil_workspace();
  f.jvp(x, const_edge<T>(e.view_of()), vt, {}, a, &loss_a);
  e.spoil_workspace();
  f.jvp(x, const_edge<T>(e.view_of()), {}, vs, b, &loss_b);
  const double left = (dot(ds, vs) + dot(dtheta, vt)) / 2, right = dot(u, next) + c * loss;
  CHECK(std::abs(left - right) < 1e-12 * (1 + std::abs(left)));
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  CHECK(distance(a, next) < rounding<T>);
  CHECK(std::abs(loss_a + loss_b - loss) < rounding<T> * (1 + std::abs(loss)));
  f.jvp(x, const_edge<T>(e.view_of()), vt, vs, a, nullptr);
  CHECK(distance(a, next) == 0);
}

/// jacobian, immediate, row_norms and lane_vjp against one vjp for each state entry.
template <class F>
void dense_hooks(const F& f, const typename F::input& x, key k) {
  using T = typename F::scalar;
  edge_data<F> e(f, k);
  const dims d = f.size();
  const index_t n = d.state / d.lanes;
  e.step(x);
  const const_edge<T> ce(e.view_of());

  // row i of lane l of ds'/ds and ds'/dtheta, by one vjp each
  std::vector<T> J(size_t(d.lanes * n * n)), M(size_t(d.lanes * n * d.params)), norms(size_t(d.state));
  for (index_t l = 0; l < d.lanes; ++l)
    for (index_t i = 0; i < n; ++i) {
      std::vector<T> u(size_t(d.state)), ds(size_t(d.state)), dtheta(size_t(d.params));
      u[size_t(l * n + i)] = 1;
      e.spoil_workspace();
      f.vjp(x, ce, u, 0, ds, dtheta);
      for (index_t j = 0; j < n; ++j) J[size_t((l * n + j) * n + i)] = ds[size_t(l * n + j)];
      for (index_t p = 0; p < d.params; ++p) M[size_t((l * d.params + p) * n + i)] = dtheta[size_t(p)];
      norms[size_t(l * n + i)] = T(std::sqrt(dot(dtheta, dtheta)));
    }

  if constexpr (has_jacobian<F>) {
    auto got = nans<T>(index_t(J.size()));
    e.spoil_workspace();
    f.jacobian(x, ce, got);
    CHECK(distance(got, J) < rounding<T>);
    std::vector<T> added(M.size(), T(1));
    const index_t cut = d.params / 3;
    e.spoil_workspace();
    f.immediate(x, ce, added, 0, cut);
    e.spoil_workspace();
    f.immediate(x, ce, added, cut, d.params);
    for (T& v : added) v -= 1;
    CHECK(distance(added, M) < rounding<T>);
  }
  if constexpr (has_row_norms<F>) {
    auto got = nans<T>(d.state);
    e.spoil_workspace();
    f.row_norms(x, ce, got);
    CHECK(distance(got, norms) < rounding<T>);
  }
  if constexpr (has_diag_jacobian<F>)
    if (supports(f, hook::diag_jacobian)) {
      const index_t units = f.units(), m = n / units;
      auto got = nans<T>(d.state * m);
      e.spoil_workspace();
      f.diag_jacobian(x, ce, got);
      std::vector<T> own;
      for (index_t l = 0; l < d.lanes; ++l)
        for (index_t b = 0; b < m; ++b)
          for (index_t i = 0; i < n; ++i) own.push_back(J[size_t((l * n + b * units + i % units) * n + i)]);
      CHECK(distance(got, own) < rounding<T>);
      index_t columns = 0, sum = 0;
      for (const weight_matrix& w : f.weight_matrices()) columns += w.columns, sum += w.rows;
      auto a = nans<T>(d.lanes * columns), factor = nans<T>(d.lanes * sum * m);
      e.spoil_workspace();
      f.diag_factors(x, ce, a, factor);
      const T *al = a.data(), *dl = factor.data();
      std::vector<T> product, expected;
      for (index_t l = 0; l < d.lanes; ++l)
        for (const weight_matrix& w : f.weight_matrices()) {
          for (index_t j = 0; j < w.columns; ++j)
            for (index_t i = 0; i < w.rows * m; ++i) {
              const index_t row = i % w.rows, p = w.first + j * w.stride + row;
              product.push_back(dl[i] * al[j]);
              expected.push_back(M[size_t((l * d.params + p) * n + i / w.rows * units + row % units)]);
            }
          al += w.columns, dl += w.rows * m;
        }
      CHECK(distance(product, expected) < rounding<T>);
    }
  if constexpr (has_lane_vjp<F>) {
    const auto u = normals<T>(d.state, k, 30);
    std::vector<T> got(size_t(d.lanes * d.params), T(1)), expected = got;
    for (index_t l = 0; l < d.lanes; ++l) {
      auto ul = std::vector<T>(size_t(d.state));
      std::copy_n(u.begin() + l * n, n, ul.begin() + l * n);
      e.spoil_workspace();
      f.vjp(x, ce, ul, 0, {}, dparams<T>(expected.data() + l * d.params, d.params));
    }
    e.spoil_workspace();
    f.lane_vjp(x, ce, u, got);
    CHECK(distance(got, expected) < rounding<T>);
  }
}

template <class T>
struct window_result {
  std::vector<T> states, tape, loss, ds, dtheta;
};

template <class F>
window_result<typename F::scalar> run_window(const F& f, const std::vector<typename F::input>& xs,
                                             const injection<typename F::scalar>& in,
                                             const std::vector<typename F::scalar>& ds, key k) {
  using T = typename F::scalar;
  const dims d = f.size();
  const index_t steps = index_t(xs.size());
  window_result<T> r{nans<T>((steps + 1) * d.state), nans<T>(steps * d.tape), nans<T>(steps), ds,
                     normals<T>(d.params, k, 42)};
  const auto theta = normals<T>(d.params, k, 40, 0.4), s = normals<T>(d.state, k, 41, 0.5);
  std::copy(s.begin(), s.end(), r.states.begin());
  auto workspace = nans<T>(window_workspace(f, steps));
  const window<T> w{theta, steps, r.states.data(), r.tape.data(), r.loss.data(), workspace, 0};
  window_forward(f, {xs.data(), xs.size()}, w);
  std::fill(workspace.begin(), workspace.end(), std::numeric_limits<T>::quiet_NaN());
  window_backward(f, {xs.data(), xs.size()}, w, in, r.ds, r.dtheta);
  return r;
}

/// A whole window agrees with the same steps one by one, whatever is injected.
template <class F>
void windows(const F& f, const std::vector<typename F::input>& xs, key k) {
  using T = typename F::scalar;
  static_assert(has_window<F>);
  const support::bare<F> g{f};
  const std::size_t n = xs.size();
  auto ds = normals<T>(f.size().state, k, 43);
  std::vector<T> weight(n, T(1)), carry(n, T(1));
  for (std::size_t i = 0; i < n; ++i) {
    if (i % 3 == 1) weight[i] = T(0.25);
    if (i % 5 == 0) weight[i] = 0;
    if (i % 3 == 2) carry[i] = T(1.5);
    if (i % 4 == 1) carry[i] = 0;
  }
  for (const injection<T> in :
       {injection<T>{}, injection<T>{weight.data(), nullptr}, injection<T>{nullptr, carry.data()},
        injection<T>{weight.data(), carry.data()}}) {
    const auto a = run_window(f, xs, in, ds, k), b = run_window(g, xs, in, ds, k);
    CHECK(distance(a.states, b.states) < rounding<T>);
    CHECK(distance(a.tape, b.tape) < rounding<T>);
    CHECK(distance(a.loss, b.loss) < rounding<T>);
    CHECK(distance(a.ds, b.ds) < rounding<T>);
    CHECK(distance(a.dtheta, b.dtheta) < rounding<T>);
  }
  // a cut drops what comes from behind it even where that is not finite
  carry[n - 1] = 0;
  const injection<T> cut{nullptr, carry.data()};
  const auto a = run_window(f, xs, cut, nans<T>(f.size().state), k), b = run_window(f, xs, cut, ds, k);
  CHECK(distance(a.ds, b.ds) == 0);
  CHECK(distance(a.dtheta, b.dtheta) == 0);
}

/// Lanes are independent copies of the cell with one lane; the loss and the gradient are their sums.
template <class F, class Options>
void lanes(const Options& o, const cells::example<typename F::scalar>& x, key k) {
  using T = typename F::scalar;
  const F f(o);
  Options single = o;
  single.lanes = 1;
  const F g(single);
  edge_data<F> e(f, k);
  e.step(x);
  const dims d = f.size();
  const index_t n = d.state / d.lanes, m = d.tape / d.lanes;
  std::vector<T> dtheta(size_t(d.params)), expected = dtheta;
  f.vjp(x, const_edge<T>(e.view_of()), {}, 1, {}, dtheta);
  T loss = 0;
  std::vector<T> next(size_t(d.state)), tape(size_t(d.tape));
  for (index_t l = 0; l < o.lanes; ++l) {
    auto part = x;
    if (x.x) part.x = x.x + l * o.in;
    if (x.token) part.token = x.token + l;
    if (x.target) part.target = x.target + l * sequence<T>::width(o);
    if (x.label) part.label = x.label + l;
    edge_data<F> lane(g, k);
    lane.theta = e.theta;
    std::copy_n(e.s.begin() + l * n, n, lane.s.begin());
    lane.step(part);
    g.vjp(part, const_edge<T>(lane.view_of()), {}, 1, {}, expected);
    loss += lane.loss;
    std::copy(lane.next.begin(), lane.next.end(), next.begin() + l * n);
    std::copy(lane.tape.begin(), lane.tape.end(), tape.begin() + l * m);
  }
  CHECK(distance(e.next, next) < rounding<T>);
  CHECK(distance(e.tape, tape) < rounding<T>);
  CHECK(std::abs(e.loss - loss) < rounding<T> * (1 + std::abs(loss)));
  CHECK(distance(dtheta, expected) < rounding<T>);
}

/// Non-finite numbers are told apart from invalid examples.
template <class F, class Options>
void bad_inputs(Options o) {
  using T = typename F::scalar;
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  o.in = 2;
  o.out = 3;
  o.lanes = 2;
  std::vector<T> x(4, T(1)), target(6, T(1));
  std::vector<std::int32_t> token{0, 1}, label{2, -1};

  o.loss = loss_kind::squared_error;
  const F squared(o);
  const cells::example<T> dense{x.data(), target.data(), nullptr, nullptr};
  CHECK(squared.finite(dense));
  CHECK(squared.finite({x.data(), nullptr, nullptr, nullptr}));
  CHECK(squared.finite({nullptr, nullptr, token.data(), nullptr}));
  x[3] = nan;
  CHECK_FALSE(squared.finite(dense));
  x[3] = 1;
  target[5] = -infinity;
  CHECK_FALSE(squared.finite(dense));
  CHECK_THROWS_AS(squared.finite({nullptr, target.data(), nullptr, nullptr}), error);
  CHECK_THROWS_AS(squared.finite({x.data(), nullptr, token.data(), nullptr}), error);
  CHECK_THROWS_AS(squared.finite({x.data(), nullptr, nullptr, label.data()}), error);
  CHECK(squared.finite({.x = x.data(), .lanes = 2}));
  CHECK_THROWS_AS(squared.finite({.x = x.data(), .lanes = 1}), error);

  o.loss = loss_kind::cross_entropy;
  const F entropy(o);
  const cells::example<T> tokens{nullptr, nullptr, token.data(), label.data()};
  CHECK(entropy.finite(tokens));
  CHECK_THROWS_AS(entropy.finite({nullptr, target.data(), token.data(), nullptr}), error);
  token[1] = 2;
  CHECK_THROWS_AS(entropy.finite(tokens), error);
  token[1] = -1;
  CHECK_THROWS_AS(entropy.finite(tokens), error);
  token[1] = 1;
  label[0] = 3;
  CHECK_THROWS_AS(entropy.finite(tokens), error);
}

template <class F, class Options>
void options_and_parameters(const Options& o) {
  using T = typename F::scalar;
  const auto with = [&](auto change) {
    Options bad = o;
    change(bad);
    return bad;
  };
  CHECK_THROWS_AS(F(with([](Options& b) { b.in = -1; })), error);
  CHECK_THROWS_AS(F(with([](Options& b) { b.hidden = 0; })), error);
  CHECK_THROWS_AS(F(with([](Options& b) { b.out = -1; })), error);
  CHECK_THROWS_AS(F(with([](Options& b) { b.lanes = 0; })), error);

  const F f(with([](Options& b) { b.hidden = 4, b.in = 3, b.out = 2; }));
  const auto l = f.layout();
  REQUIRE(l.size() == f.size().params);
  CHECK(l.at("w_y").rows == 2);
  CHECK(l.at("w_y").cols == 4);
  CHECK(l.at("b_y").offset + l.at("b_y").size() == l.size());
  parameters<T> theta(l.size()), again(l.size());
  f.init(theta, key{1});
  f.init(again, key{1});
  CHECK(std::equal(theta.begin(), theta.end(), again.begin()));
  CHECK(std::all_of(theta.begin(), theta.end(), [](T v) { return std::abs(v) <= T(0.5); }));
  CHECK(std::any_of(theta.begin(), theta.end(), [](T v) { return v < T(-0.2); }));
  CHECK(std::any_of(theta.begin(), theta.end(), [](T v) { return v > T(0.2); }));
  parameters<T> wrong(l.size() + 1);
  CHECK_THROWS_AS(f.init(wrong, key{1}), error);
}

template <template <class> class Cell, class Options>
void everything() {
  options_and_parameters<Cell<double>>(Options{});
  bad_inputs<Cell<float>>(Options{});
  bad_inputs<Cell<double>>(Options{});
  std::uint64_t seed = 1;
  for (const index_t lane_count : {1, 2, 5})
    for (const index_t in : {0, 3})
      for (const index_t out : {0, 1, 4})
        for (const auto loss : {loss_kind::squared_error, loss_kind::cross_entropy})
          for (const auto kind : {inputs::dense, inputs::scattered, inputs::tokens, inputs::mixed}) {
            if (in == 0 && kind != inputs::dense) continue;
            Options o;
            o.in = in;
            o.hidden = 3;
            o.out = out;
            o.loss = loss;
            o.lanes = lane_count;
            INFO("in " << in << ", out " << out << ", lanes " << lane_count << ", loss " << int(loss)
                       << ", inputs " << int(kind));
            const key k{seed++};
            const sequence<double> one(o, 1, kind, k), many(o, 11, kind, k);
            const sequence<float> many_float(o, 11, kind, k);
            const Cell<double> f(o);
            derivatives(f, one.xs[0], k);
            dense_hooks(f, one.xs[0], k);
            lanes<Cell<double>>(o, one.xs[0], k);
            windows(f, many.xs, k);
            windows(Cell<float>(o), many_float.xs, k);
          }
}

/// That a window of one lane, wider and longer than those of everything(), agrees with its steps.
template <template <class> class Cell, class Options>
void long_window() {
  const Options o{.in = 3, .hidden = 37, .out = 2};
  const sequence<double> data(o, 20, inputs::dense, key{8});
  windows(Cell<double>(o), data.xs, key{9});
}

/// The library's own conformance check of a system, in double and in float.
template <template <class> class Cell, class Options>
void conforms() {
  const auto complaints = []<class T>(T) {
    const Options o{.in = 2, .hidden = 5, .out = 3, .lanes = 3};
    const sequence<T> data(o, 6, inputs::dense, key{10});
    const Cell<T> cell(o);
    parameters<T> theta(cell.size().params);
    cell.init(theta, key{11});
    return testing::system_conformance(cell, theta, {data.xs.data(), data.xs.size()});
  };
  CHECK(complaints(double{}) == std::vector<std::string>{});
  CHECK(complaints(float{}) == std::vector<std::string>{});
}

/// That two cells with options `o` are the same function, with the same vjp.
template <class F, class G, class Options>
void same_function(const F& f, const G& g, const Options& o) {
  REQUIRE(f.size().params == g.size().params);
  const sequence<double> data(o, 1, inputs::dense, key{5});
  edge_data a(f, key{6});
  edge_data b(g, key{6});
  a.step(data.xs[0]);
  b.step(data.xs[0]);
  CHECK(a.loss == Approx(b.loss).epsilon(1e-14));
  CHECK(distance(a.next, b.next) < 1e-14);

  const auto u = normals<double>(f.size().state, key{7}, 0);
  std::vector<double> ds(u.size()), ds_g(u.size()), dtheta(a.theta.size()), dtheta_g(a.theta.size());
  f.vjp(data.xs[0], a.view_of(), u, 0.5, ds, dtheta);
  g.vjp(data.xs[0], b.view_of(), u, 0.5, ds_g, dtheta_g);
  CHECK(distance(ds, ds_g) < 1e-14);
  CHECK(distance(dtheta, dtheta_g) < 1e-14);
}

}  // namespace cell_checks
