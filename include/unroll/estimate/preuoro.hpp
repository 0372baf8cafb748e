#pragma once

#include <cmath>

#include "unroll/estimate/parts/forward_learner.hpp"
#include "unroll/influence/pre_activation.hpp"

namespace unroll {

struct preuoro_options {
  double epsilon = 1e-7;  ///< added to the scales; never biases, 0 is allowed
  bool balance = true;    ///< false: rho0 = rho1 = 1, unbiased with another variance
  double memory = 0;      ///< of the running mean that Q is made from, in [0, 1); 0: Q = 1
  double floor = 1;       ///< above 0: nearer to 0, Q differs more between what losses owe to; 0.001 to 1
  index_t renew = 0;      ///< steps between two makings of a whole Q, which needs a memory; 0: Q is diagonal
};

/// UORO with its noise in front of the nonlinearity: for systems that read theta as matrices, z_b = W_b a_b,
/// the immediate derivative is D_b (x) a_b' with D_b = ds'/dz_b, and one sign for each row of the matrices
/// makes of it
///
///   g      += (dl/ds . s~) theta~ + dl/dtheta
///   s~     <- rho0 J s~ + rho1 sum_b D_b nu_b                  nu uniform on {-1, +1}^rows
///   theta~ <- theta~ / rho0 + (nu_b a_b')_b / rho1
///   rho0 = sqrt(|theta~| / (|J s~| + eps)) + eps,  rho1 = sqrt(|nu a'| / (|D nu| + eps)) + eps
///
/// where uoro has nu and nu F. With a `memory` Q nu stands in s~ and Q^-1 nu in theta~, for a Q that gives
/// less noise to rows, or with `renew` to any directions between them, to which losses owe much
/// (influence/row_mixing.hpp), unbiased too. Unbiased at fixed theta for every horizon: E (D Q nu)(Q^-1 nu
/// a')' = D (x) a', and the signs of different rows and steps are independent. Units that are saturated, D
/// close to 0, then add little to s~. Every lane has its own nu, s~ and theta~. With `rows` those of all
/// matrices, per step and lane: n rows + 2 params multiply-adds, one step, one vjp, one jvp. Memory, to
/// leading order: lanes params + lanes n rows scalars. Where masks say that a row moves its own unit alone,
/// of m numbers, these are m rows. A whole Q takes 3 rows^2 more, 20 rows^3 every `renew` steps, and 4 rows^2
/// numbers a lane. Needs: vjp, jvp, factors. Cooijmans & Martens 2019. See docs/math/preuoro.md.
template <class F, class C = philox_chooser>
class preuoro final : public forward_learner<F, influence::pre_activation<F>, C> {
  static_assert(require_vjp<F>() && require_jvp<F>() && require_factors<F>() && chooser<C>);

 public:
  static constexpr bool unbiased = true;
  static constexpr std::array references{"cooijmans2019variance", "tallec2018uoro"};

  explicit preuoro(  // options: epsilon, balance, memory, floor, renew
      F system, preuoro_options options = {}, C chooser = C{})
      : preuoro::forward_learner(
            "preuoro", std::move(system),
            "epsilon " + number_text(options.epsilon) + (options.balance ? "" : ", not balanced") +
                (options.memory == 0
                     ? ""
                     : ", memory " + number_text(options.memory) + ", floor " + number_text(options.floor)) +
                (options.renew == 0 ? "" : ", renewed every " + std::to_string(options.renew)),
            [&](const F& f) {
              const preuoro_options o = checked(f, options);
              return influence::pre_activation<F>(f, o.epsilon, o.balance, o.memory, o.floor, o.renew);
            },
            std::move(chooser)) {}

 private:
  static preuoro_options checked(const F& f, preuoro_options o) {
    if (!(o.epsilon >= 0))
      fail("preuoro", "epsilon", "is " + number_text(o.epsilon) + ", must be at least 0");
    if (!(o.memory >= 0 && o.memory < 1))
      fail("preuoro", "memory", "is " + number_text(o.memory) + ", must be in [0, 1)");
    if (!(o.floor > 0 && std::isfinite(o.floor)))
      fail("preuoro", "floor", "is " + number_text(o.floor) + ", must be a number above 0");
    check_at_least("preuoro", "renew", o.renew, 0);
    if (o.renew > 0 && o.memory == 0)
      fail("preuoro", "renew",
           "is " + std::to_string(o.renew) + ", but memory is 0: there is nothing to make Q from");
    if (!supports(f, hook::jvp) || !supports(f, hook::factors))
      fail("preuoro", "system", "has no jvp, or no weight_matrices and factors");
    return o;
  }
};

}  // namespace unroll
