#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "unroll/rng/draw.hpp"
#include "unroll/system/window.hpp"
#include "unroll/testing/guarded.hpp"
#include "unroll/testing/structure_conformance.hpp"

namespace unroll::testing {

struct system_conformance_options {
  key randomness{1};           ///< of the directions in which derivatives are tried
  index_t steps = 3;           ///< how many steps of the sequence are examined
  bool finite_at_zero = true;  ///< step, vjp and jvp must be finite at theta = 0, s = 0
  double rounding = 256;       ///< two ways to the same number may differ by this many epsilons
  double smoothness = 100;     ///< central differences may be wrong by this many epsilon^(2/3)
};

namespace detail {

template <class F>
class system_checks {
 public:
  using T = typename F::scalar;
  using X = typename F::input;
  using vec = std::vector<T>;

  system_checks(const F& f, params<const T> theta, std::span<const X> xs, const system_conformance_options& o)
      : f_(f), d_(f.size()), theta_(theta.begin(), theta.end()), xs_(xs), o_(o) {}

  std::vector<std::string> run() {
    check_sizes();
    if (!failures_.empty()) return failures_;
    vec s(n());
    start_state(f_, state<T>(s));
    expect(finite(s), "start: writes a state that is not finite");
    for (t_ = 0; t_ < std::min(o_.steps, index_t(xs_.size())); ++t_) {
      where_ = "step " + std::to_string(t_) + ": ";
      const X& x = xs_[std::size_t(t_)];
      expect(finite_input(f_, x), "finite: refuses an input of the sequence");
      check_step(x, s);
      expect(scored_losses(f_, x) > 0 || make(x, theta_, s).loss.values() == vec{0},
             "scored: counts no loss in a step that has one");
      if (supports(f_, hook::vjp)) check_vjp(x, s);
      if (supports(f_, hook::jvp)) check_jvp(x, s);
      if (supports(f_, hook::vjp) && supports(f_, hook::jvp)) check_adjoint(x, s);
      check_hooks(x, s);
      s = make(x, theta_, s).next.values();
      if (!finite(s)) break;
    }
    where_.clear();
    if (supports(f_, hook::window)) check_window();
    if (o_.finite_at_zero) check_zero();
    return failures_;
  }

 private:
  // One step and its memory.
  struct place {
    vec theta, s;
    guarded<T> next, tape, loss, workspace;
    std::int64_t t;
    edge<T> at() { return {theta, s, next, tape, loss.data(), view<T>(workspace), t}; }
    bool intact() const { return next.intact() && tape.intact() && loss.intact() && workspace.intact(); }
  };
  struct cotangents {
    vec ds, dtheta;
  };
  struct tangents {
    vec dnext;
    T dloss;
  };

  std::size_t n() const { return std::size_t(d_.state); }
  std::size_t p() const { return std::size_t(d_.params); }
  static constexpr double eps = std::numeric_limits<T>::epsilon();
  static constexpr T poison = std::numeric_limits<T>::quiet_NaN();

  void expect(bool good, const std::string& what) {
    if (!good) failures_.push_back(where_ + what);
  }
  bool close(const vec& a, const vec& b, double scale = 0) const {
    return detail::close(a, b, o_.rounding * eps, scale);
  }
  vec random(std::size_t size) {
    vec v(size);
    draw_normals(o_.randomness, draws_++, view<T>(v));
    return v;
  }

  place make(const X& x, const vec& theta, const vec& s, T garbage = poison) const {
    return make(f_, x, theta, s, garbage);
  }
  place make(const F& f, const X& x, const vec& theta, const vec& s, T garbage) const {
    place e{theta,
            s,
            guarded<T>(d_.state, garbage),
            guarded<T>(d_.tape, garbage),
            guarded<T>(1, garbage),
            guarded<T>(d_.workspace, garbage),
            t_};
    f.step(x, e.at());
    return e;
  }
  cotangents vjp(const X& x, place& e, const vec& dnext, T dloss, T garbage = poison) const {
    return vjp(x, e, dnext, dloss, {vec(n()), vec(p())}, garbage);
  }
  // Adds to `into`; an empty part of it is not asked for.
  cotangents vjp(const X& x, place& e, const vec& dnext, T dloss, cotangents into, T garbage = poison) const {
    e.workspace.fill(garbage);
    if constexpr (has_vjp<F>)
      f_.vjp(x, const_edge<T>(e.at()), dstate<const T>(dnext), dloss, dstate<T>(into.ds),
             dparams<T>(into.dtheta));
    return into;
  }
  tangents jvp(const X& x, place& e, const vec& dtheta, const vec& ds, T garbage = poison) const {
    e.workspace.fill(garbage);
    tangents r{vec(n(), garbage), garbage};
    if constexpr (has_jvp<F>)
      f_.jvp(x, const_edge<T>(e.at()), params_tangent<const T>(dtheta), state_tangent<const T>(ds),
             state_tangent<T>(r.dnext), &r.dloss);
    return r;
  }

  void check_sizes() {
    expect(d_.params >= 0 && d_.tape >= 0 && d_.workspace >= 0, "size: a size is negative");
    expect(d_.state > 0, "size: the state is empty");
    expect(d_.lanes > 0 && d_.state % std::max(d_.lanes, index_t(1)) == 0,
           "size: the lanes do not divide the state");
    expect(index_t(theta_.size()) == d_.params,
           "theta: has size " + std::to_string(theta_.size()) + ", not " + std::to_string(d_.params));
    expect(!xs_.empty(), "xs: no inputs to try");
  }

  void check_step(const X& x, const vec& s) {
    place a = make(x, theta_, s), b = make(x, theta_, s, T(3)), c = make(F(f_), x, theta_, s, T(3));
    const auto same = [](const place& l, const place& r) {
      return same_bits(l.next.values(), r.next.values()) && same_bits(l.loss.values(), r.loss.values());
    };
    expect(same(a, b), "step: the result depends on what was in next, tape, loss or workspace before");
    expect(same(b, c), "step: a copy of the system gives other bits");
    expect(same(b, make(x, theta_, s, T(3))), "step: the same input gives other bits the second time");
    expect(a.intact(), "step: writes outside its memory");
  }

  void check_vjp(const X& x, const vec& s) {
    place e = make(x, theta_, s);
    const vec u = random(n());
    const T dloss = T(0.7);
    const cotangents r = vjp(x, e, u, dloss), again = vjp(x, e, u, dloss, T(3));
    expect(e.intact(), "vjp: writes outside its workspace");
    expect(same_bits(r.ds, again.ds) && same_bits(r.dtheta, again.dtheta),
           "vjp: the same input gives other bits the second time, or reads old workspace");

    cotangents base{random(n()), random(p())};
    const cotangents sum = vjp(x, e, u, dloss, base);
    for (std::size_t i = 0; i < n(); ++i) base.ds[i] += r.ds[i];
    for (std::size_t i = 0; i < p(); ++i) base.dtheta[i] += r.dtheta[i];
    expect(close(sum.ds, base.ds), "vjp: does not add to ds");
    expect(close(sum.dtheta, base.dtheta), "vjp: does not add to dtheta");

    const cotangents only_s = vjp(x, e, u, dloss, {vec(n()), {}});
    const cotangents only_theta = vjp(x, e, u, dloss, {{}, vec(p())});
    expect(close(only_s.ds, r.ds), "vjp: ds changes when dtheta is empty");
    expect(close(only_theta.dtheta, r.dtheta), "vjp: dtheta changes when ds is empty");
    const cotangents zero = vjp(x, e, vec(n()), dloss), empty = vjp(x, e, {}, dloss);
    expect(close(empty.ds, zero.ds) && close(empty.dtheta, zero.dtheta),
           "vjp: an empty dnext is not the same as zero");
    const cotangents loss_less = vjp(x, e, {}, T(0));
    expect(largest(loss_less.ds) == 0 && largest(loss_less.dtheta) == 0,
           "vjp: is not zero for dnext empty and dloss 0");

    place moved = make(x, theta_, s, T(3));
    (void)make(x, theta_, moved.next.values());  // another step in between must leave no trace
    const cotangents later = vjp(x, moved, u, dloss);
    expect(same_bits(later.ds, r.ds) && same_bits(later.dtheta, r.dtheta),
           "vjp: reads more than its edge: the result changes after another step");

    const index_t lane = d_.state / d_.lanes;
    for (index_t l = 0; d_.lanes > 1 && l < d_.lanes; ++l) {
      const vec ds = vjp(x, e, of_lane(u, l), T(0)).ds;
      vec others(ds);
      std::fill_n(others.begin() + l * lane, lane, T(0));
      expect(largest(others) == 0, "vjp: the state of lane " + std::to_string(l) + " depends on other lanes");
    }
    check_differences(x, s, [&](const vec& dtheta, const vec& ds, const vec& dnext, double d_loss) {
      const double mine = dot(r.ds, ds) + dot(r.dtheta, dtheta);
      const double theirs = dot(u, dnext) + double(dloss) * d_loss;
      expect(std::abs(mine - theirs) <= smooth(length(u) * (1 + length(dnext)) + std::abs(d_loss)),
             "vjp: along a direction " + std::to_string(mine) + ", central differences " +
                 std::to_string(theirs));
    });
  }

  void check_jvp(const X& x, const vec& s) {
    place e = make(x, theta_, s);
    const vec dtheta = random(p()), ds = random(n());
    const tangents r = jvp(x, e, dtheta, ds), again = jvp(x, e, dtheta, ds, T(3));
    expect(e.intact(), "jvp: writes outside its workspace");
    expect(same_bits(r.dnext, again.dnext) && same_bits(vec{r.dloss}, vec{again.dloss}),
           "jvp: must write its results, whatever was there or in workspace before");
    const tangents no_s = jvp(x, e, dtheta, {}), zero_s = jvp(x, e, dtheta, vec(n()));
    const tangents no_theta = jvp(x, e, {}, ds), zero_theta = jvp(x, e, vec(p()), ds);
    expect(close(no_s.dnext, zero_s.dnext) && close({no_s.dloss}, {zero_s.dloss}),
           "jvp: an empty ds is not the same as zero");
    expect(close(no_theta.dnext, zero_theta.dnext) && close({no_theta.dloss}, {zero_theta.dloss}),
           "jvp: an empty dtheta is not the same as zero");
    if constexpr (has_jvp<F>) {
      vec dnext(n(), poison);
      f_.jvp(x, const_edge<T>(e.at()), params_tangent<const T>(dtheta), state_tangent<const T>(ds),
             state_tangent<T>(dnext), nullptr);
      expect(close(dnext, r.dnext), "jvp: dnext changes when dloss is null");
    }
    check_differences(x, s, [&](const vec& v, const vec& w, const vec& dnext, double d_loss) {
      const tangents mine = jvp(x, e, v, w);
      double worst = std::abs(double(mine.dloss) - d_loss), scale = std::abs(d_loss) + std::abs(loss_);
      for (std::size_t i = 0; i < n(); ++i)
        worst = std::max(worst, std::abs(double(mine.dnext[i]) - double(dnext[i])));
      expect(worst <= smooth(1 + scale + largest(dnext) + largest(s)),
             "jvp: differs from central differences by " + std::to_string(worst));
    });
  }

  // Calls check(dtheta, ds, dnext, dloss) for a direction in theta and s together, in theta and in s alone.
  template <class Check>
  void check_differences(const X& x, const vec& s, Check&& check) {
    for (int kind = 0; kind < 3; ++kind) {
      vec dtheta = random(p()), ds = random(n());
      if (kind == 1) ds.assign(n(), T(0));
      if (kind == 2) dtheta.assign(p(), T(0));
      const double size = std::sqrt(dot(dtheta, dtheta) + dot(ds, ds));
      if (size == 0) continue;
      for (T& v : dtheta) v = T(double(v) / size);
      for (T& v : ds) v = T(double(v) / size);
      const double h = std::cbrt(eps) * std::max({1.0, largest(theta_), largest(s)});
      const auto moved = [&](double step) {
        vec theta(theta_), at(s);
        for (std::size_t i = 0; i < p(); ++i) theta[i] = T(double(theta[i]) + step * double(dtheta[i]));
        for (std::size_t i = 0; i < n(); ++i) at[i] = T(double(at[i]) + step * double(ds[i]));
        return make(x, theta, at);
      };
      const place up = moved(h), down = moved(-h);
      vec dnext = up.next.values();
      for (std::size_t i = 0; i < n(); ++i)
        dnext[i] = T((double(dnext[i]) - double(down.next.data()[i])) / (2 * h));
      loss_ = double(*up.loss.data());
      check(dtheta, ds, dnext, (loss_ - double(*down.loss.data())) / (2 * h));
    }
  }
  double smooth(double scale) const { return o_.smoothness * std::pow(eps, 2.0 / 3) * (1 + scale); }

  void check_adjoint(const X& x, const vec& s) {
    place e = make(x, theta_, s);
    for (int trial = 0; trial < 3; ++trial) {
      const vec u = random(n()), dtheta = random(p()), ds = random(n());
      const T dloss = T(trial) - T(0.5);
      const cotangents back = vjp(x, e, u, dloss);
      const tangents forth = jvp(x, e, dtheta, ds);
      const double left = dot(back.ds, ds) + dot(back.dtheta, dtheta);
      const double right = dot(u, forth.dnext) + double(dloss) * double(forth.dloss);
      const double scale = length(back.ds) * length(ds) + length(back.dtheta) * length(dtheta) +
                           length(u) * length(forth.dnext) + std::abs(double(dloss) * double(forth.dloss));
      expect(std::abs(left - right) <= o_.rounding * eps * scale,
             "vjp and jvp are not adjoint: " + std::to_string(left) + " and " + std::to_string(right));
    }
  }

  // `u` in lane l, zero elsewhere.
  vec of_lane(const vec& u, index_t l) const {
    const index_t lane = d_.state / d_.lanes;
    vec masked(u.size());
    std::copy_n(u.begin() + l * lane, lane, masked.begin() + l * lane);
    return masked;
  }

  void check_hooks(const X& x, const vec& s) {
    place e = make(x, theta_, s);
    const const_edge<T> at(e.at());
    const std::size_t lanes = std::size_t(d_.lanes), m = n() / lanes;
    std::vector<cotangents> rows;  // row i of ds'/ds and ds'/dtheta
    if (n() == 0 || !supports(f_, hook::vjp)) return;
    for (std::size_t i = 0; i < n(); ++i) {
      vec unit(n());
      unit[i] = 1;
      rows.push_back(vjp(x, e, unit, T(0)));
    }
    const std::string fault = structure_fault(f_, x, at, rows);
    expect(fault.empty(), fault);
    expect(e.intact(), "factors: writes outside the workspace");
    if constexpr (has_jacobian<F>) {
      if (supports(f_, hook::jacobian)) {
        guarded<T> j(index_t(lanes * m * m), poison);
        e.workspace.fill(poison);
        f_.jacobian(x, at, view<T>(j));
        vec expected(lanes * m * m);
        for (std::size_t i = 0; i < n(); ++i)
          for (std::size_t c = 0; c < m; ++c)
            expected[i / m * m * m + i % m + c * m] = rows[i].ds[i / m * m + c];
        expect(close(j.values(), expected), "jacobian: disagrees with vjp");
        const std::size_t p0 = p() / 3, p1 = p() - p() / 4;
        guarded<T> got(index_t(lanes * m * p()));
        vec sum = random(lanes * m * p());
        got.assign(sum);
        e.workspace.fill(poison);
        f_.immediate(x, at, view<T>(got), index_t(p0), index_t(p1));
        for (std::size_t i = 0; i < n(); ++i)
          for (std::size_t c = p0; c < p1; ++c) sum[i / m * m * p() + i % m + c * m] += rows[i].dtheta[c];
        expect(close(got.values(), sum), "immediate: does not add columns [p0, p1) as vjp has them");
        expect(j.intact() && got.intact() && e.intact(), "jacobian or immediate: writes outside its memory");
      }
    }
    if constexpr (has_row_norms<F>) {
      if (supports(f_, hook::row_norms)) {
        guarded<T> norms(d_.state, poison);
        e.workspace.fill(poison);
        f_.row_norms(x, at, view<T>(norms));
        vec expected(n());
        for (std::size_t i = 0; i < n(); ++i) expected[i] = T(length(rows[i].dtheta));
        expect(close(norms.values(), expected), "row_norms: disagrees with vjp");
        expect(norms.intact() && e.intact(), "row_norms: writes outside its memory");
      }
    }
    if constexpr (has_lane_vjp<F>) {
      if (supports(f_, hook::lane_vjp)) {
        const vec u = random(n());
        vec sum = random(lanes * p());
        guarded<T> got(index_t(lanes * p()));
        got.assign(sum);
        e.workspace.fill(poison);
        f_.lane_vjp(x, at, dstate<const T>(u), view<T>(got));
        for (std::size_t l = 0; l < lanes; ++l) {
          const vec one = vjp(x, e, of_lane(u, index_t(l)), T(0)).dtheta;
          for (std::size_t i = 0; i < p(); ++i) sum[i + l * p()] += one[i];
        }
        expect(close(got.values(), sum), "lane_vjp: does not add what vjp gives lane by lane");
        expect(got.intact() && e.intact(), "lane_vjp: writes outside its memory");
      }
    }
  }

  void check_window() {
    if constexpr (has_window<F>) {
      const index_t k = index_t(xs_.size());
      const auto steps = std::size_t(k);
      guarded<T> states((k + 1) * d_.state, poison), tape(k * d_.tape, poison), loss(k, poison),
          workspace(f_.window_workspace(k), poison);
      vec s(n());
      start_state(f_, state<T>(s));
      std::copy(s.begin(), s.end(), states.data());
      const window<T> w{theta_, k, states.data(), tape.data(), loss.data(), view<T>(workspace), 5};
      f_.forward(xs_, w);

      std::vector<place> edges;
      vec all_states(s), all_losses;
      for (std::size_t i = 0; i < steps; ++i) {
        t_ = 5 + index_t(i);
        edges.push_back(make(xs_[i], theta_, i == 0 ? s : edges.back().next.values()));
        const vec next = edges.back().next.values();
        all_states.insert(all_states.end(), next.begin(), next.end());
        all_losses.push_back(*edges.back().loss.data());
      }
      const double growth = double(k);  // the two may drift apart a little more in every step
      expect(close(states.values(), all_states, growth * largest(all_states)),
             "forward: other states than step by step");
      expect(close(loss.values(), all_losses, growth * (largest(all_losses) + largest(all_states))),
             "forward: other losses than step by step");

      vec weight = random(steps), carry = random(steps);
      if (k > 2) carry[steps / 2] = 0;
      if (k > 1) carry[steps - 1] = 1;
      for (const bool injected : {false, true}) {
        const injection<T> in =
            injected ? injection<T>{weight.data(), carry.data()} : injection<T>{nullptr, nullptr};
        const vec entering = random(n()), base = random(p());
        guarded<T> ds(d_.state), dtheta(d_.params);
        ds.assign(entering);
        dtheta.assign(base);
        workspace.fill(poison);
        f_.backward(xs_, w, in, dstate<T>{ds.data(), ds.size()}, dparams<T>{dtheta.data(), dtheta.size()});
        cotangents sum{entering, base};
        double scale = 0;
        for (std::size_t i = steps; i-- > 0;) {
          t_ = 5 + index_t(i);
          if (injected)
            for (T& v : sum.ds) v *= carry[i];
          const vec delta = sum.ds;
          sum = vjp(xs_[i], edges[i], delta, injected ? weight[i] : T(1), {vec(n()), sum.dtheta});
          scale += largest(sum.ds) + largest(sum.dtheta);
        }
        const std::string kind = injected ? " with weights and carries" : "";
        expect(close(ds.values(), sum.ds, scale), "backward: other ds than step by step" + kind);
        expect(close(dtheta.values(), sum.dtheta, scale),
               "backward: does not add to dtheta what the steps add" + kind);
        expect(ds.intact() && dtheta.intact(), "backward: writes outside ds or dtheta");
      }
      expect(states.intact() && tape.intact() && loss.intact() && workspace.intact(),
             "window: writes outside its memory");
    }
  }

  void check_zero() {
    t_ = 0;
    where_ = "at theta = 0, s = 0: ";
    const X& x = xs_[0];
    place e = make(x, vec(p()), vec(n()));
    expect(finite(e.next.values()) && finite(e.loss.values()), "step: is not finite");
    if (supports(f_, hook::vjp)) {
      const cotangents r = vjp(x, e, random(n()), T(1));
      expect(finite(r.ds) && finite(r.dtheta), "vjp: is not finite");
    }
    if (supports(f_, hook::jvp)) {
      const tangents r = jvp(x, e, random(p()), random(n()));
      expect(finite(r.dnext) && std::isfinite(r.dloss), "jvp: is not finite");
    }
  }

  const F& f_;
  dims d_;
  vec theta_;
  std::span<const X> xs_;
  const system_conformance_options& o_;
  std::vector<std::string> failures_;
  std::string where_;
  std::int64_t t_ = 0;
  std::int64_t draws_ = 0;
  double loss_ = 0;
};

}  // namespace detail

/// The rules that the concepts of a system cannot express, tried along the sequence `xs`: results do not
/// depend on old memory or on earlier calls; nothing is written outside its memory; vjp adds, jvp writes;
/// empty views mean zero; vjp and jvp are adjoint and agree with central differences of step; the lanes are
/// independent; windows, jacobian, immediate, row_norms, masks, factors and lane_vjp agree with step and vjp;
/// zero is safe. Returns what is wrong, nothing for a conforming system. Choose theta and xs so that F is
/// smooth there.
template <recurrent F>
std::vector<std::string> system_conformance(const F& f,
                                            std::type_identity_t<params<const typename F::scalar>> theta,
                                            std::type_identity_t<std::span<const typename F::input>> xs,
                                            const system_conformance_options& options = {}) {
  return detail::system_checks<F>(f, theta, xs, options).run();
}

}  // namespace unroll::testing
