#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "unroll/exec/of.hpp"
#include "unroll/optim/adam.hpp"
#include "unroll/optim/clip.hpp"
#include "unroll/optim/schedule.hpp"

namespace unroll::training {

/// A run with AdamW: the rate rises in a line, then falls by a cosine; the gradient of a step is clipped.
struct run_options {
  index_t steps = 1000;    ///< updates
  index_t warm_up = -1;    ///< steps in which the rate rises; -1: a hundredth of all
  index_t report = 50;     ///< steps between two reports
  double rate = 1e-3;      ///< the highest
  double last_rate = 0.1;  ///< where the cosine ends, as a share of the highest
  double clip = 1;         ///< norm of the gradient of a step; 0: off
  double decay = 0.1;      ///< decoupled weight decay
  double beta1 = 0.9;      ///< of the mean of gradients
  double beta2 = 0.95;     ///< of the mean of their squares
  index_t accumulate = 1;  ///< gradients that are added up for a step
  index_t patience = 0;    ///< the run ends after so many reports without a lower held-out loss; 0: never
  double clip_value = 0;   ///< bound of every number of the gradient of a step, before its norm; 0: off
};

/// All of the options, as text.
inline std::string identity_of(const run_options& o) {
  char text[512];
  std::snprintf(
      text, sizeof text,
      "%td steps, warm-up %td, report %td, rate %.9g to %.9g, clip %.9g, decay %.9g, betas %.9g %.9g",
      std::ptrdiff_t(o.steps), std::ptrdiff_t(o.warm_up), std::ptrdiff_t(o.report), o.rate, o.last_rate,
      o.clip, o.decay, o.beta1, o.beta2);
  std::string all = text;
  if (o.accumulate > 1) all += ", of " + std::to_string(o.accumulate) + " gradients";
  if (o.patience > 0) all += ", patience " + std::to_string(o.patience);
  if (o.clip_value > 0) all += ", clip value " + number_text(o.clip_value);
  return all;
}

/// One report of a run: means over the steps since the report before, in nats a token.
struct course_row {
  std::int64_t step = 0;              ///< steps taken
  double training = 0;                ///< loss of the samples
  double held_out = 0;                ///< loss of the held-out texts
  double held_out_bits_per_byte = 0;  ///< the same in bits, a byte of the text
  double rate = 0;                    ///< of the last step
  double norm = 0;                    ///< of the gradients, before it was clipped
  /// Not part of a saved run: NaN after it was loaded.
  double tokens_per_second = std::numeric_limits<double>::quiet_NaN();
  double seconds = std::numeric_limits<double>::quiet_NaN();  ///< of this process, up to here
};

/// What the steps since the last report have seen.
struct running_sums {
  double loss = 0, tokens = 0, norm = 0, steps = 0;  ///< summed losses and norms, and over what
};

/// How far a run has come; with theta, the optimiser and the sum of gradients all that a resumed run needs
/// (train/run_file.hpp).
struct run_state {
  std::int64_t step = 0;
  running_sums sums;                        ///< since the last report
  std::vector<course_row> course;           ///< report after report
  std::int64_t added = 0;                   ///< gradients that wait for others of their step
  double added_loss = 0, added_tokens = 0;  ///< of these
};

/// The report with the lowest held-out loss, the first of several; null where there is none yet.
inline const course_row* best_of(const std::vector<course_row>& course) {
  const auto best = std::min_element(course.begin(), course.end(),
                                     [](const auto& a, const auto& b) { return a.held_out < b.held_out; });
  return best == course.end() ? nullptr : &*best;
}

/// Throws unroll::error, with both values, where no run of `steps` steps, each of `accumulate` gradients,
/// comes by such a state.
inline void check_state(const run_state& s, std::int64_t steps, std::int64_t accumulate = 1) {
  const auto finite = [](const std::string& name, double value) {
    if (!std::isfinite(value)) fail("run", name, "is " + number_text(value) + ", must be finite");
  };
  const auto within = [](const std::string& name, std::int64_t value, std::int64_t least, std::int64_t most) {
    if (value < least || value > most)
      fail("run", name,
           "is " + std::to_string(value) + ", must be from " + std::to_string(least) + " to " +
               std::to_string(most));
  };
  within("step", s.step, 0, steps);
  std::int64_t reported = 0;
  for (std::size_t i = 0; i < s.course.size(); ++i) {
    const course_row& r = s.course[i];
    const std::string row = "row " + std::to_string(i) + " of the course: ";
    within(row + "step", r.step, i == 0 ? 0 : reported + 1, s.step);
    reported = r.step;
    finite(row + "training", r.training);
    finite(row + "held_out", r.held_out);
    finite(row + "held_out_bits_per_byte", r.held_out_bits_per_byte);
    finite(row + "rate", r.rate);
    finite(row + "norm", r.norm);
  }
  finite("sums: loss", s.sums.loss);
  finite("sums: norm", s.sums.norm);
  finite("sums: tokens", s.sums.tokens);
  if (s.sums.tokens < 0)
    fail("run", "sums: tokens", "are " + number_text(s.sums.tokens) + ", must be 0 or more");
  if (s.sums.steps != double(s.step - reported))
    fail("run", "sums: steps",
         "are " + number_text(s.sums.steps) + ", but " + std::to_string(s.step - reported) +
             " were taken since the last report");
  within("added", s.added, 0, s.step < steps ? accumulate - 1 : 0);
  finite("added: loss", s.added_loss);
  finite("added: tokens", s.added_tokens);
  if (s.added_tokens < 0 || (s.added == 0 && (s.added_loss != 0 || s.added_tokens != 0)))
    fail("run", "added: tokens",
         "are " + number_text(s.added_tokens) + " and their loss " + number_text(s.added_loss) + ", of " +
             std::to_string(s.added) + " gradients");
}

/// Parameters, their optimiser and the course of a training run. Whoever holds it computes the gradients, and
/// reports in front of a step, so that a resumed run makes a report that was due when it was saved:
///
///     samples.seek(r.position());
///     for (;;) {
///       if (r.due()) r.report(held_out(r.theta()), bytes_per_token);
///       if (r.done()) break;
///       auto& g = r.gradient_sum();
///       const report sum = gradients.add(fold(k, r.position()), r.theta(), samples.next(), g);
///       if (sum.code != status::ok) break;
///       if (r.update(sum.loss, double(sum.losses), seconds) != status::ok) break;
///     }
///
/// (train/loop.hpp has this loop as a function.) A step may be of several gradients (accumulate), which have
/// the bits of one of all their samples where these are added in the same order. It may be saved between any
/// two of them; one that has been added in part, since it threw or was not finite, takes the others of its
/// step with it: begin_step_again(). Nothing in it looks at a clock: times are told.
///
/// X: an executor, or what exec::of makes one of. Theta, the sum of gradients and the moments lie at its
/// place, 16 bytes a parameter of 4 bytes, and stay there: a step brings two numbers to the host, the norm
/// and whether all is finite. Off the host the norm is that of the executor (optim/clip.hpp), so that a run
/// has other bits there, and its identity says so.
template <class X>
class run final {
  using E = exec::of<X>;
  using T = typename E::numbers::parameter;

 public:
  using theta_type = typename E::template block<T, param_space>;               ///< owns theta
  using gradient_type = typename E::template block<T, param_cotangent_space>;  ///< owns a gradient

  /// `identity`: everything else that decides about the bits of the run; a saved run is resumed only by one
  /// of the same. theta: of the host, from where it is brought. Throws unroll::error on options out of range.
  run(const run_options& o, parameters<T> theta, std::string identity, E e = E{})
      : options_(checked(o)),
        identity_(std::move(identity) + "; " + identity_of(o) +
                  (E::where == place::host ? "" : "; on a device")),
        executor_(std::move(e)),
        theta_(at_place(executor_, std::move(theta))),
        g_(executor_.template allocate<T, param_cotangent_space>(theta_.size())),
        norm_(executor_.template allocate<T>(1)),
        optimiser_(theta_.size(), {.rate = o.rate, .beta1 = o.beta1, .beta2 = o.beta2, .decay = o.decay},
                   executor_),
        schedule_{
            .warm_up = o.warm_up >= 0 ? o.warm_up : o.steps / 100, .total = o.steps, .last = o.last_rate} {}

  const run_options& options() const { return options_; }
  const std::string& identity() const { return identity_; }
  const E& executor() const { return executor_; }  ///< at whose place theta lies
  theta_type& theta() { return theta_; }
  /// With its moments; its steps are those of the run.
  adam<X>& optimiser() { return optimiser_; }
  std::int64_t step() const { return state_.step; }
  /// Gradients added so far: where the samples of the next one stand, and its key.
  std::int64_t position() const { return state_.step * options_.accumulate + state_.added; }
  /// Whether all steps are taken, or the run has ended early.
  bool done() const { return state_.step >= options_.steps || ended_early(); }
  /// Whether the held-out loss has not fallen for `patience` reports. Theta is that of the last step; who
  /// wants that of best() saves it when it is reported.
  bool ended_early() const {
    const course_row* best = best_of(state_.course);
    return options_.patience > 0 && best && &state_.course.back() - best >= options_.patience;
  }
  /// The report with the lowest held-out loss, the first of several; null where there is none yet. It holds
  /// until the next report.
  const course_row* best() const { return best_of(state_.course); }
  /// The reports so far.
  const std::vector<course_row>& course() const { return state_.course; }
  const run_state& state() const { return state_; }
  /// Goes on from there; theta, the optimiser and gradient_sum() are restored apart (load_run). Throws
  /// unroll::error as check_state does, and has changed nothing then.
  void restore(run_state s) {
    check_state(s, options_.steps, options_.accumulate);
    state_ = std::move(s);
  }

  /// What the next gradient is added to: zero in front of the first one of a step.
  gradient_type& gradient_sum() {
    if (state_.added == 0) executor_.fill(matrix<T>(g_.data(), g_.size(), 1), 0);
    return g_;
  }

  /// Forgets the gradients that wait for others of their step: the run is as it was before it.
  void begin_step_again() {
    state_.added = 0;
    state_.added_loss = state_.added_tokens = 0;
  }

  /// Counts the gradient of the sum `loss` over `tokens` tokens that was added to gradient_sum(), which took
  /// `seconds`, and takes the step with the last one of it: their sum is divided by all of their tokens.
  /// status::non_finite: loss or gradient of the step are not finite, or the sums of them since the last
  /// report are not, and the run is as it was before the step. Throws unroll::error on tokens that are no
  /// count.
  [[nodiscard]] status update(double loss, double tokens, double seconds = 0) {
    if (!(tokens >= 0 && std::isfinite(tokens)))
      fail("run::update", "tokens", "are " + number_text(tokens) + ", must be 0 or more and finite");
    const running_sums& s = state_.sums;
    loss += state_.added_loss;
    tokens += state_.added_tokens;
    step_seconds_ += seconds;
    const std::int64_t added = state_.added + 1;
    if (std::isfinite(s.loss + loss) && added < options_.accumulate) {
      state_.added = added;
      state_.added_loss = loss;
      state_.added_tokens = tokens;
      return status::ok;
    }
    begin_step_again();
    if (tokens > 0) executor_.scale(1 / tokens, g_.data(), g_.size());
    if (options_.clip_value > 0) executor_.clamp(options_.clip_value, g_.data(), g_.size());
    const double norm =
        clip_norm(executor_, dparams<T>(g_),
                  options_.clip > 0 ? options_.clip : std::numeric_limits<double>::infinity(), norm_.data());
    const running_sums next{s.loss + loss, s.tokens + tokens, s.norm + norm, s.steps + 1};
    if (!std::isfinite(next.loss) || !std::isfinite(next.norm)) return status::non_finite;
    if (optimiser_.step(theta_, g_, schedule_(state_.step)) != status::ok) return status::non_finite;
    ++state_.step;
    state_.sums = next;
    step_tokens_ += tokens;
    return status::ok;
  }

  /// Whether it is time to report.
  bool due() const {
    return state_.sums.steps > 0 && state_.added == 0 && (state_.step % options_.report == 0 || done());
  }

  /// Mean training loss since the last report, in nats a token.
  double training_loss() const { return state_.sums.loss / std::max(1.0, state_.sums.tokens); }
  /// How fast the steps since the last report were.
  double tokens_per_second() const { return step_tokens_ / std::max(1e-9, step_seconds_); }

  /// Adds a row to the course; the sums begin anew. `held_out`: nats a token; `seconds`: that scoring took.
  /// Throws unroll::error, and changes nothing, where held_out or the bits a byte are not finite, bytes are
  /// not above 0, or this step has been reported.
  const course_row& report(double held_out, double bytes_per_token = 1, double seconds = 0) {
    const double bits = held_out / bytes_per_token / std::log(2.0);
    if (!(std::isfinite(bits) && std::isfinite(held_out) && bytes_per_token > 0))
      fail("run::report", "held_out",
           "is " + number_text(held_out) + " nats a token, of " + number_text(bytes_per_token) +
               " bytes; must be finite, of more than 0");
    if (!state_.course.empty() && state_.course.back().step == state_.step)
      fail("run::report", "step",
           "is " + std::to_string(state_.step) + ", the last report is of step " +
               std::to_string(state_.course.back().step));
    seconds_ += step_seconds_ + seconds;
    state_.course.push_back({.step = state_.step,
                             .training = training_loss(),
                             .held_out = held_out,
                             .held_out_bits_per_byte = bits,
                             .rate = options_.rate * schedule_(state_.step - 1),
                             .norm = state_.sums.norm / std::max(1.0, state_.sums.steps),
                             .tokens_per_second = tokens_per_second(),
                             .seconds = seconds_});
    state_.sums = {};
    step_seconds_ = step_tokens_ = 0;
    return state_.course.back();
  }

 private:
  static const run_options& checked(const run_options& o) {
    check_at_least("run", "steps", o.steps, 1);
    check_at_least("run", "warm_up", o.warm_up, -1);
    check_at_least("run", "report", o.report, 1);
    check_at_least("run", "accumulate", o.accumulate, 1);
    check_at_least("run", "patience", o.patience, 0);
    const auto refuse = [](const char* name, double value, const char* wanted) {
      fail("run", name, "is " + number_text(value) + ", must be " + wanted);
    };
    if (!(o.rate > 0 && std::isfinite(o.rate))) refuse("rate", o.rate, "above 0 and finite");
    if (!(o.last_rate >= 0 && o.last_rate <= 1)) refuse("last_rate", o.last_rate, "in [0, 1]");
    if (!(o.clip >= 0)) refuse("clip", o.clip, "at least 0");
    if (!(o.clip_value >= 0)) refuse("clip_value", o.clip_value, "at least 0");
    if (!(o.decay >= 0 && std::isfinite(o.decay))) refuse("decay", o.decay, "at least 0 and finite");
    if (!(o.beta1 >= 0 && o.beta1 < 1)) refuse("beta1", o.beta1, "in [0, 1)");
    if (!(o.beta2 >= 0 && o.beta2 < 1)) refuse("beta2", o.beta2, "in [0, 1)");
    return o;
  }

  static theta_type at_place(const E& e, parameters<T> theta) {
    if constexpr (E::where == place::host) {
      return theta;
    } else {
      auto there = e.template allocate<T, param_space>(theta.size());
      e.upload(theta.data(), theta.size(), there.data());
      return there;
    }
  }

  run_options options_;
  std::string identity_;
  E executor_;
  theta_type theta_;
  gradient_type g_;
  typename E::template block<T> norm_;
  adam<X> optimiser_;
  cosine_schedule schedule_;
  run_state state_;
  double step_seconds_ = 0, step_tokens_ = 0;  // since the last report
  double seconds_ = 0;                         // of this process
};

}  // namespace unroll::training
