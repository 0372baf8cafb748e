#pragma once

// memory_llama bench: time and bytes against the window and against the length of the text, beside their
// plan.

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <unroll/diagnose/json_sink.hpp>

#include "memory_setup.hpp"

namespace program {

/// Bytes of the heap that are in use, 0 where the C library does not tell.
inline double heap_bytes() {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
  const auto info = mallinfo2();
  return double(info.uordblks) + double(info.hblkhd);
#else
  return 0;
#endif
}

/// Slope of log y against log x by least squares.
inline double exponent(const std::vector<std::pair<double, double>>& points) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const auto& [a, b] : points) {
    if (!(a > 0 && b > 0)) continue;
    const double u = std::log(a), v = std::log(b);
    n += 1, x += u, y += v, xx += u * u, xy += u * v;
  }
  const double spread = n * xx - x * x;
  return spread > 0 ? (n * xy - x * y) / spread : std::numeric_limits<double>::quiet_NaN();
}

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
    app->add_option("--segments", segments, "of the text, for window and policy")
        ->check(CLI::Range(2, 1'000'000))
        ->capture_default_str();
    app->add_option("--lengths", lengths, "tokens, separated by commas, for length")
        ->delimiter(',')
        ->check(CLI::Range(1, 100'000'000));
    app->add_option("--plain-most", plain_most, "longest text for plain attention")->capture_default_str();
    app->add_option("--train-most", train_most, "longest text for training")->capture_default_str();
    app->add_option("--repeats", repeats,
                    "of each measurement, in rounds; the fastest counts, in processor time")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    add_seed("of weights and text");
    add_outputs();
    app->add_option("--plot", plot,
                    "draw time and bytes to FILE_window.svg and FILE_length.svg for FILE.svg, or .png, .pdf")
        ->check(drawable);
  }

  int run() {
    using namespace unroll;
    named_files figures;
    if (!plot.empty()) figures = {{"--plot", figure_file("window")}, {"--plot", figure_file("length")}};
    check_files(base.inputs({}), figures);
    auto setup = load_memory<T>(stretched(), memory, fold(key{seed}, 0));
    const auto& model = setup.model;
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
        bench_window(setup, d);
      else if (part == "policy")
        bench_policies(setup, d);
      else if (part == "length")
        bench_length(setup, d);
      else
        fail("memory_llama", "what", "\"" + part + "\" is none of window, policy, length");
    }
    d["complete"] = !interrupted.load();
    write_json(d);
    return interrupted ? 130 : 0;
  }

 private:
  struct measured {
    double seconds = std::numeric_limits<double>::infinity(), heap = 0, held = 0;

    /// The faster time and the most bytes of two measurements of the same.
    void merge(const measured& other) {
      seconds = std::min(seconds, other.seconds);
      heap = std::max(heap, other.heap);
      held = std::max(held, other.held);
    }
  };
  using points = std::vector<std::pair<double, double>>;

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

  std::vector<token> random_text(const unroll::llama::config& c, index_t n) const {
    std::vector<token> ids;
    for (index_t i = 0; i < n; ++i)
      ids.push_back(token(unroll::draw_index(fold(key{seed}, 9), i, c.vocabulary)));
    return ids;
  }

  /// What a copy of the model takes, which every estimator has: its tables, not its weights.
  static double model_bytes(const memory_llama<T>& model) {
    const double before = heap_bytes();
    const auto copy = std::make_unique<memory_llama<T>>(model);
    return heap_bytes() - before;
  }

  /// One gradient by an estimator that has made one before, so that its memory is mapped (the first where
  /// --repeats is 1); bytes of the heap beside a copy of the model, and those that the estimator says it
  /// holds.
  measured gradient_of(const memory_setup<T>& setup, const unroll::policy& p,
                       const std::vector<segment>& text, index_t repeat = 0) const {
    using namespace unroll;
    measured out;
    gradient<T> g(setup.theta.size());
    const double before = heap_bytes() + model_bytes(setup.model);
    with_policy(p, setup.model, index_t(text.size()), philox_chooser{}, [&](auto&& e) {
      for (index_t i = 0; i < std::min<index_t>(repeats, 2) && !interrupted; ++i) {
        g.zero();
        const double start = processor_seconds();
        e.reset(fold(key{seed}, std::uint64_t(repeat)));
        report r = e.advance(setup.theta, text, g);
        r += e.finish(setup.theta, g);
        out.seconds = processor_seconds() - start;
        out.held = double(r.bytes);
        out.heap = heap_bytes() - before;
      }
    });
    return out;
  }

  /// TBPTT(S) as it is written: before every loss the S encoders in front of it run with their graphs, and
  /// behind it each is sent back.
  measured naive_gradient(const memory_setup<T>& setup, index_t window,
                          const std::vector<segment>& text) const {
    using namespace unroll;
    const auto& model = setup.model;
    const memory_dims d = model.size();
    const index_t n = index_t(text.size()), size = std::min(window, n - 1);
    measured out;
    gradient<T> g(setup.theta.size());
    const double before = heap_bytes();
    buffer<T> memories((n - 1) * d.memory), adjoints(size * d.memory), tapes(size * d.tape),
        work(model.workspace(n - 1));
    const auto memory_of = [&](index_t s) { return view<T>(memories).part(s * d.memory, d.memory); };
    const auto slot = [&](buffer<T>& all, index_t s, index_t each) {
      return view<T>(all).part(s % size * each, each);
    };
    std::vector<const T*> past;
    const double start = processor_seconds();
    for (index_t t = 0; t < n && !interrupted; ++t) {
      const index_t first = std::max<index_t>(0, t - size);
      std::vector<T*> dpast(std::size_t(t), nullptr);
      adjoints.zero();
      for (index_t s = first; s < t; ++s) {
        model.write(text[std::size_t(s)], s, setup.theta, {}, memory_of(s), slot(tapes, s, d.tape), work);
        dpast[std::size_t(s)] = slot(adjoints, s, d.memory).data();
      }
      if (t > 0) past.push_back(memory_of(t - 1).data());
      model.read_vjp(text[std::size_t(t)], t, setup.theta, past, dpast, {}, work);
      for (index_t s = first; s < t; ++s)
        model.write_vjp(text[std::size_t(s)], s, setup.theta, {}, slot(tapes, s, d.tape),
                        slot(adjoints, s, d.memory), {}, g, work);
    }
    out.seconds = processor_seconds() - start;
    out.heap = heap_bytes() - before;
    out.held = double(memories.bytes() + adjoints.bytes() + tapes.bytes() + work.bytes());
    return out;
  }

  static unroll::row to_row(const std::string& method, const char* axis, index_t at, const measured& m,
                            double planned_bytes, double operations) {
    unroll::row r;
    r.add("method", method).add(axis, at).add("seconds", m.seconds).add("GFLOP", operations / 1e9);
    r.add("GFLOP_per_s", operations / 1e9 / m.seconds).add("MB", m.held / 1e6).add("MB_heap", m.heap / 1e6);
    return r.add("MB_planned", planned_bytes / 1e6).add("measured_over_planned", m.heap / planned_bytes);
  }

  void show(json& d, const char* name, const std::vector<unroll::row>& rows,
            const std::vector<std::pair<std::string, std::array<points, 2>>>& curves) const {
    std::printf("\n%s", unroll::to_table(rows).c_str());
    d[name] = json::array();
    for (const auto& r : rows) d[name].push_back(unroll::to_json(r));
    for (const auto& [method, both] : curves) {
      if (both[0].size() < 2) continue;
      const double time = exponent(both[0]), bytes = exponent(both[1]);
      std::printf("%-20s time ~ %s^%.2f, bytes ~ %s^%.2f\n", method.c_str(),
                  name == std::string("length") ? "N" : "S", time, name == std::string("length") ? "N" : "S",
                  bytes);
      d["exponents"][name][method] = {{"time", time}, {"bytes", bytes}};
    }
    if (!plot.empty() && !curves.empty()) draw(name, curves);
  }

  void bench_window(const memory_setup<T>& setup, json& d) const {
    using namespace unroll;
    const auto ids = random_text(setup.shape(), segments * setup.model.options().segment + 1);
    const auto text = llama::segments_of(ids, setup.model.options().segment);
    const llama::memory_costs<T> costs(setup.shape(), setup.model.options());
    const progress line;
    std::vector<row> rows;
    std::vector<std::pair<std::string, std::array<points, 2>>> curves{{"incremental TBPTT", {}},
                                                                      {"TBPTT", {}}};
    // all windows in turn, so that a slow minute of the machine is not that of one window
    std::vector<std::array<measured, 2>> best(windows.size());
    for (index_t i = 0; i < repeats; ++i)
      for (std::size_t at = 0; at < windows.size() && !interrupted; ++at) {
        const index_t s = windows[at];
        line.show("round " + std::to_string(i + 1) + " of " + std::to_string(repeats) +
                  ", S = " + std::to_string(s));
        const measured incremental = gradient_of(setup, {policy::kind::window, s, true}, text, i),
                       naive = naive_gradient(setup, s, text);
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
      rows.push_back(
          to_row("incremental TBPTT", "S", s, incremental, planned.estimator_bytes(), planned.operations()));
      rows.push_back(
          to_row("TBPTT", "S", s, naive, planned.estimator_bytes() - planned.adjoint_bytes / 2, operations));
      for (std::size_t k = 0; k < 2; ++k) {
        curves[k].second[0].emplace_back(double(s), best[at][k].seconds);
        curves[k].second[1].emplace_back(double(s), best[at][k].heap);
      }
      fastest = std::min(fastest, incremental.seconds);
      slowest = std::max(slowest, incremental.seconds);
    }
    line.clear();
    show(d, "window", rows, curves);
    if (rows.empty()) return;
    std::printf("incremental TBPTT: the slowest window takes %.2f times the time of the fastest\n",
                slowest / fastest);
    d["window_slowest_over_fastest"] = slowest / fastest;
  }

  void bench_policies(const memory_setup<T>& setup, json& d) const {
    using namespace unroll;
    const index_t length = setup.model.options().segment;
    const auto ids = random_text(setup.shape(), segments * length + 1);
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
        const measured one = gradient_of(setup, parse_policy(names[at]), text, i);
        if (!interrupted) best[at].merge(one);
      }
    for (std::size_t at = 0; at < names.size(); ++at) {
      if (!std::isfinite(best[at].seconds)) break;
      const auto planned = plan(costs, segments * length, parse_policy(names[at]));
      rows.push_back(
          to_row(names[at], "segments", segments, best[at], planned.estimator_bytes(), planned.operations())
              .add("time_over_keep_all", best[at].seconds / best[0].seconds));
    }
    line.clear();
    show(d, "policy", rows, {});
  }

  /// All but the last segment into memories, then the last one is read.
  measured read_with_memories(const memory_setup<T>& setup, const std::vector<segment>& text) const {
    using namespace unroll;
    const double before = heap_bytes();
    const auto& model = setup.model;
    const memory_dims d = model.size();
    const index_t n = index_t(text.size());
    measured out;
    buffer<T> memories((n - 1) * d.memory), work(model.workspace(n - 1));
    for (index_t i = 0; i < repeats && !interrupted; ++i) {
      std::vector<const T*> past;
      const double start = processor_seconds();
      for (index_t s = 0; s + 1 < n && !interrupted; ++s) {
        const view<T> m = view<T>(memories).part(s * d.memory, d.memory);
        model.write(text[std::size_t(s)], s, setup.theta,
                    model.independent() ? std::span<const T* const>{} : past, m, {}, work);
        past.push_back(m.data());
      }
      if (!interrupted) model.read(text.back(), n - 1, setup.theta, past, work);
      out.seconds = std::min(out.seconds, processor_seconds() - start);
      out.heap = std::max(out.heap, heap_bytes() - before);
    }
    out.held = double(memories.bytes() + work.bytes());
    return out;
  }

  measured read_plainly(const memory_setup<T>& setup, std::span<const token> ids) const {
    using namespace unroll;
    measured out;
    const auto& stack = setup.model.stack();
    const double before = heap_bytes();
    llama::generator<T> reader(stack, setup.model.weights(),
                               llama::key_value_cache<T>(setup.shape(), index_t(ids.size())), {}, 256);
    for (index_t i = 0; i < repeats && !interrupted; ++i) {
      reader.reset();
      const double start = processor_seconds();
      for (std::size_t at = 0; at < ids.size() && !interrupted; at += 256)
        reader.append(ids.subspan(at, std::min(ids.size() - at, std::size_t(256))));
      out.seconds = std::min(out.seconds, processor_seconds() - start);
      out.heap = std::max(out.heap, heap_bytes() - before);
      if (out.seconds > 5) break;
    }
    out.held = double(reader.bytes());
    return out;
  }

  /// Keys and values of all tokens, and what one chunk of 256 needs.
  static double plain_bytes(const unroll::llama::transformer<T>& stack, index_t tokens) {
    const auto& c = stack.shape();
    const index_t chunk = std::min<index_t>(256, tokens);
    const T* none = nullptr;
    unroll::llama::pass<T> p;
    p.length = chunk;
    p.layers = c.layers;
    p.before = {std::span(&none, 1), tokens, tokens};
    const index_t work = std::max(stack.workspace_size(p),
                                  unroll::llama::lm_head<unroll::exec::of<T>>::workspace_size(c, chunk));
    const double cache = 2 * double(c.layers) * double(c.kv_width()) * double(tokens);
    return sizeof(T) * (cache + double(work + c.hidden * chunk + c.vocabulary));
  }

  void bench_length(const memory_setup<T>& setup, json& d) const {
    using namespace unroll;
    const llama::config& c = setup.shape();
    const index_t length = setup.model.options().segment;
    const llama::memory_costs<T> costs(c, setup.model.options());
    const progress line;
    std::vector<row> rows;
    std::vector<std::pair<std::string, std::array<points, 2>>> curves{
        {"memories", {}}, {"plain attention", {}}, {"exact training", {}}};
    const auto add = [&](std::size_t i, index_t n, const measured& m, double bytes, double operations) {
      rows.push_back(to_row(curves[i].first, "tokens", n, m, bytes, operations));
      curves[i].second[0].emplace_back(double(n), m.seconds);
      curves[i].second[1].emplace_back(double(n), m.heap);
    };
    for (const index_t wanted : lengths) {
      const index_t n = (wanted + length - 1) / length * length, parts = n / length;
      if (interrupted) break;
      line.show(std::to_string(n) + " tokens");
      const auto ids = random_text(c, n + 1);
      const auto text = llama::segments_of(ids, length);
      double operations = costs.read(parts - 1, length);
      for (index_t s = 0; s + 1 < parts; ++s) operations += costs.write(s);
      add(0, n, read_with_memories(setup, text),
          double(sizeof(T)) *
              (double(parts - 1) * double(costs.size().memory) + double(costs.workspace(parts - 1))),
          operations);
      if (wanted <= plain_most && !interrupted) {
        const double each =
            costs.read(0, 1) - 2 * double(c.hidden) * double(c.vocabulary);  // without the head
        const double pairs = double(n) * double(n - 1) / 2 * 4 * double(c.query_width()) * double(c.layers);
        const measured m = read_plainly(setup, std::span(ids).first(std::size_t(n)));
        add(1, n, m, plain_bytes(setup.model.stack(), n), double(n) * each + pairs);
      }
      if (wanted <= train_most && !interrupted) {
        const auto planned = plan(costs, n, policy{});
        add(2, n, gradient_of(setup, policy{}, text), planned.estimator_bytes(), planned.operations());
      }
    }
    line.clear();
    show(d, "length", rows, curves);
    const double plain = 2 * double(c.layers) * double(c.kv_width()) * sizeof(T);
    std::printf("bytes a token that stay: %.4g with memories, %.4g with plain attention\n",
                double(costs.size().memory) * sizeof(T) / double(length), plain);
    d["bytes_per_token"] = {{"memories", double(costs.size().memory) * sizeof(T) / double(length)},
                            {"plain", plain}};
  }

  std::string figure_file(const std::string& name) const {
    std::filesystem::path file = plot;
    file.replace_filename(file.stem().string() + "_" + name + file.extension().string());
    return file.string();
  }
  void draw(const std::string& name,
            const std::vector<std::pair<std::string, std::array<points, 2>>>& curves) const {
    std::string data, time, bytes;
    for (std::size_t i = 0; i < curves.size(); ++i) {
      const auto& [method, both] = curves[i];
      if (both[0].empty()) continue;
      data += "$c" + std::to_string(i) + " << END\n";
      for (std::size_t k = 0; k < both[0].size(); ++k)
        data += text_of("%g %g %g\n", both[0][k].first, both[0][k].second, both[1][k].second / 1e6);
      data += "END\n";
      const std::string style = " with linespoints pt 7 ps 0.6 lw 2 title " + quoted(method);
      time += (time.empty() ? "" : ", ") + ("$c" + std::to_string(i) + " using 1:2" + style);
      bytes += (bytes.empty() ? "" : ", ") + ("$c" + std::to_string(i) + " using 1:3" + style);
    }
    if (time.empty()) return;  // interrupted before anything was measured
    draw_figure(figure_file(name), 1000, 440,
                std::string("set logscale xy\nset grid\nset key top left\nset xlabel '") +
                    (name == "length" ? "tokens" : "window S") + "'\n" + data +
                    "set multiplot layout 1,2\nset ylabel 'seconds'\nplot " + time +
                    "\nset ylabel 'MB on the heap'\nplot " + bytes + "\nunset multiplot\n");
  }
};

}  // namespace program
