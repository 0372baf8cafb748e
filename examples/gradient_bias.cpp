// Bias, variance and cost of gradient estimators, against the exact gradient, on text or on a synthetic task.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unroll/diagnose/json_sink.hpp>
#include <unroll/diagnose/measure_by_name.hpp>

#include "support/program.hpp"

using namespace unroll;

namespace {

using T = double;
using input = cells::example<T>;
using system_type = any_system<T, input>;

struct options {
  std::string system = "elman", text = UNROLL_DEFAULT_TEXT, task, json, csv, plot, horizon;
  std::string estimators =
      "bptt,checkpointed,rtrl,tbptt:2,tbptt:5,tbptt:20,chunked:20,artbp:5,artbp:20,uoro,uoro:20,nobacktrack,"
      "nres:0.01:8:20,pes:0.01:8:20";
  index_t hidden = 24, lanes = 1, length = 100, replicas = 400, train = 300, threads = 0;
  double precision = 0, confidence = 0.95;
  bool no_batches = false;
  std::uint64_t seed = 1;
};

/// The system, its parameters and the sequence, however they were asked for.
struct experiment {
  system_type system;
  parameters<T> theta;
  std::vector<input> xs;
  std::shared_ptr<const void> owner;  // the data that xs points to
  std::string description;
};

experiment on_sequences(const options& o, data::sequences<T> made, const program::cell_size& size,
                        std::string description) {
  auto cell = program::make_cell<T>(o.system, size, fold(key{o.seed}, 0));
  const auto owner = std::make_shared<const data::sequences<T>>(std::move(made));
  const auto xs = owner->inputs().first(std::size_t(std::min(o.length, owner->steps())));
  return {
      std::move(cell.system), std::move(cell.theta), {xs.begin(), xs.end()}, owner, std::move(description)};
}

experiment make_experiment(const options& o) {
  const key k = fold(key{o.seed}, 1);
  const auto squared = loss_kind::squared_error, entropy = loss_kind::cross_entropy;
  const auto task = [&](data::sequences<T> made, index_t in, index_t out, loss_kind loss) {
    return on_sequences(o, std::move(made), {in, o.hidden, out, loss, o.lanes}, "task " + o.task);
  };
  if (o.system == "influence_balancing") {
    parameters<T> theta(1);
    theta[0] = 0.5;
    return {cells::influence_balancing<T, input>(), theta, std::vector<input>(std::size_t(o.length)), nullptr,
            "influence balancing at theta = 0.5"};
  }
  if (o.task.empty()) {
    const data::text text(o.text);
    return on_sequences(o, data::streams<T>(text.train(), o.lanes, o.length),
                        {text.vocabulary(), o.hidden, text.vocabulary(), entropy, o.lanes},
                        "characters of " + std::filesystem::path(o.text).filename().string());
  }
  if (o.task == "delay") return task(data::delay<T>({.steps = o.length, .lanes = o.lanes}, k), 1, 1, squared);
  if (o.task == "adding")
    return task(data::adding<T>({.steps = o.length, .lanes = o.lanes}, k), 2, 1, squared);
  if (o.task == "copy") {
    check_at_least("gradient_bias", "length", o.length, 21);
    return task(data::copy<T>({.blanks = o.length - 20, .lanes = o.lanes}, k), 10, 9, entropy);
  }
  if (o.task == "marschall_add")
    return task(data::marschall_add<T>({.steps = o.length, .lanes = o.lanes}, k), 2, 2, entropy);
  if (o.task == "anbn") return task(data::anbn<T>({.steps = o.length, .lanes = o.lanes}, k), 3, 3, entropy);
  fail("gradient_bias", "task", "\"" + o.task + "\" is none of delay, adding, copy, marschall_add, anbn");
}

/// Adam on the exact gradient of the sequence, so that the estimators are compared at a point of a training
/// run.
void train(experiment& e, index_t updates) {
  bptt exact(e.system, {.max_steps = index_t(e.xs.size())});
  gradient<T> g(e.theta.size());
  adam<T> optimiser(e.theta.size(), {.rate = 3e-3});
  const program::progress line;
  for (index_t i = 0; i < updates && !program::interrupted; ++i) {
    g.zero();
    exact.reset(key{0});
    exact.advance(e.theta, e.xs, g);
    if (exact.finish(e.theta, g).code != status::ok || optimiser.step(e.theta, g) != status::ok)
      fail("gradient_bias", "train", "diverged at update " + std::to_string(i));
    if (i % 20 == 0) line.show("training " + std::to_string(i) + " / " + std::to_string(updates));
  }
}

struct result {
  std::string name;
  measurement m;
};

/// Row by row other draws: rows that share them err together.
result measure_one(const std::string& text, index_t row, const experiment& e, const options& o) {
  std::atomic<index_t> done{0};
  const measure_options how{.replicas = o.replicas,
                            .precision = o.precision,
                            .seed = fold(fold(key{o.seed}, 2), std::uint64_t(row)),
                            .threads = o.threads,
                            .confidence = o.confidence,
                            .keep_batches = !o.no_batches,
                            .done = &done,
                            .stop = &program::interrupted};
  const program::progress line;
  std::jthread watch([&](std::stop_token end) {
    while (!end.stop_requested()) {
      line.show(text + ": " + std::to_string(done.load()) + " estimates");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  return {text, measure_by_name(text, e.system, e.theta, e.xs, how)};
}

row summary(const result& r) {
  const auto& m = r.m;
  row out;
  out.add("estimator", r.name);
  out.add("estimand", name_of(m.estimated_gradient));
  out.add("relative_bias", m.relative_bias);
  out.add("relative_bias_low", m.relative_bias_low);
  out.add("relative_bias_high", m.relative_bias_high);
  out.add("variance", m.variance);
  out.add("cosine", m.cosine);
  out.add("norm_ratio", m.mean_norm_ratio);
  out.add("worst_z", m.worst_z);
  out.add("steps", m.steps);
  out.add("vjps", m.vjps);
  out.add("jvps", m.jvps);
  out.add("bytes", std::int64_t(m.bytes));
  out.add("seconds", m.seconds);
  if (const auto note = note_of(m); !note.empty()) out.add("note", note);
  return out;
}

row for_json(const result& r) {
  const auto& m = r.m;
  row out = summary(r);
  out.add("variance_time", m.variance_time);
  out.add("mse", m.mse);
  out.add("snr", m.snr);
  out.add("descent", m.descent);
  out.add("descent_low", m.descent_low);
  out.add("descent_high", m.descent_high);
  out.add("exact_norm", m.exact_norm);
  out.add("replicas", std::int64_t(m.replicas));
  out.add("diverged", std::int64_t(m.diverged));
  out.add("heavy_tails", std::int64_t(m.heavy_tails));
  out.add("events", m.events);
  out.add("max_over_sum", m.max_over_sum);
  out.add("worst_z_limit", m.worst_z_limit);
  out.add("worst_z_events", m.worst_z_events);
  out.add("batches", std::int64_t(m.batches));
  out.add("sample_bytes", std::int64_t(m.sample_bytes));
  return out;
}

/// Where the gradient comes from, lag by lag, to a file: norms as shares of ||g||, `tail` their sum over the
/// later lags, which bounds the relative bias of truncation there.
void write_horizon(const experiment& e, const std::string& file) {
  const lag_profile profile =
      profile_lags(e.system, e.theta, std::span<const input>(e.xs), index_t(e.xs.size()) - 1);
  double tail = 0;
  for (const lag_entry& l : profile.lags) tail += l.norm / profile.gradient_norm;
  std::vector<row> rows;
  for (const lag_entry& l : profile.lags) {
    row r;
    r.add("lag", l.lag);
    r.add("norm", l.norm / profile.gradient_norm);
    r.add("tail", tail -= l.norm / profile.gradient_norm);
    r.add("projection", l.projection);
    r.add("cumulative", l.cumulative);
    r.add("phi", l.phi);
    rows.push_back(r);
  }
  write_csv(file, rows);
  const auto window = [&](double share) {  // from which on the signed sum stays within the share
    index_t k = index_t(rows.size());
    while (k > 0 && std::abs(1 - profile.lags[std::size_t(k - 1)].cumulative) <= share) --k;
    return std::min(k + 1, index_t(rows.size()));
  };
  std::printf(
      "\nalong g, 50 %% of the gradient are reached by a window of %td steps, 90 %% by %td, 99 %% by %td\n",
      window(0.5), window(0.1), window(0.01));
}

/// Relative bias with its interval against relative variance x time, both on logarithmic axes. What is zero
/// sits on the edge of the figure: exact estimators on the floor, deterministic ones at the left.
void draw(const std::vector<result>& results, const experiment& e, const std::string& file) {
  struct point {
    double x, y, low, high;
    bool biased;
    std::string label;
    double label_y;
  };
  constexpr double rounding = 1e-9;
  const auto cost = [](const measurement& m) { return m.variance_time / (m.exact_norm * m.exact_norm); };
  double left = 1e300, right = 0, top = 1, floor = 1e-2;
  for (const auto& r : results) {
    if (!std::isfinite(r.m.relative_bias_high)) continue;
    top = std::max(top, r.m.relative_bias_high);
    for (const double end : {r.m.relative_bias_low, r.m.relative_bias_high})
      if (end > rounding) floor = std::min(floor, end / 5);
    if (r.m.variance_time <= 0) continue;
    left = std::min(left, cost(r.m));
    right = std::max(right, cost(r.m));
  }
  if (right == 0) left = right = 1;
  floor = std::pow(10.0, std::floor(std::log10(floor)));
  const double none = left / 300;
  std::vector<point> points;
  for (const auto& r : results) {
    if (!std::isfinite(r.m.relative_bias_high)) continue;
    const auto y = [&](double v) { return std::max(v, floor); };
    point p{r.m.variance_time > 0 ? cost(r.m) : none,
            y(r.m.relative_bias),
            y(r.m.relative_bias_low),
            y(r.m.relative_bias_high),
            r.m.relative_bias_low > rounding,
            r.name,
            y(r.m.relative_bias_high)};
    // exact estimators share one point and one label
    const auto same = std::find_if(points.begin(), points.end(), [&](const point& q) {
      return p.x == none && q.x == none && p.y == floor && q.y == floor;
    });
    if (same == points.end())
      points.push_back(p);
    else
      same->label += ", " + p.label;
  }
  // a label stands at the upper end of its interval, or as far above as the labels of its neighbours need
  std::sort(points.begin(), points.end(), [](const point& p, const point& q) { return p.high < q.high; });
  const double line_height = std::pow(top * 5 / (floor / 2), 0.033);
  std::string data, labels, plot;
  for (std::size_t i = 0; i < points.size(); ++i) {
    point& p = points[i];
    for (std::size_t j = 0; j < i; ++j)
      if (std::abs(std::log10(p.x / points[j].x)) < 1)
        p.label_y = std::max(p.label_y, points[j].label_y * line_height);
    char line[400];
    std::snprintf(line, sizeof line, "%.6g %.6g %.6g %.6g %d\n", p.x, p.y, p.low, p.high, int(p.biased));
    data += line;
    std::snprintf(line, sizeof line, "at %.6g,%.6g offset 0.8,0.1 noenhanced\n", p.x, p.label_y);
    labels += "set label " + program::quoted(p.label) + " " + line;
  }
  if (points.empty()) fail("gradient_bias", "plot", "has nothing to draw: no interval is finite");
  const auto part = [&](bool biased, const char* style) {
    if (std::none_of(points.begin(), points.end(), [&](const point& p) { return p.biased == biased; }))
      return;
    plot += (plot.empty() ? "" : ", ") + ("$points using 1:($5==" + std::to_string(int(biased))) +
            "?$2:1/0):3:4 with yerrorbars " + style;
  };
  part(false, "pt 7 lc rgb '#1b6ca8' title 'interval contains 0'");
  part(true, "pt 5 lc rgb '#c0392b' title 'biased'");
  const double first_tic = std::pow(10.0, std::ceil(std::log10(left / 2))), wall = left / 3;
  char axes[400];
  std::snprintf(axes, sizeof axes,
                "set xrange [%g:%g]\nset yrange [%g:%g]\nset xtics %g,10 format '10^{%%T}'\n"
                "set xtics add (\"no variance\" %g)\nset ytics %g,10\nset ytics add (\"0\" %g)\n"
                "set arrow from %g,graph 0 to %g,graph 1 nohead lc rgb '#999999'\n",
                none / 4, right * 30, floor / 2, top * 5, first_tic, none, 10 * floor, floor, wall, wall);
  program::draw_figure(
      file, 960, 600,
      std::string("set logscale xy\nset format y '10^{%T}'\n") + axes + labels +
          "set grid ytics\nset key top right\nset title " +
          program::quoted("Gradient bias: " + e.description) +
          " noenhanced\nset xlabel 'price of precision: tr V / |g|^2 x seconds per sequence'\n"
          "set ylabel 'relative bias of the mean estimate'\n$points << END\n" +
          data + "END\nplot " + plot + "\n",
      "enhanced");
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{
      "Measures bias, variance and cost of gradient estimators against the exact gradient.\n\n"
      "examples:\n"
      "  gradient_bias --plot bias.svg\n"
      "  gradient_bias --system lstm --hidden 64 --length 200 --text book.txt --estimators "
      "bptt,tbptt:10,uoro\n"
      "  gradient_bias --system influence_balancing --length 500 --estimators "
      "bptt,tbptt:40,tbptt:80,artbp:16\n"
      "  gradient_bias --task adding --precision 0.02 --json rows.json"};
  app.add_option("--system", o.system, "elman, gru, lstm, linear or influence_balancing")
      ->capture_default_str();
  app.add_option("--hidden", o.hidden, "state units")->check(CLI::Range(1, 1'000'000))->capture_default_str();
  app.add_option("--lanes", o.lanes, "sequences side by side")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--length", o.length, "steps of the sequence")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  CLI::Option* text = app.add_option("--text", o.text, "a text file; its characters are predicted one by one")
                          ->capture_default_str();
  app.add_option("--task", o.task, "delay, adding, copy, marschall_add or anbn, instead of a text")
      ->excludes(text);
  app.add_option("--estimators", o.estimators, "names, separated by commas. " + estimator_catalogue::forms())
      ->capture_default_str();
  app.add_option("--replicas", o.replicas, "independent estimates")
      ->check(CLI::Range(2, 1'000'000'000))
      ->capture_default_str();
  app.add_option("--precision", o.precision, "half width of the interval to reach; 0: as many as --replicas")
      ->check(CLI::Range(0.0, 10.0))
      ->check(program::not_negative)
      ->capture_default_str();
  app.add_option("--confidence", o.confidence, "of the intervals")
      ->check(CLI::Range(0.5, 0.9999))
      ->check(program::not_negative)
      ->capture_default_str();
  app.add_flag("--no-batches", o.no_batches,
               "save 32 numbers a parameter; the interval then misses noise that few estimates hold");
  app.add_option("--train", o.train, "updates by exact gradients before anything is measured")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "0: one a core; the numbers do not depend on it")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of parameters, data and estimates")
      ->check(program::not_negative)
      ->capture_default_str();
  app.add_option("--json", o.json, "write the rows to this file")->check(program::writable);
  app.add_option("--csv", o.csv, "write the rows to this file")->check(program::writable);
  app.add_option("--plot", o.plot, "draw bias against variance x time to this SVG, PNG or PDF file")
      ->check(program::drawable);
  app.add_option("--horizon", o.horizon,
                 "write the gradient by lag (shares of its norm) to this CSV file; length^2 / 2 vjps")
      ->check(program::writable);

  return program::run("gradient_bias", app, argc, argv, [&] {
    if (o.system == "influence_balancing")
      for (const char* option : {"--text", "--task", "--hidden", "--lanes", "--train"})
        if (app.count(option) > 0)
          fail("gradient_bias", option, "has no meaning with --system influence_balancing");
    program::check_outputs(
        "gradient_bias", {{"--json", o.json}, {"--csv", o.csv}, {"--plot", o.plot}, {"--horizon", o.horizon}},
        {{"--text", o.task.empty() ? o.text : ""}});
    const auto names = program::split(o.estimators);
    experiment e = make_experiment(o);
    for (const auto& name : names)  // a misspelt name ends the program before the work begins
      with_estimator(name, e.system, index_t(e.xs.size()), [](const auto&) {});
    if (o.system != "influence_balancing") train(e, o.train);
    std::printf("%s, %s, %td parameters, %zu steps, %td lanes, %td updates\n\n", e.description.c_str(),
                o.system.c_str(), e.theta.size(), e.xs.size(), e.system.size().lanes, o.train);

    std::vector<result> results;
    std::vector<row> rows;
    for (const auto& name : names) {
      if (program::interrupted) break;
      results.push_back(measure_one(name, index_t(results.size()), e, o));
      rows.push_back(summary(results.back()));
    }
    std::fputs(to_table(rows, 3).c_str(), stdout);
    std::printf(
        "\nrelative bias is that of the mean estimate, with a %g %% interval; norm_ratio is E||g^|| / ||g||, "
        "which is no\n"
        "measure of bias; heavy tails: few estimates carry the noise, do not trust the interval; steps, "
        "vjps, jvps and seconds are per input, variance that of a whole sequence.\n",
        100 * o.confidence);
    if (!o.csv.empty()) write_csv(o.csv, rows);
    if (!o.json.empty()) {
      nlohmann::ordered_json document;
      document["system"] = o.system;
      document["data"] = e.description;
      document["hidden"] = o.hidden;
      document["lanes"] = o.lanes;
      document["length"] = e.xs.size();
      document["seed"] = o.seed;
      document["confidence"] = o.confidence;
      document["complete"] = !program::interrupted.load();
      document["rows"] = nlohmann::ordered_json::array();
      for (const auto& r : results) document["rows"].push_back(to_json(for_json(r)));
      program::write_json(o.json, document);
    }
    if (!o.horizon.empty() && !program::interrupted) write_horizon(e, o.horizon);
    if (!o.plot.empty() && !results.empty()) {
      draw(results, e, o.plot);
      std::printf("figure: %s\n", o.plot.c_str());
    }
    return program::interrupted ? 130 : 0;
  });
}
