#include "unroll/estimate/parts/graph_window.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"

using namespace unroll;
using namespace memory_task;

namespace {

// Adjoint t of m_s is what J_t sends: see memory_task::weights.
struct window_of_weights {
  static constexpr index_t T = 5;
  weights f{T};
  std::vector<char> xs = std::vector<char>(std::size_t(T), 0);
  parameters<double> theta{f.size().params};
  segment_run<weights> run{f, graph_window<weights>::sizes(T, 2)};
  graph_window<weights> window{run, f, params<const double>(theta)};
  std::vector<double> g = std::vector<double>(std::size_t(f.size().params));
  report r = run.start(params<const double>(theta));

  void read() { CHECK(run.read(f, theta, xs[0], window.route_adjoints(run.size()), g, r)); }
  double weight(index_t t, index_t s) const { return g[std::size_t(f.entry(t, s))]; }
};

}  // namespace

TEST_CASE("a window has memory for two adjoints a graph, and no more graphs than there are memories") {
  const memory_bank_sizes large = graph_window<weights>::sizes(9, 4),
                          small = graph_window<weights>::sizes(3, 4);
  CHECK(large.graphs == 4);
  CHECK(large.adjoints == 8);
  CHECK(small.graphs == 2);
  CHECK(graph_window<weights>::sizes(1, 4).graphs == 1);
}

TEST_CASE("a graph collects what the losses behind it send, each times its factor, until it is sent back") {
  window_of_weights k;
  k.read();
  k.window.collect(7);  // nothing is alive
  CHECK(k.run.write(k.f, k.theta, 0));
  CHECK(k.window.route_adjoints(1)[0] != nullptr);
  k.read();  // J_1
  k.window.collect(2);
  CHECK(k.run.write(k.f, k.theta, graph_slots::none));
  CHECK(k.window.route_adjoints(2)[1] == nullptr);  // m_1 has no graph
  k.read();                                         // J_2, whose adjoints are not collected
  CHECK(k.run.write(k.f, k.theta, 1));
  k.read();  // J_3
  k.window.collect(0.5);
  k.window.send_back(graph_slots::none, k.g);
  CHECK(k.g == std::vector<double>(k.g.size()));
  k.window.send_back(0, k.g);
  CHECK(k.run.bank().graphs().live() == 1);
  CHECK(k.weight(1, 0) == 2);
  CHECK(k.weight(2, 0) == 0);
  CHECK(k.weight(3, 0) == 0.5);
  CHECK(k.weight(3, 2) == 0);
  k.window.send_back(0, k.g);  // is empty
  k.window.send_all_back(k.g);
  CHECK(k.run.bank().graphs().live() == 0);
  CHECK(k.weight(3, 0) == 0.5);
  CHECK(k.weight(3, 2) == 0.5);

  // the slot's next graph starts with nothing
  CHECK(k.run.write(k.f, k.theta, 0));
  k.read();  // J_4
  k.window.collect(1);
  k.window.send_all_back(k.g);
  CHECK(k.weight(4, 3) == 1);
  CHECK(k.weight(1, 3) == 0);
}

TEST_CASE("graphs go back newest first, so that a write that reads passes on what it owes") {
  const task<linear> k(make_linear(true), 3);
  segment_run<linear> run(k.model, graph_window<linear>::sizes(3, 2));
  const params<const double> theta(k.theta);
  graph_window<linear> window(run, k.model, theta);
  std::vector<double> g(std::size_t(theta.size()));
  report r = run.start(theta);
  for (const index_t slot : {1, 0}) {  // the newest graph is in the first slot
    CHECK(run.read(k.model, theta, k.xs[std::size_t(run.size())], window.route_adjoints(run.size()), g, r));
    window.collect(1);
    CHECK(run.write(k.model, theta, slot));
  }
  CHECK(run.read(k.model, theta, k.xs[2], window.route_adjoints(2), g, r));
  window.collect(1);
  window.send_all_back(g);
  CHECK(relative_error(g, k.differences()) < 1e-9);
}
