#pragma once

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "unroll/core/worker_pool.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/run_groups.hpp"

namespace unroll {

struct lane_parallel_options {
  index_t groups = 2;   ///< into how many estimators the lanes are dealt; must divide the number of lanes
  index_t threads = 0;  ///< 0: one a group; never changes a bit
};

/// Any estimator on several cores: the lanes are dealt to `groups` estimators of their own. A group takes
/// inputs until it has done some work, without waiting for the others. What the groups find is added in the
/// order of the steps and, within a step, of the groups: neither the number of threads nor how the inputs
/// arrive changes a bit.
///
///     lane_parallel both(cell, {.groups = 2}, [](const auto& part) { return bptt(part); });
///
/// Bias: that of the estimator inside; random ones draw from fold(key, group). Variance: the same too where
/// lanes draw apart (uoro, nobacktrack). Where they share draws (artbp, es, pes, nres) those of two groups do
/// not, so that their covariance drops out: the variance falls where the lanes' errors point the same way and
/// rises where they cancel. A step, vjp or jvp of the report is one of all lanes (the mean over the groups,
/// where these differ). Memory: that of the estimators, groups x P, and a state. Where a step of one group is
/// not finite, g has no trace of that step, but the groups may have stopped at different steps: only reset()
/// can follow.
template <gradient_estimator E>
class lane_parallel final {
 public:
  using system_type = typename E::system_type;
  using scalar = typename E::scalar;
  using input = typename E::input;
  static_assert(has_lane_slices<system_type>,
                "lane_parallel needs: F with_lanes(index_t lanes) const and "
                "input lanes_from(const input& x, index_t first) const");
  static constexpr estimand estimated_gradient = E::estimated_gradient;
  static constexpr bool unbiased = E::unbiased;
  static constexpr bool random = E::random;
  static constexpr auto references = E::references;

  template <class Make>
  lane_parallel(system_type f, lane_parallel_options options, const Make& make)  // options: groups, threads
      : f_(std::move(f)), guard_("lane_parallel", f_), options_(options), last_(f_.size().state) {
    const index_t lanes = f_.size().lanes, groups = options_.groups;
    check_at_least("lane_parallel", "groups", groups, 1);
    check_at_least("lane_parallel", "threads", options_.threads, 0);
    if (lanes % groups != 0)
      fail("lane_parallel", "groups",
           "is " + std::to_string(groups) + ", must divide the " + std::to_string(lanes) + " lanes");
    const system_type part = f_.with_lanes(lanes / groups);
    parts_.reserve(std::size_t(groups));
    for (index_t i = 0; i < groups; ++i) parts_.push_back({make(part), gradient<scalar>(f_.size().params)});
    workers_ = workers(std::min(options_.threads == 0 ? groups : options_.threads, groups));
  }

  lane_parallel(const lane_parallel&) = default;
  lane_parallel(lane_parallel&&) noexcept = default;
  /// Where the copy cannot be made, *this is as before.
  lane_parallel& operator=(const lane_parallel& other) { return *this = lane_parallel(other); }
  lane_parallel& operator=(lane_parallel&&) noexcept = default;
  ~lane_parallel() = default;

  void reset(key k, state<const scalar> s0 = {}) {
    guard_.reset(s0);
    const index_t part = f_.size().state / options_.groups;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      parts_[i].estimator.reset(fold(k, i), s0.empty() ? s0 : s0.part(index_t(i) * part, part));
      parts_[i].g.zero();
      parts_[i].r = {};
    }
    now_ = {};
  }

  void mirror(bool on) requires requires(E e) { e.mirror(on); }
  {
    for (one& p : parts_)  // clang 14 instantiates it all the same where a class is instantiated as a whole
      if constexpr (requires { p.estimator.mirror(on); }) p.estimator.mirror(on);
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    guard_.check_advance(theta, g);
    const report before = now_.sum;
    bool usable = linalg::all_finite(theta.data(), theta.size());
    std::size_t count = 0;
    while (usable && count < xs.size() && (usable = finite_input(f_, xs[count]))) ++count;
    const index_t taken = now_.sum.code == status::ok ? run(theta, xs.first(count), g) : 0;
    now_.end += taken;
    return since(before, taken, usable);
  }

  report finish(params<const scalar> theta, dparams<scalar> g) {
    guard_.check_finish(theta, g);
    const report before = now_.sum;
    const bool usable = linalg::all_finite(theta.data(), theta.size());
    if (usable && now_.sum.code == status::ok) {
      together([&](one& p, index_t) {
        p.at = 0;
        p.r = p.estimator.finish(theta, p.g);
      });
      if (settle(0, g)) guard_.close({});
    }
    return since(before, 0, usable);
  }

  /// The states of the groups side by side.
  state<const scalar> last_state(params<const scalar> theta) requires has_last_state<E> {
    scalar* to = last_.data();
    for (one& p : parts_) {
      const auto s = p.estimator.last_state(theta);
      to = std::copy(s.begin(), s.end(), to);
    }
    return last_;
  }
  template <class V>
  void visit(V&& v) {
    guard_.visit(v, "groups " + std::to_string(options_.groups), f_);
    visit_part(v, "sum", now_.sum);
    visit_integer(v, "end", now_.end);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      visit_integer(v, "bytes " + std::to_string(i), parts_[i].bytes);
      visit_part(v, "group " + std::to_string(i), parts_[i].estimator);
    }
  }
  index_t held() const {
    index_t most = 0;
    for (const one& p : parts_) most = std::max(most, held_inputs(p.estimator));
    return most;
  }
  void hold(std::span<const input> xs) {
    check_size("hold", "xs", index_t(xs.size()), held());
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      std::vector<input> part;
      for (const input& x : xs.last(std::size_t(held_inputs(parts_[i].estimator))))
        part.push_back(f_.lanes_from(x, index_t(i) * f_.size().lanes / options_.groups));
      hold_inputs(parts_[i].estimator, std::span<const input>(part));
    }
  }
  const system_type& system() const { return f_; }
  perturbation smoothing() const { return smoothing_of(parts_.front().estimator); }

 private:
  struct one {
    E estimator;
    gradient<scalar> g;  // found, and not yet added to the caller's
    report r = {};       // of the calls that found it
    index_t at = 0;      // inputs taken in this call of advance()
    std::size_t bytes = 0;
  };
  // A pool of threads; the copy of an estimator has one of its own.
  struct workers {
    workers() = default;
    explicit workers(index_t count) : pool(std::make_unique<worker_pool>(count)) {}
    workers(const workers& other) {
      if (other.pool) pool = std::make_unique<worker_pool>(other.pool->size());
    }
    workers(workers&&) noexcept = default;
    workers& operator=(workers other) noexcept {
      pool.swap(other.pool);
      return *this;
    }
    ~workers() = default;
    std::unique_ptr<worker_pool> pool;
  };
  struct progress {
    report sum;            // over the groups, since reset; its code is that of the first failure
    std::int64_t end = 0;  // inputs since reset
  };

  // Returns the number of inputs taken: all of them, or those in front of the one that failed.
  index_t run(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    const auto count = index_t(xs.size()), lanes = f_.size().lanes / options_.groups;
    for (one& p : parts_) p.at = 0;
    for (index_t first = 0; first < count;) {
      together([&](one& p, index_t group) {
        while (p.at < count && p.r.steps == 0 && p.r.code == status::ok) {
          const input x = f_.lanes_from(xs[std::size_t(p.at++)], group * lanes);
          p.r += p.estimator.advance(theta, std::span<const input>(&x, 1), p.g);
        }
      });
      first = count;
      for (const one& p : parts_) first = std::min(first, p.at);
      if (!settle(first, g)) return first - 1;
    }
    return count;
  }

  // Adds what has been found by those who stand behind input `at`; nothing when one of them has failed.
  bool settle(index_t at, dparams<scalar> g) {
    for (one& p : parts_) {
      if (p.at != at) continue;
      now_.sum += p.r;
      if (p.r.code != status::ok) now_.sum.at = std::min(now_.sum.at, p.r.at);
      p.bytes = std::max(p.bytes, p.r.bytes + p.g.bytes());
    }
    if (now_.sum.code != status::ok) return false;
    for (one& p : parts_) {
      if (p.at != at) continue;
      linalg::axpy(scalar(1), p.g.data(), g.data(), g.size());
      p.g.zero();
      p.r = {};
    }
    return true;
  }

  report since(const report& before, std::int64_t taken, bool usable) const {
    const auto mean = [&](std::int64_t report::*n) {
      const auto groups = std::int64_t(parts_.size());
      return now_.sum.*n / groups - before.*n / groups;
    };
    report r;
    r.loss = now_.sum.loss - before.loss;
    r.losses = now_.sum.losses - before.losses;
    r.consumed = taken;
    r.steps = mean(&report::steps);
    r.vjps = mean(&report::vjps);
    r.jvps = mean(&report::jvps);
    for (const one& p : parts_) r.bytes += p.bytes;
    r.bytes += last_.bytes();
    r.code = now_.sum.code;
    r.at = now_.sum.at;
    if (r.code == status::ok && !usable) {
      r.code = status::non_finite;
      r.at = now_.end;
    }
    return r;
  }

  template <class Work>
  void together(const Work& work) {
    auto job = [&](index_t worker) {
      for (index_t i = worker; i < options_.groups; i += workers_.pool->size())
        work(parts_[std::size_t(i)], i);
    };
    workers_.pool->run(job);
  }

  system_type f_;
  sequence_guard<system_type> guard_;
  lane_parallel_options options_;
  block<scalar, state_space> last_;  // for last_state()
  std::vector<one> parts_;
  progress now_;
  workers workers_;
};

/// From a function that makes the estimators.
template <class F, class Make>
lane_parallel(F, lane_parallel_options, const Make&)
    -> lane_parallel<std::invoke_result_t<const Make&, const F&>>;

}  // namespace unroll
