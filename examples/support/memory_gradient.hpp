#pragma once

// memory_llama gradient: bias, variance and cost of every policy against the exact gradient, on a text.

#include <unroll/diagnose/json_sink.hpp>
#include <unroll/diagnose/measure_by_name.hpp>
#include <unroll/diagnose/recorded_model.hpp>

#include "memory_setup.hpp"

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
    app->add_option(
           "--b-scale", memory.b_scale,
           "standard deviation of the second factor of fresh adapters, so that no gradient is zero by "
           "construction")
        ->check(not_negative)
        ->capture_default_str();
    app->add_option("--text", texts.text, "a text file, or a folder, whose first document is taken")
        ->check(CLI::ExistingPath)
        ->capture_default_str();
    app->add_option("--start", start, "token of the text to begin at")
        ->check(CLI::Range(0, 2'000'000'000))
        ->capture_default_str();
    app->add_option("--segments", segments, "of the text")
        ->check(CLI::Range(2, 100'000))
        ->capture_default_str();
    app->add_option("--policy", policies, "separated by commas: " + unroll::policy_catalogue::forms())
        ->capture_default_str();
    app->add_option("--replicas", replicas, "gradients drawn from each policy that draws")
        ->check(CLI::Range(2, 100'000'000))
        ->capture_default_str();
    app->add_option("--precision", precision,
                    "half width of the interval of the relative bias to aim at; 0: as many as --replicas")
        ->check(CLI::Range(0.0, 10.0))
        ->check(not_negative)
        ->capture_default_str();
    app->add_option("--confidence", confidence, "of the intervals")
        ->check(CLI::Range(0.5, 0.9999))
        ->check(not_negative)
        ->capture_default_str();
    app->add_flag("--no-batches", no_batches,
                  "save 32 numbers a parameter; the interval then misses noise that few gradients hold");
    app->add_flag("--double", doubles, "compute in double precision");
    add_seed("of fresh parameters and of the draws");
    add_threads();
    add_outputs("the table");
  }

  int run() { return doubles ? measure_all<double>() : measure_all<float>(); }

 private:
  struct line {
    std::string policy;
    unroll::measurement m;
    unroll::replay_counts counts;
    unroll::memory_plan planned;
  };

  template <class T>
  int measure_all() {
    using namespace unroll;
    check_files(base.inputs({{"--text", texts.text}, {"--adapters", memory.adapters}}));
    std::vector<policy> wanted;
    for (const std::string& name : split(policies)) wanted.push_back(parse_policy(name));
    auto setup = load_memory<T>(base, memory, fold(key{seed}, 0));
    const memory_llama<T>& model = setup.model;
    if (app->count("--policy") == 0) leave_out_unsupported(wanted, model.options());
    const index_t length = model.options().segment, needed = segments * length + 1;
    if (segments > model.segments())
      fail("memory_llama", "segments",
           "are " + std::to_string(segments) + ", the longest text has " + std::to_string(model.segments()) +
               " segments in " + std::to_string(setup.shape().positions()) +
               " positions; --positions linear:FACTOR stretches them");
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
    const block<double> exact = exact_gradient(model, setup.theta, text);
    const llama::memory_costs<T> costs(setup.shape(), model.options());
    std::optional<unroll::recorded_model<memory_llama<T>>> recorded;  // unless it is too large
    if (model.independent() &&
        unroll::recorded_model<memory_llama<T>>::numbers(model, segments) * sizeof(T) < 4e9)
      recorded.emplace(model, setup.theta, text, [](index_t) { return !interrupted; });
    std::vector<line> lines;
    std::vector<row> rows;
    for (const policy& p : wanted) {
      if (interrupted) break;
      lines.push_back(measure_one<T>(p, index_t(lines.size()), setup, text, exact, costs, recorded));
      rows.push_back(summary(lines.back()));
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
           {"adapters", memory.adapters},
           {"text", texts.text},
           {"start", start},
           {"shape", program::to_json(setup.shape())},
           {"memory", program::to_json(model.options())},
           {"parameters", setup.theta.size()},
           {"precision", doubles ? "double" : "float"},
           {"segments", segments},
           {"replicas", replicas},
           {"seed", seed},
           {"confidence", confidence},
           {"complete", !interrupted.load()}};
    d["rows"] = json::array();
    for (const line& l : lines) d["rows"].push_back(unroll::to_json(all_numbers(l)));
    write_json(d);
    if (!plot.empty() && !lines.empty()) draw(lines);
    return interrupted ? 130 : 0;
  }

  /// Row by row other draws: rows that share them err together.
  template <class T>
  line measure_one(const unroll::policy& p, index_t row, const memory_setup<T>& setup,
                   const std::vector<segment>& text, const unroll::block<double>& exact,
                   const unroll::llama::memory_costs<T>& costs,
                   const std::optional<unroll::recorded_model<memory_llama<T>>>& recorded) {
    using namespace unroll;
    std::atomic<index_t> done{0};
    const measure_options how{.replicas = replicas,
                              .precision = precision,
                              .seed = fold(fold(key{seed}, 1), std::uint64_t(row)),
                              .threads = threads,
                              .confidence = confidence,
                              .keep_batches = !no_batches,
                              .reference = view<const double>(exact),
                              .done = &done,
                              .stop = &interrupted};
    const std::string name = to_string(p);
    const progress shown;
    std::jthread watch([&](std::stop_token end) {
      while (!end.stop_requested()) {
        shown.show(name + ": " + std::to_string(done.load()) + " gradients");
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    });
    const index_t n = index_t(text.size());
    const double bytes = sizeof(T);
    line out{
        name,
        {},
        {},
        plan(costs, n * setup.model.options().segment, p, {bytes, 4 * bytes, bytes, bytes, bytes, bytes})};
    const auto measured = [&](const auto& model) {
      return measure_by_name(name, model, setup.theta, text, how);
    };
    out.m = recorded ? measured(*recorded) : measured(setup.model);
    with_policy(p, setup.model, n, philox_chooser{}, [&](auto once) {  // what one gradient does and costs
      gradient<T> g(setup.theta.size());
      double seconds = std::numeric_limits<double>::infinity();
      for (int i = 0; i < 3 && (i == 0 || !interrupted); ++i) {  // the same draw, so the fastest counts
        const double begin = seconds_now();
        once.reset(fold(how.seed, 2));
        report r = once.advance(setup.theta, text, g);
        r += once.finish(setup.theta, g);
        seconds = std::min(seconds, seconds_now() - begin);
        out.m.bytes = r.bytes;
      }
      out.m.seconds = seconds / double(n);
      out.m.variance_time = out.m.variance * seconds;
      out.counts = once.counts();
    });
    return out;
  }

  unroll::row summary(const line& l) const {
    const auto& m = l.m;
    const double texts_seconds = m.seconds * double(segments), square = m.exact_norm * m.exact_norm;
    unroll::row r;
    r.add("policy", l.policy);
    r.add("bias", m.relative_bias).add("low", m.relative_bias_low).add("high", m.relative_bias_high);
    r.add("cosine", m.cosine).add("variance", m.variance / square).add("norm_ratio", m.mean_norm_ratio);
    r.add("replicas", m.replicas).add("writes", l.counts.writes).add("rewrites", l.counts.rewrites);
    r.add("back", l.planned.write_vjps).add("graphs", l.counts.live_graphs);
    r.add("seconds", texts_seconds).add("MB", double(m.bytes) / 1e6);
    if (const auto note = unroll::note_of(m); !note.empty()) r.add("note", note);
    return r;
  }
  unroll::row all_numbers(const line& l) const {
    unroll::row r;
    r.add("policy", l.policy);
    const unroll::row known = unroll::to_row(l.policy, l.m);
    for (const auto& f : known.fields())
      if (f.first != "name") r.add(f.first, f.second);
    const double square = l.m.exact_norm * l.m.exact_norm;
    r.add("relative_variance", l.m.variance / square);
    r.add("norm_ratio", l.m.mean_norm_ratio);
    r.add("writes", l.counts.writes).add("rewrites", l.counts.rewrites);
    r.add("write_vjps", l.counts.write_vjps)
        .add("reads", l.counts.reads)
        .add("read_vjps", l.counts.read_vjps);
    r.add("live_graphs", l.counts.live_graphs);
    r.add("write_vjps_expected", l.planned.write_vjps);
    r.add("operations_planned", l.planned.operations());
    r.add("bytes_planned", l.planned.estimator_bytes());
    r.add("seconds_per_text", l.m.seconds * double(segments));
    return r;
  }

  /// Relative bias with its interval, and relative standard deviation, policy by policy.
  void draw(const std::vector<line>& lines) const {
    std::string rows;
    for (const line& l : lines) {
      const auto& m = l.m;
      const double deviation = std::sqrt(std::max(0.0, m.variance)) / m.exact_norm;
      rows += text_of("\"%s\" %g %g %g %g %g\n", l.policy.c_str(), m.relative_bias, m.relative_bias_low,
                      std::isfinite(m.relative_bias_high) ? m.relative_bias_high : m.relative_bias, deviation,
                      m.mean_norm_ratio);
    }
    draw_figure(
        plot, 960, 520,
        "set title " + quoted("Gradients of a memory model over " + std::to_string(segments) + " segments") +
            " noenhanced\nset style data histograms\nset style fill solid 0.8\nset boxwidth 0.35\nset xtics "
            "rotate by -35 "
            "noenhanced\nset yrange [0:*]\nset grid ytics\nset key outside top center horizontal\nset ylabel "
            "'relative to |g|'\n"
            "set xrange [-0.7:" +
            text_of("%g", double(lines.size()) - 0.3) + "]\n$rows << END\n" + rows +
            "END\nplot $rows using ($0-0.2):2:xtic(1) with boxes lc rgb '#c0392b' title 'bias of the mean "
            "gradient', "
            "'' using ($0-0.2):3:(0):($4-$3) with vectors nohead lw 2 lc rgb '#333333' notitle, "
            "'' using ($0+0.2):5 with boxes lc rgb '#9db8d0' title 'standard deviation', "
            "'' using 0:6 with points pt 6 lc rgb '#333333' title 'norm ratio E|g^| / |g|: no measure of "
            "bias'\n");
  }
};

}  // namespace program
