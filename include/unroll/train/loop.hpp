#pragma once

#include <type_traits>

#include "unroll/core/clock.hpp"
#include "unroll/core/report.hpp"
#include "unroll/train/run.hpp"

namespace unroll::training {

/// Trains until the run is done, from wherever it stands:
///
///     const status end = training::train(
///         run,
///         [&](const auto& theta, auto& g) { return gradients.add(draws(run.position()), theta, next(), g);
///         },
///         [&](const auto& theta) { return training::mean_loss(cell, theta, held_out); },
///         [&](const training::course_row& row) { save_run("run.ckpt", run, estimator); });
///
/// `add_gradient(theta, g)` adds a gradient to g and returns the report of it: its losses, whose mean the
/// gradient is of, and whether it is finite. `held_out(theta)`: the mean loss that a report shows, in nats a
/// token of text, of `bytes_per_token` bytes. `after_report(row)` is called after each report, with its row
/// of the course: for checkpoints, files and lines of its own; where it returns false the loop ends there.
/// Throws what these throw; where add_gradient does, the run is as it was before that step.
///
/// status::ok: the run is done, or after_report has ended the loop. status::non_finite: a gradient was not;
/// the run is as it was before that step.
template <class X, class AddGradient, class HeldOut, class AfterReport>
[[nodiscard]] status train(run<X>& r, AddGradient&& add_gradient, HeldOut&& held_out,
                           AfterReport&& after_report, double bytes_per_token = 1) {
  for (;;) {
    if (r.due()) {
      const double start = unroll::detail::monotonic_seconds();
      const double loss = held_out(r.theta());
      const course_row& row = r.report(loss, bytes_per_token, unroll::detail::monotonic_seconds() - start);
      if constexpr (std::is_void_v<decltype(after_report(row))>)
        after_report(row);
      else if (!after_report(row))
        return status::ok;
    }
    if (r.done()) return status::ok;
    const double start = unroll::detail::monotonic_seconds();
    unroll::report of;
    try {
      of = add_gradient(r.theta(), r.gradient_sum());
    } catch (...) {  // it may have added some of it
      r.begin_step_again();
      throw;
    }
    if (of.code != status::ok) {
      r.begin_step_again();
      return of.code;
    }
    const status taken = r.update(of.loss, double(of.losses), unroll::detail::monotonic_seconds() - start);
    if (taken != status::ok) return taken;
  }
}

}  // namespace unroll::training
