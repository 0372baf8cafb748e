#pragma once

// memory_llama bench: time and bytes against the window and against the length of the text, beside their
// plan.

#include "bench_device.hpp"
#include "bench_parts.hpp"

namespace program {

struct bench_command : command {
  using T = float;
  model_options base;
  memory_choice memory;
  std::string what = "window,policy,length";
  bench_sizes sizes;
  device_bench_sizes device_sizes;

  explicit bench_command(CLI::App& program)
      : command(
            program, "bench",
            "Time and bytes against the window and against the length, measured and planned side by side.\n"
            "  window: gradients by incremental TBPTT(S) and by TBPTT(S) written out, against S\n"
            "  policy: every policy at the same length\n"
            "  length: reading a text with memories and with plain attention, and exact training on it\n"
            "On a device: policy, and length with memories, by the clock; no checkpoint is needed.",
            "  memory_llama bench --segment 16 --ratio 4 --segments 128 --windows 1,2,4,8,16 --plot "
            "bench.svg\n"
            "  memory_llama bench --what length --segment 256 --ratio 16 --lengths 1000,10000,100000\n"
            "  memory_llama bench --config llama2-7b --device cuda --weights bf16 --what length --segment "
            "1024 --ratio 32 "
            "--lora-rank 128 --batch 4 --lengths 99328") {
    memory.segment = 16;
    memory.ratio = 4;
    memory.b_scale = 0.05;
    base.add(app, true);
    memory.add(app, false);
    memory.add_on_host(app);
    memory.add_capture(app);
    memory.add_weights(app);
    add_count(app, "--batch", device_sizes.batch, 1, 1000, "on a device: segments that are encoded together");
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
    if (!base.device.on_host()) return run_on_device();
    if (memory.weights != "float") fail("memory_llama", "--weights", "are bf16, the host is timed in float");
    if (device_sizes.batch != 1)
      fail("memory_llama", "--batch",
           "is " + std::to_string(device_sizes.batch) + ", on the host segments are encoded one by one");
    auto setup = load_memory<T>(stretched(), memory, fold(key{seed}, 0));
    const auto& model = setup.model;
    const bench_parts parts{setup, bench_runs(setup, sizes.repeats, seed), sizes, plot};
    std::printf("%s\nsegments of %td tokens, %td memory tokens each, one thread, float\n",
                describe(setup.shape()).c_str(), model.options().segment, model.memory_tokens());
    json d{{"command", "bench"},
           {"model", base.path},
           {"adapter", base.adapter},
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
  int run_on_device() {
    using namespace unroll;
    device_sizes.repeats = sizes.repeats;
    device_sizes.capture = memory.capture;
    if (!plot.empty()) fail("memory_llama", "--plot", "is of the host's figures");
    auto parts = split(what);
    if (app->count("--what") == 0) parts = {"policy", "length"};
    for (const auto& part : parts)
      if (part != "policy" && part != "length")
        fail("memory_llama", "what",
             "\"" + part + "\" is not measured on a device, where there are policy and length");
    const bool lengths = std::find(parts.begin(), parts.end(), "length") != parts.end();
    const auto by = [&](const char* name) {
      return parse_policy(
          device_sizes.batch > 1 ? std::string(name) + "/" + std::to_string(device_sizes.batch) : name);
    };
    const auto whole = [&](index_t tokens) { return (tokens + memory.segment - 1) / memory.segment; };
    std::vector<policy> policies{by("rematerialise"), parse_policy("window:2")};
    if (!memory.recurrent)
      policies.insert(policies.end(), {parse_policy("reservoir:2"), by("proportional:4")});
    memory.needs = [&](bool half, const llama::config& c, const memory_options& o) {
      device_plan most = device_session(half, c, o);
      const auto add = [&](const device_plan& p) {
        if (p.place_bytes() > most.place_bytes()) most = p;
      };
      if (lengths)
        for (const index_t n : sizes.lengths)
          if (n <= sizes.train_most) add(plan_on_device(half, c, o, whole(n) * o.segment, policies[0]));
      if (parts.size() > 1 || !lengths)
        for (const policy& p : policies) add(plan_on_device(half, c, o, sizes.segments * o.segment, p));
      return most;
    };
    const auto setup = load_memory<on_device>(stretched(), memory, fold(key{seed}, 0));
    std::printf("%s\nsegments of %td tokens, %td memory tokens each, %s, %s\n",
                describe(setup.shape()).c_str(), setup.model.options().segment, setup.model.memory_tokens(),
                setup.model.llama().name().c_str(), memory.weights.c_str());
    const device_bench bench(setup, device_sizes, seed);
    json d{{"command", "bench"},
           {"model", base.path},
           {"device", setup.model.llama().name()},
           {"weights", memory.weights},
           {"shape", to_json(setup.shape())},
           {"memory", to_json(setup.model.options())},
           {"batch", device_sizes.batch},
           {"repeats", sizes.repeats}};
    for (const auto& part : parts) {
      std::vector<row> rows;
      const progress line;
      if (part == "policy")
        for (const policy& p : policies) {
          line.show(to_string(p));
          if (!interrupted) rows.push_back(bench.gradient(p, sizes.segments));
        }
      else
        for (const index_t n : sizes.lengths) {
          line.show(std::to_string(n) + " tokens");
          if (interrupted) break;
          for (auto& r : bench.reading(whole(n))) rows.push_back(std::move(r));
          if (n <= sizes.train_most && !interrupted) rows.push_back(bench.gradient(policies[0], whole(n)));
        }
      line.clear();
      std::printf("\n%s\n%s", part.c_str(), to_table(rows, 4).c_str());
      d[part] = json::array();
      for (const row& r : rows) d[part].push_back(unroll::to_json(r));
    }
    d["complete"] = !interrupted.load();
    write_json(d);
    return interrupted ? 130 : 0;
  }

  /// The model with positions for the longest text; its weights are as good as any for a measurement of time.
  model_options stretched() const {
    const index_t length = memory.segment;
    index_t most = sizes.segments * length;
    for (const index_t n : sizes.lengths)
      if (what.find("length") != std::string::npos)
        most = std::max(most, (n + length - 1) / length * length);  // a text is whole segments
    model_options m = base;
    if (!m.positions.empty()) return m;
    const index_t context = base.shape_without_weights(1).context;
    if (most > context) m.positions = "linear:" + text_of("%.17g", double(most) / double(context) + 0.01);
    return m;
  }
};

}  // namespace program
