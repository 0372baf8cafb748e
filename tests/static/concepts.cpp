#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"
#include "unroll/system/finite_difference.hpp"
#include "unroll/system/memory_model.hpp"
#include "unroll/testing/enumerator.hpp"

// Each concept holds for what it names, and does not hold for what comes close.
namespace {

using namespace unroll;

// --- recurrent ---
struct system_ {
  using scalar = double;
  using input = int;
  dims size() const { return {}; }
  void step(const int&, const edge<double>&) const {}
};
struct no_scalar {
  using input = int;
  dims size() const { return {}; }
  void step(const int&, const edge<double>&) const {}
};
struct whole_numbers {
  using scalar = int;
  using input = int;
  dims size() const { return {}; }
  void step(const int&, const edge<int>&) const {}
};
struct mutable_step {
  using scalar = double;
  using input = int;
  dims size() const { return {}; }
  void step(const int&, const edge<double>&) {}
};
struct other_size {
  using scalar = double;
  using input = int;
  index_t size() const { return 0; }
  void step(const int&, const edge<double>&) const {}
};
struct returns_loss {
  using scalar = double;
  using input = int;
  dims size() const { return {}; }
  double step(const int&, const edge<double>&) const { return 0; }
};
struct move_only : system_ {
  move_only(move_only&&) = default;
};
struct input_by_reference {
  using scalar = double;
  using input = int;
  dims size() const { return {}; }
  void step(int&, const edge<double>&) const {}
};

static_assert(recurrent<system_>);
static_assert(recurrent<golden::rnn<float>> && recurrent<support::complete<double>>);
static_assert(!recurrent<no_scalar>);
static_assert(!recurrent<whole_numbers>);
static_assert(!recurrent<mutable_step>);
static_assert(!recurrent<other_size>);
static_assert(!recurrent<returns_loss>);
static_assert(!recurrent<move_only>);
static_assert(!recurrent<input_by_reference>);
static_assert(!recurrent<int>);

// --- has_vjp, has_jvp ---
struct good_vjp : system_ {
  void vjp(const int&, const const_edge<double>&, dstate<const double>, double, dstate<double>,
           dparams<double>) const {}
};
struct swapped_vjp : system_ {  // dtheta before ds
  void vjp(const int&, const const_edge<double>&, dstate<const double>, double, dparams<double>,
           dstate<double>) const {}
};
struct tangent_vjp : system_ {  // a tangent where a cotangent belongs
  void vjp(const int&, const const_edge<double>&, state_tangent<const double>, double, dstate<double>,
           dparams<double>) const {}
};
struct float_vjp : system_ {
  void vjp(const int&, const const_edge<double>&, dstate<const float>, double, dstate<double>,
           dparams<double>) const {}
};
struct good_jvp : system_ {
  void jvp(const int&, const const_edge<double>&, params_tangent<const double>, state_tangent<const double>,
           state_tangent<double>, double*) const {}
};
struct writes_direction : system_ {
  void jvp(const int&, const const_edge<double>&, params_tangent<double>, state_tangent<double>,
           state_tangent<double>, double*) const {}
};

static_assert(has_vjp<good_vjp> && !has_jvp<good_vjp>);
static_assert(has_jvp<good_jvp> && !has_vjp<good_jvp>);
static_assert(!has_vjp<system_> && !has_jvp<system_>);
static_assert(!has_vjp<swapped_vjp>);
static_assert(!has_vjp<tangent_vjp>);
static_assert(!has_vjp<float_vjp>);
static_assert(!has_jvp<writes_direction>);

// --- optional members ---
struct half_a_window : good_vjp {
  index_t window_workspace(index_t) const { return 0; }
  void forward(std::span<const int>, const window<double>&) const {}
};
struct window_without_vjp : system_ {
  index_t window_workspace(index_t) const { return 0; }
  void forward(std::span<const int>, const window<double>&) const {}
  void backward(std::span<const int>, const window<double>&, const injection<double>&, dstate<double>,
                dparams<double>) const {}
};
struct jacobian_alone : system_ {
  void jacobian(const int&, const const_edge<double>&, view<double>) const {}
};

static_assert(has_window<support::complete<float>> && has_jacobian<support::complete<float>> &&
              has_row_norms<support::complete<float>> && has_lane_vjp<support::complete<float>>);
static_assert(!has_window<half_a_window>);
static_assert(!has_window<window_without_vjp>);
static_assert(!has_jacobian<jacobian_alone>);
static_assert(!has_row_norms<good_vjp> && !has_lane_vjp<good_vjp> && !has_window<golden::rnn<double>>);

// --- adaptors keep what a system has and invent nothing ---
static_assert(recurrent<counted<system_>> && !has_vjp<counted<system_>>);
static_assert(has_vjp<finite_difference<system_>> && has_jvp<finite_difference<system_>>);
static_assert(has_window<any_system<double, int>>);
static_assert(std::constructible_from<any_system<double, int>, system_>);
static_assert(!std::constructible_from<any_system<float, int>, system_>);
static_assert(!std::constructible_from<any_system<double, double>, system_>);
static_assert(!std::constructible_from<any_system<double, int>, int>);

// --- chooser ---
struct no_mirror {
  void reset(key) {}
  void signs(std::int64_t, view<double>) const {}
  bool coin(std::int64_t, double) const { return true; }
  index_t uniform(std::int64_t, index_t) const { return 0; }
  void normals(std::int64_t, view<double>) const {}
};
struct coin_is_an_int : no_mirror {
  void mirror(bool) {}
  int coin(std::int64_t, double) const { return 1; }
};
struct full_chooser : no_mirror {
  void mirror(bool) {}
};

static_assert(chooser<philox_chooser> && chooser<testing::enumerating_chooser> && chooser<full_chooser>);
static_assert(!chooser<no_mirror>);
static_assert(!chooser<coin_is_an_int>);

// --- gradient_estimator ---
template <class Advance = report>
struct estimator_ {
  using system_type = system_;
  using scalar = double;
  using input = int;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  static constexpr std::array references{"none"};
  void reset(key, state<const double> = {}) {}
  Advance advance(params<const double>, std::span<const int>, dparams<double>) { return Advance(); }
  report finish(params<const double>, dparams<double>) { return {}; }
  const system_& system() const { return f; }
  system_ f;
};
struct no_start : estimator_<> {
  void reset(key) {}
};
struct no_finish : estimator_<> {
  void finish() {}
};
struct private_system : estimator_<> {
 private:
  using estimator_::system;
};
struct smoothed : estimator_<> {
  static constexpr estimand estimated_gradient = estimand::jointly_smoothed;
};
struct smoothed_by : smoothed {
  perturbation smoothing() const { return {.sigma = 1}; }
};
struct no_random : estimator_<> {
 private:
  using estimator_::random;
};
struct no_references {
  using system_type = system_;
  using scalar = double;
  using input = int;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = true;
  static constexpr bool random = false;
  void reset(key, state<const double> = {}) {}
  report advance(params<const double>, std::span<const int>, dparams<double>) { return {}; }
  report finish(params<const double>, dparams<double>) { return {}; }
  const system_& system() const { return f; }
  system_ f;
};

static_assert(gradient_estimator<estimator_<>>);
static_assert(!gradient_estimator<estimator_<double>>);
static_assert(!gradient_estimator<no_start>);
static_assert(!gradient_estimator<no_finish>);
static_assert(!gradient_estimator<private_system>);
static_assert(!gradient_estimator<no_references>);
static_assert(!gradient_estimator<no_random>);
static_assert(!gradient_estimator<smoothed>);
static_assert(gradient_estimator<smoothed_by>);
static_assert(!gradient_estimator<system_>);

// --- memory models ---
struct memories {
  using scalar = double;
  using input = int;
  using inputs = std::span<const int>;
  using past = std::span<const double* const>;
  using graphs = write_graphs<unroll::numbers<double>>;
  using gradients = memory_gradients<unroll::numbers<double>>;
  memory_dims size() const { return {}; }
  bool independent() const { return true; }
  index_t workspace(index_t, index_t) const { return 0; }
  void write(inputs, index_t, params<const double>, past, view<double>, view<double>, view<double>) const {}
  void write_vjp(inputs, index_t, params<const double>, past, graphs, gradients, view<double>) const {}
  void read(inputs, index_t, params<const double>, past, double*, view<double>) const {}
  void read_vjp(inputs, index_t, params<const double>, past, double*, gradients, view<double>) const {}
};
struct one_segment_a_call : memories {
  void write(int, index_t, params<const double>, past, view<double>, view<double>, view<double>) const {}
};
struct workspace_of_one : memories {
  index_t workspace(index_t) const { return 0; }
};
struct returned_loss : memories {
  double read(inputs, index_t, params<const double>, past, double*, view<double>) const { return 0; }
};
struct other_parameters : memories {
  using numbers = unroll::numbers<float>;
};
// theta and adjoints in float beside memories and activations in bfloat16
struct two_kinds : memories {
  using scalar = float;
  using numbers = unroll::numbers<bf16>;
  using past = std::span<const bf16* const>;
  using graphs = write_graphs<numbers>;
  using gradients = memory_gradients<numbers>;
  void write(inputs, index_t, params<const float>, past, view<bf16>, view<bf16>, view<bf16>) const {}
  void write_vjp(inputs, index_t, params<const float>, past, graphs, gradients, view<bf16>) const {}
  void read(inputs, index_t, params<const float>, past, float*, view<bf16>) const {}
  void read_vjp(inputs, index_t, params<const float>, past, float*, gradients, view<bf16>) const {}
};
static_assert(memory_model<memories> && require_memory_model<memories>() && memory_model<two_kinds>);
static_assert(!memory_model<one_segment_a_call> && !memory_model<workspace_of_one>);
static_assert(!memory_model<returned_loss> && !memory_model<other_parameters> && !memory_model<system_>);
static_assert(std::is_same_v<numbers_of<memories>, numbers<double>>);
static_assert(std::is_same_v<numbers_of<two_kinds>, numbers<bf16>>);

// --- spaces: only what is marked writable converts, and only within its space ---
template <class From, class To>
concept converts = std::convertible_to<From, To>;
static_assert(converts<params<double>, params<const double>>);
static_assert(!converts<params<const double>, params<double>>);
static_assert(!converts<params<float>, params<const double>>);
static_assert(!converts<params<double>, state<double>> && !converts<state<double>, params<double>>);
static_assert(!converts<dparams<double>, params<double>> &&
              !converts<dparams<double>, params_tangent<double>>);
static_assert(!converts<dstate<double>, state<double>> && !converts<dstate<double>, state_tangent<double>>);
static_assert(!converts<state_tangent<double>, dstate<double>> &&
              !converts<params_tangent<double>, dparams<double>>);
static_assert(!converts<unroll::tape<double>, state<double>> && !converts<view<double>, state<double>>);

// --- plain data stays plain ---
static_assert(std::is_trivially_copyable_v<dims> && std::is_aggregate_v<dims>);
static_assert(std::is_trivially_copyable_v<report> && std::is_trivially_copyable_v<key>);
static_assert(std::is_trivially_copyable_v<edge<double>> && std::is_trivially_copyable_v<const_edge<float>>);
static_assert(std::is_trivially_copyable_v<window<double>> && std::is_trivially_copyable_v<params<double>>);
static_assert(!std::is_polymorphic_v<counted<system_>> && !std::is_polymorphic_v<any_system<double, int>>);

}  // namespace

TEST_CASE("the assertions of this file hold") { SUCCEED(); }
