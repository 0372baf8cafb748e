#include "unroll/estimate/parts/adjoint_sums.hpp"

#include <cmath>
#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"

using namespace unroll;
using namespace memory_task;

namespace {

struct fragile : linear {  // throws when it writes segment 3 while it is broken
  bool* broken;
  fragile(linear f, bool& b) : linear(std::move(f)), broken(&b) {}
  void write(std::span<const example> xs, index_t s, params<const double> theta,
             std::span<const double* const> past, view<double> m, view<double> tape,
             view<double> workspace) const {
    if (*broken && s <= 3 && 3 < s + index_t(xs.size())) fail("fragile", "s", "is 3");
    linear::write(xs, s, theta, past, m, tape, workspace);
  }
};

std::vector<double> all_adjoints(segment_run<fragile>& run, index_t n) {
  const auto v = run.bank().adjoint(0, n);
  return {v.begin(), v.end()};
}

}  // namespace

TEST_CASE("segments are taken all or none, and then nothing has changed in any bit") {
  bool broken = false;
  const task<fragile> k(fragile(make_linear(), broken), 7);
  const std::span<const example> xs(k.xs);
  const params<const double> theta(k.theta);
  for (const index_t batch : {1, 2, 5}) {
    segment_run<fragile> run(k.model, {.segments = 7, .adjoints = 6, .graphs = batch, .batch = batch});
    adjoint_sums<fragile> sums(run, k.model, theta);
    std::vector<double> g(std::size_t(theta.size()));
    report r = run.start(theta);
    CHECK(sums.take(xs.first(3), false, g, r));
    CHECK(run.bank().written() == 2);
    const auto adjoints = all_adjoints(run, 6), gradient = g;
    const auto unchanged = [&] {
      CHECK(run.size() == 3);
      CHECK(run.bank().written() == 2);
      CHECK(all_adjoints(run, 6) == adjoints);
      CHECK(g == gradient);
      CHECK(r.consumed == 3);
    };
    const double wrong[2] = {std::nan(""), 0};
    auto bad = k.xs;
    bad[5].target = wrong;  // found out by its loss in a group, by its input alone
    CHECK_FALSE(sums.take(std::span(bad).subspan(3), true, g, r));
    unchanged();
    CHECK_FALSE(sums.take(std::span(bad).subspan(5, 1), false, g, r));
    unchanged();

    broken = true;
    CHECK_FALSE(sums.take(xs.subspan(3), false, g, r));
    unchanged();
    CHECK(sums.take(xs.subspan(3, 1), false, g, r));
    CHECK_THROWS_WITH(sums.take(xs.subspan(4, 1), false, g, r),
                      Catch::Matchers::ContainsSubstring("fragile: s: is 3"));
    CHECK(run.size() == 4);
    CHECK(run.bank().written() == 3);
    broken = false;
    CHECK(sums.take(xs.subspan(4), false, g, r));

    segment_run<fragile> straight(k.model, {.segments = 7, .adjoints = 6, .graphs = 1});
    std::vector<double> expected(g.size());
    report ignored;
    CHECK(adjoint_sums(straight, k.model, theta).take(xs, false, expected, ignored));
    CHECK(all_adjoints(run, 6) == all_adjoints(straight, 6));
    CHECK(g == expected);
    CHECK(r.consumed == 7);
  }
}

TEST_CASE("a group ends in front of an input that is not finite or invalid") {
  struct picky : linear {
    explicit picky(linear f) : linear(std::move(f)) {}
    bool finite(const example& x) const {
      if (x.x == nullptr) fail("picky", "x", "is null");
      return linear::finite(x);
    }
  };
  const task<picky> k(picky(make_linear()), 4);
  segment_run<picky> run(k.model, {.segments = 4, .adjoints = 3, .graphs = 1});
  const adjoint_sums<picky> sums(run, k.model, params<const double>(k.theta));
  CHECK(sums.first_group(k.xs) == 4);
  CHECK(sums.first_group({}) == 1);
  auto bad = k.xs;
  bad[2].x = nullptr;
  CHECK(sums.first_group(bad) == 2);
  const double wrong[2] = {std::nan(""), 0};
  bad[1].target = wrong;
  CHECK(sums.first_group(bad) == 1);
  bad[0].target = wrong;
  CHECK(sums.first_group(bad) == 1);  // which take() then refuses
}

TEST_CASE("sums go back through the graphs that are there, and the others are made again") {
  bool broken = false;
  const task<fragile> k(fragile(make_linear(true), broken), 4);
  const params<const double> theta(k.theta);
  segment_run<fragile> run(k.model, {.segments = 4, .adjoints = 3, .graphs = 2});
  adjoint_sums<fragile> sums(run, k.model, theta);
  std::vector<double> g(std::size_t(theta.size()));
  report r = run.start(theta);
  CHECK(sums.take(k.xs, true, g, r));
  CHECK(sums.has_graph(2));
  CHECK(sums.first_of_graph(2) == 2);
  CHECK(sums.has_graph(1));
  CHECK_FALSE(sums.has_graph(0));
  for (const index_t s : {2, 1, 0}) sums.send_back(s, 1, g);
  CHECK(run.counts().rewrites == 1);
  CHECK(relative_error(g, k.differences()) < 1e-9);
}

TEST_CASE("norms are those of the sums, also where their squares vanish") {
  bool broken = false;
  const task<fragile> k(fragile(make_linear(), broken), 4);
  const params<const double> theta(k.theta);
  segment_run<fragile> run(k.model, {.segments = 4, .adjoints = 3, .graphs = 1});
  adjoint_sums<fragile> sums(run, k.model, theta);
  const double small = std::numeric_limits<double>::min() * 8;
  run.bank().adjoint(0)[0] = 3;
  run.bank().adjoint(0)[1] = 4;
  run.bank().adjoint(1)[0] = 3 * small;
  run.bank().adjoint(1)[1] = 4 * small;
  std::vector<double> norm(3);
  sums.norms(norm);
  CHECK(norm[0] == 5);
  CHECK(norm[1] == 5 * small);
  CHECK(norm[2] == 0);
  CHECK(run.bank().adjoint(0)[0] == 3);
  CHECK(run.bank().adjoint(1)[0] == 3 * small);
}
