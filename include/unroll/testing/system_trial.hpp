#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/rng/draw.hpp"
#include "unroll/system/window.hpp"
#include "unroll/testing/guarded.hpp"

namespace unroll::testing {

struct system_conformance_options {
  key randomness{1};           ///< of the directions in which derivatives are tried
  index_t steps = 3;           ///< how many steps of the sequence are examined
  bool finite_at_zero = true;  ///< step, vjp and jvp must be finite at theta = 0, s = 0
  double rounding = 256;       ///< two ways to the same number may differ by this many epsilons
  double smoothness = 100;     ///< central differences may be wrong by this many epsilon^(2/3)
};

namespace detail {

// A system on trial along a sequence: calls of its step, vjp and jvp in guarded memory, and what was found.
template <class F>
struct system_trial {
  using T = typename F::scalar;
  using X = typename F::input;
  using vec = std::vector<T>;

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

  const F& f;
  dims d;
  vec theta;
  std::span<const X> xs;
  const system_conformance_options& o;
  std::vector<std::string> failures = {};
  std::set<std::string> said = {};  // the faults among them, without their numbers
  std::string where = {};
  std::int64_t step = 0;
  std::int64_t draws = 0;  // so far

  std::size_t n() const { return std::size_t(d.state); }
  std::size_t p() const { return std::size_t(d.params); }
  static constexpr double eps = std::numeric_limits<T>::epsilon();
  static constexpr T poison = std::numeric_limits<T>::quiet_NaN();

  // A fault is said once, where it is found first: numbers in it are of that place alone.
  void expect(bool good, const std::string& what) {
    if (good) return;
    std::string fault = what;
    std::erase_if(
        fault, [](char c) { return std::string_view("+-.e0123456789").find(c) != std::string_view::npos; });
    if (said.insert(fault).second) failures.push_back(where + what);
  }
  bool close(const vec& a, const vec& b, double scale = 0) const {
    return detail::close(a, b, o.rounding * eps, scale);
  }
  vec random(std::size_t size) {
    vec v(size);
    draw_normals(o.randomness, draws++, view<T>(v));
    return v;
  }

  place make(const X& x, const vec& weights, const vec& s, T garbage = poison) const {
    return make(f, x, weights, s, garbage);
  }
  // At theta = weights, with garbage in all memory that is written.
  place make(const F& system, const X& x, const vec& weights, const vec& s, T garbage) const {
    place e{weights,
            s,
            guarded<T>(d.state, garbage),
            guarded<T>(d.tape, garbage),
            guarded<T>(1, garbage),
            guarded<T>(d.workspace, garbage),
            step};
    system.step(x, e.at());
    return e;
  }
  cotangents vjp(const X& x, place& e, const vec& dnext, T dloss, T garbage = poison) const {
    return vjp(x, e, dnext, dloss, {vec(n()), vec(p())}, garbage);
  }
  // Adds to `into`; an empty part of it is not asked for.
  cotangents vjp(const X& x, place& e, const vec& dnext, T dloss, cotangents into, T garbage = poison) const {
    e.workspace.fill(garbage);
    if constexpr (has_vjp<F>)
      f.vjp(x, const_edge<T>(e.at()), dstate<const T>(dnext), dloss, dstate<T>(into.ds),
            dparams<T>(into.dtheta));
    return into;
  }
  tangents jvp(const X& x, place& e, const vec& dtheta, const vec& ds, T garbage = poison) const {
    e.workspace.fill(garbage);
    tangents r{vec(n(), garbage), garbage};
    if constexpr (has_jvp<F>)
      f.jvp(x, const_edge<T>(e.at()), params_tangent<const T>(dtheta), state_tangent<const T>(ds),
            state_tangent<T>(r.dnext), &r.dloss);
    return r;
  }

  // u in lane l, zero elsewhere.
  vec of_lane(const vec& u, index_t l) const {
    const index_t lane = d.state / d.lanes;
    vec masked(u.size());
    std::copy_n(u.begin() + l * lane, lane, masked.begin() + l * lane);
    return masked;
  }

  // What central differences may be wrong by.
  double smooth(double scale) const { return o.smoothness * std::pow(eps, 2.0 / 3) * (1 + scale); }
};

}  // namespace detail
}  // namespace unroll::testing
