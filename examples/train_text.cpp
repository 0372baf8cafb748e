// Trains a character model on a text file (or on a^n b^n) with any cell and any estimator, and reports bits
// per character on text it has not seen. Sequences are independent; a checkpoint falls between two of them,
// so that a resumed run continues with the same bits.
#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <unroll/cells/named_cell.hpp>
#include <unroll/diagnose/event_file.hpp>
#include <unroll/estimate/catalogue.hpp>
#include <unroll/text/characters.hpp>
#include <unroll/train/evaluate.hpp>

#include "support/default_text.hpp"
#include "support/sweep.hpp"
#include "support/trained_cell.hpp"

using namespace unroll;

namespace {

using T = float;
using input = cells::example<T>;

struct options {
  std::string text = program::default_text(), task, cell = "gru", estimator = "tbptt:10:40", checkpoint, json,
              tensorboard;
  index_t hidden = 64, lanes = 8, length = 400, every = 10, sequences = 300, report = 50, held_out = 20'000,
          accumulate = 1, patience = 0;
  double rate = 3e-3, clip = 1;
  std::uint64_t seed = 1;
  bool resume = false;
  std::string hiddens = "64", seeds = "1", rates = "0.003", sweep;  ///< of a sweep
  index_t threads = 0;                                              ///< runs at the same time
  std::optional<std::uint64_t> bytes;                               ///< fingerprint that the text must have
};

/// Training and held-out characters as streams of examples.
struct corpus {
  data::sequences<T> train, held_out;
  index_t vocabulary;
  std::string name;
  std::uint64_t bytes = 0;  ///< fingerprint of the text
};

corpus make_corpus(const options& o) {
  if (o.task == "anbn")
    return {data::anbn<T>({.steps = o.length * o.sequences, .lanes = o.lanes}, fold(key{o.seed}, 1)),
            data::anbn<T>({.steps = o.held_out}, fold(key{o.seed}, 2)), 3, "a^n b^n"};
  if (!o.task.empty()) fail("train_text", "task", "\"" + o.task + "\" is not anbn");
  const std::string characters = read_file(o.text, "train_text");
  const std::uint64_t bytes = program::fingerprint(characters.data(), characters.size());
  if (o.bytes && *o.bytes != bytes)
    throw file_error("train_text: text: \"" + o.text + "\" is another one than when the sweep began");
  const data::text text(characters, "\"" + o.text + "\"");
  const auto held = text.held_out().first(std::min(std::size_t(o.held_out) + 1, text.held_out().size()));
  return {data::streams<T>(text.train(), o.lanes, o.length), data::streams<T>(held, 1), text.vocabulary(),
          o.text, bytes};
}

/// What a checkpoint must agree on before a run may continue from it.
std::string identity(const options& o, const corpus& c) {
  return program::text_of(
      "%s (%td kinds, fingerprint %016llx), %s, %s, %td units, %td lanes x %td steps, every %td%s, rate "
      "%.9g, "
      "clip %.9g, held-out %td, seed %llu",
      c.name.c_str(), c.vocabulary, static_cast<unsigned long long>(c.bytes), o.cell.c_str(),
      o.estimator.c_str(), o.hidden, o.lanes, o.length, o.every,
      o.accumulate > 1 ? program::text_of(" x %td", o.accumulate).c_str() : "", o.rate, o.clip, o.held_out,
      static_cast<unsigned long long>(o.seed));
}

/// One pass over a sequence: an update whenever `every` steps have brought the last of its gradients.
template <class E>
void train_sequence(E& estimator, program::trained_cell<T>& run, std::span<const input> xs, gradient<T>& g,
                    const options& o) {
  const auto refuse = [&](const std::string& what) {
    fail("train_text", what,
         "of sequence " + std::to_string(run.sequence) + " is not finite; try a smaller --rate");
  };
  const auto take = [&](const report& r) {
    if (r.code != status::ok) refuse("step " + std::to_string(r.at));
    run.seen += r;
  };
  g.zero();
  estimator.reset(fold(fold(key{o.seed}, 3), std::uint64_t(run.sequence)));
  for (std::size_t t = 0; t < xs.size(); t += std::size_t(o.every)) {
    take(estimator.advance(run.theta, xs.subspan(t, std::min(xs.size() - t, std::size_t(o.every))), g));
    if (t + std::size_t(o.every) >= xs.size()) take(estimator.finish(run.theta, g));
    if (std::all_of(g.begin(), g.end(), [](T v) { return v == 0; })) continue;  // nothing is known yet
    linalg::axpy<T>(1, g.data(), run.sum.data(), g.size());
    g.zero();
    if (++run.added < o.accumulate) continue;
    linalg::scale(T(1) / T(o.lanes * o.every * o.accumulate), run.sum.data(), run.sum.size());
    if (o.clip > 0) clip_norm(run.sum, o.clip);
    if (run.optimiser.step(run.theta, run.sum) != status::ok) refuse("a gradient");
    run.sum.zero(), run.added = 0;
  }
  ++run.sequence;
}

/// One run, and what is known of it in the end. `aloud`: with its lines on the terminal.
nlohmann::ordered_json train(options o, bool aloud) {
  using namespace program;
  const index_t asked = o.every, period = gradient_period(o.estimator, o.length);
  o.every = std::min(std::max(asked, period), o.length);
  const corpus c = make_corpus(o);
  const auto made = [&](index_t lanes) {
    return cells::make_named_cell<T>(o.cell,
                                     {c.vocabulary, o.hidden, c.vocabulary, loss_kind::cross_entropy, lanes},
                                     fold(key{o.seed}, 0));
  };
  const auto cell = made(o.lanes), reader = made(1);
  trained_cell<T> run(cell.theta, {.rate = o.rate});
  if (o.resume) run.load(o.checkpoint, identity(o, c), o.accumulate);
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  };
  std::optional<event_file> events;
  if (!o.tensorboard.empty()) events.emplace(o.tensorboard, now(), run.sequence);

  const index_t pieces = c.train.steps() / o.length;
  if (aloud)
    std::printf(
        "%s: %td kinds of character, %td training steps in %td lanes, %td held-out characters\n"
        "%s, %td units, %td parameters, %s, %s every %td steps%s%s\n\n",
        c.name.c_str(), c.vocabulary, pieces * o.length, o.lanes, c.held_out.steps(), o.cell.c_str(),
        o.hidden, run.theta.size(), o.estimator.c_str(), o.accumulate > 1 ? "a gradient" : "an update",
        o.every, period > asked ? " (it has no gradient more often)" : "",
        o.accumulate > 1 ? text_of(", an update of %td", o.accumulate).c_str() : "");
  if (aloud) std::printf("%9s %12s %12s   bits per character\n", "sequence", "training", "held-out");
  const auto report_now = [&] {
    const double bits = training::mean_loss(reader.system, run.theta, c.held_out.inputs()) / std::log(2.0);
    if (!std::isfinite(bits))
      fail("train_text", "held-out",
           "loss after sequence " + std::to_string(run.sequence) + " is not finite; try a smaller --rate");
    const double train_bits = run.seen.loss / double(run.seen.losses) / std::log(2.0);
    if (aloud) std::printf("%9td %12.4f %12.4f\n", run.sequence, train_bits, bits);
    flush_output();
    run.history.push_back({{"sequence", run.sequence}, {"train_bits", train_bits}, {"held_out_bits", bits}});
    run.seen = {};
    if (!o.checkpoint.empty()) run.save(o.checkpoint, identity(o, c));
    if (events)
      events->add(run.sequence, now(), row().add("train_bits", train_bits).add("held_out_bits", bits));
  };

  with_estimator(o.estimator, cell.system, o.length, [&](auto estimator) {
    gradient<T> g(run.theta.size());
    const progress line;
    while (run.sequence < o.sequences && !interrupted && !run.ended_early(o.patience, o.report)) {
      const auto from = std::size_t(run.sequence % pieces * o.length);
      train_sequence(estimator, run, c.train.inputs().subspan(from, std::size_t(o.length)), g, o);
      line.show("sequence " + std::to_string(run.sequence) + " / " + std::to_string(o.sequences));
      if (run.sequence % o.report == 0 || run.sequence == o.sequences || interrupted) {
        line.clear();
        report_now();
      }
    }
  });
  const bool ended_early = run.ended_early(o.patience, o.report);
  if (aloud && ended_early) std::printf("ended early: no lower held-out loss in %td reports\n", o.patience);
  nlohmann::ordered_json document{{"data", c.name},
                                  {"cell", o.cell},
                                  {"hidden", o.hidden},
                                  {"estimator", o.estimator},
                                  {"lanes", o.lanes},
                                  {"length", o.length},
                                  {"every", o.every},
                                  {"accumulate", o.accumulate},
                                  {"rate", o.rate},
                                  {"clip", o.clip},
                                  {"seed", o.seed},
                                  {"complete", !interrupted.load()},
                                  {"ended_early", ended_early},
                                  {"cpu_seconds", processor_seconds()}};
  document["course"] = run.history;
  return document;
}

/// The runs for all values of the options that can be a list.
program::sweep<options> runs(const options& o) {
  using program::swept;
  std::vector<swept<options>> axes{
      {"cell", program::split(o.cell), [](options& one, const std::string& v) { one.cell = v; }},
      {"estimator", program::split(o.estimator),
       [](options& one, const std::string& v) { one.estimator = v; }},
      {"hidden", {}, [](options& one, const std::string& v) { one.hidden = std::stol(v); }},
      {"rate", program::split(o.rates), [](options& one, const std::string& v) { one.rate = std::stod(v); }},
      {"seed", {}, [](options& one, const std::string& v) { one.seed = std::stoull(v); }}};
  program::read_numbers<index_t>(o.hiddens, 1, 1'000'000, axes[2].values);
  program::read_numbers<std::uint64_t>(o.seeds, 0, ~std::uint64_t{0}, axes[4].values);
  return {o, std::move(axes)};
}

/// What the runs of a sweep have in common.
std::string common_identity(options o, const corpus& c) {
  o.cell = o.estimator = "*";
  o.hidden = 0, o.rate = 0, o.seed = 0;
  return "train_text: " + identity(o, c) + program::text_of(", %td sequences", o.sequences) +
         (o.patience > 0 ? program::text_of(", patience %td", o.patience) : "");
}

int run_all(const CLI::App& app, const program::sweep<options>& all, const options& o) {
  program::check_sweep("train_text", all.size(), o.sweep,
                       {{"--json", app.count("--json") > 0},
                        {"--checkpoint", app.count("--checkpoint") > 0},
                        {"--tensorboard", app.count("--tensorboard") > 0}});
  for (index_t i = 0; i < all.size();
       ++i) {  // a misspelt name ends the program, a run that fails is a result
    const options one = all.at(i);
    gradient_period(one.estimator, one.length);
    if (one.seed == all.at(0).seed)
      cells::make_named_cell<T>(one.cell, {2, 1, 2, loss_kind::cross_entropy, 1}, key{0});
  }
  const corpus text = make_corpus(all.at(0));
  program::sweep_results results("train_text", o.sweep, common_identity(all.at(0), text));
  program::quiet = true;
  program::run_sweep(all, results, o.threads, [&](options one) {
    one.bytes = text.bytes;
    const auto run = train(std::move(one), false);
    if (!run.at("complete").get<bool>()) return nlohmann::json();
    return nlohmann::json{{"rows", {run.at("course").back()}}, {"course", run.at("course")}};
  });
  const auto table = program::table_of(all, results, "", "held_out_bits", {"train_bits"}, 0.95);
  std::fputs(to_table(table, 4).c_str(), stdout);
  std::printf(
      "\nbits per character after %s%td sequences, means over the seeds; held_out_bits with the 95 %% "
      "interval "
      "of "
      "the mean.\n%s\n",
      o.patience > 0 ? "at most " : "", o.sequences, o.sweep.c_str());
  program::print_failures(all, results);
  return program::stop_asked() ? 130 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{
      "Trains a character model and reports bits per character on held-out text.\n\n"
      "examples:\n"
      "  train_text --text book.txt --cell lstm --estimator tbptt:20:100 --sequences 2000\n"
      "  train_text --task anbn --estimator artbp:30 --checkpoint run.ckpt\n"
      "  train_text --task anbn --estimator artbp:30 --checkpoint run.ckpt --resume --sequences 600\n"
      "  train_text --cell gru,lstm --hidden 16,64 --seed 1..6 --sweep cells.json   (24 runs, one table)"};
  CLI::Option* text = app.add_option("--text", o.text, "a text file")->capture_default_str();
  app.add_option("--task", o.task, "anbn, instead of a text")->excludes(text);
  app.add_option("--cell", o.cell,
                 "elman, gru, lstm, linear, lru, rtu, min_gru, leaky, relu, layer_norm_gru, layer_norm_lstm "
                 "or a stack as "
                 "lstm_2; several, "
                 "with commas: a sweep")
      ->capture_default_str();
  app.add_option("--estimator", o.estimator, estimator_catalogue::forms())->capture_default_str();
  using namespace program;
  constexpr index_t many = 100'000'000;
  add_numbers<index_t>(&app, "--hidden", o.hiddens, 1, 1'000'000, "state units");
  add_count(&app, "--lanes", o.lanes, 1, 100'000, "streams side by side");
  add_count(&app, "--length", o.length, 1, many, "steps of a sequence");
  add_count(&app, "--every", o.every, 1, many,
            "steps between two updates, at least those between two gradients of the estimator");
  add_count(&app, "--accumulate", o.accumulate, 1, many,
            "gradients that are added up for an update; those of an update that is not complete wait in the "
            "checkpoint");
  add_count(&app, "--sequences", o.sequences, 1, many, "to train on");
  add_count(&app, "--report", o.report, 1, many, "sequences between two reports");
  add_count(&app, "--patience", o.patience, 0, many,
            "reports, one after every --report sequences, without a lower held-out loss after which the run "
            "ends, 0: never; the checkpoint is the last one's");
  add_count(&app, "--held-out", o.held_out, 1, 1'000'000'000, "characters to evaluate on");
  app.add_option("--rate", o.rates, "of Adam; several, with commas: a sweep")
      ->check([](const std::string& given) {
        for (const std::string& rate : split(given))
          for (const std::string& wrong : {written_out<double>(rate), positive(rate)})
            if (!wrong.empty()) return wrong;
        return std::string();
      })
      ->capture_default_str();
  add_not_negative(&app, "--clip", o.clip, "gradient norm, 0: off; clipping biases every estimator");
  add_numbers<std::uint64_t>(&app, "--seed", o.seeds, 0, ~std::uint64_t{0},
                             "of parameters, task and estimator");
  app.add_option("--sweep", o.sweep,
                 "file for the results of several runs (lists of --cell, --estimator, --hidden, --rate and "
                 "--seed); the same sweep goes on with it")
      ->check(writable);
  add_count(&app, "--threads", o.threads, 0, 1024, "runs of a sweep at the same time, 0: one a core");
  CLI::Option* file = app.add_option("--checkpoint", o.checkpoint, "file to save the run to at every report")
                          ->check(writable);
  app.add_flag("--resume", o.resume, "continue from the checkpoint")->needs(file);
  app.add_option("--json", o.json, "write the course of the run to this file")->check(writable);
  app.add_option("--tensorboard", o.tensorboard, "folder for a file of events, which TensorBoard shows")
      ->check(not_empty);

  return run<several_ranks>("train_text", app, argc, argv, [&] {
    check_outputs("train_text", {{"--checkpoint", o.checkpoint}, {"--json", o.json}, {"--sweep", o.sweep}},
                  {{"--text", o.task.empty() ? o.text : ""}});
    check_checkpoint("train_text", o.checkpoint, o.resume);
    const auto all = runs(o);
    if (all.size() > 1 || !o.sweep.empty()) return run_all(app, all, o);
    check_one_process("train_text", "one run");
    write_json(o.json, train(all.at(0), true));
    return interrupted ? 130 : 0;
  });
}
