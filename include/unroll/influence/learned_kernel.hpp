#pragma once

#include <algorithm>
#include <utility>

#include "unroll/core/linalg.hpp"
#include "unroll/influence/diagonal.hpp"

namespace unroll::influence {

/// How learned_kernel learns.
struct kernel_options {
  double rate = 0;   ///< of A and kappa; 0: they stay as they begin, and nothing is perturbed
  double sigma = 0;  ///< standard deviation of the noise of a step, where they are learned
  double decay = 0;  ///< kappa of all units at the start
};

/// M with a learned kernel in place of the product of the Jacobians between two steps, J_t .. J_{s+1} ~ A
/// diag(kappa)^(t-s), where A is n x n and kappa n decays in [0, 1]. Of each parameter the traces B of its
/// own unit are kept, which decay by kappa (diagonal):
///
///     g += (q A) B,    B_rj <- kappa B_rj + d_r a_j
///
/// A and kappa follow a twin of the network, whose state gets noise in every step, by least squares (Roth,
/// Kanitscheider & Fiete 2019):
///
///     s~ <- f(theta, s~, x) + sigma zeta,   Omega <- kappa Omega + zeta,   Gamma <- kappa Gamma - Omega_old
///     e = A Omega - (s~ - s) / sigma
///     A <- A - rate e Omega' / (1 + |Omega|^2),   kappa <- kappa + rate (e A) * Gamma / (1 + |Gamma|^2)
///
/// Gamma is what 1 - kappa does to Omega. The noise of a step is in the twin and in Omega at once, so that A
/// has the newest noise, whose kernel is 1, to learn from. Lanes share A and kappa and add their parts up. A
/// twin that is no longer finite begins again at the state. Needs: diag_jacobian.
template <class F>
class learned_kernel {
 public:
  using T = typename F::scalar;
  using input = typename F::input;

  /// Throws unroll::error in the name of the estimator `who`, as diagonal does.
  learned_kernel(const char* who, const F& f, const kernel_options& options)
      : options_(options),
        sizes_(f.size()),
        n_(sizes_.state / sizes_.lanes),
        traces_(who, f, {.decay = options.decay}),
        a_(n_ * n_),
        kappa_(n_),
        qa_(sizes_.state) {
    if (options_.rate > 0) {
      twin_ = moved_ = block<T, state_space>(sizes_.state);
      tape_ = block<T, tape_space>(sizes_.tape);
      noise_ = omega_ = gamma_ = error_ = back_ = buffer<T>(sizes_.state);
    }
  }

  void reset() {
    traces_.reset();
    for (index_t k = 0; k < a_.size(); ++k) a_[k] = T(k % (n_ + 1) == 0);
    std::fill(kappa_.begin(), kappa_.end(), T(options_.decay));
    omega_.zero();
    gamma_.zero();
    started_ = false;
  }

  /// Another kernel from now on, until reset(). a: n x n, column-major; kappa: n decays.
  void set_kernel(view<const T> a, view<const T> kappa) {
    std::copy(a.begin(), a.end(), a_.begin());
    std::copy(kappa.begin(), kappa.end(), kappa_.begin());
  }
  view<const T> sensitivities() const { return a_; }  ///< A, n x n, column-major
  view<const T> decays() const { return kappa_; }     ///< kappa, n
  index_t kept() const { return traces_.kept(); }     ///< traces, of one lane

  /// g += q A B, then B and, where they are learned, A and kappa after the step at e, with noise drawn for
  /// step t. Counts the step of the twin.
  template <chooser C>
  void propagate(const F& f, const input& x, const const_edge<T>& e, dstate<const T> q, dparams<T> g,
                 C& draws, std::int64_t t, report& spent) {
    const matrix<const T> a{a_.data(), n_, n_};
    for (index_t l = 0; l < sizes_.lanes; ++l)
      linalg::gemv<T>(op::transpose, a, q.data() + l * n_, false, qa_.data() + l * n_);
    traces_.set_decays(kappa_.data());
    traces_.propagate(f, x, e, qa_, g);
    if (options_.rate > 0) {
      move_twin(f, x, e, draws, t);
      ++spent.steps;
    }
  }

  std::size_t bytes() const {
    return traces_.bytes() + a_.bytes() + kappa_.bytes() + qa_.bytes() + twin_.bytes() + moved_.bytes() +
           tape_.bytes() + noise_.bytes() + omega_.bytes() + gamma_.bytes() + error_.bytes() + back_.bytes();
  }
  template <class V>
  void visit(V&& v) {
    traces_.visit(v);
    v("sensitivities", view<T>(a_));
    v("decays", view<T>(kappa_));
    if (options_.rate > 0) {
      visit_flag(v, "started", started_);
      v("twin", view<T, state_space>(twin_));
      v("omega", view<T>(omega_));
      v("gamma", view<T>(gamma_));
    }
  }

 private:
  template <class C>
  void move_twin(const F& f, const input& x, const const_edge<T>& e, C& draws, std::int64_t t) {
    if (!started_) std::copy(e.s.begin(), e.s.end(), twin_.begin());
    started_ = true;
    for (index_t l = 0; l < sizes_.lanes; ++l)
      if (lane_begins(f, x, l)) {
        std::fill_n(omega_.data() + l * n_, n_, T(0));
        std::fill_n(gamma_.data() + l * n_, n_, T(0));
      }
    T loss = 0;
    f.step(x, edge<T>{e.theta, twin_, moved_, tape_, &loss, e.workspace, e.t});
    std::swap(twin_, moved_);
    if (!linalg::all_finite(twin_.data(), twin_.size())) {
      std::copy(e.next.begin(), e.next.end(), twin_.begin());
      omega_.zero();
      gamma_.zero();
      return;
    }
    draws.normals(t, view<T>(noise_));
    for (index_t k = 0; k < sizes_.state; ++k) {
      const T kappa = kappa_[k % n_];
      twin_[k] += T(options_.sigma) * noise_[k];
      error_[k] = T((double(e.next[k]) - double(twin_[k])) / options_.sigma);
      gamma_[k] = kappa * gamma_[k] - omega_[k];
      omega_[k] = kappa * omega_[k] + noise_[k];
    }
    learn();
  }

  void learn() {
    const matrix<T> a{a_.data(), n_, n_};
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      linalg::gemv<T>(op::none, a, omega_.data() + l * n_, true, error_.data() + l * n_);
      linalg::gemv<T>(op::transpose, a, error_.data() + l * n_, false, back_.data() + l * n_);
    }
    for (index_t l = 0; l < sizes_.lanes; ++l) {
      const T *omega = omega_.data() + l * n_, *gamma = gamma_.data() + l * n_;
      linalg::ger<T>(T(-rate(omega)), error_.data() + l * n_, omega, a);
      const double kappa_rate = rate(gamma);
      for (index_t i = 0; i < n_; ++i)
        kappa_[i] = T(std::clamp(
            double(kappa_[i]) + kappa_rate * double(back_[l * n_ + i]) * double(gamma[i]), 0., 1.));
    }
  }
  double rate(const T* v) const {
    const auto norm = double(linalg::norm(v, n_));
    return options_.rate / (double(sizes_.lanes) * (1 + norm * norm));
  }

  kernel_options options_;
  dims sizes_;
  index_t n_;
  diagonal<F> traces_;
  buffer<T> a_, kappa_;
  block<T, state_cotangent_space> qa_;
  bool started_ = false;
  block<T, state_space> twin_, moved_;
  block<T, tape_space> tape_;
  buffer<T> noise_, omega_, gamma_, error_, back_;
};

}  // namespace unroll::influence
