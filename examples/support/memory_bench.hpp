#pragma once

// memory_llama bench: time and bytes against the window and against the length of the text, beside their
// plan.

#include "bench_parts.hpp"

namespace program {

struct bench_command : command {
  using T = float;
  model_options base;
  memory_choice memory;
  std::string what = "window,policy,length";
  bench_sizes sizes;

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
    app->add_option("--windows", sizes.windows, "S, separated by commas")
        ->delimiter(',')
        ->check(CLI::Range(1, 100'000));
    add_count(app, "--segments", sizes.segments, 2, 1'000'000, "of the text, for window and policy");
    app->add_option("--lengths", sizes.lengths, "tokens, separated by commas, for length")
        ->delimiter(',')
        ->check(CLI::Range(1, 100'000'000));
    app->add_option("--plain-most", sizes.plain_most, "longest text for plain attention")
        ->capture_default_str();
    app->add_option("--train-most", sizes.train_most, "longest text for training")->capture_default_str();
    add_count(app, "--repeats", sizes.repeats, 1, 1000,
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
    const bench_parts parts{setup, bench_runs(setup, sizes.repeats, seed), sizes, plot};
    std::printf("%s\nsegments of %td tokens, %td memory tokens each, one thread, float\n",
                describe(setup.shape()).c_str(), model.options().segment, model.memory_tokens());
    json d{{"command", "bench"},
           {"model", base.path},
           {"shape", to_json(setup.shape())},
           {"memory", to_json(model.options())},
           {"segments", sizes.segments},
           {"repeats", sizes.repeats}};
    for (const auto& part : split(what)) {
      if (part == "window")
        parts.against_window(d);
      else if (part == "policy")
        parts.every_policy(d);
      else if (part == "length")
        parts.against_length(d);
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
    index_t most = sizes.segments * length;
    for (const index_t n : sizes.lengths)
      if (what.find("length") != std::string::npos)
        most = std::max(most, (n + length - 1) / length * length);  // a text is whole segments
    model_options m = base;
    if (!m.positions.empty()) return m;
    const index_t context =
        base.path.empty() ? base.new_shape.context : base.load<T>(key{seed}).model.shape.context;
    if (most > context) m.positions = "linear:" + text_of("%.17g", double(most) / double(context) + 0.01);
    return m;
  }
};

}  // namespace program
