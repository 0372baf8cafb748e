// The adding task (Hochreiter & Schmidhuber 1997) at several lengths, an LSTM trained by any estimators of
// the catalogue: how far back each of them learns to look.
#include <CLI/CLI.hpp>
#include <charconv>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unroll/estimate/catalogue.hpp>

#include "support/program.hpp"

using namespace unroll;

namespace {

using cell_type = cells::lstm<float>;

struct options {
  std::string lengths = "10,30,100,300,1000";
  std::string estimators =
      "bptt,tbptt:10:20,chunked:50,artbp:50,uoro:50,nobacktrack,nres:0.01:4:50,pes:0.01:4:50";
  index_t hidden = 16;
  index_t lanes = 16;
  index_t updates = 10000;
  index_t seeds = 2;
  double rate = 1e-2;
  std::string json, plot;
};

/// Mean square of the error at the last step of 1000 new sequences, by 1/6, that of always answering 1.
double error_of(cell_type::options_type shape, params<const float> theta, index_t length, key k) {
  shape.lanes = 1000;
  const cell_type cell(shape);
  const auto data = data::adding<float>({.steps = length, .lanes = shape.lanes}, k);
  return training::mean_loss(cell, theta, data.inputs()) * 2 * 6;
}

/// That of a network after `updates` steps of Adam on the estimator's gradient of one batch each.
double trained(const std::string& name, index_t length, const options& o, key k) {
  const cell_type cell({.in = 2, .hidden = o.hidden, .out = 1, .lanes = o.lanes});
  parameters<float> theta(cell.size().params);
  gradient<float> g(theta.size());
  adam<float> optimiser(theta.size(), {.rate = o.rate});
  cell.init(theta, k);
  return with_estimator(name, cell, length, [&](auto estimator) {
    const program::progress line;
    for (index_t u = 0; u < o.updates && !program::interrupted; ++u) {
      const auto data =
          data::adding<float>({.steps = length, .lanes = o.lanes}, fold(k, std::uint64_t(2 * u + 1)));
      g.zero();
      estimator.reset(fold(k, std::uint64_t(2 * u + 2)));
      if (estimator.advance(theta, data.inputs(), g).code != status::ok ||
          estimator.finish(theta, g).code != status::ok)
        return 1.;
      for (float& x : g) x /= float(o.lanes);
      clip_norm<float>(g, 1);  // of the largest gradients alone; it biases every estimator
      if (optimiser.step(theta, g) != status::ok) return 1.;
      if (u % 50 == 0)
        line.show(program::text_of("%s, %td steps: update %td of %td", name.c_str(), length, u, o.updates));
    }
    return error_of(cell.options(), theta, length, key{99});
  });
}

/// Throws unroll::error on a length that is none, and on an estimator that cannot be, before hours have
/// passed.
std::vector<index_t> checked_lengths(const options& o) {
  std::vector<index_t> out;
  for (const auto& word : program::split(o.lengths)) {
    index_t length = 0;
    const auto [stop, problem] = std::from_chars(word.data(), word.data() + word.size(), length);
    if (problem != std::errc{} || stop != word.data() + word.size() || length < 2 || length > 10'000'000)
      fail("adding_lags", "lengths", "\"" + word + "\" is no whole number from 2 to 10^7");
    out.push_back(length);
  }
  const cell_type cell({.in = 2, .hidden = o.hidden, .out = 1, .lanes = o.lanes});
  for (const auto& name : program::split(o.estimators))
    for (const index_t length : out) with_estimator(name, cell, length, [](const auto&) {});
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{
      "Trains an LSTM on the adding task at several lengths by several estimators.\n\n"
      "examples:\n  adding_lags --plot adding.svg\n  adding_lags --lengths 10,100 --estimators bptt,uoro:20 "
      "--seeds 2"};
  app.add_option("--lengths", o.lengths, "steps of a sequence, separated by commas")->capture_default_str();
  app.add_option("--estimators", o.estimators, "of the catalogue, separated by commas")
      ->capture_default_str();
  app.add_option("--hidden", o.hidden, "units")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--lanes", o.lanes, "sequences of a batch")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--updates", o.updates, "of Adam, a batch each")
      ->check(CLI::Range(1, 10'000'000))
      ->capture_default_str();
  app.add_option("--seeds", o.seeds, "of each mean")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--rate", o.rate, "of Adam")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--json", o.json, "write the results to this file, after each")->check(program::writable);
  app.add_option("--plot", o.plot, "draw them to this SVG, PNG or PDF file")->check(program::drawable);
  return program::run("adding_lags", app, argc, argv, [&] {
    program::check_outputs("adding_lags", {{"--json", o.json}, {"--plot", o.plot}}, {});
    const auto names = program::split(o.estimators);
    const auto lengths = checked_lengths(o);
    nlohmann::ordered_json document;
    std::string data, plot;
    std::printf("mean square of the error / that of answering 1: each seed\n");
    for (const auto& name : names) {
      data += program::text_of("$e%zu << END\n", document["rows"].size());
      plot += program::text_of("%s$e%zu with linespoints lw 2 pt 7 title %s", plot.empty() ? "plot " : ", ",
                               document["rows"].size(), program::quoted(name).c_str());
      nlohmann::ordered_json row{{"estimator", name}};
      for (const auto& length : lengths) {
        std::vector<double> errors;
        for (index_t seed = 1; seed <= o.seeds && !program::interrupted; ++seed)
          errors.push_back(trained(name, length, o, key{std::uint64_t(seed)}));
        if (program::interrupted) break;
        const double mean = std::accumulate(errors.begin(), errors.end(), 0.) / double(errors.size());
        std::printf("  %-20s %5td steps  %8.2e ", name.c_str(), length, mean);
        for (const double e : errors) std::printf(" %.2e", e);
        std::printf("\n");
        std::fflush(stdout);
        row[std::to_string(length)] = errors;
        data += program::text_of("%td %.6g\n", length, mean);
      }
      data += "END\n";
      document["rows"].push_back(row);
      document["complete"] = !program::interrupted.load();
      if (!o.json.empty()) program::write_json(o.json, document);
      if (program::interrupted) return 130;
    }
    if (!o.plot.empty())
      program::draw_figure(
          o.plot, 800, 450,
          data +
              "set logscale xy\nset grid\nset format y '10^{%T}'\nset yrange [:2]\nset xlabel 'steps'\n"
              "set ylabel 'mean square of the error / of answering 1'\nset key outside right noenhanced\n" +
              plot + "\n",
          "enhanced");
    return 0;
  });
}
