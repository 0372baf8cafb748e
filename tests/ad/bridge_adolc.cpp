#if __has_include(<adolc/adolc.h>)
#include "unroll/ad/bridge_adolc.hpp"

#include <cmath>
#include <vector>

#include "tests/ad/functions.hpp"
#include "tests/support/catch.hpp"

namespace {

using namespace unroll;

TEST_CASE("ADOL-C and the tape give the same products") {
  const auto ours = ad::derive(ad_test::mgu<double>{});
  const auto theirs = ad::derive_adolc(ad_test::mgu<double>{}, {.tag = 3});
  static_assert(has_vjp<decltype(ad::derive_adolc(ad_test::mgu<double>{}))>);
  static_assert(has_jvp<decltype(ad::derive_adolc(ad_test::mgu<double>{}))>);
  ad_test::trial<double> a(ours.size()), b(theirs.size());
  for (const double x : {0.7, -0.2}) {  // the input is not part of the trace
    const double target = 0.4;
    const ad_test::point<double> in{&x, &target};
    a.step(ours, in);
    b.step(theirs, in);
    CHECK(a.loss == b.loss);
    a.vjp(ours, in);
    b.vjp(theirs, in);
    a.jvp(ours, in);
    b.jvp(theirs, in);
    for (std::size_t i = 0; i < a.g.size(); ++i) CHECK(std::abs(a.g[i] - b.g[i]) < 1e-14);
    for (std::size_t i = 0; i < a.s.size(); ++i) {
      CHECK(std::abs(a.gs[i] - b.gs[i]) < 1e-14);
      CHECK(std::abs(a.tangent[i] - b.tangent[i]) < 1e-14);
    }
    CHECK(std::abs(a.dloss - b.dloss) < 1e-14);
  }
}

// s' = the gate of s, which is the loss, too: 1 / (1 + exp(-s)), or the same by tanh.
struct gate {
  using scalar = double;
  using input = const double*;
  bool by_tanh = false;
  dims size() const { return {.state = 1, .lanes = 1}; }
  void output(params<const double>, state<const double> s, view<double> y) const { y[0] = 2 * s[0]; }
  template <class N>
  N operator()(std::span<const N>, std::span<const N> s, const input&, std::span<N> next) const {
    using std::exp, std::tanh;
    next[0] = by_tanh ? N(0.5 + 0.5 * tanh(0.5 * s[0])) : N(1.0 / (1.0 + exp(-s[0])));
    return next[0];
  }
};

TEST_CASE("a gate whose exponential overflows has vjp 0 by ADOL-C, and jvp 0 where it is made of tanh") {
  const auto derivatives = [](const auto& system) {
    const double s = -800, along = 1;
    double ds = 0, dnext = 0, dloss = 0;
    const_edge<double> e;
    e.s = {&s, 1};
    system.vjp(nullptr, e, {}, 1, {&ds, 1}, {});
    system.jvp(nullptr, e, {}, {&along, 1}, {&dnext, 1}, &dloss);
    return std::vector<double>{ds, dnext, dloss};
  };
  const std::vector<double> zeros(3);
  CHECK(derivatives(ad::derive(gate{})) == zeros);
  CHECK(derivatives(ad::derive_adolc(gate{true})) == zeros);
  const auto theirs = derivatives(ad::derive_adolc(gate{}));
  CHECK(theirs[0] == 0);
  CHECK(std::isnan(theirs[1]));  // where it is not, docs/howto/automatic-differentiation.md says too much
}

TEST_CASE("the output of a function is that of the system which ADOL-C differentiates") {
  const double s = 3;
  double y = 0;
  ad::derive_adolc(gate{}).output({}, {&s, 1}, {&y, 1});
  CHECK(y == 6);
}

}  // namespace
#endif
