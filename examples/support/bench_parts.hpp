#pragma once

// The three parts of memory_llama bench: against the window, policy by policy, against the length of the
// text.

#include "bench_report.hpp"

namespace program {

/// What is measured.
struct bench_sizes {
  std::vector<index_t> windows{1, 2, 4, 8, 16, 32}, lengths{1000, 3000, 10'000, 30'000, 100'000};
  index_t segments = 128, repeats = 3, plain_most = 100'000, train_most = 100'000;
};

struct bench_parts {
  using T = float;
  const memory_setup<T>& setup;
  bench_runs runs;
  const bench_sizes& sizes;
  const std::string& plot;

  /// Gradients by incremental TBPTT(S) and by TBPTT(S) written out, against S.
  void against_window(json& d) const {
    using namespace unroll;
    const auto ids = runs.random_text(sizes.segments * setup.model.options().segment + 1);
    const auto text = llama::segments_of(ids, setup.model.options().segment);
    const llama::memory_costs<T> costs(setup.shape(), setup.model.options());
    const progress line;
    std::vector<row> rows;
    bench_curves curves{{"incremental TBPTT", {}}, {"TBPTT", {}}};
    // all windows in turn, so that a slow minute of the machine is not that of one window
    std::vector<std::array<measured, 2>> best(sizes.windows.size());
    for (index_t i = 0; i < sizes.repeats; ++i)
      for (std::size_t at = 0; at < sizes.windows.size() && !interrupted; ++at) {
        const index_t s = sizes.windows[at];
        line.show("round " + std::to_string(i + 1) + " of " + std::to_string(sizes.repeats) +
                  ", S = " + std::to_string(s));
        const measured incremental = runs.gradient_of({policy::kind::window, s, true}, text, i),
                       naive = runs.naive_gradient(s, text);
        if (interrupted) break;  // these may be cut short
        best[at][0].merge(incremental);
        best[at][1].merge(naive);
      }
    double fastest = std::numeric_limits<double>::infinity(), slowest = 0;
    for (std::size_t at = 0; at < sizes.windows.size(); ++at) {
      if (!std::isfinite(best[at][1].seconds)) break;  // interrupted before its first round
      const index_t s = sizes.windows[at];
      const auto planned =
          plan(costs, sizes.segments * setup.model.options().segment, {policy::kind::window, s, true});
      const auto& [incremental, naive] = best[at];
      double operations = planned.read_operations;  // the same decoders, but every encoder up to S times
      for (index_t t = 1; t < sizes.segments; ++t)
        operations += double(std::min(s, t)) * (costs.write(0) + costs.write_vjp(0));
      rows.push_back(bench_row("incremental TBPTT", "S", s, incremental, planned.estimator_bytes(),
                               planned.operations()));
      rows.push_back(bench_row("TBPTT", "S", s, naive, planned.estimator_bytes() - planned.adjoint_bytes / 2,
                               operations));
      for (std::size_t k = 0; k < 2; ++k) {
        curves[k].second[0].emplace_back(double(s), best[at][k].seconds);
        curves[k].second[1].emplace_back(double(s), best[at][k].heap);
      }
      fastest = std::min(fastest, incremental.seconds);
      slowest = std::max(slowest, incremental.seconds);
    }
    line.clear();
    show_bench(d, plot, "window", rows, curves);
    if (rows.empty()) return;
    std::printf("incremental TBPTT: the slowest window takes %.2f times the time of the fastest\n",
                slowest / fastest);
    d["window_slowest_over_fastest"] = slowest / fastest;
  }

  /// Every policy at the same length.
  void every_policy(json& d) const {
    using namespace unroll;
    const index_t length = setup.model.options().segment;
    const auto ids = runs.random_text(sizes.segments * length + 1);
    const auto text = llama::segments_of(ids, length);
    const llama::memory_costs<T> costs(setup.shape(), setup.model.options());
    const progress line;
    std::vector<row> rows;
    std::vector<std::string> names{"keep_all", "keep:4", "rematerialise", "window:2"};
    if (!setup.model.options().recurrent) names.insert(names.end(), {"reservoir:2", "proportional:4"});
    std::vector<measured> best(names.size());
    for (index_t i = 0; i < sizes.repeats; ++i)
      for (std::size_t at = 0; at < names.size() && !interrupted; ++at) {
        line.show("round " + std::to_string(i + 1) + " of " + std::to_string(sizes.repeats) + ", " +
                  names[at]);
        const measured one = runs.gradient_of(parse_policy(names[at]), text, i);
        if (!interrupted) best[at].merge(one);
      }
    for (std::size_t at = 0; at < names.size(); ++at) {
      if (!std::isfinite(best[at].seconds)) break;
      const auto planned = plan(costs, sizes.segments * length, parse_policy(names[at]));
      rows.push_back(bench_row(names[at], "segments", sizes.segments, best[at], planned.estimator_bytes(),
                               planned.operations())
                         .add("time_over_keep_all", best[at].seconds / best[0].seconds));
    }
    line.clear();
    show_bench(d, plot, "policy", rows, {});
  }

  /// Reading a text with memories and with plain attention, and exact training on it.
  void against_length(json& d) const {
    using namespace unroll;
    const llama::config& c = setup.shape();
    const index_t length = setup.model.options().segment;
    const llama::memory_costs<T> costs(c, setup.model.options());
    const progress line;
    std::vector<row> rows;
    bench_curves curves{{"memories", {}}, {"plain attention", {}}, {"exact training", {}}};
    const auto add = [&](std::size_t i, index_t n, const measured& m, double bytes, double operations) {
      rows.push_back(bench_row(curves[i].first, "tokens", n, m, bytes, operations));
      curves[i].second[0].emplace_back(double(n), m.seconds);
      curves[i].second[1].emplace_back(double(n), m.heap);
    };
    for (const index_t wanted : sizes.lengths) {
      const index_t n = (wanted + length - 1) / length * length, parts = n / length;
      if (interrupted) break;
      line.show(std::to_string(n) + " tokens");
      const auto ids = runs.random_text(n + 1);
      const auto text = llama::segments_of(ids, length);
      double operations = costs.read(parts - 1, length);
      for (index_t s = 0; s + 1 < parts; ++s) operations += costs.write(s);
      add(0, n, runs.read_with_memories(text),
          double(sizeof(T)) *
              (double(parts - 1) * double(costs.size().memory) + double(costs.workspace(parts - 1))),
          operations);
      if (wanted <= sizes.plain_most && !interrupted) {
        const double each =
            costs.read(0, 1) - 2 * double(c.hidden) * double(c.vocabulary);  // without the output layer
        const double pairs = double(n) * double(n - 1) / 2 * 4 * double(c.query_width()) * double(c.layers);
        const measured m = runs.read_plainly(std::span(ids).first(std::size_t(n)));
        add(1, n, m, bench_runs::plain_bytes(setup.model.stack(), n), double(n) * each + pairs);
      }
      if (wanted <= sizes.train_most && !interrupted) {
        const auto planned = plan(costs, n, policy{});
        add(2, n, runs.gradient_of(policy{}, text), planned.estimator_bytes(), planned.operations());
      }
    }
    line.clear();
    show_bench(d, plot, "length", rows, curves);
    const double plain = 2 * double(c.layers) * double(c.kv_width()) * sizeof(T);
    std::printf("bytes a token that stay: %.4g with memories, %.4g with plain attention\n",
                double(costs.size().memory) * sizeof(T) / double(length), plain);
    d["bytes_per_token"] = {{"memories", double(costs.size().memory) * sizeof(T) / double(length)},
                            {"plain", plain}};
  }
};

}  // namespace program
