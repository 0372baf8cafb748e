#pragma once

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "unroll/core/linalg.hpp"
#include "unroll/core/worker_pool.hpp"
#include "unroll/estimate/concept.hpp"

namespace unroll {

/// A system whose lanes can be dealt out:
///   F with_lanes(index_t lanes) const                     the same system over fewer lanes
///   input lanes_from(const input& x, index_t first) const the input of the lanes from `first` on
template <class F>
concept has_lane_slices = recurrent<F> && requires(const F& f, const typename F::input& x, index_t n) {
  { f.with_lanes(n) } -> std::same_as<F>;
  { f.lanes_from(x, n) } -> std::same_as<typename F::input>;
};

struct lane_parallel_options {
  index_t groups = 2;   ///< into how many estimators the lanes are dealt; must divide the number of lanes
  index_t threads = 0;  ///< 0: one a group; never changes a bit
};

/// Any estimator on several cores: the lanes are dealt to `groups` estimators of their own, each walks its
/// windows without waiting for the others, and the gradients are added in the order of the groups.
///
///     lane_parallel both(cell, {.groups = 2}, [](const auto& part) { return bptt(part); });
///
/// Bias and variance are those of the estimator inside; random ones draw from fold(key, group). A step, vjp
/// or jvp of the report is one of all lanes (the mean over the groups, where these differ).
/// Memory: that of the estimators and groups x P. After a report that is not ok a reset must follow, since
/// the groups may have stopped at different steps.
template <gradient_estimator E>
class lane_parallel final {
 public:
  using system_type = typename E::system_type;
  using scalar = typename E::scalar;
  using input = typename E::input;
  static_assert(has_lane_slices<system_type>,
                "lane_parallel needs: F with_lanes(index_t lanes) const and "
                "input lanes_from(const input& x, index_t first) const");
  static constexpr target target_gradient = E::target_gradient;
  static constexpr bool unbiased = E::unbiased;
  static constexpr auto references = E::references;

  template <class Make>
  lane_parallel(system_type f, lane_parallel_options options, const Make& make)
      : f_(std::move(f)), options_(options) {
    const index_t lanes = f_.size().lanes, groups = options_.groups;
    check_at_least("lane_parallel", "groups", groups, 1);
    check_at_least("lane_parallel", "threads", options_.threads, 0);
    if (lanes % groups != 0)
      fail("lane_parallel", "groups",
           "is " + std::to_string(groups) + ", must divide the " + std::to_string(lanes) + " lanes");
    const system_type part = f_.with_lanes(lanes / groups);
    parts_.reserve(std::size_t(groups));
    for (index_t i = 0; i < groups; ++i)
      parts_.push_back({make(part), gradient<scalar>(f_.size().params), std::vector<input>(piece), {}});
    start_workers();
  }
  lane_parallel(const lane_parallel& other) : f_(other.f_), options_(other.options_), parts_(other.parts_) {
    start_workers();
  }
  lane_parallel(lane_parallel&&) noexcept = default;
  lane_parallel& operator=(lane_parallel other) noexcept {
    std::swap(f_, other.f_);
    std::swap(options_, other.options_);
    std::swap(parts_, other.parts_);
    std::swap(workers_, other.workers_);
    return *this;
  }
  ~lane_parallel() = default;

  const system_type& system() const { return f_; }

  void reset(key k, state<const scalar> s0 = {}) {
    if (!s0.empty()) check_size("lane_parallel::reset", "s0", s0.size(), f_.size().state);
    const index_t part = f_.size().state / options_.groups;
    for (std::size_t i = 0; i < parts_.size(); ++i)
      parts_[i].estimator.reset(fold(k, i), s0.empty() ? s0 : s0.part(index_t(i) * part, part));
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    report total;
    for (std::size_t at = 0; at == 0 || at < xs.size(); at += piece) {
      const auto some = xs.subspan(at, std::min(piece, xs.size() - at));
      const index_t lanes = f_.size().lanes / options_.groups;
      total += together(g, [&](one& p, index_t group) {
        for (std::size_t i = 0; i < some.size(); ++i) p.xs[i] = f_.lanes_from(some[i], group * lanes);
        return p.estimator.advance(theta, std::span<const input>(p.xs.data(), some.size()), p.g);
      });
      if (total.code != status::ok) break;
    }
    return total;
  }

  report finish(params<const scalar> theta, dparams<scalar> g) {
    return together(g, [&](one& p, index_t) { return p.estimator.finish(theta, p.g); });
  }

 private:
  static constexpr std::size_t piece = 256;  // inputs dealt out at a time
  struct one {
    E estimator;
    gradient<scalar> g;
    std::vector<input> xs;
    report r;
  };

  void start_workers() {
    const index_t wanted = options_.threads == 0 ? options_.groups : options_.threads;
    workers_ = std::make_unique<worker_pool>(std::min(wanted, options_.groups));
  }

  template <class Work>
  report together(dparams<scalar> g, const Work& work) {
    check_size("lane_parallel", "g", g.size(), f_.size().params);
    auto job = [&](index_t worker) {
      for (index_t i = worker; i < options_.groups; i += workers_->size()) {
        one& p = parts_[std::size_t(i)];
        p.g.zero();
        p.r = work(p, i);
      }
    };
    workers_->run(job);
    report sum;
    std::size_t bytes = 0;
    for (one& p : parts_) {
      linalg::axpy(scalar(1), p.g.data(), g.data(), g.size());
      sum += p.r;
      bytes += p.r.bytes + p.g.bytes() + piece * sizeof(input);
    }
    sum.bytes = bytes;
    for (std::int64_t* n : {&sum.losses, &sum.consumed, &sum.steps, &sum.vjps, &sum.jvps})
      *n /= std::int64_t(parts_.size());
    return sum;
  }

  system_type f_;
  lane_parallel_options options_;
  std::vector<one> parts_;
  std::unique_ptr<worker_pool> workers_;
};

template <class F, class Make>
lane_parallel(F, lane_parallel_options, const Make&)
    -> lane_parallel<std::invoke_result_t<const Make&, const F&>>;

}  // namespace unroll
