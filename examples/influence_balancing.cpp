// Influence balancing (Tallec & Ollivier 2017): one parameter whose short-range influence on the loss has the
// wrong sign. Truncated backpropagation walks away from the optimum; unbiased and exact estimators reach it.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "support/program.hpp"

using namespace unroll;

namespace {

using cell_type = cells::influence_balancing<double>;
using input = cell_type::input;
constexpr double optimum = -1.0 / 6;

struct options {
  index_t updates = 200'000;
  std::uint64_t seed = 1;
  std::string json, plot;
};

/// Cumulative weight of a truncation: the gradient it returns per unit of sum (s^1 - 1), in the steady state.
/// The exact one is -6; a positive one points the wrong way.
template <class E>
double cumulative_weight(const cell_type& cell, E estimator) {
  parameters<double> theta(1);
  gradient<double> g(1);
  theta[0] = 0.5;
  constexpr std::size_t settle = 4000, count = 24'000;  // a multiple of the windows below
  const std::vector<input> xs(settle + count);
  estimator.reset(key{});
  estimator.advance(theta, std::span(xs).first(settle), g);
  g.zero();
  estimator.advance(theta, std::span(xs).last(count), g);
  const double residual = cell.steady_state(theta[0]) - 1;
  return g[0] / (double(count) * residual);
}

struct run {
  std::string name;
  double rate;
  bool decay;      ///< rate / (1 + sqrt t)
  bool truncated;  ///< biased
  index_t updates;
  std::vector<std::pair<index_t, double>> path;
  bool diverged = false;
};

/// Online: one step, one update.
template <class E>
void train(E estimator, run& r, key k) {
  parameters<double> theta(1);
  gradient<double> g(1);
  theta[0] = 0.5;
  const input x[1] = {};
  const program::progress line;
  estimator.reset(k);
  double next_point = 1;
  for (index_t t = 1; t <= r.updates && !program::interrupted; ++t) {
    g.zero();
    r.diverged = estimator.advance(theta, x, g).code != status::ok || std::abs(theta[0]) > 1e6;
    if (r.diverged) break;
    theta[0] -= (r.decay ? r.rate / (1 + std::sqrt(double(t))) : r.rate) * g[0];
    if (double(t) >= next_point || t == r.updates) {
      r.path.emplace_back(t, theta[0]);
      next_point *= 1.1;
      line.show(r.name + ": update " + std::to_string(t) + ", theta " + std::to_string(theta[0]));
    }
  }
}

/// Distance from the optimum against updates; dashed: truncated.
void draw(const std::vector<run>& runs, const std::string& file) {
  constexpr const char* colours[] = {"#c0392b", "#e67e22", "#d35f8d", "#8e6c3a", "#000000",
                                     "#1b6ca8", "#5dade2", "#117a65", "#52be80", "#9acd32"};
  std::string data, plot;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].path.empty()) continue;
    data += "$r" + std::to_string(i) + " << END\n";
    for (const auto& [t, v] : runs[i].path) {
      char line[80];
      std::snprintf(line, sizeof line, "%td %.6g\n", t, std::abs(v - optimum));
      data += line;
    }
    data += "END\n";
    plot += (plot.empty() ? "plot " : ", \\\n     ") + ("$r" + std::to_string(i)) +
            " with lines lw 2 lc rgb '" + colours[i % std::size(colours)] + "' dt " +
            (runs[i].truncated ? "2" : "1") + " title " + program::quoted(runs[i].name);
  }
  if (plot.empty()) fail("influence_balancing", "plot", "has nothing to draw");
  program::draw_figure(
      file, 900, 600,
      data +
          "set logscale xy\nset format '10^{%T}'\nset grid\nset xrange [1:]\nset yrange [1e-9:1e4]\n"
          "set key outside right noenhanced\nset xlabel 'updates'\nset ylabel '|theta - optimum|'\n"
          "set title 'Influence balancing: too short a truncation (dashed) walks away from the optimum'\n" +
          plot + "\n",
      "enhanced");
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{
      "Trains the influence balancing system online by several gradient estimators.\n\n"
      "examples:\n  influence_balancing --plot theta.svg\n  influence_balancing --updates 20000 --json "
      "runs.json"};
  app.add_option("--updates", o.updates, "of the slowest runs")
      ->check(CLI::Range(1000, 100'000'000))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of the random estimators")
      ->check(program::not_negative)
      ->capture_default_str();
  app.add_option("--json", o.json, "write the runs to this file")->check(program::writable);
  app.add_option("--plot", o.plot, "draw the distance from the optimum to this SVG, PNG or PDF file")
      ->check(program::drawable);

  return program::run("influence_balancing", app, argc, argv, [&] {
    program::check_outputs("influence_balancing", {{"--json", o.json}, {"--plot", o.plot}}, {});
    const cell_type cell;
    nlohmann::ordered_json weights = nlohmann::ordered_json::array();
    std::printf("cumulative weight of the truncated gradient (exact: -6; positive: the wrong direction)\n");
    const auto weigh = [&](const char* name, index_t k, const auto& estimator) {
      if (program::interrupted) return;
      const double w = cumulative_weight(cell, estimator);
      std::printf("  %-8s K = %-4td %9.4f%s\n", name, k, w, w > 0 ? "   wrong way" : "");
      weights.push_back({{"truncation", name}, {"window", k}, {"weight", w}});
    };
    for (const index_t k : {5, 20, 40, 41, 50, 60, 80}) weigh("sliding", k, tbptt(cell, {.k1 = 1, .k2 = k}));
    for (const index_t k : {20, 100, 120, 150, 200, 400})
      weigh("chunked", k, chunked_tbptt(cell, {.window = k}));

    const index_t n = o.updates;
    std::vector<run> runs;
    const auto go = [&](const char* name, double rate, bool decay, index_t updates, const auto& estimator) {
      if (program::interrupted) return;
      runs.push_back({name, rate, decay, !std::decay_t<decltype(estimator)>::unbiased, updates, {}, false});
      train(estimator, runs.back(), fold(key{o.seed}, runs.size()));
      const run& r = runs.back();
      const double last = r.path.empty() ? 0.5 : r.path.back().second;
      std::printf("  %-15s rate %-7g updates %-8td theta %11.6f   distance %8.1e%s\n", name, rate, updates,
                  last, std::abs(last - optimum), last > 0.5 || r.diverged ? "   wrong way" : "");
    };
    std::printf("\nonline training from theta = 0.5 (optimum %.6f)\n", optimum);
    go("tbptt(1,20)", 1e-4, false, n / 100, tbptt(cell, {.k1 = 1, .k2 = 20}));
    go("tbptt(1,40)", 1e-4, false, n / 40, tbptt(cell, {.k1 = 1, .k2 = 40}));
    go("chunked(100)", 1e-5, false, n, chunked_tbptt(cell, {.window = 100}));
    go("chunked(200)", 1e-5, false, n, chunked_tbptt(cell, {.window = 200}));
    go("rtrl", 1e-3, true, n, rtrl(cell));
    go("uoro", 1e-3, true, n, uoro(cell));
    go("nobacktrack", 1e-3, true, n, nobacktrack(cell));
    go("artbp_fixed(16)", 3e-4, true, n, artbp(cell, fixed_truncation(16)));
    go("artbp(16,4)", 3e-4, true, n, artbp(cell, polynomial_truncation(16, 4)));
    go("artbp(16,6)", 3e-4, true, n, artbp(cell, polynomial_truncation(16, 6)));

    if (!o.json.empty()) {
      nlohmann::ordered_json document;
      document["optimum"] = optimum;
      document["complete"] = !program::interrupted.load();
      document["weights"] = weights;
      document["runs"] = nlohmann::ordered_json::array();
      for (const auto& r : runs) {
        nlohmann::ordered_json entry{
            {"estimator", r.name}, {"rate", r.rate}, {"decay", r.decay}, {"diverged", r.diverged}};
        for (const auto& [t, v] : r.path) entry["path"].push_back({t, v});
        document["runs"].push_back(entry);
      }
      program::write_json(o.json, document);
    }
    if (!o.plot.empty() && !runs.empty()) {
      draw(runs, o.plot);
      std::printf("figure: %s\n", o.plot.c_str());
    }
    return program::interrupted ? 130 : 0;
  });
}
