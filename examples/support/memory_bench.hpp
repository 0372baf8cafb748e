#pragma once

// memory_llama bench: time and bytes against the window and against the length of the text, beside their
// plan.

#include "bench_report.hpp"

namespace program {

struct bench_command : command {
  using T = float;
  model_options base;
  memory_choice memory;
  std::string what = "window,policy,length";
  std::vector<index_t> windows{1, 2, 4, 8, 16, 32}, lengths{1000, 3000, 10'000, 30'000, 100'000};
  index_t segments = 128, repeats = 3, plain_most = 100'000, train_most = 100'000;

  explicit bench_command(CLI::App& program)
      : command(
            program, "bench",
            "Time and bytes against the window and against the length, measured and planned side by side.\n"
            "  window: gradients by incremental TBPTT(S) and by TBPTT(S) written out, against S\n"
            "  policy: every policy at the same length\n"
            "  length: reading a text with memories and with plain attention, and exact training on it",
            "  memory_llama bench --segment 16 --ratio 4 --segments 128 --windows 1,2,4,8,16 --plot "
            "bench.svg\n"
            "  memory_llama bench --what length --segment 256 --ratio 16 --lengths 1000,10000,100000") {
    memory.segment = 16;
    memory.ratio = 4;
    memory.b_scale = 0.05;
    base.add(app, true);
    memory.add(app, false);
    app->add_option("--what", what, "separated by commas, of window, policy, length")->capture_default_str();
    app->add_option("--windows", windows, "S, separated by commas")
        ->delimiter(',')
        ->check(CLI::Range(1, 100'000));
    add_count(app, "--segments", segments, 2, 1'000'000, "of the text, for window and policy");
    app->add_option("--lengths", lengths, "tokens, separated by commas, for length")
        ->delimiter(',')
        ->check(CLI::Range(1, 100'000'000));
    app->add_option("--plain-most", plain_most, "longest text for plain attention")->capture_default_str();
    app->add_option("--train-most", train_most, "longest text for training")->capture_default_str();
    add_count(app, "--repeats", repeats, 1, 1000,
              "of each measurement, in rounds; the fastest counts, in processor time");
    add_seed("of weights and text");
    add_outputs();
    app->add_option("--plot", plot,
                    "draw time and bytes to FILE_window.svg and FILE_length.svg for FILE.svg, or .png, .pdf")
        ->check(drawable);
  }

  int run() {
    using namespace unroll;
    named_files figures;
    if (!plot.empty())
      figures = {{"--plot", bench_figure(plot, "window")}, {"--plot", bench_figure(plot, "length")}};
    check_files(base.inputs({}), figures);
    auto setup = load_memory<T>(stretched(), memory, fold(key{seed}, 0));
    const auto& model = setup.model;
    const bench_runs runs(setup, repeats, seed);
    std::printf("%s\nsegments of %td tokens, %td memory tokens each, one thread, float\n",
                describe(setup.shape()).c_str(), model.options().segment, model.memory_tokens());
    json d{{"command", "bench"},
           {"model", base.path},
           {"shape", to_json(setup.shape())},
           {"memory", to_json(model.options())},
           {"segments", segments},
           {"repeats", repeats}};
    for (const auto& part : split(what)) {
      if (part == "window")
        bench_window(setup, runs, d);
      else if (part == "policy")
        bench_policies(setup, runs, d);
      else if (part == "length")
        bench_length(setup, runs, d);
      else
        fail("memory_llama", "what", "\"" + part + "\" is none of window, policy, length");
    }
    d["complete"] = !interrupted.load();
    write_json(d);
    return interrupted ? 130 : 0;
  }

 private:
  /// The model with positions for the longest text; its weights are as good as any for a measurement of time.
  model_options stretched() const {
    const index_t length = memory.segment;
    index_t most = segments * length;
    for (const index_t n : lengths)
      if (what.find("length") != std::string::npos)
        most = std::max(most, (n + length - 1) / length * length);  // a text is whole segments
    model_options m = base;
    if (!m.positions.empty()) return m;
    const index_t context =
        base.path.empty() ? base.fresh.context : base.load<T>(key{seed}).model.shape.context;
    if (most > context) m.positions = "linear:" + text_of("%.17g", double(most) / double(context) + 0.01);
    return m;
  }

  void bench_window(const memory_setup<T>& setup, const bench_runs& runs, json& d) const {
    using namespace unroll;
    const auto ids = runs.random_text(segments * setup.model.options().segment + 1);
    const auto text = llama::segments_of(ids, setup.model.options().segment);
    const llama::memory_costs<T> costs(setup.shape(), setup.model.options());
    const progress line;
    std::vector<row> rows;
    bench_curves curves{{"incremental TBPTT", {}}, {"TBPTT", {}}};
    // all windows in turn, so that a slow minute of the machine is not that of one window
    std::vector<std::array<measured, 2>> best(windows.size());
    for (index_t i = 0; i < repeats; ++i)
      for (std::size_t at = 0; at < windows.size() && !interrupted; ++at) {
        const index_t s = windows[at];
        line.show("round " + std::to_string(i + 1) + " of " + std::to_string(repeats) +
                  ", S = " + std::to_string(s));
        const measured incremental = runs.gradient_of({policy::kind::window, s, true}, text, i),
                       naive = runs.naive_gradient(s, text);
        if (interrupted) break;  // these may be cut short
        best[at][0].merge(incremental);
        best[at][1].merge(naive);
      }
    double fastest = std::numeric_limits<double>::infinity(), slowest = 0;
    for (std::size_t at = 0; at < windows.size(); ++at) {
      if (!std::isfinite(best[at][1].seconds)) break;  // interrupted before its first round
      const index_t s = windows[at];
      const auto planned =
          plan(costs, segments * setup.model.options().segment, {policy::kind::window, s, true});
      const auto& [incremental, naive] = best[at];
      double operations = planned.read_operations;  // the same decoders, but every encoder up to S times
      for (index_t t = 1; t < segments; ++t)
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

  void bench_policies(const memory_setup<T>& setup, const bench_runs& runs, json& d) const {
    using namespace unroll;
    const index_t length = setup.model.options().segment;
    const auto ids = runs.random_text(segments * length + 1);
    const auto text = llama::segments_of(ids, length);
    const llama::memory_costs<T> costs(setup.shape(), setup.model.options());
    const progress line;
    std::vector<row> rows;
    std::vector<std::string> names{"keep_all", "keep:4", "rematerialise", "window:2"};
    if (!setup.model.options().recurrent) names.insert(names.end(), {"reservoir:2", "proportional:4"});
    std::vector<measured> best(names.size());
    for (index_t i = 0; i < repeats; ++i)
      for (std::size_t at = 0; at < names.size() && !interrupted; ++at) {
        line.show("round " + std::to_string(i + 1) + " of " + std::to_string(repeats) + ", " + names[at]);
        const measured one = runs.gradient_of(parse_policy(names[at]), text, i);
        if (!interrupted) best[at].merge(one);
      }
    for (std::size_t at = 0; at < names.size(); ++at) {
      if (!std::isfinite(best[at].seconds)) break;
      const auto planned = plan(costs, segments * length, parse_policy(names[at]));
      rows.push_back(bench_row(names[at], "segments", segments, best[at], planned.estimator_bytes(),
                               planned.operations())
                         .add("time_over_keep_all", best[at].seconds / best[0].seconds));
    }
    line.clear();
    show_bench(d, plot, "policy", rows, {});
  }

  void bench_length(const memory_setup<T>& setup, const bench_runs& runs, json& d) const {
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
    for (const index_t wanted : lengths) {
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
      if (wanted <= plain_most && !interrupted) {
        const double each =
            costs.read(0, 1) - 2 * double(c.hidden) * double(c.vocabulary);  // without the head
        const double pairs = double(n) * double(n - 1) / 2 * 4 * double(c.query_width()) * double(c.layers);
        const measured m = runs.read_plainly(std::span(ids).first(std::size_t(n)));
        add(1, n, m, bench_runs::plain_bytes(setup.model.stack(), n), double(n) * each + pairs);
      }
      if (wanted <= train_most && !interrupted) {
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
