// Is temporal credit free? (Shalev Merin 2026, arXiv:2603.28750): the gradient of a step through this step
// alone, with RMSprop, against real-time recurrent learning, both online, on a stream that drifts, on recall
// at a lag, and where the short-range influence has the wrong sign.
#include <CLI/CLI.hpp>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "support/program.hpp"

using namespace unroll;

namespace {

using cell_type = cells::elman<double>;
using stream = data::sequences<double>;

struct options {
  index_t steps = 6000;
  index_t seeds = 10;
  index_t hidden = 16;
  std::string json, plot;
};

/// Mean square of the error by that of the target, over the last third of the stream; infinite where it
/// diverges.
template <class Estimator, class Optimiser>
double online_error(const cell_type& cell, Estimator estimator, Optimiser optimiser, const stream& data,
                    key k) {
  parameters<double> theta(cell.size().params);
  gradient<double> g(theta.size());
  cell.init(theta, k);
  estimator.reset(k);
  double error = 0, power = 0;
  for (index_t t = 0; t < data.steps(); ++t) {
    g.zero();
    const report r = estimator.advance(theta, data.inputs().subspan(std::size_t(t), 1), g);
    if (r.code != status::ok || optimiser.step(theta, g) != status::ok)
      return std::numeric_limits<double>::infinity();
    if (3 * t < 2 * data.steps()) continue;
    error += 2 * r.loss;
    power += std::pow(*data.inputs()[std::size_t(t)].target, 2);
  }
  return error / power;
}

/// A sine whose angular velocity is drawn anew every 500 steps; the target is its next value.
stream drift(index_t steps, key k) {
  stream s({.steps = steps, .lanes = 1, .in = 1, .out = 1});
  double phase = 0, velocity = 0;
  for (index_t t = 0; t < steps; ++t) {
    if (t % 500 == 0) velocity = 2 * 3.14159265358979 / (10 + 30 * draw_uniform(k, t));
    s.x(t, 0) = std::sin(phase);
    phase += velocity;
    s.target(t, 0) = std::sin(phase);
  }
  return s;
}

struct task {
  std::string name;
  std::function<stream(key)> draw;
};

enum class method { immediate_sgd, immediate_rmsprop, rtrl_sgd, rtrl_rmsprop };
constexpr const char* names[] = {"immediate, SGD", "immediate, RMSprop", "RTRL, SGD", "RTRL, RMSprop"};

double error_of(const task& what, method how, double rate, index_t hidden, key k) {
  const cell_type cell({.in = 1, .hidden = hidden, .out = 1});
  const stream data = what.draw(fold(k, 1));
  const auto with = [&](const auto& estimator) {
    const index_t p = cell.size().params;
    if (how == method::immediate_sgd || how == method::rtrl_sgd)
      return online_error(cell, estimator, sgd<double>(p, {.rate = rate}), data, fold(k, 2));
    // RMSprop, with Adam's correction for moments that begin at 0
    return online_error(cell, estimator, adam<double>(p, {.rate = rate, .beta1 = 0}), data, fold(k, 2));
  };
  if (how == method::immediate_sgd || how == method::immediate_rmsprop)
    return with(tbptt(cell, {.k1 = 1, .k2 = 1}));
  return with(rtrl(cell));
}

struct result {
  std::string task;
  method how;
  double rate, mean, half_width;
};

/// The rate with the least error on three seeds of their own, then the mean over `seeds` others with its 95 %
/// interval.
result tried(const task& what, method how, const options& o) {
  const bool plain = how == method::immediate_sgd || how == method::rtrl_sgd;
  double best = std::numeric_limits<double>::infinity(), rate = 0;
  for (const double candidate : {1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2}) {
    const double scaled = plain ? 10 * candidate : candidate;
    double sum = 0;
    for (std::uint64_t seed = 101; seed <= 103; ++seed)
      sum += error_of(what, how, scaled, o.hidden, key{seed});
    if (sum < best) best = sum, rate = scaled;
    if (program::interrupted) break;
  }
  std::vector<double> errors;
  for (index_t seed = 1; seed <= o.seeds && !program::interrupted; ++seed)
    errors.push_back(error_of(what, how, rate, o.hidden, key{std::uint64_t(seed)}));
  const auto [mean, margin] = student_mean(errors, .95);
  return {what.name, how, rate, mean, margin};
}

/// theta of influence balancing after `steps` updates, one a step; its optimum is -1/6, where both begin at
/// 1/2.
template <class Estimator>
double balanced(Estimator estimator, index_t steps) {
  parameters<double> theta(1);
  gradient<double> g(1);
  theta[0] = .5;
  adam<double> optimiser(1, {.rate = 1e-3, .beta1 = 0});
  const std::vector<cells::nothing> x(1);
  for (index_t t = 0; t < steps; ++t) {
    g.zero();
    estimator.advance(theta, x, g);
    if (optimiser.step(theta, g, 1 / std::sqrt(1 + double(t) / 100)) != status::ok) break;
  }
  return theta[0];
}

void draw(const std::vector<result>& results, const std::vector<task>& tasks, const std::string& file) {
  std::string plot, data;
  for (int m = 0; m < 4; ++m) {
    data += program::text_of("$m%d << END\n", m);
    for (std::size_t i = 0; i < tasks.size(); ++i)
      for (const result& r : results)
        if (r.task == tasks[i].name && int(r.how) == m)
          data += program::text_of("%g %.6g %.6g %.6g\n", double(i) + .15 * (m - 1.5), r.mean,
                                   std::max(r.mean - r.half_width, 1e-9), r.mean + r.half_width);
    data += "END\n";
    plot += program::text_of("%s$m%d with yerrorbars lw 2 pt 7 lc %d title '%s'", m == 0 ? "plot " : ", ", m,
                             m + 1, names[m]);
  }
  std::string labels;
  for (std::size_t i = 0; i < tasks.size(); ++i)
    labels += program::text_of("%s'%s' %zu", i == 0 ? "" : ", ", tasks[i].name.c_str(), i);
  program::draw_figure(
      file, 900, 500,
      data + "set grid ytics\nset logscale y\nset format y '10^{%T}'\nset yrange [1e-5:3]\nset xrange [-.6:" +
          std::to_string(double(tasks.size()) - .4) + "]\nset xtics (" + labels +
          ")\nset key outside bottom center horizontal\n"
          "set ylabel 'mean square of the error / of the target'\n" +
          plot + "\n",
      "enhanced");
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{
      "Compares immediate derivatives with real-time recurrent learning, online, by SGD and by RMSprop.\n\n"
      "examples:\n  temporal_credit --plot credit.svg\n  temporal_credit --steps 1000 --seeds 2"};
  app.add_option("--steps", o.steps, "of each stream, an update each")
      ->check(CLI::Range(300, 10'000'000))
      ->capture_default_str();
  app.add_option("--seeds", o.seeds, "of each mean")->check(CLI::Range(2, 1000))->capture_default_str();
  app.add_option("--hidden", o.hidden, "units")->check(CLI::Range(1, 512))->capture_default_str();
  app.add_option("--json", o.json, "write the results to this file")->check(program::writable);
  app.add_option("--plot", o.plot, "draw them to this SVG, PNG or PDF file")->check(program::drawable);
  return program::run("temporal_credit", app, argc, argv, [&] {
    program::check_outputs("temporal_credit", {{"--json", o.json}, {"--plot", o.plot}}, {});
    std::vector<task> tasks{{"drift", [&](key k) { return drift(o.steps, k); }}};
    for (const index_t lag : {1, 2, 3, 4, 6, 8})
      tasks.push_back({"lag " + std::to_string(lag),
                       [&o, lag](key k) { return data::delay<double>({.steps = o.steps, .lag = lag}, k); }});
    std::vector<result> results;
    nlohmann::ordered_json document;
    std::printf(
        "error / power of the target over the last third, mean of %td seeds with its 95 %% interval\n",
        o.seeds);
    for (const task& what : tasks)
      for (int m = 0; m < 4 && !program::interrupted; ++m) {
        const result& r = results.emplace_back(tried(what, method(m), o));
        std::printf("  %-8s %-20s rate %-7g %8.2e +- %.1e\n", r.task.c_str(), names[m], r.rate, r.mean,
                    r.half_width);
        std::fflush(stdout);
        document["errors"].push_back({{"task", r.task},
                                      {"method", names[m]},
                                      {"rate", r.rate},
                                      {"mean", r.mean},
                                      {"half_width", r.half_width}});
      }
    const cells::influence_balancing<double> one;
    const double immediate = balanced(tbptt(one, {.k1 = 1, .k2 = 1}), o.steps),
                 exact = balanced(rtrl(one), o.steps);
    std::printf("influence balancing, RMSprop, from 0.5 (optimum -0.1667): immediate %.4f, RTRL %.4f\n",
                immediate, exact);
    document["balancing"] = {{"immediate", immediate}, {"rtrl", exact}};
    document["complete"] = !program::interrupted.load();
    if (!o.json.empty()) program::write_json(o.json, document);
    if (!o.plot.empty()) draw(results, tasks, o.plot);
    return program::interrupted ? 130 : 0;
  });
}
