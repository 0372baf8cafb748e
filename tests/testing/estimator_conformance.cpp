#include "unroll/testing/estimator_conformance.hpp"

#include <memory>

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/parts/run_groups.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/uoro.hpp"

namespace testing = unroll::testing;
using strings = std::vector<std::string>;
using unroll::index_t;
using unroll::report;
using unroll::status;

namespace {

enum class fault {
  none,
  sums_per_call,     // adds up a call before it adds to g: other roundings for other chunks
  forgets_at_calls,  // starts the influence anew in every call
  counts_calls,      // one more step of work reported per call
  keeps_influence,   // reset does not clear it
  ignores_start,     // reset(key, s0) uses zero
  hidden_stream,     // draws that do not start over with the key
  overwrites,        // writes g
  accepts_any_size,
  accepts_nan_theta,
  accepts_nan_input,   // steps on the bad input, then reports it
  consumes_bad_input,  // reports it as taken
  wrong_position,      // at is one too large
  allocates,
  wrong_loss,
  loses_steps,
  counts_steps,  // instead of what the system says is scored, which is one a lane
  no_bytes,
  shares_state,       // copies share the state
  forgets_influence,  // not saved
  forgets_position,
  no_identity,  // resumes whatever was saved
  late_state,   // last_state() is that in front of the last input
};

// Exact gradient by pushing one tangent per parameter forward: an estimator as small as it can be.
template <class F>
class forward_mode final {
 public:
  using system_type = F;
  using scalar = typename F::scalar;
  using input = typename F::input;
  using T = scalar;
  static constexpr unroll::estimand estimated_gradient = unroll::estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"williams1989rtrl"};

  explicit forward_mode(F f, fault wrong = fault::none) : f_(f), d_(f.size()), wrong_(wrong) {
    s_ = unroll::buffer<T>(d_.state);
    next_ = unroll::buffer<T>(d_.state);
    tape_ = unroll::buffer<T>(d_.tape);
    workspace_ = unroll::buffer<T>(d_.workspace);
    tangent_ = unroll::buffer<T>(d_.state * d_.params);
    moved_ = unroll::buffer<T>(d_.state);
    unit_ = unroll::buffer<T>(d_.params);
    sum_ = unroll::buffer<T>(d_.params);
    shared_ = std::make_shared<T>(0);
  }
  const F& system() const { return f_; }

  void reset(unroll::key, unroll::state<const T> s0 = {}) {
    t_ = 0;
    if (wrong_ != fault::keeps_influence) tangent_.zero();
    *shared_ = 0;
    unroll::start_state(f_, {s_.data(), s_.size()});
    if (wrong_ == fault::ignores_start && !s0.empty()) s_.zero();
    if (wrong_ == fault::accepts_any_size || wrong_ == fault::ignores_start || s0.empty()) return;
    unroll::check_size("forward_mode::reset", "s0", s0.size(), d_.state);
    std::copy(s0.begin(), s0.end(), s_.begin());
  }

  report advance(unroll::params<const T> theta, std::span<const input> xs, unroll::dparams<T> g) {
    if (wrong_ != fault::accepts_any_size) check("forward_mode::advance", theta, g);
    report r;
    if (wrong_ != fault::no_bytes) r.bytes = s_.bytes() + tangent_.bytes();
    if (wrong_ != fault::accepts_nan_theta && !unroll::linalg::all_finite(theta.data(), theta.size()))
      return stop(r);
    if (wrong_ == fault::allocates) ::operator delete(::operator new(1));
    if (wrong_ == fault::forgets_at_calls) tangent_.zero();
    if (wrong_ == fault::overwrites) std::fill(g.begin(), g.end(), T(0));
    if (wrong_ == fault::counts_calls) ++r.steps;
    sum_.zero();
    for (const input& x : xs) {
      if (!unroll::finite_input(f_, x)) {
        if (wrong_ == fault::accepts_nan_input) one(theta, x, g, r);
        if (wrong_ == fault::consumes_bad_input) ++r.consumed;
        return stop(r);
      }
      one(theta, x, wrong_ == fault::sums_per_call ? unroll::dparams<T>{sum_.data(), sum_.size()} : g, r);
      ++r.consumed;
      ++t_;
    }
    if (wrong_ == fault::sums_per_call)
      for (index_t i = 0; i < g.size(); ++i) g[i] += sum_[i];
    return r;
  }
  report finish(unroll::params<const T> theta, unroll::dparams<T> g) {
    if (wrong_ != fault::accepts_any_size) check("forward_mode::finish", theta, g);
    return {};
  }

  unroll::state<const T> last_state(unroll::params<const T>) const {
    return wrong_ == fault::late_state ? unroll::state<const T>(next_.data(), next_.size())
                                       : unroll::state<const T>(s_.data(), s_.size());
  }
  template <class V>
  void visit(V&& v) {
    if (wrong_ != fault::no_identity) unroll::visit_identity(v, "forward_mode", f_);
    v("s", unroll::view<T>(s_));
    if (wrong_ != fault::forgets_influence) v("tangent", unroll::view<T>(tangent_));
    if (wrong_ != fault::forgets_position) unroll::visit_integer(v, "t", t_);
  }

 private:
  void check(const char* function, unroll::params<const T> theta, unroll::dparams<T> g) const {
    unroll::check_size(function, "theta", theta.size(), d_.params);
    unroll::check_size(function, "g", g.size(), d_.params);
  }
  report stop(report r) const {
    r.code = status::non_finite;
    r.at = t_ + (wrong_ == fault::wrong_position ? 1 : 0);
    return r;
  }
  void one(unroll::params<const T> theta, const input& x, unroll::dparams<T> g, report& r) {
    T loss = 0;
    const unroll::edge<T> e{theta,
                            {s_.data(), s_.size()},
                            {next_.data(), next_.size()},
                            {tape_.data(), tape_.size()},
                            &loss,
                            workspace_,
                            t_};
    f_.step(x, e);
    for (index_t p = 0; p < d_.params; ++p) {
      T* column = tangent_.data() + p * d_.state;
      T dloss = 0;
      unit_[p] = 1;
      f_.jvp(x, unroll::const_edge<T>(e), {unit_.data(), unit_.size()}, {column, d_.state},
             {moved_.data(), moved_.size()}, &dloss);
      unit_[p] = 0;
      std::copy(moved_.begin(), moved_.end(), column);
      g[p] += dloss;
    }
    if (wrong_ == fault::hidden_stream) g[0] += (draws_ += T(1e-3));
    if (wrong_ == fault::shares_state) g[0] += (*shared_ += T(1e-3));
    std::swap(next_, s_);
    r.loss += double(loss) * (wrong_ == fault::wrong_loss ? 1.01 : 1);
    if (wrong_ != fault::loses_steps)
      r.losses += wrong_ == fault::counts_steps ? 1 : unroll::scored_losses(f_, x);
    ++r.steps;
    r.jvps += d_.params;
  }

  F f_;
  unroll::dims d_;
  fault wrong_;
  unroll::buffer<T> s_, next_, tape_, workspace_, tangent_, moved_, unit_, sum_;
  std::shared_ptr<T> shared_;
  T draws_ = 0;
  std::int64_t t_ = 0;
};

}  // namespace

namespace {

strings examine(fault wrong) {
  const support::complete<double> f{2, 2};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  return testing::estimator_conformance(forward_mode(f, wrong), support::complete_theta<double>(),
                                        support::complete_inputs<double>(53), &nan);
}

}  // namespace

TEMPLATE_TEST_CASE("a correct estimator conforms", "", float, double) {
  const TestType nan = std::numeric_limits<TestType>::quiet_NaN();
  for (const index_t steps : {1, 2, 53})
    CHECK(testing::estimator_conformance(forward_mode(support::complete<TestType>{2, 2}),
                                         support::complete_theta<TestType>(),
                                         support::complete_inputs<TestType>(steps), &nan) == strings{});
}

TEST_CASE("every broken promise is found and named") {
  struct row {
    fault wrong;
    const char* expected;
  };
  const std::vector<row> table{
      {fault::sums_per_call, "other bits with chunks of"},
      {fault::forgets_at_calls, "other bits with chunks of 1"},
      {fault::counts_calls, "other work with chunks of"},
      {fault::keeps_influence, "reset: the second pass"},
      {fault::ignores_start, "start given as s0"},
      {fault::hidden_stream, "reset: the second pass"},
      {fault::overwrites, "does not add to g"},
      {fault::accepts_any_size, "theta of the wrong size"},
      {fault::accepts_any_size, "reset: takes a state"},
      {fault::accepts_nan_theta, "a theta that is not finite"},
      {fault::accepts_nan_input, "reaches g"},
      {fault::consumes_bad_input, "consumes an input that is not finite"},
      {fault::wrong_position, "at is 27 for a bad input at step 26"},
      {fault::allocates, "advance: allocates"},
      {fault::wrong_loss, "report: loss is"},
      {fault::loses_steps, "report: losses is 0"},
      {fault::counts_steps, "report: losses is 53, the system has 106"},
      {fault::no_bytes, "bytes is 0"},
      {fault::shares_state, "copy of a running estimator"},
      {fault::forgets_influence, "a resumed stream has other bits"},
      {fault::forgets_position, "a resumed stream counts its steps from elsewhere"},
      {fault::no_identity, "resumes although \"run.estimator\" is another"},
      {fault::late_state, "last_state: is not that of the system after 0 inputs"},
  };
  for (const auto& [wrong, expected] : table) {
    const strings failures = examine(wrong);
    INFO(expected << "; found: " << (failures.empty() ? "nothing" : failures.front()));
    bool found = false;
    for (const auto& f : failures) found = found || f.find(expected) != std::string::npos;
    CHECK(found);
  }
}

namespace {

// Saves all that E shows but what has the skipped name.
template <class E>
class forgetful final {
 public:
  using system_type = typename E::system_type;
  using scalar = typename E::scalar;
  using input = typename E::input;
  static constexpr unroll::estimand estimated_gradient = E::estimated_gradient;
  static constexpr bool unbiased = E::unbiased;
  static constexpr bool random = E::random;
  static constexpr auto references = E::references;

  forgetful(E e, std::string skipped) : e_(std::move(e)), skipped_(std::move(skipped)) {}
  const system_type& system() const { return e_.system(); }
  unroll::perturbation smoothing() const { return unroll::smoothing_of(e_); }
  void reset(unroll::key k, unroll::state<const scalar> s0 = {}) { e_.reset(k, s0); }
  void mirror(bool on) requires random { e_.mirror(on); }
  report advance(unroll::params<const scalar> theta, std::span<const input> xs, unroll::dparams<scalar> g) {
    return e_.advance(theta, xs, g);
  }
  report finish(unroll::params<const scalar> theta, unroll::dparams<scalar> g) { return e_.finish(theta, g); }
  unroll::state<const scalar> last_state(unroll::params<const scalar> theta) { return e_.last_state(theta); }
  index_t held() const { return unroll::held_inputs(e_); }
  void hold(std::span<const input> xs) { unroll::hold_inputs(e_, xs); }
  template <class V>
  void visit(V&& v) {
    e_.visit([&](std::string_view name, auto shown) {
      if (name != skipped_) v(name, shown);
    });
  }

 private:
  E e_;
  std::string skipped_;
};

}  // namespace

TEST_CASE("whatever number of its own an estimator forgets to save, the check of resuming finds it") {
  const unroll::cells::gru<double> cell({.in = 1, .hidden = 2, .out = 1, .lanes = 2});
  std::vector<double> theta(std::size_t(cell.size().params)), x(48), y(48);
  cell.init(unroll::params<double>(theta), unroll::key{1});
  unroll::draw_normals(unroll::key{2}, 0, unroll::view<double>(x));
  unroll::draw_normals(unroll::key{3}, 0, unroll::view<double>(y));
  std::vector<unroll::cells::example<double>> xs;
  for (std::size_t t = 0; t < 24; ++t) xs.push_back({.x = &x[2 * t], .target = &y[2 * t]});
  auto bad = xs[0];
  const double nan[] = {std::nan(""), 0};
  bad.x = nan;
  const auto unnoticed = [&](auto e) {
    std::vector<double> g(theta.size());
    auto running = e;
    running.advance(unroll::params<const double>(theta), std::span(xs).first(13), unroll::dparams<double>(g));
    strings names;
    running.visit([&](std::string_view name, auto) { names.emplace_back(name); });
    const auto failures = [&](const std::string& skipped) {
      return testing::estimator_conformance(forgetful(e, skipped), theta, xs, &bad,
                                            {.chunks = {}, .allocations = false});
    };
    CHECK(failures("") == strings{});
    std::erase_if(names, [&](const std::string& name) { return !failures(name).empty(); });
    return names;
  };
  // a chain begins at step 0, its front lies in slot 0, and start_gradient() is no promise of estimators; the
  // level of the second snapshot decides nothing here
  CHECK(unnoticed(unroll::checkpointed_bptt(cell, {.slots = 3, .block = 2})) ==
        strings{"start", "schedule step 0", "schedule slot 0", "schedule level 1", "start_gradient"});
  CHECK(unnoticed(unroll::checkpointed_bptt(cell, {.slots = 3, .steps = 24})) ==
        strings{"start", "schedule step 0", "schedule slot 0", "start_gradient"});
  CHECK(unnoticed(unroll::tbptt(cell, {.k1 = 3, .k2 = 8})) == strings{});
  CHECK(unnoticed(unroll::rtrl(cell)) == strings{});
  CHECK(unnoticed(unroll::uoro(cell, {.block = 5})) == strings{});
  CHECK(unnoticed(unroll::nobacktrack(cell)) == strings{});
  CHECK(unnoticed(unroll::artbp(cell, unroll::fixed_truncation(40), {.slots = 2, .block = 2})) ==
        strings{"schedule step 0", "schedule slot 0", "start_gradient"});
  CHECK(unnoticed(unroll::pes(cell, {.pairs = 2, .window = 5})) == strings{});
}
