#pragma once

#include <cmath>

#include "unroll/core/unfused.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/window_buffer.hpp"

namespace unroll {

struct forward_gradient_options {
  index_t directions = 1;  ///< k, orthonormal; at most as many as there are parameters
  index_t window = 1;      ///< steps between two contributions to the gradient
};

/// Forward gradients over time: derivatives along k orthonormal directions v_1 .. v_k, drawn once a sequence
/// and carried forwards exactly.
///
///   u_j <- J u_j + F v_j,    c_j += dl along (v_j, u_j),    g += P / k sum_j c_j v_j   after every window
///
/// P: params. The v_j are k consecutive rows, from a random one on and around, of the orthonormal cosine
/// basis of R^P, with a random sign at every parameter: every row is among them with probability k / P, so
/// E sum_j v_j v_j' = k / P I. Unbiased at fixed theta for every horizon, with the covariance trace
///
///   (P / k - 1) |g|^2
///
/// whatever the system, 0 for k = P. Directions drawn anew while the u_j go on would be biased. Only jvps:
/// no step is walked backwards. Per step: one step, k jvps; once a window k P multiply-adds. Memory: k
/// parameter vectors and 2 k states. Lanes share the directions. theta must not change between reset and
/// finish. Silver, Goyal, Danihelka, Hessel & van Hasselt 2022; Baydin et al. 2022; Fluegel et al. 2025. See
/// docs/math/forward_gradient.md.
template <class F, class C = philox_chooser>
class forward_gradient final {
  static_assert(require_jvp<F>() && chooser<C>);

 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = true;
  static constexpr std::array references{"silver2022dodge", "baydin2022forward", "fluegel2025multitangent"};

  explicit forward_gradient(  // options: directions, window
      F system, forward_gradient_options options = {}, C chooser = C{})
      : system_(std::move(system)),
        guard_("forward_gradient", system_),
        options_(checked(system_, options)),
        chooser_(std::move(chooser)),
        memory_(system_, 1, 1),
        directions_(options_.directions * system_.size().params),
        tangents_(options_.directions * system_.size().state),
        moved_(tangents_.size()),
        signs_(system_.size().params),
        change_(options_.directions) {
    reset({});
  }

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    chooser_.reset(k);
    memory_.reset(system_, s0);
    tangents_.zero();
    change_.zero();
    draw();
  }
  void mirror(bool on) { chooser_.mirror(on); }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    const auto full = [this] { return memory_.pending() == 1; };
    report r = run_groups(system_, theta, xs, memory_, full, [&](report& spent) {
      move(theta, spent);
      memory_.keep_last(0, 1);
      if (memory_.end() % options_.window == 0) emit(g);
    });
    r.bytes = bytes();
    return r;
  }

  /// The last, incomplete window.
  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    emit(g);
    report r;
    r.bytes = bytes();
    return guard_.close(r);
  }

  /// The v_j of this sequence, params x directions, column-major.
  view<const scalar> directions() const& { return directions_; }
  void directions() && = delete;
  /// The state behind the last input consumed; valid until the next call.
  state<const scalar> last_state(params<const scalar> theta) { return memory_.last_state(system_, theta); }
  template <class V>
  void visit(V&& v) {
    guard_.visit(
        v,
        "directions " + std::to_string(options_.directions) + ", window " + std::to_string(options_.window),
        system_);
    visit_part(v, "chooser", chooser_);
    memory_.visit(v, {.room = 1});
    v("directions", view<scalar>(directions_));
    v("tangents", view<scalar, state_tangent_space>(tangents_));
    v("change", view<double>(change_));
  }
  const F& system() const { return system_; }
  const forward_gradient_options& options() const { return options_; }
  C& chooser() { return chooser_; }

 private:
  static forward_gradient_options checked(const F& f, forward_gradient_options o) {
    check_at_least("forward_gradient", "directions", o.directions, 1);
    check_at_least("forward_gradient", "window", o.window, 1);
    if (const index_t params = f.size().params; o.directions > params)
      fail("forward_gradient", "directions",
           "is " + std::to_string(o.directions) + ", but only " + std::to_string(params) +
               " directions of as many parameters are orthogonal");
    if (!supports(f, hook::jvp)) fail("forward_gradient", "system", "has no jvp");
    return o;
  }

  // v_j (p) = sign_p c_i cos(pi (p + 1/2) i / P) with i = first + j modulo P, c_0 = sqrt(1 / P), else
  // c_i = sqrt(2 / P). Angles are integers, and so are reduced without an error.
  void draw() {
    const index_t P = signs_.size();
    if (P == 0) return;
    chooser_.signs(0, view<scalar>(signs_));
    const index_t first = chooser_.uniform(0, P);
    for (index_t j = 0; j < options_.directions; ++j) {
      const index_t i = (first + j) % P;
      const double c = std::sqrt((i == 0 ? 1 : 2) / double(P));
      simd::dispatch<cosines>(c, i, signs_.data(), directions_.data() + j * P, P);
    }
  }
  struct cosines {
    template <class Isa>
    UNROLL_INLINE static void run(double c, index_t i, const scalar* signs, scalar* v, index_t P) {
      constexpr int N = simd::width<Isa, double>;
      using vec = simd::vec<double, N>;
      double start[std::size_t(N)];
      for (index_t p = 0; p < N; ++p) start[p] = double((2 * p + 1) * i % (4 * P));
      const vec turn = simd::splat<N>(double(4 * P));
      vec angle = simd::load<N>(static_cast<const double*>(start));  // (2 p + 1) i modulo a turn of 4 P
      for (index_t p = 0; p < P; p += N) {
        vec cosine, sine;
        simd::cos_sin_turns(simd::unfused<N>(angle / turn), cosine, sine);
        const auto to = simd::rounded_to<scalar>(cosine * c);
        if (P - p >= N)
          simd::store(to * simd::load<N>(signs + p), v + p);
        else
          simd::store_first(to * simd::load_first<N>(signs + p, P - p), v + p, P - p);
        angle = angle + double(2 * N * i % (4 * P));
        angle = simd::where_greater(turn, angle, angle, angle - turn);
      }
    }
  };

  // Every u_j by one step, and what the loss does along it.
  void move(params<const scalar> theta, report& r) {
    const index_t P = signs_.size(), n = system_.size().state;
    const const_edge<scalar> e(memory_.edge(system_, theta, 0));
    for (index_t j = 0; j < options_.directions; ++j) {
      scalar dloss = 0;
      system_.jvp(memory_.x(0), e, params_tangent<const scalar>(directions_.data() + j * P, P),
                  state_tangent<const scalar>(tangents_.data() + j * n, n),
                  state_tangent<scalar>(moved_.data() + j * n, n), &dloss);
      change_[j] += double(dloss);
    }
    r.jvps += options_.directions;
    std::swap(tangents_, moved_);
  }

  void emit(dparams<scalar> g) {
    const index_t P = signs_.size();
    for (index_t j = 0; j < options_.directions; ++j)
      linalg::axpy(scalar(double(P) / double(options_.directions) * change_[j]), directions_.data() + j * P,
                   g.data(), P);
    change_.zero();
  }
  std::size_t bytes() const {
    return memory_.bytes() + directions_.bytes() + tangents_.bytes() + moved_.bytes() + signs_.bytes() +
           change_.bytes();
  }

  F system_;
  sequence_guard<F> guard_;
  forward_gradient_options options_;
  C chooser_;
  window_buffer<F> memory_;
  buffer<scalar> directions_;                            // v, params x directions
  block<scalar, state_tangent_space> tangents_, moved_;  // u, state x directions: now, and a step later
  buffer<scalar> signs_;
  buffer<double> change_;  // c since the last contribution
};

}  // namespace unroll
