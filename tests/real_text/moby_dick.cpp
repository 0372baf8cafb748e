// The promises of the README on a real book. Needs UNROLL_DATA_DIR.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "tests/support/catch.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/data/streams.hpp"
#include "unroll/diagnose/measure.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/uoro.hpp"
#include "unroll/text/characters.hpp"

using namespace unroll;

namespace {

constexpr index_t steps = 200;

std::optional<data::text> moby_dick() {
  const char* folder = std::getenv("UNROLL_DATA_DIR");
  const std::filesystem::path path =
      std::filesystem::path(folder ? folder : "") / "corpora/books/test/melville_moby-dick.txt";
  if (!folder || !std::filesystem::exists(path)) {
    std::printf("skipped: UNROLL_DATA_DIR names no folder with %s\n", path.string().c_str());
    return std::nullopt;
  }
  return data::text(path);
}

struct problem {
  data::sequences<double> book;
  cells::elman<double> cell;
  parameters<double> theta;
  std::span<const cells::example<double>> xs;

  explicit problem(const data::text& text)
      : book(data::streams<double>(text.train().first(steps + 1), 1, steps)),
        cell({.in = text.vocabulary(),
              .hidden = 64,
              .out = text.vocabulary(),
              .loss = loss_kind::cross_entropy}),
        theta(cell.size().params),
        xs(book.inputs()) {
    cell.init(theta, key{1});
    for (index_t i = 0; i < 64 * 64; ++i) theta[i] *= 1.5;  // memory that reaches beyond the windows below
  }
  template <class E>
  measurement of(const E& estimator, index_t replicas = 2) const {
    return measure(estimator, theta, xs, {.replicas = replicas, .seed = key{3}});
  }
};

}  // namespace

TEST_CASE("on Moby-Dick the exact estimators are exact and the truncated ones are not") {
  const auto text = moby_dick();
  if (!text) return;
  const problem p(*text);
  CHECK(p.of(bptt(p.cell)).relative_bias < 1e-12);
  CHECK(p.of(checkpointed_bptt(p.cell, {.slots = 12, .steps = steps})).relative_bias < 1e-12);
  CHECK(p.of(rtrl(p.cell)).relative_bias < 1e-12);
  const auto truncated = p.of(tbptt(p.cell, {.k1 = 1, .k2 = 5}));
  CHECK(truncated.relative_bias_low > 1e-3);
  CHECK(truncated.variance == 0);
}

TEST_CASE("on Moby-Dick the intervals of the unbiased estimators contain zero") {
  const auto text = moby_dick();
  if (!text) return;
  const problem p(*text);
  CHECK(p.of(artbp(p.cell, polynomial_truncation(20)), 128).relative_bias_low == 0);
  CHECK(p.of(uoro(p.cell), 128).relative_bias_low == 0);
  CHECK(p.of(nobacktrack(p.cell), 128).relative_bias_low == 0);
}
