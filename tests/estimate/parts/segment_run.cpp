#include "unroll/estimate/parts/segment_run.hpp"

#include <cmath>

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"

using namespace unroll;
using namespace memory_task;

TEST_CASE("a run takes a segment whose loss is finite, and leaves no trace of another") {
  const task<unchecked<linear>> k(unchecked<linear>(make_linear()), 3);
  segment_run<unchecked<linear>> run(k.model, {.segments = 3, .adjoints = 2, .graphs = 1});
  std::vector<double> g(std::size_t(k.theta.size()), 0.5);
  report r = run.start("test", k.theta, k.xs);
  CHECK(run.read(k.model, k.theta, k.xs[0], run.bank().null_dpast(0), g, r));
  CHECK(run.size() == 1);
  CHECK(r.consumed == 1);
  CHECK(r.losses == 1);
  CHECK(r.loss > 0);
  CHECK(run.write(k.model, k.theta, 0));
  CHECK(run.bank().written() == 1);

  const double wrong[2] = {std::nan(""), 0};
  example bad = k.xs[1];
  bad.target = wrong;
  const auto before = g;
  const report seen = r;
  CHECK_FALSE(run.read(k.model, k.theta, bad, run.bank().null_dpast(1), g, r));
  CHECK(g == before);
  CHECK(run.size() == 1);
  CHECK(r.consumed == seen.consumed);
  CHECK(r.loss == seen.loss);
  const report stopped = run.stop(r);
  CHECK(stopped.code == status::non_finite);
  CHECK(stopped.at == 1);
  CHECK(stopped.steps == 3);
  CHECK(stopped.vjps == 2);

  // the next call counts from its start
  r = run.start(k.theta);
  CHECK(run.read(k.model, k.theta, k.xs[1], run.bank().null_dpast(1), g, r));
  CHECK(run.end(r).steps == 1);
  CHECK(run.end(r).bytes > run.bank().bytes());
  CHECK(g != before);
}

TEST_CASE("a memory that is not finite is not in the run, and its slot is empty") {
  const task<unchecked<linear>> k(unchecked<linear>(make_linear()), 3);
  segment_run<unchecked<linear>> run(k.model, {.segments = 3, .graphs = 1});
  std::vector<double> g(std::size_t(k.theta.size()));
  const double wrong[2] = {std::nan(""), 0};
  example bad = k.xs[0];
  bad.x = wrong;  // a linear memory reads no x
  report r = run.start(k.theta);
  CHECK(run.read(k.model, k.theta, bad, {}, g, r));
  CHECK_FALSE(run.write(k.model, k.theta, 0));
  CHECK(run.bank().written() == 0);
  CHECK(run.bank().graphs().live() == 0);
}

TEST_CASE("a run refuses more segments than it has room for and a theta that is not finite") {
  const task<linear> k(make_linear(), 4);
  segment_run<linear> run(k.model, {.segments = 3});
  CHECK_THROWS_WITH(
      run.start("test", k.theta, k.xs),
      Catch::Matchers::ContainsSubstring("test::advance: xs: makes 4 segments, options.segments is 3"));
  parameters<double> wrong(k.theta);
  wrong[0] = std::nan("");
  const report r = run.start("test", wrong, std::span(k.xs).first(3));
  CHECK(r.code == status::non_finite);
  CHECK(r.at == 0);
  CHECK_THROWS_AS(segment_run<linear>(k.model, {.segments = 0}), error);
}

TEST_CASE("looks that are put off: all is taken for finite, and one look names the first segment at fault") {
  using model = unchecked<linear>;
  const task<model> k(model(make_linear()), 4);
  segment_run<model> run(k.model, {.segments = 4, .adjoints = 3, .graphs = 1});
  segment_run<model> alone = run;
  run.put_off_looks();
  std::vector<double> g(std::size_t(k.theta.size())), other = g;
  const double wrong[2] = {std::nan(""), 0};
  const auto take = [&](segment_run<model>& r, std::span<const example> xs, params<const double> theta,
                        std::vector<double>& to) {
    r.reset();
    report of = r.start(theta);
    for (const example& x : xs) {
      const index_t t = r.size();
      if (t > 0 && !r.write(k.model, theta, graph_slots::none)) break;
      if (!r.read(k.model, theta, x, r.bank().null_dpast(t), to, of)) break;
    }
    return of;
  };
  const report now = take(alone, k.xs, k.theta, other);
  const report later = take(run, k.xs, k.theta, g);
  CHECK(later.consumed == 4);
  CHECK(later.losses == now.losses);
  CHECK(later.loss == 0);
  report seen = run.look();
  CHECK(seen.code == status::ok);
  CHECK(seen.at == -1);
  CHECK(seen.loss == now.loss);
  CHECK(g == other);
  CHECK(run.look().loss == 0);  // nothing is seen twice

  std::vector<example> bad(k.xs.begin(), k.xs.end());
  bad[1].x = wrong;  // whose memory the segment behind it would read; no linear loss reads x
  CHECK(take(run, bad, k.theta, g).consumed == 4);
  seen = run.look();
  CHECK(seen.code == status::non_finite);
  CHECK(seen.at == 2);
  bad[1] = k.xs[1];
  bad[3].target = wrong;  // a loss alone
  (void)take(run, bad, k.theta, g);
  CHECK(run.look().at == 3);
  bad[0].target = bad[1].x = wrong;
  (void)take(run, bad, k.theta, g);
  CHECK(run.look().at == 0);
  parameters<double> theta(k.theta);
  theta[0] = std::nan("");
  (void)take(run, std::span(k.xs).first(1), theta, g);
  CHECK(run.look().at == 0);
  (void)take(run, k.xs, k.theta, g);  // and nothing of it is left
  CHECK(run.look().code == status::ok);
}

TEST_CASE("the first loss is read without a vjp where losses have no parameters of their own") {
  const task<attention> k(make_attention(), 2);
  segment_run<attention> run(k.model, {.segments = 2, .adjoints = 1});
  std::vector<double> g(std::size_t(k.theta.size()));
  report r = run.start(k.theta);
  CHECK(run.read(k.model, k.theta, k.xs[0], {}, g, r));
  CHECK(run.counts().read_vjps == 0);
  CHECK(run.write(k.model, k.theta, graph_slots::none));
  const auto dpast = run.bank().null_dpast(1);
  dpast[0] = run.bank().adjoint(0).data();
  CHECK(run.read(k.model, k.theta, k.xs[1], dpast, g, r));
  CHECK(run.counts().read_vjps == 1);
  CHECK(run.bank().adjoint(0)[0] != 0);
  CHECK(g == std::vector<double>(g.size()));
}

TEST_CASE("a read that throws leaves no trace of its segment") {
  struct throwing : linear {
    bool* broken;
    throwing(linear f, bool& b) : linear(std::move(f)), broken(&b) {}
    void read_vjp(std::span<const example> xs, index_t t, params<const double> theta,
                  std::span<const double* const> past, double* losses, memory_gradients<numbers<double>> to,
                  view<double> workspace) const {
      linear::read_vjp(xs, t, theta, past, losses, to, workspace);
      if (*broken) fail("throwing", "t", "is " + std::to_string(t));
    }
  };
  bool broken = true;
  const task<throwing> k(throwing(make_linear(), broken), 1);
  segment_run<throwing> run(k.model, {.segments = 1});
  std::vector<double> g(std::size_t(k.theta.size()), 0.5);
  const auto before = g;
  report r = run.start(k.theta);
  CHECK_THROWS_AS(run.read(k.model, k.theta, k.xs[0], {}, g, r), error);
  CHECK(g == before);
  CHECK(run.size() == 0);
  CHECK(r.consumed == 0);
  broken = false;
  CHECK(run.read(k.model, k.theta, k.xs[0], {}, g, r));
  CHECK(g != before);
}
