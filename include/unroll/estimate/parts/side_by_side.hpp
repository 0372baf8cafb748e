#pragma once

#include <algorithm>
#include <array>
#include <tuple>

#include "unroll/core/linalg.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/estimate/parts/joint_reports.hpp"
#include "unroll/estimate/parts/run_groups.hpp"

namespace unroll {

/// Different estimators of the same system side by side, and a weighted sum of what they give. Every input
/// passes through all of them before the next one, so that how inputs arrive changes no bit. When a step is
/// not finite for only some of them (they run it at different times), g has no trace of it and only reset()
/// can follow.
template <gradient_estimator First, gradient_estimator... Rest>
class side_by_side {
 public:
  using system_type = typename First::system_type;
  using scalar = typename First::scalar;
  using input = typename First::input;
  static constexpr std::size_t count = 1 + sizeof...(Rest);  ///< estimators
  static_assert((std::same_as<typename Rest::scalar, scalar> && ...) &&
                    (std::same_as<typename Rest::input, input> && ...),
                "the estimators must have systems of the same number type and inputs");

  /// name: of who owns them, in messages, a literal.
  side_by_side(std::string_view name, First first, Rest... rest)
      : name_(name), parts_(std::move(first), std::move(rest)...), sum_(system().size().params) {
    runs_.fill(true);
    for_each([&](const auto& e) {
      check_size(name_, "system", e.system().size().params, sum_.size());
      check_size(name_, "system", e.system().size().state, system().size().state);
    });
  }

  /// A new sequence: estimator i counts with weights[i], and is not run at all where runs[i] is false; its
  /// stream is fold(k, i). The first one is always run: the reported loss is its.
  void reset(key k, state<const scalar> s0, const std::array<double, count>& weights,
             const std::array<bool, count>& runs) {
    weights_ = weights;
    runs_ = runs;
    runs_[0] = true;
    std::size_t i = 0;
    for_each([&](auto& e) { e.reset(fold(k, i++), s0); });
    reports_.failed = {};
  }
  /// Of those that can be mirrored.
  void mirror(bool on) {
    for_each([&](auto& e) {
      if constexpr (requires { e.mirror(on); }) e.mirror(on);
    });
  }

  report advance(params<const scalar> theta, std::span<const input> xs, dparams<scalar> g) {
    check_sizes("::advance", theta, g);
    report r;
    for (std::size_t i = 0; i < xs.size() && r.code == status::ok; ++i)
      r += each(g, [&](auto& e) { return e.advance(theta, xs.subspan(i, 1), sum_); });
    r.bytes = bytes();
    return r;
  }
  report finish(params<const scalar> theta, dparams<scalar> g) {
    check_sizes("::finish", theta, g);
    report r = each(g, [&](auto& e) { return e.finish(theta, sum_); });
    r.bytes = bytes();
    return r;
  }

  First& first() { return std::get<0>(parts_); }  ///< the one whose loss is reported
  const system_type& system() const { return std::get<0>(parts_).system(); }
  template <class V>
  void visit(V&& v) {
    v("weights", view<double>(weights_.data(), index_t(count)));
    for (std::size_t i = 0; i < count; ++i) visit_flag(v, "runs " + std::to_string(i), runs_[i]);
    visit_part(v, "failed", reports_.failed);
    std::size_t i = 0;
    for_each([&](auto& e) { visit_part(v, "estimator " + std::to_string(i++), e); });
  }
  index_t held() const {
    index_t most = 0;
    for_each([&](const auto& e) { most = std::max(most, held_inputs(e)); });
    return most;
  }
  void hold(std::span<const input> xs) {
    check_size("hold", "xs", index_t(xs.size()), held());
    for_each([&](auto& e) { hold_inputs(e, xs.last(std::size_t(held_inputs(e)))); });
  }

 private:
  template <class Call>
  void for_each(Call&& call) {
    std::apply([&](auto&... e) { (call(e), ...); }, parts_);
  }
  template <class Call>
  void for_each(Call&& call) const {
    std::apply([&](const auto&... e) { (call(e), ...); }, parts_);
  }
  void check_sizes(const char* call, params<const scalar> theta, dparams<scalar> g) const {
    if (theta.size() == sum_.size() && g.size() == sum_.size()) return;
    check_size(std::string(name_) + call, "theta", theta.size(), sum_.size());
    check_size(std::string(name_) + call, "g", g.size(), sum_.size());
  }

  // The same call to every estimator that runs; g receives the weighted sum only when all of them succeed.
  template <class Call>
  report each(dparams<scalar> g, Call&& call) {
    report r = reports_.begin();
    if (r.code != status::ok) return r;
    total_.zero();
    std::size_t i = 0;
    for_each([&](auto& e) {
      const std::size_t at = i++;
      if (r.code != status::ok || !runs_[at]) return;
      sum_.zero();
      const report one = call(e);
      linalg::axpy(scalar(weights_[at]), sum_.data(), total_.data(), sum_.size());
      reports_.enter(one, at == 0, r);
    });
    if (r.code == status::ok) linalg::axpy(scalar(1), total_.data(), g.data(), sum_.size());
    return r;
  }
  std::size_t bytes() const { return reports_.bytes + sum_.bytes() + total_.bytes(); }

  std::string_view name_;
  std::tuple<First, Rest...> parts_;
  std::array<double, count> weights_{};
  std::array<bool, count> runs_{};
  gradient<scalar> sum_, total_{sum_};  // of one estimator, and of all of them
  joint_reports reports_;
};

}  // namespace unroll
