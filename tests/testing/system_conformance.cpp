#include "unroll/testing/system_conformance.hpp"

#include <algorithm>

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/rtu.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/system/any_system.hpp"
#include "unroll/system/counted.hpp"

namespace testing = unroll::testing;
using support::fault;
using strings = std::vector<std::string>;

namespace {

template <class T>
strings examine(const support::complete<T>& f) {
  return testing::system_conformance(f, support::complete_theta<T>(f.n), support::complete_inputs<T>(5));
}

bool mentions(const strings& failures, const std::string& text) {
  for (const auto& f : failures)
    if (f.find(text) != std::string::npos) return true;
  return false;
}

// A cell whose factored vjp is not its vjp.
struct torn : unroll::cells::elman<double> {
  using cell = unroll::cells::elman<double>;
  enum class part { none, dz, state, readout };
  torn(const options_type& options, part wrong) : cell(options), wrong_(wrong) {}
  void factored_vjp(const input& x, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext,
                    double dloss, unroll::dstate<double> ds, unroll::dparams<double> dtheta,
                    unroll::view<double> dz) const {
    cell::factored_vjp(x, e, dnext, dloss, wrong_ == part::state ? unroll::dstate<double>() : ds,
                       wrong_ == part::readout ? unroll::dparams<double>() : dtheta, dz);
    if (wrong_ == part::dz) dz[dz.size() - 1] *= 1.01;
  }

 private:
  part wrong_;
};

// tanh of both parts is no analytic function.
struct false_complex : unroll::cells::rtu<double> {
  using diagonal_cell::diagonal_cell;
  unroll::index_t complex_matrices() const { return 1; }
};

template <class F>
strings examine_cell(const F& f) {
  unroll::parameters<double> theta(f.size().params);
  f.init(theta, unroll::key{1});
  std::vector<double> data(100);
  unroll::draw_normals(unroll::key{2}, 0, unroll::view<double>(data));
  std::vector<unroll::cells::example<double>> xs;
  for (std::size_t t = 0; t < 4; ++t) xs.push_back({data.data() + 4 * t, data.data() + 4 * t + 20});
  return testing::system_conformance(f, theta, xs);
}

}  // namespace

TEST_CASE("a factored vjp that is not the vjp is found, and so are units that are no complex numbers") {
  using part = torn::part;
  const torn::options_type options{.in = 2, .hidden = 3, .out = 2, .lanes = 2};
  CHECK(examine_cell(torn(options, part::none)) == strings{});
  CHECK(mentions(examine_cell(torn(options, part::dz)), "factored_vjp: its gradient"));
  CHECK(mentions(examine_cell(torn(options, part::readout)), "factored_vjp: its gradient"));
  CHECK(mentions(examine_cell(torn(options, part::state)), "factored_vjp: its cotangent"));
  CHECK(examine_cell(unroll::cells::rtu<double>({.in = 2, .hidden = 3, .out = 2, .lanes = 2})) == strings{});
  CHECK(mentions(examine_cell(false_complex({.in = 2, .hidden = 3, .out = 2, .lanes = 2})),
                 "complex_matrices"));
}

TEMPLATE_TEST_CASE("a correct system with every optional member conforms", "", float, double) {
  CHECK(examine(support::complete<TestType>{2, 1}) == strings{});
  CHECK(examine(support::complete<TestType>{3, 1}) == strings{});
  CHECK(examine(support::complete<TestType>{3, 4}) == strings{});
}

TEMPLATE_TEST_CASE("the golden network conforms", "", float, double) {
  CHECK(testing::system_conformance(golden::rnn<TestType>{}, golden::theta<TestType>(),
                                    golden::inputs<TestType>()) == strings{});
}

TEST_CASE("adaptors of a conforming system conform") {
  unroll::call_counts calls;
  const support::complete<double> f{2, 2};
  const auto theta = support::complete_theta<double>();
  const auto xs = support::complete_inputs<double>(5);
  CHECK(testing::system_conformance(unroll::counted(f, calls), theta, xs) == strings{});
  CHECK(testing::system_conformance(unroll::any_system<double, double>(f), theta, xs) == strings{});
}

TEMPLATE_TEST_CASE("every fault is found and named", "", float, double) {
  struct row {
    fault wrong;
    const char* expected;
  };
  const std::vector<row> table{
      {fault::step_adds_loss, "step: the result depends on what was in"},
      {fault::step_reads_tape, "step: the result depends on what was in"},
      {fault::step_overruns, "step: writes outside"},
      {fault::step_remembers, "step: "},
      {fault::vjp_overwrites, "vjp: does not add to ds"},
      {fault::vjp_dtheta_overwrites, "vjp: does not add to dtheta"},
      {fault::vjp_wrong_factor, "not adjoint"},
      {fault::vjp_needs_dnext, "an empty dnext is not the same as zero"},
      {fault::vjp_drops_loss, "not adjoint"},
      {fault::vjp_reads_latest, "reads more than its edge"},
      {fault::vjp_mixes_lanes, "depends on other lanes"},
      {fault::jvp_adds, "jvp: must write"},
      {fault::jvp_ignores_dtheta, "jvp: differs from central differences"},
      {fault::jvp_drops_loss, "jvp: differs from central differences"},
      {fault::forward_stops_early, "forward: other states"},
      {fault::backward_ignores_carry, "backward: other ds than step by step with weights"},
      {fault::backward_ignores_weight, "backward: other ds than step by step with weights"},
      {fault::backward_overwrites, "backward: does not add to dtheta"},
      {fault::jacobian_transposed, "jacobian: disagrees"},
      {fault::immediate_overwrites, "immediate: does not add"},
      {fault::immediate_ignores_range, "immediate: does not add"},
      {fault::row_norms_squared, "row_norms: disagrees"},
      {fault::jacobian_mask_misses, "masks: an entry"},
      {fault::immediate_mask_misses, "masks: an entry"},
      {fault::jacobian_mask_only_ones, "masks: an entry is neither 0 nor 1"},
      {fault::immediate_mask_only_ones, "masks: an entry is neither 0 nor 1"},
      {fault::jacobian_mask_overruns, "masks: write outside"},
      {fault::factors_add, "factors: disagree"},
      {fault::factors_read_workspace, "factors: disagree"},
      {fault::factors_overrun, "factors: write outside"},
      {fault::units_no_divisor, "units: are no divisor"},
      {fault::units_apart_lie, "units_apart: a unit listens"},
      {fault::diag_jacobian_of_other, "diag_jacobian: disagrees"},
      {fault::diag_jacobian_overruns, "diag_jacobian: writes outside"},
      {fault::diag_factors_of_first, "diag_factors: disagree"},
      {fault::diag_factors_overrun, "diag_factors: write outside"},
      {fault::lane_vjp_all_lanes, "lane_vjp: does not add"},
      {fault::not_finite_at_zero, "at theta = 0"},
      {fault::nothing_scored, "scored: counts no loss"},
  };
  for (const auto& [wrong, expected] : table) {
    const strings failures = examine(support::complete<TestType>{3, 2, wrong});
    INFO(expected << "; found: " << (failures.empty() ? "nothing" : failures.front()));
    CHECK(mentions(failures, expected));
  }
}

TEST_CASE("a fault of every step, direction and lane is said once, where it is found first") {
  CHECK(examine(support::complete<double>{3, 2, fault::vjp_overwrites}) ==
        strings{"step 0: vjp: does not add to ds"});
  const strings found = examine(support::complete<double>{3, 3, fault::vjp_mixes_lanes});
  const auto of_lanes = [](const std::string& f) { return f.find("depends on other lanes") != f.npos; };
  const auto differences = [](const std::string& f) { return f.find("along a direction") != f.npos; };
  CHECK(std::count_if(found.begin(), found.end(), of_lanes) == 1);
  CHECK(std::count_if(found.begin(), found.end(), differences) == 1);
  CHECK(mentions(found, "step 0: vjp: the state of lane 0"));
}

TEST_CASE("a wrong factor is also found without a jvp to compare with") {
  struct no_jvp {
    using scalar = double;
    using input = double;
    support::complete<double> f;
    unroll::dims size() const { return f.size(); }
    void step(double x, const unroll::edge<double>& e) const { f.step(x, e); }
    void vjp(double x, const unroll::const_edge<double>& e, unroll::dstate<const double> dnext, double dloss,
             unroll::dstate<double> ds, unroll::dparams<double> dtheta) const {
      f.vjp(x, e, dnext, dloss, ds, dtheta);
    }
  };
  const auto theta = support::complete_theta<double>();
  const auto xs = support::complete_inputs<double>(3);
  CHECK(testing::system_conformance(no_jvp{{2, 1}}, theta, xs) == strings{});
  CHECK(mentions(testing::system_conformance(no_jvp{{2, 1, fault::vjp_wrong_factor}}, theta, xs),
                 "central differences"));
}

TEST_CASE("wrong sizes are reported and nothing else is tried") {
  const support::complete<double> f{2, 1};
  const auto xs = support::complete_inputs<double>(3);
  CHECK(testing::system_conformance(f, std::vector<double>(5), xs).size() == 1);
  CHECK(testing::system_conformance(f, std::vector<double>(6), {}).size() == 1);
}
