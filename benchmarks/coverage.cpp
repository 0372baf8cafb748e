// Does the interval of the relative bias cover? Repeats measurements whose true bias is known and counts.
//   coverage synthetic DIMENSIONS [REPETITIONS [FILE.json]]   noise of known covariance through `measure`
//   coverage real [REPETITIONS [FILE.json]]                   estimators that are unbiased by enumeration
//   coverage artbp [REPETITIONS [FILE.json]]                  artbp with rare cuts on a network of 8
//   parameters
// Shares are in per cent, with two standard errors. Runs minutes, on one core.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <unroll/diagnose/json_sink.hpp>
#include <unroll/unroll.hpp>
#include <vector>

#include "../tests/support/golden_rnn.hpp"

using namespace unroll;

namespace {

/// What was counted over the repetitions of one cell.
struct tally {
  index_t repetitions = 0, excluded = 0, covered = 0, infinite = 0, flagged = 0, flagged_excluded = 0;
  index_t worst = 0, worst_flagged = 0, plain_excluded = 0, plain_covered = 0;
  double width = 0, plain_width = 0;

  void add(const measurement& m, double truth) {
    const bool excludes = m.relative_bias_low > 0;
    ++repetitions;
    excluded += excludes;
    covered += m.relative_bias_low <= truth && truth <= m.relative_bias_high;
    flagged += m.heavy_tails;
    flagged_excluded += excludes && m.heavy_tails;
    const bool above = m.worst_z > m.worst_z_limit;
    worst += above;
    worst_flagged += above && (m.worst_z_events < 7 || m.heavy_tails);
    if (std::isinf(m.relative_bias_high))
      ++infinite;
    else
      width += m.relative_bias_high - m.relative_bias_low;
  }
  // Groups of four and two normal tails only, without what bias_interval adds.
  void add(const interval& plain, double truth) {
    plain_excluded += plain.low > 0;
    plain_covered += plain.low <= truth && truth <= plain.high;
    plain_width += plain.high - plain.low;
  }

  double share(index_t count) const { return 100 * double(count) / double(repetitions); }
  double error(index_t count) const {
    const double p = double(count) / double(repetitions);
    return 200 * std::sqrt(p * (1 - p) / double(repetitions));
  }
};

/// A system of `params` parameters that is never run.
struct nothing {
  using scalar = double;
  struct input {};
  index_t params;
  dims size() const { return {.params = params, .state = 1}; }
  void start(state<double>) const {}
  void step(const input&, const edge<double>&) const {}
};

/// The target, displaced, plus the next row of a table of noise. For one thread: rows are dealt in turn.
struct from_table {
  using system_type = nothing;
  using scalar = double;
  using input = nothing::input;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = true;
  static constexpr std::array<const char*, 0> references{};

  void reset(key, state<const double> = {}) {}
  report advance(params<const double>, std::span<const input>, dparams<double> g) {
    const double* row = noise->data() + next++ * g.size();
    for (index_t j = 0; j < g.size(); ++j) g[j] += 1 + shift(j) + row[j];
    return {};
  }
  report finish(params<const double>, dparams<double>) { return {}; }
  const nothing& system() const { return parameters; }
  double shift(index_t j) const {
    return along_axis ? (j == 0 ? beta : 0) : beta / std::sqrt(double(parameters.params));
  }

  nothing parameters;
  const std::vector<double>* noise;
  double beta = 0;
  bool along_axis = true;
  index_t next = 0;
};

/// Fast uniforms and normals: a splitmix counter, seeded by a key.
struct stream {
  std::uint64_t state;
  double spare = 0;
  bool kept = false;

  std::uint64_t bits() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return double(bits() >> 11) * 0x1p-53; }
  double normal() {
    if (std::exchange(kept, false)) return spare;
    const double r = std::sqrt(-2 * std::log(1 - uniform())), a = 2 * std::acos(-1.0) * uniform();
    kept = true;
    spare = r * std::sin(a);
    return r * std::cos(a);
  }
};

/// Noise of mean 0 whose coordinates have the given deviations.
using noise_law = std::function<void(stream&, const std::vector<double>& deviations, double* out)>;

void rare(double p, stream& s, const std::vector<double>& deviations,
          double* x) {  // 1 / p with probability p
  const double c = std::sqrt(p / (1 - p));
  for (std::size_t j = 0; j < deviations.size(); ++j)
    x[j] = deviations[j] * c * ((s.uniform() < p ? 1 / p : 0) - 1);
}

struct named_noise {
  std::string name;
  double p;  // of an event; 1: none is rare
  noise_law law;
};

std::vector<named_noise> noises() {
  using deviations = std::vector<double>;
  return {{"gauss", 1,
           [](stream& s, const deviations& d, double* x) {
             for (std::size_t j = 0; j < d.size(); ++j) x[j] = d[j] * s.normal();
           }},
          {"uoro", 1,  // one scalar of 16 signs times a vector of signs
           [](stream& s, const deviations& d, double* x) {
             double scalar = 0;
             std::uint64_t signs = s.bits();
             for (int k = 0; k < 16; ++k) scalar += (signs >> k & 1) != 0 ? .25 : -.25;
             for (std::size_t j = 0; j < d.size(); ++j) {
               if (j % 64 == 0) signs = s.bits();
               x[j] = scalar * d[j] * ((signs >> (j % 64) & 1) != 0 ? 1 : -1);
             }
           }},
          {"lognormal", 1,  // length
           [](stream& s, const deviations& d, double* x) {
             const double length = std::exp(s.normal() - 1);
             for (std::size_t j = 0; j < d.size(); ++j) x[j] = length * d[j] * s.normal();
           }},
          {"logcoord", 1,  // coordinates
           [](stream& s, const deviations& d, double* x) {
             const double e = std::exp(1.0), mean = std::sqrt(e), deviation = std::sqrt((e - 1) * e);
             for (std::size_t j = 0; j < d.size(); ++j)
               x[j] = d[j] * (std::exp(s.normal()) - mean) / deviation;
           }},
          {"reservoir 0.1", .1,  // 16 shared weights 1 / p
           [directions = deviations()](stream& s, const deviations& d, double* x) mutable {
             if (directions.size() != 16 * d.size()) {
               directions.resize(16 * d.size());
               stream fixed{7};
               for (double& v : directions) v = fixed.normal() / 4;
             }
             std::fill(x, x + d.size(), 0.0);
             for (std::size_t k = 0; k < 16; ++k) {
               const double w = ((s.uniform() < .1 ? 10 : 0) - 1) / 3.0;
               for (std::size_t j = 0; j < d.size(); ++j) x[j] += w * d[j] * directions[k * d.size() + j];
             }
           }},
          {"rare 0.05", .05, [](stream& s, const deviations& d, double* x) { rare(.05, s, d, x); }},
          {"rare 0.01", .01, [](stream& s, const deviations& d, double* x) { rare(.01, s, d, x); }},
          // normal in all coordinates, rare along one direction that is no axis
          {"line 0.05", .05, [](stream& s, const deviations& d, double* x) {
             double square = 0;
             for (std::size_t j = 0; j < d.size(); ++j) {
               x[j] = d[j] * s.normal() * std::sqrt(.8);
               square += d[j] * d[j];
             }
             const double event = std::sqrt(.2 * square * .05 / .95) * ((s.uniform() < .05 ? 20 : 0) - 1);
             for (std::size_t j = 0; j < d.size(); ++j) x[j] += event / std::sqrt(double(d.size()));
           }}};
}

std::vector<double> deviations(const std::string& covariance, index_t size) {
  std::vector<double> d(std::size_t(size), 1.0);
  if (covariance == "dom" && size > 1) {
    for (double& v : d) v = std::sqrt(.8 / double(size - 1));
    d[0] = std::sqrt(.2);
    return d;
  }
  double sum = 0;
  for (index_t j = 0; j < size; ++j) sum += covariance == "power" ? 1 / double(j + 1) : 1;
  for (index_t j = 0; j < size; ++j)
    d[std::size_t(j)] = std::sqrt((covariance == "power" ? 1 / double(j + 1) : 1) / sum);
  return d;
}

std::vector<row> rows;

double rounded(double x) { return std::round(100 * x) / 100; }

void print(const std::string& name, index_t replicas, const tally& t, double events) {
  row r;
  r.add("cell", name).add("N", replicas).add("repetitions", t.repetitions);
  if (events >= 0) r.add("events", rounded(events));
  const auto add = [&](const char* column, double x) { r.add(column, rounded(x)); };
  add("excludes_0", t.share(t.excluded));
  add("excludes_0_error", t.error(t.excluded));
  add("covers", t.share(t.covered));
  add("covers_error", t.error(t.covered));
  add("infinite", t.share(t.infinite));
  add("flagged", t.share(t.flagged));
  add("excludes_0_unflagged", t.share(t.excluded - t.flagged_excluded));
  const double finite = double(t.repetitions - t.infinite);
  const double wider =
      finite > 0 && t.plain_width > 0 ? t.width / finite / (t.plain_width / double(t.repetitions)) : 0;
  if (t.plain_width > 0) {
    add("plain_excludes_0", t.share(t.plain_excluded));
    add("plain_covers", t.share(t.plain_covered));
    add("width_over_plain", wider);
  }
  add("worst_z", t.share(t.worst));
  add("worst_z_unflagged", t.share(t.worst - t.worst_flagged));
  rows.push_back(r);
  std::printf(
      "%-44s N %5td  excludes 0 %5.1f +- %3.1f (unflagged %4.1f)  covers %5.1f +- %3.1f  infinite %5.1f  "
      "flagged %5.1f",
      name.c_str(), replicas, t.share(t.excluded), t.error(t.excluded),
      t.share(t.excluded - t.flagged_excluded), t.share(t.covered), t.error(t.covered), t.share(t.infinite),
      t.share(t.flagged));
  if (t.plain_width > 0)
    std::printf("  plain %5.1f %5.1f  width / plain %5.2f", t.share(t.plain_excluded),
                t.share(t.plain_covered), wider);
  std::printf("  worst z %5.1f (unflagged %5.1f)\n", t.share(t.worst), t.share(t.worst - t.worst_flagged));
  std::fflush(stdout);
}

// Groups of four alone: norm_interval as it is.
interval plain_interval(const from_table& estimator, index_t replicas, view<const double> target) {
  auto e = estimator;
  const auto draw = [&](key, dparams<double> g) mutable { return e.advance({}, {}, g); };
  const auto sample =
      draw_sample<double>(draw, target.size(), target, replicas, {.threads = 1, .keep_batches = false});
  const double n = double(replicas);
  const auto m = sample.x().mean();
  return norm_interval(linalg::dot(m.data(), m.data(), m.size()), sample.total_variance() / n,
                       sample.trace_of_square() / (n * (n - 1)), .95);
}

void synthetic(index_t size, index_t repetitions) {
  const std::vector<double> target(std::size_t(size), 1.0);
  const double length = std::sqrt(double(size));
  const parameters<double> theta(size);
  const std::vector<nothing::input> xs(1);
  for (const char* covariance : {"dom", "power", "iso"}) {
    if (size == 1 && covariance != std::string("iso")) continue;
    const auto d = deviations(covariance, size);
    double trace_of_square = 0;
    for (const double v : d) trace_of_square += v * v * v * v;
    for (const auto& noise : noises())
      for (const index_t n : {8, 30, 100, 200, 1000}) {
        if (noise.name == "line 0.05" && (size == 1 || covariance != std::string("iso"))) continue;
        if (size > 1000 && n > 200) continue;
        std::vector<double> table(std::size_t(n * size));
        const double unit = std::sqrt(trace_of_square) / double(n);
        struct bias {
          const char* name;
          double square;
          bool along_axis;
        };
        std::vector<bias> biases{
            {"none", 0, true}, {"small, axis", 2 * unit, true}, {"large, axis", 100 * unit, true}};
        if (size > 1 && size < 1000) {
          biases.push_back({"small, spread", 2 * unit, false});
          biases.push_back({"large, spread", 100 * unit, false});
        }
        std::vector<tally> counts(biases.size());
        for (index_t k = 0; k < repetitions; ++k) {
          stream s{fold(fold(key{std::uint64_t(n)}, std::uint64_t(k)), std::uint64_t(size)).seed};
          for (index_t i = 0; i < n; ++i) noise.law(s, d, table.data() + i * size);
          for (std::size_t b = 0; b < biases.size(); ++b) {
            const double beta = std::sqrt(biases[b].square);
            const from_table e{
                .parameters = {size}, .noise = &table, .beta = beta, .along_axis = biases[b].along_axis};
            counts[b].add(measure(e, theta, xs, {.replicas = n, .threads = 1, .reference = target}),
                          beta / length);
            interval plain = plain_interval(e, n, target);
            plain.low /= length, plain.high /= length;
            counts[b].add(plain, beta / length);
          }
        }
        for (std::size_t b = 0; b < biases.size(); ++b)
          print("d " + std::to_string(size) + ", " + covariance + ", " + noise.name + ", bias " +
                    biases[b].name,
                n, counts[b], double(n) * noise.p);
      }
  }
}

/// Repeated measurements of one estimator that has no bias.
template <class E, class Theta, class Xs>
void repeat(const std::string& name, const E& estimator, const Theta& theta, const Xs& xs,
            index_t repetitions, std::initializer_list<index_t> sizes, double probability,
            view<const double> reference = {}) {
  for (const index_t n : sizes) {
    tally t;
    for (index_t k = 0; k < repetitions; ++k)
      t.add(
          measure(
              estimator, theta, xs,
              {.replicas = n, .seed = fold(key{9}, std::uint64_t(k)), .threads = 1, .reference = reference}),
          0);
    print(name, n, t, probability > 0 ? double(n) * probability : -1);
  }
}

void rare_cuts(index_t repetitions) {
  const auto theta = golden::theta<double>();
  const auto xs = golden::inputs<double>();
  for (const double mean : {5., 20., 100., 400.})
    repeat("golden, artbp_fixed " + std::to_string(int(mean)),
           artbp(golden::rnn<double>{}, fixed_truncation(mean)), theta, xs, repetitions,
           {30, 100, 400, 1000, 4000}, 1 / mean, golden::gradient);
}

template <class M>
void policies(const std::string& name, const M& model, index_t inputs, index_t segments,
              std::initializer_list<const char*> names, index_t repetitions) {
  std::vector<double> numbers(std::size_t(2 * inputs * segments));
  draw_normals(key{3}, 0, view<double>(numbers));
  std::vector<cells::example<double>> xs;
  for (index_t t = 0; t < segments; ++t)
    xs.push_back({.x = numbers.data() + 2 * inputs * t, .target = numbers.data() + 2 * inputs * t + inputs});
  parameters<double> theta(model.size().params);
  model.init(theta, key{4});
  const auto exact = exact_gradient(model, theta, xs);
  for (const char* policy : names)
    with_policy(parse_policy(policy), model, segments, philox_chooser{}, [&](const auto& e) {
      repeat(name + std::to_string(segments) + ", " + policy, e, theta, xs, repetitions, {30, 100, 1000}, 0,
             exact);
    });
}

void real(index_t repetitions) {
  const auto sizes = {index_t(30), index_t(100), index_t(1000)};
  {
    const golden::rnn<double> rnn;
    const auto theta = golden::theta<double>();
    const auto xs = golden::inputs<double>();
    repeat("golden, uoro", uoro(rnn), theta, xs, repetitions, sizes, 0);
    repeat("golden, nobacktrack", nobacktrack(rnn), theta, xs, repetitions, sizes, 0);
    repeat("golden, artbp_fixed 2", artbp(rnn, fixed_truncation(2)), theta, xs, repetitions, sizes, 0);
  }
  const auto every = {"reservoir:1",    "reservoir:2",    "reservoir:4",   "reservoir:8",
                      "proportional:2", "proportional:4", "proportional:8"};
  policies("linear memory ", cells::linear_memory<double>({.in = 2, .memory = 3, .out = 2}), 2, 16, every,
           repetitions);
  policies("attention memory ", cells::attention_memory<double>({.size = 2}), 2, 16, every, repetitions);
  {
    const cells::elman<double> cell({.in = 1, .hidden = 8, .out = 1});
    parameters<double> theta(cell.size().params);
    cell.init(theta, key{1});
    const auto task = data::delay<double>({.steps = 50, .lag = 3}, key{2});
    const auto xs = task.inputs();
    const auto exact = exact_gradient(cell, theta, xs);
    repeat("elman, uoro", uoro(cell), theta, xs, repetitions, sizes, 0, exact);
    repeat("elman, nobacktrack", nobacktrack(cell), theta, xs, repetitions, sizes, 0, exact);
    repeat("elman, artbp 5", artbp(cell, polynomial_truncation(5)), theta, xs, repetitions, sizes, 0, exact);
    repeat("elman, artbp_fixed 5", artbp(cell, fixed_truncation(5)), theta, xs, repetitions, sizes, 0, exact);
    repeat("elman, es, sampled reference", es(cell, {.sigma = .1}), theta, xs, repetitions, {30, 100}, 0);
    repeat("elman, pes, sampled reference", pes(cell, {.sigma = .1, .window = 10}), theta, xs, repetitions,
           {30, 100}, 0);
  }
  policies(
      "attention memory of 16, ", cells::attention_memory<double>({.size = 16}), 16, 97,
      {"reservoir:1", "reservoir:2", "reservoir:4", "proportional:2", "proportional:4", "proportional:8"},
      std::max<index_t>(1, repetitions / 5));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string part = argc > 1 ? argv[1] : "";
  int next = 2;
  const auto number = [&](index_t otherwise) {
    if (argc <= next) return otherwise;
    char* end = nullptr;
    const index_t value = std::strtoll(argv[next], &end, 10);
    if (*end != 0 || value < 1) {
      std::fprintf(stderr, "coverage: \"%s\" is no whole number of at least 1\n", argv[next]);
      std::exit(2);
    }
    ++next;
    return value;
  };
  if (part == "synthetic") {
    const index_t size = number(256);
    synthetic(size, number(500));
  } else if (part == "real") {
    real(number(300));
  } else if (part == "artbp") {
    rare_cuts(number(500));
  } else {
    std::fprintf(stderr,
                 "usage: coverage synthetic DIMENSIONS [REPETITIONS [FILE.json]]\n"
                 "       coverage real|artbp [REPETITIONS [FILE.json]]\n");
    return 2;
  }
  if (argc > next) write_json_lines(argv[next], rows);
}
