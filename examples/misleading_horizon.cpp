// A short horizon that misleads (Wu et al. 2018, arXiv:1803.02021): the logarithm of a learning rate, tuned
// by evolution strategies. Within a few steps a small rate is best, since the noise of the steep direction
// costs at once and progress along the flat one is slow. Truncated ES stays there; PES (Vicol et al. 2021),
// with the same windows, does not.
#include <CLI/CLI.hpp>
#include <limits>
#include <nlohmann/json.hpp>

#include "support/program.hpp"

using namespace unroll;

namespace {

/// w' = w - exp(theta) h (w + noise), elementwise, and loss h . w'^2 / 2: descent on a quadratic with
/// curvatures h.
struct noisy_descent {
  using scalar = double;
  struct input {
    double noise[2];
  };
  static constexpr double h[2] = {1, .03};

  dims size() const { return {.params = 1, .state = 2}; }
  void start(state<double> w) const {
    w[0] = 0;
    w[1] = 4;
  }
  void step(const input& in, const edge<double>& e) const {
    const double rate = std::exp(e.theta[0]);
    *e.loss = 0;
    for (index_t i = 0; i < 2; ++i) {
      e.next[i] = e.s[i] - rate * h[i] * (e.s[i] + in.noise[i]);
      *e.loss += h[i] * e.next[i] * e.next[i] / 2;
    }
  }
};
using episode = std::vector<noisy_descent::input>;

struct options {
  index_t steps = 200;
  index_t window = 10;
  index_t updates = 300;
  index_t pairs = 10;
  index_t seeds = 10;
  std::string json, plot;
};

episode draw_episode(index_t steps, key k) {
  std::vector<double> noise(std::size_t(2 * steps));
  draw_normals(k, 0, view<double>(noise));
  episode xs;
  for (std::size_t t = 0; t < std::size_t(steps); ++t) xs.push_back({{noise[2 * t], noise[2 * t + 1]}});
  return xs;
}

/// Evolution strategies over one window at a time, from the state where an unperturbed run stands.
void truncated_es(const options& o, params<const double> theta, const episode& xs, dparams<double> g, key k) {
  es estimator(noisy_descent{}, {.pairs = o.pairs});
  std::vector<double> s(2);
  noisy_descent{}.start(s);
  for (std::size_t b = 0; b < xs.size(); b += std::size_t(o.window)) {
    const auto window = std::span(xs).subspan(b, std::min(std::size_t(o.window), xs.size() - b));
    estimator.reset(fold(k, b), s);
    estimator.advance(theta, window, g);
    estimator.finish(theta, g);
    training::evaluate(noisy_descent{}, theta, window, s);
  }
}

/// The same noise over the whole episode, or drawn anew in each window and remembered.
template <class Estimator>
void whole(Estimator estimator, params<const double> theta, const episode& xs, dparams<double> g, key k) {
  estimator.reset(k);
  estimator.advance(theta, xs, g);
  estimator.finish(theta, g);
}

constexpr const char* names[] = {"truncated ES", "PES", "ES, whole episode"};

/// exp(theta) after each update of Adam, from a rate of 0.1.
std::vector<double> tune(int method, const options& o, key k) {
  parameters<double> theta(1);
  gradient<double> g(1);
  theta[0] = std::log(.1);
  adam<double> optimiser(1, {.rate = .03});
  std::vector<double> course{std::exp(theta[0])};
  for (index_t u = 0; u < o.updates && !program::interrupted; ++u) {
    const episode xs = draw_episode(o.steps, fold(k, std::uint64_t(2 * u)));
    const key noise = fold(k, std::uint64_t(2 * u + 1));
    g.zero();
    if (method == 0) truncated_es(o, theta, xs, g, noise);
    if (method == 1) whole(pes(noisy_descent{}, {.pairs = o.pairs, .window = o.window}), theta, xs, g, noise);
    if (method == 2) whole(es(noisy_descent{}, {.pairs = o.pairs}), theta, xs, g, noise);
    if (optimiser.step(theta, g) != status::ok) break;
    course.push_back(std::exp(theta[0]));
  }
  return course;
}

/// Mean loss of whole episodes of `steps` steps at a rate.
double mean_loss(double rate, index_t steps, index_t episodes) {
  parameters<double> theta(1);
  theta[0] = std::log(rate);
  double sum = 0;
  for (index_t i = 0; i < episodes; ++i) {
    const episode xs = draw_episode(steps, fold(key{77}, std::uint64_t(i)));
    sum += training::evaluate(noisy_descent{}, theta, xs).loss;
  }
  return sum / double(episodes);
}

double best_rate(index_t steps) {
  double best = std::numeric_limits<double>::infinity(), rate = 0;
  for (double candidate = .005; candidate < 1.5; candidate *= 1.03)
    if (const double loss = mean_loss(candidate, steps, 400); loss < best) best = loss, rate = candidate;
  return rate;
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{
      "Tunes a learning rate through an episode of noisy descent by evolution strategies.\n\n"
      "examples:\n  misleading_horizon --plot horizon.svg\n  misleading_horizon --window 50"};
  app.add_option("--steps", o.steps, "of an episode")->check(CLI::Range(2, 100'000))->capture_default_str();
  app.add_option("--window", o.window, "steps of a window of truncated ES and PES")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--updates", o.updates, "an episode each")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--pairs", o.pairs, "antithetic pairs")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--seeds", o.seeds, "of each mean")->check(CLI::Range(2, 1000))->capture_default_str();
  app.add_option("--json", o.json, "write the results to this file")->check(program::writable);
  app.add_option("--plot", o.plot, "draw the rates to this SVG, PNG or PDF file")->check(program::drawable);
  return program::run("misleading_horizon", app, argc, argv, [&] {
    program::check_outputs("misleading_horizon", {{"--json", o.json}, {"--plot", o.plot}}, {});
    const double greedy = best_rate(o.window), right = best_rate(o.steps);
    const double least = mean_loss(right, o.steps, 4000);
    std::printf("best rate: over %td steps %.4f, over %td steps %.4f\n\n", o.window, greedy, o.steps, right);
    nlohmann::ordered_json document{{"best_of_window", greedy}, {"best", right}};
    std::string data, plot;
    for (int m = 0; m < 3 && !program::interrupted; ++m) {
      std::vector<double> mean(std::size_t(o.updates) + 1), last;
      for (index_t seed = 1; seed <= o.seeds; ++seed) {
        const auto course = tune(m, o, key{std::uint64_t(seed)});
        for (std::size_t u = 0; u < course.size(); ++u) mean[u] += std::log(course[u]) / double(o.seeds);
        last.push_back(std::log(course.back()));
      }
      const auto [centre, half] = student_mean(last, .95);
      const double loss = mean_loss(std::exp(centre), o.steps, 4000);
      std::printf("%-18s rate %.4f, from %.4f to %.4f; loss of an episode %.2f (%.2f at the best rate)\n",
                  names[m], std::exp(centre), std::exp(centre - half), std::exp(centre + half), loss, least);
      document["rates"].push_back({{"method", names[m]},
                                   {"rate", std::exp(centre)},
                                   {"low", std::exp(centre - half)},
                                   {"high", std::exp(centre + half)},
                                   {"loss", loss}});
      data += program::text_of("$m%d << END\n", m);
      for (std::size_t u = 0; u < mean.size(); ++u)
        data += program::text_of("%zu %.5g\n", u, std::exp(mean[u]));
      data += "END\n";
      plot += program::text_of("%s$m%d with lines lw 2 lc %d title '%s'", m == 0 ? "plot " : ", ", m, m + 1,
                               names[m]);
    }
    document["complete"] = !program::interrupted.load();
    if (!o.json.empty()) program::write_json(o.json, document);
    if (!o.plot.empty() && !plot.empty())
      program::draw_figure(o.plot, 800, 450,
                           data +
                               "set logscale y\nset grid\nset xlabel 'updates'\nset ylabel 'learning "
                               "rate'\nset key outside right\n" +
                               plot +
                               program::text_of(", %g lc rgb 'black' dt 2 title 'best of an episode', %g lc "
                                                "rgb 'grey' dt 3 title 'best of a window'\n",
                                                right, greedy),
                           "enhanced");
    return program::interrupted ? 130 : 0;
  });
}
