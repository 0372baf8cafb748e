#pragma once

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/estimate/parts/particles.hpp"
#include "unroll/influence/learned_kernel.hpp"

namespace unroll {

struct kernl_options {
  double rate = 0.01;   ///< of the kernel, in [0, 1]; 0: it stays as it begins
  double sigma = 1e-3;  ///< standard deviation of the noise that the twin of the network gets
  double decay = 0.5;   ///< kappa of all units at the start, in [0, 1]
};

/// Kernel RNN learning, KeRNL: what a step does to later states is taken for a kernel, J_t .. J_{s+1} ~ A
/// diag(kappa)^(t-s), in place of the product of Jacobians, so that a trace of its own unit is all that a
/// weight needs (influence/learned_kernel.hpp):
///
///   B_rj <- kappa_u B_rj + d_r a_j,    g += (q A) B + direct = (dl_t/ds_{t-1} A) . B_{t-1} + dl_t/dtheta
///
/// A, n x n, and kappa are learned beside it from a second network whose state gets noise in every step, by
/// how far the two have drifted apart. Biased: no kernel of this form is the product of the Jacobians, in
/// general. The newest step is exact. With rate 0, A = 1 and kappa = 1 - alpha it is rflo. A sequence begins
/// with A = 1. Per step and lane: 2 n^2 multiply-adds for the kernel and m^2 + m + 1 a parameter for units of
/// m numbers; two steps, one vjp; with rate 0 one step. Memory, to leading order: m params scalars a lane,
/// and n^2. Needs: vjp, diag_jacobian. Roth, Kanitscheider & Fiete 2019. See docs/math/kernl.md.
template <class F, class C = philox_chooser>
class kernl final : public forward_learner<F, influence::learned_kernel<F>, C> {
  static_assert(require_vjp<F>() && require_diag_jacobian<F>() && chooser<C>);

 public:
  static constexpr bool unbiased = false;
  static constexpr std::array references{"roth2019kernel"};

  explicit kernl(F system, kernl_options options = {}, C chooser = C{})  // options: rate, sigma, decay
      : kernl::forward_learner(
            "kernl", std::move(system),
            "rate " + number_text(options.rate) + ", sigma " + number_text(options.sigma) + ", decay " +
                number_text(options.decay),
            [&](const F& f) {
              const kernl_options o = checked(f, options);
              return influence::learned_kernel<F>("kernl", f,
                                                  {.rate = o.rate, .sigma = o.sigma, .decay = o.decay});
            },
            std::move(chooser)) {}

  /// Another kernel from now on, until reset(). a: n x n, column-major; kappa: n decays. Throws unroll::error
  /// on other sizes.
  void set_kernel(view<const typename F::scalar> a, view<const typename F::scalar> kappa) {
    check_size("kernl::set_kernel", "a", a.size(), sensitivities().size());
    check_size("kernl::set_kernel", "kappa", kappa.size(), decays().size());
    this->kept_influence().set_kernel(a, kappa);
  }
  /// A, n x n, column-major.
  view<const typename F::scalar> sensitivities() const& { return this->kept_influence().sensitivities(); }
  void sensitivities() && = delete;
  /// kappa, n.
  view<const typename F::scalar> decays() const& { return this->kept_influence().decays(); }
  void decays() && = delete;
  index_t kept() const { return this->kept_influence().kept(); }  ///< traces of one lane

 private:
  static kernl_options checked(const F& f, kernl_options o) {
    if (!(o.rate >= 0 && o.rate <= 1))
      fail("kernl", "rate", "is " + number_text(o.rate) + ", must be in [0, 1]");
    check_sigma<typename F::scalar>("kernl", o.sigma);
    if (!(o.decay >= 0 && o.decay <= 1))
      fail("kernl", "decay", "is " + number_text(o.decay) + ", must be in [0, 1]");
    if (!supports(f, hook::diag_jacobian)) fail("kernl", "system", "has no diag_jacobian");
    return o;
  }
};

}  // namespace unroll
