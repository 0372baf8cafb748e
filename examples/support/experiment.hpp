#pragma once

// What gradient_bias measures on: a system chosen by name, its parameters, and a sequence of a text or a
// task.

#include <unroll/cells/named_cell.hpp>
#include <unroll/text/characters.hpp>

#include "default_text.hpp"
#include "program.hpp"
#include "sweep.hpp"

namespace program {

struct experiment_options {
  std::string system = "elman", text = default_text(), task;
  index_t hidden = 24, lanes = 1, length = 100, train = 300;
  std::uint64_t seed = 1;
  std::string hiddens = "24", seeds = "1";  ///< all of a sweep

  void add(CLI::App* app) {
    app->add_option("--system", system,
                    "elman, gru, lstm, linear, lru, rtu, min_gru, leaky, relu, layer_norm_gru, "
                    "layer_norm_lstm, a stack as lstm_2, or "
                    "influence_balancing")
        ->capture_default_str();
    add_numbers<index_t>(app, "--hidden", hiddens, 1, 1'000'000, "state units");
    add_count(app, "--lanes", lanes, 1, 100'000, "sequences side by side");
    add_count(app, "--length", length, 1, 100'000'000, "steps of the sequence");
    CLI::Option* file =
        app->add_option("--text", text, "a text file; its characters are predicted one by one")
            ->capture_default_str();
    app->add_option("--task", task, "delay, adding, copy, marschall_add or anbn, instead of a text")
        ->excludes(file);
    add_count(app, "--train", train, 0, 1'000'000, "updates by exact gradients before anything is measured");
    add_numbers<std::uint64_t>(app, "--seed", seeds, 0, ~std::uint64_t{0},
                               "of parameters, data and estimates");
  }
  /// The runs for all values of --hidden and --seed.
  sweep<experiment_options> runs() const {
    using options = experiment_options;
    swept<options> hidden_ones{
        "hidden", {}, [](options& o, const std::string& v) { o.hidden = std::stol(v); }};
    swept<options> seed_ones{"seed", {}, [](options& o, const std::string& v) { o.seed = std::stoull(v); }};
    read_numbers<index_t>(hiddens, 1, 1'000'000, hidden_ones.values);
    read_numbers<std::uint64_t>(seeds, 0, ~std::uint64_t{0}, seed_ones.values);
    return {*this, {std::move(hidden_ones), std::move(seed_ones)}};
  }
  bool balancing() const { return system == "influence_balancing"; }
  /// Throws unroll::error on options that the system has no use for.
  void check(const CLI::App& app) const {
    if (!balancing()) return;
    for (const char* option : {"--text", "--task", "--hidden", "--lanes", "--train"})
      if (app.count(option) > 0)
        unroll::fail("gradient_bias", option, "has no meaning with --system influence_balancing");
  }
};

/// The system, its parameters and the sequence, however they were asked for.
class experiment {
 public:
  using T = double;
  using input = unroll::cells::example<T>;

  explicit experiment(const experiment_options& o) : experiment(made(o)) {}

  unroll::any_system<T, input> system;
  unroll::parameters<T> theta;
  std::vector<input> xs;
  std::string description;

  /// Adam on the exact gradient of the sequence, so that the estimators are compared at a point of a training
  /// run.
  void train(index_t updates) {
    using namespace unroll;
    bptt exact(system, {.max_steps = index_t(xs.size())});
    gradient<T> g(theta.size());
    adam<T> optimiser(theta.size(), {.rate = 3e-3});
    const progress line;
    for (index_t i = 0; i < updates && !interrupted; ++i) {
      g.zero();
      exact.reset(key{0});
      exact.advance(theta, xs, g);
      if (exact.finish(theta, g).code != status::ok || optimiser.step(theta, g) != status::ok)
        fail("gradient_bias", "train", "diverged at update " + std::to_string(i));
      if (i % 20 == 0) line.show("training " + std::to_string(i) + " / " + std::to_string(updates));
    }
  }

 private:
  std::shared_ptr<const void> owner_;  // the data that xs points to

  experiment(unroll::any_system<T, input> f, unroll::parameters<T> initial, std::vector<input> sequence,
             std::shared_ptr<const void> owner, std::string what)
      : system(std::move(f)),
        theta(std::move(initial)),
        xs(std::move(sequence)),
        description(std::move(what)),
        owner_(std::move(owner)) {}

  static experiment on_sequences(const experiment_options& o, unroll::data::sequences<T> data, index_t in,
                                 index_t out, unroll::loss_kind loss, std::string what) {
    auto cell = unroll::cells::make_named_cell<T>(o.system, {in, o.hidden, out, loss, o.lanes},
                                                  fold(unroll::key{o.seed}, 0));
    const auto owner = std::make_shared<const unroll::data::sequences<T>>(std::move(data));
    const auto xs = owner->inputs().first(std::size_t(std::min(o.length, owner->steps())));
    return {std::move(cell.system), std::move(cell.theta), {xs.begin(), xs.end()}, owner, std::move(what)};
  }

  static experiment made(const experiment_options& o) {
    using namespace unroll;
    const key k = fold(key{o.seed}, 1);
    const auto squared = loss_kind::squared_error, entropy = loss_kind::cross_entropy;
    if (o.balancing()) {
      parameters<T> theta(1);
      theta[0] = 0.5;
      return {cells::influence_balancing<T, input>(), theta, std::vector<input>(std::size_t(o.length)),
              nullptr, "influence balancing at theta = 0.5"};
    }
    if (o.task.empty()) {
      const data::text text(o.text);
      const index_t kinds = text.vocabulary();
      return on_sequences(o, data::streams<T>(text.train(), o.lanes, o.length), kinds, kinds, entropy,
                          "characters of " + std::filesystem::path(o.text).filename().string());
    }
    const auto task = [&](data::sequences<T> data, index_t in, index_t out, loss_kind loss) {
      return on_sequences(o, std::move(data), in, out, loss, "task " + o.task);
    };
    const index_t n = o.length, lanes = o.lanes;
    if (o.task == "delay") return task(data::delay<T>({.steps = n, .lanes = lanes}, k), 1, 1, squared);
    if (o.task == "adding") return task(data::adding<T>({.steps = n, .lanes = lanes}, k), 2, 1, squared);
    if (o.task == "copy") {
      check_at_least("gradient_bias", "length", n, 21);
      return task(data::copy<T>({.blanks = n - 20, .lanes = lanes}, k), 10, 9, entropy);
    }
    if (o.task == "marschall_add")
      return task(data::marschall_add<T>({.steps = n, .lanes = lanes}, k), 2, 2, entropy);
    if (o.task == "anbn") return task(data::anbn<T>({.steps = n, .lanes = lanes}, k), 3, 3, entropy);
    fail("gradient_bias", "task", "\"" + o.task + "\" is none of delay, adding, copy, marschall_add, anbn");
  }
};

}  // namespace program
