// A recall task for memory models, whose answers lie a number of segments back: which policies learn it.
//
// Segment t shows x_t = [6 key_{t-d}; key_t; value_t], keys and values of random signs, and what it reads
// from the memories in front of it should be 1/2 [key_{t-d}; 0; value_{t-d}]; the first d segments ask
// nothing. The attention memory of the library has no parameters in its reads: its writes have to learn to
// show the key where queries look, and the value. At first, attention is even and every memory is
// tanh(noise).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unroll/diagnose/interval.hpp>
#include <unroll/estimate/policy.hpp>
#include <unroll/memory/reader.hpp>
#include <unroll/train/document_gradients.hpp>

#include "support/program.hpp"

using namespace unroll;

namespace {

struct options {
  std::string policies = "rematerialise,window:1,window:4,reservoir:4,proportional:4,roulette:4";
  std::string distances = "1,4,16";
  index_t segments = 32, width = 8, documents = 4, steps = 1000, every = 10, held_out = 16, seeds = 5;
  double rate = 1e-3;
  bool recurrent = false;
  std::string json, plot;
};

/// The attention memory, whose segments without an answer have no loss.
class asked_memory : public cells::attention_memory<double> {
 public:
  using base = cells::attention_memory<double>;
  using input = cells::example<double>;
  using segments_type = std::span<const input>;
  using past_type = std::span<const double* const>;
  using base::base;

  index_t scored(const input& x) const { return x.target ? 1 : 0; }
  bool finite(const input& x) const { return !x.target || base::finite(x); }
  void read(segments_type xs, index_t t, params<const double> theta, past_type past, double* losses,
            view<double> workspace) const {
    for (std::size_t i = 0; i < xs.size(); ++i) {
      losses[i] = 0;
      if (xs[i].target)
        base::read(xs.subspan(i, 1), t + index_t(i), theta, past.first(std::size_t(t) + i), losses + i,
                   workspace);
    }
  }
  void read_vjp(segments_type xs, index_t t, params<const double> theta, past_type past, double* losses,
                memory_gradients<numbers<double>> to, view<double> workspace) const {
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const std::size_t n = std::size_t(t) + i;
      losses[i] = 0;
      if (xs[i].target)
        base::read_vjp(xs.subspan(i, 1), t + index_t(i), theta, past.first(n), losses + i,
                       {.dpast = to.dpast.first(n), .dtheta = to.dtheta}, workspace);
    }
  }
};

/// Random documents, whose numbers it owns.
class documents {
 public:
  documents(const options& o, index_t distance, index_t count)
      : o_(o), distance_(distance), numbers_(std::size_t(count * o.segments * 6 * o.width)) {
    for (index_t i = 0; i < count; ++i) {
      texts_.emplace_back();
      for (index_t t = 0; t < o.segments; ++t) {
        const double* const x = at(i, t);
        texts_.back().push_back({.x = x, .target = t < distance ? nullptr : x + 3 * o.width});
      }
    }
  }
  documents(const documents&) = delete;
  documents& operator=(const documents&) = delete;

  void draw(key k) {
    const index_t w = o_.width;
    for (std::size_t i = 0; i < texts_.size(); ++i)
      for (index_t t = 0; t < o_.segments; ++t) {
        double* const x = at(index_t(i), t);
        std::fill_n(x, 6 * w, 0.);
        draw_signs(fold(k, i), t, view<double>(x + w, 2 * w));
        if (t < distance_) continue;
        const double* const asked = at(index_t(i), t - distance_) + w;
        for (index_t j = 0; j < w; ++j) {
          x[j] = 6 * asked[j];
          x[3 * w + j] = asked[j] / 2;
          x[5 * w + j] = asked[w + j] / 2;
        }
      }
  }
  std::span<const std::vector<cells::example<double>>> texts() const { return texts_; }

 private:
  double* at(index_t i, index_t t) { return numbers_.data() + (i * o_.segments + t) * 6 * o_.width; }
  const options& o_;
  index_t distance_;
  std::vector<double> numbers_;
  std::vector<std::vector<cells::example<double>>> texts_;
};

/// One training run.
struct course {
  std::vector<double> left;       ///< held-out loss over that of an empty answer, every o.every steps
  double forwards = 0, back = 0;  ///< encoders of a document
  double seconds = 0;             ///< of processor, for a document
};

course train(const options& o, const policy& p, index_t distance, key k) {
  const asked_memory model({.size = 3 * o.width, .recurrent = o.recurrent});
  parameters<double> theta(model.size().params);
  gradient<double> g(theta.size());
  model.init(theta, fold(k, 1));
  linalg::scale(0.1, theta.data(), theta.size());
  documents batch(o, distance, o.documents), held_out(o, distance, o.held_out);
  held_out.draw(fold(k, 2));
  training::document_gradients<asked_memory> gradients(model, p, o.segments, o.documents, 1);
  memory_reader reader(model, o.segments);
  adam<double> optimiser(theta.size(), {.rate = o.rate});
  const double asked = double(o.segments - distance), empty = double(o.width) / 4;
  course out;
  report all;
  for (index_t step = 0; step <= o.steps && !program::interrupted; ++step) {
    if (step % o.every == 0) {
      double loss = 0;
      for (const auto& text : held_out.texts())
        for (const double x : reader.losses(theta, text)) loss += x;
      out.left.push_back(loss / (asked * double(o.held_out) * empty));
    }
    if (step == o.steps) break;
    const double before = program::processor_seconds();
    batch.draw(fold(fold(k, 3), std::uint64_t(step)));
    g.zero();
    const report r = gradients.add(fold(fold(k, 4), std::uint64_t(step)), theta, batch.texts(), g);
    linalg::scale(1 / (asked * double(o.documents)), g.data(), g.size());
    if (r.code != status::ok || optimiser.step(theta, g) != status::ok)
      fail("memory_recall", "step", std::to_string(step) + " is not finite");
    all += r;
    out.seconds += program::processor_seconds() - before;
  }
  const double texts = double(o.steps * o.documents);
  out.forwards = double(all.steps) / texts - double(o.segments);  // without the reads
  out.back = double(all.vjps) / texts - double(o.segments - 1);
  out.seconds /= texts;
  return out;
}

/// A policy at a distance, over all seeds.
struct line {
  std::string name;
  index_t distance = 0;
  std::vector<double> last, to_half;  ///< of each seed; to_half of those that came there
  course one;                         ///< costs: those of the last seed
};

void draw(const std::vector<line>& lines, const options& o) {
  constexpr const char* colours[] = {"#9400d3", "#56b4e9", "#009e73", "#e69f00", "#0072b2", "#d55e00"};
  std::vector<std::string> names;
  for (const line& l : lines)
    if (std::find(names.begin(), names.end(), l.name) == names.end()) names.push_back(l.name);
  std::string data, curves;
  for (std::size_t i = 0; i < names.size(); ++i) {
    data += "$p" + std::to_string(i) + " << END\n";
    for (const line& l : lines)
      if (l.name == names[i]) {
        const auto m = student_mean(l.last, .95);
        const double beside = 1 + 0.02 * (double(i) - double(names.size()) / 2);  // curves can be told apart
        data += program::text_of("%g %g %g\n", double(l.distance) * beside, m.mean, m.margin);
      }
    data += "END\n";
    curves += std::string(curves.empty() ? "plot " : ", ") + "$p" + std::to_string(i) +
              " using 1:2:3 with yerrorlines lw 2 pt 7 ps 0.5 lc rgb '" + colours[i % std::size(colours)] +
              "' title " + program::quoted(names[i]);
  }
  program::draw_figure(o.plot, 800, 480,
                       data + "set title 'Recall after " + std::to_string(o.steps) +
                           " steps, by the distance of the answer'\n" +
                           "set xlabel 'segments between the question and its answer'\nset ylabel 'held-out "
                           "loss, of that of an "
                           "empty answer'\nset logscale x 2\nset xrange [0.8:" +
                           std::to_string(o.segments) +
                           "]\nset yrange [0:1]\nset grid\nset key outside right\n" + curves + "\n");
}

std::vector<index_t> distances_of(const options& o) {
  std::vector<index_t> out;
  for (const std::string& part : program::split(o.distances)) {
    const std::string problem = program::written_out<std::int64_t>(part);
    const index_t d = problem.empty() ? std::stol(part) : 0;
    if (d < 1 || d >= o.segments)
      fail("memory_recall", "--distances",
           "\"" + part + "\" is none of 1 .. " + std::to_string(o.segments - 1) + ", segments less one");
    out.push_back(d);
  }
  return out;
}
std::vector<policy> policies_of(const options& o) {
  std::vector<policy> out;
  for (const std::string& part : program::split(o.policies)) {
    out.push_back(parse_policy(part));
    if (o.recurrent && needs_independent(out.back()))
      fail("memory_recall", "--policy",
           "\"" + part + "\" is not for writes that read: without --recurrent only");
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{
      "Trains a memory model to recall what was written a number of segments ago, by several policies.\n\n"
      "examples:\n  memory_recall --plot recall.svg\n  memory_recall --recurrent --policy "
      "rematerialise,window:4,roulette:4 --distances 16"};
  app.add_option("--policy", o.policies, "separated by commas: " + policy_catalogue::forms())
      ->capture_default_str();
  app.add_option("--distances", o.distances,
                 "segments between a question and its answer, separated by commas")
      ->capture_default_str();
  program::add_count(&app, "--segments", o.segments, 2, 4096, "of a document");
  program::add_count(&app, "--width", o.width, 1, 1024, "signs of a key, and of a value");
  program::add_count(&app, "--documents", o.documents, 1, 4096, "of a step");
  program::add_count(&app, "--steps", o.steps, 1, 10'000'000, "of Adam");
  program::add_count(&app, "--every", o.every, 1, 10'000'000,
                     "steps between two looks at held-out documents");
  program::add_count(&app, "--held-out", o.held_out, 1, 4096, "documents that are not trained with");
  program::add_count(&app, "--seeds", o.seeds, 1, 10'000, "runs of each policy at each distance");
  app.add_option("--rate", o.rate, "of Adam")->check(program::positive)->capture_default_str();
  app.add_flag("--recurrent", o.recurrent, "writes attend to earlier memories");
  app.add_option("--json", o.json, "write the runs to this file")->check(program::writable);
  app.add_option("--plot", o.plot, "draw the last losses to this SVG, PNG or PDF file")
      ->check(program::drawable);

  return program::run("memory_recall", app, argc, argv, [&] {
    program::check_outputs("memory_recall", {{"--json", o.json}, {"--plot", o.plot}}, {});
    const auto distances = distances_of(o);
    const auto policies = policies_of(o);
    std::vector<line> lines;
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    std::printf("%8s %-22s %17s %22s %9s %6s %9s\n", "distance", "policy", "loss left", "steps to half",
                "encoders", "back", "us");
    const program::progress shown;
    for (const index_t d : distances)
      for (const policy& p : policies) {
        line l;
        l.name = to_string(p);
        l.distance = d;
        for (index_t seed = 1; seed <= o.seeds && !program::interrupted; ++seed) {
          shown.show(program::text_of("distance %td, %s, seed %td", d, l.name.c_str(), seed));
          l.one = train(o, p, d, key{std::uint64_t(seed)});
          if (program::interrupted) break;
          const auto& left = l.one.left;
          l.last.push_back(left.back());
          const auto half = std::find_if(left.begin(), left.end(), [](double x) { return x < 0.5; });
          if (half != left.end()) l.to_half.push_back(double((half - left.begin()) * o.every));
          rows.push_back({{"distance", d},
                          {"policy", l.name},
                          {"seed", seed},
                          {"encoders", l.one.forwards},
                          {"encoders_back", l.one.back},
                          {"left", left}});
        }
        if (program::interrupted) break;
        shown.clear();
        const auto last = student_mean(l.last, .95), half = student_mean(l.to_half, .95);
        const std::string came = l.to_half.size() == l.last.size()
                                     ? program::text_of("%.0f +- %.0f", half.mean, half.margin)
                                     : program::text_of("%zu of %zu runs", l.to_half.size(), l.last.size());
        std::printf("%8td %-22s %8.3f +- %5.3f %22s %9.1f %6.1f %9.2g\n", d, l.name.c_str(), last.mean,
                    last.margin, came.c_str(), l.one.forwards, l.one.back, 1e6 * l.one.seconds);
        lines.push_back(std::move(l));
      }
    if (!o.json.empty())
      program::write_json(o.json, {{"complete", !program::interrupted.load()},
                                   {"segments", o.segments},
                                   {"width", o.width},
                                   {"steps", o.steps},
                                   {"documents", o.documents},
                                   {"rate", o.rate},
                                   {"recurrent", o.recurrent},
                                   {"every", o.every},
                                   {"rows", rows}});
    if (!o.plot.empty() && !lines.empty()) {
      draw(lines, o);
      std::printf("figure: %s\n", o.plot.c_str());
    }
    return program::interrupted ? 130 : 0;
  });
}
