#if __has_include(<adolc/adolc.h>)
#include "unroll/ad/bridge_adolc.hpp"

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

}  // namespace
#endif
