#pragma once

// memory_llama gradient: bias, variance and cost of every policy against the exact gradient, on a text.

#include <unroll/diagnose/measure_by_name.hpp>
#include <unroll/diagnose/recorded_model.hpp>

#include "gradient_report.hpp"

namespace program {

struct gradient_command : command {
  model_options base;
  memory_choice memory;
  text_options texts;
  std::string policies =
      "rematerialise,window:1,window:2,window:4,window:8,reservoir:1,reservoir:2,reservoir:4,reservoir:8,"
      "reservoir:1:uncompensated,reservoir:2:uncompensated,reservoir:4:uncompensated,proportional:4,keep_all";
  index_t segments = 16, replicas = 200, start = 0;
  double confidence = 0.95, precision = 0;
  bool doubles = false, no_batches = false;

  explicit gradient_command(CLI::App& program)
      : command(
            program, "gradient",
            "Bias, variance and cost of the gradients of each policy, against the exact gradient.",
            "  memory_llama gradient --model base --text book.txt --segments 16 --policy "
            "rematerialise,window:2,reservoir:2,reservoir:2:uncompensated,proportional:4 --replicas 400\n"
            "  memory_llama gradient --model base --adapters adapters --text book.txt --segments 97 --plot "
            "bias.svg --json bias.json") {
    memory.segment = 32;
    memory.b_scale = 0.05;
    base.add(app, true);
    memory.add(app);
    memory.add_on_host(app);
    app->add_option("--b-scale", memory.b_scale,
                    "standard deviation of the second factor of new adapters, so that no gradient is zero by "
                    "construction")
        ->check(not_negative)
        ->capture_default_str();
    app->add_option("--text", texts.text, "a text file, or a folder, whose first document is taken")
        ->check(CLI::ExistingPath)
        ->capture_default_str();
    add_count(app, "--start", start, 0, 2'000'000'000, "token of the text to begin at");
    add_count(app, "--segments", segments, 2, 100'000, "of the text");
    app->add_option("--policy", policies, "separated by commas: " + unroll::policy_catalogue::forms())
        ->capture_default_str();
    add_count(app, "--replicas", replicas, 2, 100'000'000, "gradients drawn from each policy that draws");
    add_share(app, "--precision", precision, 0, 10,
              "half width of the interval of the relative bias to aim at; 0: as many as --replicas");
    add_share(app, "--confidence", confidence, 0.5, 0.9999, "of the intervals");
    app->add_flag("--no-batches", no_batches,
                  "save 32 numbers a parameter; the interval then misses noise that few gradients hold");
    app->add_flag("--double", doubles, "compute in double precision");
    add_seed("of new parameters and of the draws");
    add_threads();
    add_outputs("the table");
  }

  int run() {
    if (base.device.on_host()) return doubles ? measure_all<double>() : measure_all<float>();
    if (doubles) fail("memory_llama", "--double", "is of the host: a device computes in float");
    return measure_all<on_device>();
  }

 private:
  template <class X>
  int measure_all() {
    using namespace unroll;
    using T = parameter_of<X>;
    constexpr bool here = !std::same_as<X, on_device>;
    check_files(base.inputs({{"--text", texts.text}, {"--adapters", memory.adapters}}));
    std::vector<policy> wanted;
    for (const std::string& name : split(policies)) wanted.push_back(parse_policy(name));
    memory.needs = [&](bool half, const llama::config& c, const memory_options& o) {
      device_plan most;
      for (const policy& p : wanted)
        if (const auto one = plan_on_device(half, c, o, segments * o.segment, p);
            one.place_bytes() > most.place_bytes())
          most = one;
      return most;
    };
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const auto& model = setup.model;
    if (app->count("--policy") == 0) leave_out_unsupported(wanted, model.options());
    const index_t length = model.options().segment, needed = segments * length + 1;
    check_segments(setup, segments);
    const data::documents all(texts.text, setup.words, {.bos = setup.words.bos() >= 0, .threads = threads});
    if (index_t(all[0].ids.size()) < start + needed)
      fail("memory_llama", "text",
           "\"" + all[0].name + "\" has " + std::to_string(all[0].ids.size()) + " tokens, " +
               std::to_string(start + needed) + " are needed");
    const auto ids = std::span(all[0].ids).subspan(std::size_t(start), std::size_t(needed));
    const std::vector<segment> text = llama::segments_of(ids, length);

    std::printf(
        "%s\n%s from token %td, %td segments of %td tokens, %td memory tokens each; %td parameters, %s\n\n",
        describe(setup.shape()).c_str(), all[0].name.c_str(), start, segments, length, model.memory_tokens(),
        setup.theta.size(), memory.adapters.empty() ? "random" : "trained");
    const block<double> exact = exact_of(model, setup.theta, text);
    std::optional<recorded_of<X>> recorded;  // unless it is too large
    if constexpr (here)
      if (model.independent() && recorded_of<X>::numbers(model, segments) * sizeof(T) < 4e9)
        recorded.emplace(model, setup.theta, text, [](index_t) { return !interrupted; });
    std::vector<measured_policy> lines;
    std::vector<row> rows;
    for (const policy& p : wanted) {
      if (stop_asked()) break;
      lines.push_back(measure_one<X>(p, index_t(lines.size()), setup, text, exact, recorded));
      rows.push_back(summary(lines.back(), segments));
    }
    std::fputs(to_table(rows, 3).c_str(), stdout);
    std::printf(
        "\nbias is that of the mean gradient, relative to |g|, with a %g %% interval; variance is tr V / "
        "|g|^2; "
        "norm_ratio is\nE|g^| / |g|, which is no measure of bias; heavy tails: few gradients carry the "
        "noise, do "
        "not trust the\ninterval. writes, rewrites, back (encoders), seconds "
        "and MB are those of one text.\n",
        100 * confidence);

    json d{{"command", "gradient"},
           {"model", base.path},
           {"adapter", base.adapter},
           {"adapters", memory.adapters},
           {"text", texts.text},
           {"start", start},
           {"shape", program::to_json(setup.shape())},
           {"memory", program::to_json(model.options())},
           {"parameters", setup.theta.size()},
           {"precision", doubles ? "double" : "float"},
           {"device", base.device.where},
           {"segments", segments},
           {"replicas", replicas},
           {"seed", seed},
           {"confidence", confidence},
           {"ranks", world.size()},
           {"complete", !stop_asked()}};
    d["rows"] = json::array();
    for (const measured_policy& l : lines) d["rows"].push_back(unroll::to_json(all_numbers(l, segments)));
    write_json(d);
    if (!plot.empty() && !lines.empty() && world.first()) draw_policies(lines, segments, plot);
    return interrupted ? 130 : 0;
  }

  // What a memory model on a device is not recorded as.
  struct nothing {};
  template <class X>
  struct recorded_as {
    using type = unroll::recorded_model<memory_llama<X>>;
  };
  template <std::same_as<on_device> X>
  struct recorded_as<X> {
    using type = nothing;
  };
  template <class X>
  using recorded_of = typename recorded_as<X>::type;

  template <class Model, class T>
  static unroll::block<double> exact_of(const Model& model, const parameters<T>& theta,
                                        const std::vector<segment>& text) {
    if constexpr (std::same_as<Model, memory_on_device>) {
      device_estimator<false, unroll::place::host> exact(model, {}, index_t(text.size()));
      unroll::gradient<float> g(theta.size());
      exact.reset({});
      if (const auto r = exact.advance(theta, text, g); r.code != unroll::status::ok)
        fail("memory_llama", "text", "has a loss that is not finite at segment " + std::to_string(r.at));
      unroll::block<double> wide(theta.size());
      std::copy(g.begin(), g.end(), wide.begin());
      return wide;
    } else {
      return exact_gradient(model, theta, text);
    }
  }

  /// Row by row other draws: rows that share them err together.
  template <class X>
  measured_policy measure_one(const unroll::policy& p, index_t row, const memory_setup<X>& setup,
                              const std::vector<segment>& text, const unroll::block<double>& exact,
                              [[maybe_unused]] const std::optional<recorded_of<X>>& recorded) {
    using namespace unroll;
    using T = parameter_of<X>;
    constexpr bool here = !std::same_as<X, on_device>;
    const std::string name = to_string(p);
    counting_progress shown(name, "gradients");
    const measure_options how{.replicas = replicas,
                              .precision = precision,
                              .seed = fold(fold(key{seed}, 1), std::uint64_t(row)),
                              .threads = here ? threads : 1,
                              .confidence = confidence,
                              .keep_batches = !no_batches,
                              .reference = view<const double>(exact),
                              .done = &shown.done,
                              .stop = &interrupted,
                              .among = world};
    const index_t n = index_t(text.size()), tokens = n * setup.model.options().segment;
    measured_policy out{name, {}, {}, {}};
    const auto once = [&](auto estimator) {  // what one gradient does and costs
      gradient<T> g(setup.theta.size());
      double seconds = std::numeric_limits<double>::infinity();
      for (int i = 0; i < 3 && (i == 0 || !interrupted); ++i) {  // the same draw, so the fastest counts
        const double begin = seconds_now();
        estimator.reset(fold(how.seed, 2));
        report r = estimator.advance(setup.theta, text, g);
        r += estimator.finish(setup.theta, g);
        seconds = std::min(seconds, seconds_now() - begin);
        out.m.bytes = r.bytes;
      }
      out.m.seconds = seconds / double(n);
      out.m.variance_time = out.m.variance * seconds;
      out.counts = estimator.counts();
    };
    if constexpr (here) {
      const double bytes = sizeof(T);
      const llama::memory_costs<X> costs(setup.shape(), setup.model.options());
      out.planned = plan(costs, tokens, p, {bytes, 4 * bytes, bytes, bytes, bytes, bytes});
      const auto measured = [&](const auto& model) {
        return measure_by_name(name, model, setup.theta, text, how);
      };
      out.m = recorded ? measured(*recorded) : measured(setup.model);
      with_policy(p, setup.model, n, philox_chooser{}, once);
    } else {
      out.planned = plan_on_device(setup.model.half(), setup.shape(), setup.model.options(), tokens, p);
      out.m = with_device_policy(p, setup.model, n,
                                 [&](const auto& e) { return measure(e, setup.theta, text, how); });
      with_device_policy(p, setup.model, n, once);
    }
    return out;
  }
};

}  // namespace program
