#include "unroll/testing/system_conformance.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/complete_system.hpp"
#include "tests/support/golden_rnn.hpp"
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

}  // namespace

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
