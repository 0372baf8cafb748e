// Bias, variance and cost of gradient estimators, against the exact gradient, on text or on a synthetic task.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <unroll/diagnose/csv_file.hpp>
#include <unroll/diagnose/json_sink.hpp>
#include <unroll/diagnose/measure_by_name.hpp>

#include "support/bias_figure.hpp"
#include "support/experiment.hpp"

using namespace unroll;

namespace {

struct options {
  std::string json, csv, plot, horizon, sweep;
  std::string estimators =
      "bptt,checkpointed,rtrl,tbptt:2,tbptt:5,tbptt:20,chunked:20,artbp:5,artbp:20,uoro,uoro:20,nobacktrack,"
      "nres:0.01:8:20,pes:0.01:8:20";
  index_t replicas = 400, threads = 0;
  double precision = 0, confidence = 0.95;
  bool no_batches = false;

  void add(CLI::App* app) {
    using namespace program;
    app->add_option("--estimators", estimators, "names, separated by commas. " + estimator_catalogue::forms())
        ->capture_default_str();
    add_count(app, "--replicas", replicas, 2, 1'000'000'000, "independent estimates");
    add_share(app, "--precision", precision, 0, 10,
              "half width of the interval to reach; 0: as many as --replicas");
    add_share(app, "--confidence", confidence, 0.5, 0.9999, "of the intervals");
    app->add_flag("--no-batches", no_batches,
                  "save 32 numbers a parameter; the interval then misses noise that few estimates hold");
    add_count(app, "--threads", threads, 0, 1024, "0: one a core; the numbers do not depend on it");
    app->add_option("--json", json, "write the rows to this file")->check(writable);
    app->add_option("--csv", csv, "write the rows to this file")->check(writable);
    app->add_option("--plot", plot, "draw bias against variance x time to this SVG, PNG or PDF file")
        ->check(drawable);
    app->add_option("--horizon", horizon,
                    "write the gradient by lag (shares of its norm) to this CSV file; length^2 / 2 vjps")
        ->check(writable);
    app->add_option("--sweep", sweep,
                    "file for the results of several runs, as many as --threads at the same time; the same "
                    "sweep goes on with it")
        ->check(writable);
  }
};

/// Row by row other draws: rows that share them err together.
program::measured measure_one(const std::string& name, index_t row, const program::experiment& e,
                              const options& o, std::uint64_t seed, const ranks& among) {
  program::counting_progress shown(name, "estimates");
  return {name, measure_by_name(name, e.system, e.theta, e.xs,
                                {.replicas = o.replicas,
                                 .precision = o.precision,
                                 .seed = fold(fold(key{seed}, 2), std::uint64_t(row)),
                                 .threads = o.threads,
                                 .confidence = o.confidence,
                                 .keep_batches = !o.no_batches,
                                 .done = &shown.done,
                                 .stop = &program::interrupted,
                                 .among = among})};
}

row summary(const program::measured& r) {
  const auto& m = r.m;
  row out;
  out.add("estimator", r.name);
  out.add("estimand", name_of(m.estimated_gradient));
  out.add("relative_bias", m.relative_bias);
  out.add("relative_bias_low", m.relative_bias_low);
  out.add("relative_bias_high", m.relative_bias_high);
  out.add("exact_norm", m.exact_norm);
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

row for_json(const program::measured& r) {
  const auto& m = r.m;
  row out = summary(r);
  out.add("variance_time", m.variance_time);
  out.add("mse", m.mse);
  out.add("snr", m.snr);
  out.add("descent", m.descent);
  out.add("descent_low", m.descent_low);
  out.add("descent_high", m.descent_high);
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

/// Where the gradient comes from, lag by lag, to a file.
void write_horizon(const program::experiment& e, const std::string& file) {
  const lag_profile profile = profile_lags(e.system, e.theta, e.xs, index_t(e.xs.size()) - 1);
  write_csv(file, to_rows(profile));
  std::printf(
      "\nalong g, 50 %% of the gradient are reached by a window of %td steps, 90 %% by %td, 99 %% by %td\n",
      profile.window(0.5), profile.window(0.1), profile.window(0.01));
}

/// Of the text; none where there is none.
std::uint64_t text_fingerprint(const program::experiment_options& on) {
  const std::string bytes = on.task.empty() && !on.balancing() ? read_file(on.text, "gradient_bias") : "";
  return program::fingerprint(bytes.data(), bytes.size());
}

/// What all runs of a sweep have in common.
std::string identity(const program::experiment_options& on, const options& o, std::uint64_t text) {
  return program::text_of(
      "gradient_bias of %s, %s %016llx, %td lanes x %td steps, %td updates, %s, %td replicas, precision "
      "%.9g, "
      "confidence %.9g%s",
      on.system.c_str(), on.task.empty() ? "text" : on.task.c_str(), static_cast<unsigned long long>(text),
      on.lanes, on.length, on.train, o.estimators.c_str(), o.replicas, o.precision, o.confidence,
      o.no_batches ? ", no batches" : "");
}

/// A row for each estimator; nothing where it was interrupted.
nlohmann::json one_of_sweep(const program::experiment_options& on, options o) {
  o.threads = 1;
  program::experiment e(on);
  if (!on.balancing()) e.train(on.train);
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& name : program::split(o.estimators))
    rows.push_back(
        nlohmann::json(to_json(for_json(measure_one(name, index_t(rows.size()), e, o, on.seed, {})))));
  return program::interrupted ? nlohmann::json() : nlohmann::json{{"rows", rows}};
}

int run_all(const CLI::App& app, const program::sweep<program::experiment_options>& all, const options& o) {
  program::check_sweep("gradient_bias", all.size(), o.sweep,
                       {{"--json", app.count("--json") > 0},
                        {"--csv", app.count("--csv") > 0},
                        {"--plot", app.count("--plot") > 0},
                        {"--horizon", app.count("--horizon") > 0}});
  program::experiment first(all.at(0));
  for (const auto& name : program::split(o.estimators))
    with_estimator(name, first.system, index_t(first.xs.size()), [](const auto&) {});
  const std::uint64_t text = text_fingerprint(all.at(0));
  program::sweep_results results("gradient_bias", o.sweep, identity(all.at(0), o, text));
  program::quiet = true;
  program::run_sweep(all, results, o.threads, [&](const program::experiment_options& on) {
    if (text_fingerprint(on) != text)
      throw file_error("gradient_bias: text: \"" + on.text + "\" is another one than when the sweep began");
    return one_of_sweep(on, o);
  });
  const auto table =
      program::table_of(all, results, "estimator", "relative_bias",
                        {"exact_norm", "variance", "snr", "norm_ratio", "vjps", "bytes"}, o.confidence);
  std::fputs(to_table(table, 3).c_str(), stdout);
  std::printf(
      "\nrelative bias is the mean over the seeds of that of the mean estimate, with the %g %% interval of "
      "that "
      "mean, or of\none seed with its own; the other numbers are means over the seeds. %s\n",
      100 * o.confidence, o.sweep.c_str());
  program::print_failures(all, results);
  return program::stop_asked() ? 130 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  program::experiment_options on;
  options o;
  CLI::App app{
      "Measures bias, variance and cost of gradient estimators against the exact gradient.\n\n"
      "examples:\n"
      "  gradient_bias --plot bias.svg\n"
      "  gradient_bias --system lstm --hidden 64 --length 200 --text book.txt --estimators "
      "bptt,tbptt:10,uoro\n"
      "  gradient_bias --system influence_balancing --length 500 --estimators "
      "bptt,tbptt:40,tbptt:80,artbp:16\n"
      "  gradient_bias --task adding --lanes 16 --precision 0.02 --json rows.json\n"
      "  gradient_bias --task adding --lanes 16 --hidden 16,64 --seed 1..6 --sweep adding.json   (12 runs)\n"
      "  mpirun -n 4 gradient_bias --threads 2   (the same numbers, built with UNROLL_MPI)"};
  on.add(&app);
  o.add(&app);

  return program::run<program::several_ranks>("gradient_bias", app, argc, argv, [&] {
    on.check(app);
    program::check_outputs("gradient_bias",
                           {{"--json", o.json},
                            {"--csv", o.csv},
                            {"--plot", o.plot},
                            {"--horizon", o.horizon},
                            {"--sweep", o.sweep}},
                           {{"--text", on.task.empty() ? on.text : ""}});
    const auto all = on.runs();
    if (all.size() > 1 || !o.sweep.empty()) return run_all(app, all, o);
    on = all.at(0);
    const auto names = program::split(o.estimators);
    program::experiment e(on);
    for (const auto& name : names)  // a misspelt name ends the program before anything is computed
      with_estimator(name, e.system, index_t(e.xs.size()), [](const auto&) {});
    if (!on.balancing()) e.train(on.train);
    std::printf("%s, %s, %td parameters, %zu steps, %td lanes, %td updates\n\n", e.description.c_str(),
                on.system.c_str(), e.theta.size(), e.xs.size(), e.system.size().lanes, on.train);

    std::vector<program::measured> results;
    std::vector<row> rows;
    for (const auto& name : names) {
      if (program::stop_asked()) break;
      results.push_back(measure_one(name, index_t(results.size()), e, o, on.seed, program::world));
      rows.push_back(summary(results.back()));
    }
    std::fputs(to_table(rows, 3).c_str(), stdout);
    std::printf(
        "\nrelative bias is that of the mean estimate, with a %g %% interval; norm_ratio is E||g^|| / "
        "||g||, "
        "which is no\n"
        "measure of bias; heavy tails: few estimates carry the noise, do not trust the interval; steps, "
        "vjps, jvps and seconds are per input, variance that of a whole sequence.\n",
        100 * o.confidence);
    const bool stopped = program::stop_asked(), writes = program::world.first();
    if (!o.csv.empty() && writes) write_csv(o.csv, rows);
    if (!o.json.empty()) {
      nlohmann::ordered_json document;
      document["system"] = on.system;
      document["data"] = e.description;
      document["hidden"] = on.hidden;
      document["lanes"] = on.lanes;
      document["length"] = e.xs.size();
      document["seed"] = on.seed;
      document["confidence"] = o.confidence;
      document["complete"] = !stopped;
      document["rows"] = nlohmann::ordered_json::array();
      for (const auto& r : results) document["rows"].push_back(to_json(for_json(r)));
      program::write_json(o.json, document);
    }
    if (!o.horizon.empty() && !stopped && writes) write_horizon(e, o.horizon);
    if (!o.plot.empty() && !results.empty() && writes) {
      program::draw_bias(results, "Gradient bias: " + e.description, o.plot);
      std::printf("figure: %s\n", o.plot.c_str());
    }
    return stopped ? 130 : 0;
  });
}
