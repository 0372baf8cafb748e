#include <atomic>
#include <cstring>
#include <vector>

#include "tests/support/catch.hpp"
#include "tests/support/golden_rnn.hpp"
#include "tests/support/thread_ranks.hpp"
#include "unroll/diagnose/measure.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/uoro.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

const auto theta = golden::theta<double>();
const auto xs = golden::inputs<double>();

// Every number but the times, bit for bit; not a number is equal to itself.
bool same(const measurement& a, const measurement& b) {
  const auto equal = [](double x, double y) { return std::memcmp(&x, &y, sizeof x) == 0; };
  return a.code == b.code && a.replicas == b.replicas && a.diverged == b.diverged && a.pilot == b.pilot &&
         equal(a.exact_norm, b.exact_norm) && equal(a.reference_error, b.reference_error) &&
         equal(a.bias_square, b.bias_square) && equal(a.relative_bias_low, b.relative_bias_low) &&
         equal(a.relative_bias_high, b.relative_bias_high) && equal(a.variance, b.variance) &&
         equal(a.cosine, b.cosine) && equal(a.mean_norm_ratio, b.mean_norm_ratio) &&
         equal(a.descent_low, b.descent_low) && equal(a.worst_z, b.worst_z) &&
         equal(a.worst_z_events, b.worst_z_events) && equal(a.max_over_sum, b.max_over_sum) &&
         equal(a.events, b.events) && a.batches == b.batches && equal(a.steps, b.steps) && a.bytes == b.bytes;
}

template <class E>
void check_ranks(const E& estimator, measure_options how) {
  how.threads = 1;
  const measurement one = measure(estimator, theta, xs, how);
  CHECK(one.replicas > 0);
  for (const index_t size : {2, 3}) {
    const auto said = thread_ranks::run(size, [&](const ranks& among) {
      std::atomic<index_t> done{0};
      measure_options mine = how;
      mine.threads = 1 + among.rank();
      mine.among = among;
      mine.done = &done;
      if (!same(measure(estimator, theta, xs, mine), one)) fail("test", "measurement", "has other bits");
      if (how.precision == 0 && done < one.replicas) fail("test", "done", std::to_string(done));
    });
    CHECK(said == std::vector<std::string>(std::size_t(size)));
  }
}

// Draw `at` of key 1 throws, is not finite, or asks to stop.
struct draws {
  index_t at = -1;
  enum { nothing, throws, diverges, stops } what = nothing;
  std::atomic<bool>* stop = nullptr;

  report operator()(key k, dparams<double> g) const {
    for (index_t j = 0; j < g.size(); ++j) g[j] = double(k.seed % 1000) + double(j);
    report r;
    r.steps = 1;
    if (k != fold(key{1}, std::uint64_t(at))) return r;
    if (what == throws) fail("draws", "draw", "fails");
    if (what == diverges) r.code = status::non_finite;
    if (what == stops) *stop = true;
    return r;
  }
};

gradient_sample sample_of(const draws& draw, index_t count, const ranks& among,
                          const std::atomic<bool>* stop = nullptr) {
  return draw_sample<double>(draw, 3, {}, count, {.threads = 2, .stop = stop, .among = among});
}

}  // namespace

TEST_CASE("replicas dealt to ranks have the numbers of one rank, bit for bit") {
  const golden::rnn<double> rnn;
  check_ranks(uoro(rnn), {.replicas = 77});
  check_ranks(uoro(rnn), {.replicas = 5});  // fewer blocks than ranks
  check_ranks(bptt(rnn, {.max_steps = index_t(xs.size())}), {.replicas = 9});
  check_ranks(pes(rnn, {.sigma = 0.1, .window = 2}), {.replicas = 40, .reference_replicas = 50});
  check_ranks(uoro(rnn), {.replicas = 40, .precision = 0.2, .max_replicas = 400});
}

TEST_CASE("a draw that throws on one rank ends the sample on all, with what it said") {
  for (const index_t at : {0, 20, 39, 70, 99}) {
    const index_t thrower = at / 16 % 3;
    const auto said = thread_ranks::run(
        3, [&](const ranks& among) { sample_of({.at = at, .what = draws::throws}, 100, among); });
    for (index_t r = 0; r < 3; ++r)
      CHECK(said[std::size_t(r)] ==
            (r == thrower ? "" : "draw_sample: rank " + std::to_string(thrower) + ": ") +
                "draws: draw: fails");
  }
}

TEST_CASE("draws that are not finite are counted whichever rank has them") {
  const auto said = thread_ranks::run(3, [&](const ranks& among) {
    const auto sample = sample_of({.at = 20, .what = draws::diverges}, 100, among);
    check_size("test", "diverged", sample.diverged(), 1);
    check_size("test", "count", sample.count(), 99);
    check_size("test", "steps", sample.work().steps, 100);
  });
  CHECK(said == std::vector<std::string>(3));
}

TEST_CASE("a rank that is asked to stop stops all, who get the same complete blocks") {
  for (const index_t at : {0, 20, 70, 99}) {
    std::vector<index_t> counts(3);
    std::vector<double> means(3);
    const auto said = thread_ranks::run(3, [&](const ranks& among) {
      std::atomic<bool> stop{false};
      const auto sample = sample_of({.at = at, .what = draws::stops, .stop = &stop}, 100, among, &stop);
      counts[std::size_t(among.rank())] = sample.count();
      means[std::size_t(among.rank())] = sample.x().mean()[0];
    });
    CHECK(said == std::vector<std::string>(3));
    CHECK(counts == std::vector<index_t>(3, counts[0]));
    CHECK(means == std::vector<double>(3, means[0]));
    CHECK((counts[0] % 16 == 0 || counts[0] == 100));
    // another thread of that rank may have begun an earlier block, which is given up with it
    CHECK(counts[0] <= (at == 99 ? 100 : at / 16 * 16 + 3 * 16));
    const auto alone = draw_sample<double>(draws{}, 3, {}, counts[0], {.threads = 1});
    CHECK(means[0] == alone.x().mean()[0]);
  }
}
