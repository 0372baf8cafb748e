#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "unroll/testing/structure_conformance.hpp"
#include "unroll/testing/system_trial.hpp"

namespace unroll::testing::detail {

// Structure, jacobian, immediate, row_norms and lane_vjp, against the rows of vjp.
template <class F>
void check_hooks(system_trial<F>& t, const typename F::input& x, const std::vector<typename F::scalar>& s) {
  using T = typename F::scalar;
  using vec = typename system_trial<F>::vec;
  using place = typename system_trial<F>::place;
  using cotangents = typename system_trial<F>::cotangents;
  place e = t.make(x, t.theta, s);
  const const_edge<T> at(e.at());
  const std::size_t lanes = std::size_t(t.d.lanes), m = t.n() / lanes;
  std::vector<cotangents> rows;  // row i of ds'/ds and ds'/dtheta
  if (t.n() == 0 || !supports(t.f, hook::vjp)) return;
  for (std::size_t i = 0; i < t.n(); ++i) {
    vec unit(t.n());
    unit[i] = 1;
    rows.push_back(t.vjp(x, e, unit, T(0)));
  }
  const std::string fault = structure_fault(t.f, x, at, rows);
  t.expect(fault.empty(), fault);
  t.expect(e.intact(), "factors: writes outside the workspace");
  if constexpr (has_jacobian<F>) {
    if (supports(t.f, hook::jacobian)) {
      guarded<T> j(index_t(lanes * m * m), t.poison);
      e.workspace.fill(t.poison);
      t.f.jacobian(x, at, view<T>(j));
      vec expected(lanes * m * m);
      for (std::size_t i = 0; i < t.n(); ++i)
        for (std::size_t c = 0; c < m; ++c)
          expected[i / m * m * m + i % m + c * m] = rows[i].ds[i / m * m + c];
      t.expect(t.close(j.values(), expected), "jacobian: disagrees with vjp");
      const std::size_t p0 = t.p() / 3, p1 = t.p() - t.p() / 4;
      guarded<T> got(index_t(lanes * m * t.p()));
      vec sum = t.random(lanes * m * t.p());
      got.assign(sum);
      e.workspace.fill(t.poison);
      t.f.immediate(x, at, view<T>(got), index_t(p0), index_t(p1));
      for (std::size_t i = 0; i < t.n(); ++i)
        for (std::size_t c = p0; c < p1; ++c) sum[i / m * m * t.p() + i % m + c * m] += rows[i].dtheta[c];
      t.expect(t.close(got.values(), sum), "immediate: does not add columns [p0, p1) as vjp has them");
      t.expect(j.intact() && got.intact() && e.intact(), "jacobian or immediate: writes outside its memory");
    }
  }
  if constexpr (has_row_norms<F>) {
    if (supports(t.f, hook::row_norms)) {
      guarded<T> norms(t.d.state, t.poison);
      e.workspace.fill(t.poison);
      t.f.row_norms(x, at, view<T>(norms));
      vec expected(t.n());
      for (std::size_t i = 0; i < t.n(); ++i) expected[i] = T(length(rows[i].dtheta));
      t.expect(t.close(norms.values(), expected), "row_norms: disagrees with vjp");
      t.expect(norms.intact() && e.intact(), "row_norms: writes outside its memory");
    }
  }
  if constexpr (has_lane_vjp<F>) {
    if (supports(t.f, hook::lane_vjp)) {
      const vec u = t.random(t.n());
      vec sum = t.random(lanes * t.p());
      guarded<T> got(index_t(lanes * t.p()));
      got.assign(sum);
      e.workspace.fill(t.poison);
      t.f.lane_vjp(x, at, dstate<const T>(u), view<T>(got));
      for (std::size_t l = 0; l < lanes; ++l) {
        const vec one = t.vjp(x, e, t.of_lane(u, index_t(l)), T(0)).dtheta;
        for (std::size_t i = 0; i < t.p(); ++i) sum[i + l * t.p()] += one[i];
      }
      t.expect(t.close(got.values(), sum), "lane_vjp: does not add what vjp gives lane by lane");
      t.expect(got.intact() && e.intact(), "lane_vjp: writes outside its memory");
    }
  }
}

// forward and backward, against the steps.
template <class F>
void check_window(system_trial<F>& t) {
  using T = typename F::scalar;
  using vec = typename system_trial<F>::vec;
  using place = typename system_trial<F>::place;
  using cotangents = typename system_trial<F>::cotangents;
  if constexpr (has_window<F>) {
    const index_t k = index_t(t.xs.size());
    const auto steps = std::size_t(k);
    guarded<T> states((k + 1) * t.d.state, t.poison), tape(k * t.d.tape, t.poison), loss(k, t.poison),
        workspace(t.f.window_workspace(k), t.poison);
    vec s(t.n());
    start_state(t.f, state<T>(s));
    std::copy(s.begin(), s.end(), states.data());
    const window<T> w{t.theta, k, states.data(), tape.data(), loss.data(), view<T>(workspace), 5};
    t.f.forward(t.xs, w);

    std::vector<place> edges;
    vec all_states(s), all_losses;
    for (std::size_t i = 0; i < steps; ++i) {
      t.step = 5 + index_t(i);
      edges.push_back(t.make(t.xs[i], t.theta, i == 0 ? s : edges.back().next.values()));
      const vec next = edges.back().next.values();
      all_states.insert(all_states.end(), next.begin(), next.end());
      all_losses.push_back(*edges.back().loss.data());
    }
    const double growth = double(k);  // the two may drift apart a little more in every step
    t.expect(t.close(states.values(), all_states, growth * largest(all_states)),
             "forward: other states than step by step");
    t.expect(t.close(loss.values(), all_losses, growth * (largest(all_losses) + largest(all_states))),
             "forward: other losses than step by step");

    vec weight = t.random(steps), carry = t.random(steps);
    if (k > 2) carry[steps / 2] = 0;
    if (k > 1) carry[steps - 1] = 1;
    for (const bool injected : {false, true}) {
      const injection<T> in =
          injected ? injection<T>{weight.data(), carry.data()} : injection<T>{nullptr, nullptr};
      const vec entering = t.random(t.n()), base = t.random(t.p());
      guarded<T> ds(t.d.state), dtheta(t.d.params);
      ds.assign(entering);
      dtheta.assign(base);
      workspace.fill(t.poison);
      t.f.backward(t.xs, w, in, dstate<T>{ds.data(), ds.size()}, dparams<T>{dtheta.data(), dtheta.size()});
      cotangents sum{entering, base};
      double scale = 0;
      for (std::size_t i = steps; i-- > 0;) {
        t.step = 5 + index_t(i);
        if (injected)
          for (T& v : sum.ds) v *= carry[i];
        const vec delta = sum.ds;
        sum = t.vjp(t.xs[i], edges[i], delta, injected ? weight[i] : T(1), {vec(t.n()), sum.dtheta});
        scale += largest(sum.ds) + largest(sum.dtheta);
      }
      const std::string kind = injected ? " with weights and carries" : "";
      t.expect(t.close(ds.values(), sum.ds, scale), "backward: other ds than step by step" + kind);
      t.expect(t.close(dtheta.values(), sum.dtheta, scale),
               "backward: does not add to dtheta what the steps add" + kind);
      t.expect(ds.intact() && dtheta.intact(), "backward: writes outside ds or dtheta");
    }
    t.expect(states.intact() && tape.intact() && loss.intact() && workspace.intact(),
             "window: writes outside its memory");
  }
}

}  // namespace unroll::testing::detail
