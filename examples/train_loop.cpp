// A whole training run of a recurrent network, which docs/howto/train.md goes through: a stream of episodes
// with resets, held-out evaluation, clipping, a schedule, accumulation, early stopping, and checkpoints.
// usage: train_loop [FOLDER [REPORTS]]    goes on with what is in FOLDER; ends as if cut after so many
// reports
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <unroll/diagnose/csv_file.hpp>
#include <unroll/diagnose/event_file.hpp>
#include <unroll/diagnose/json_sink.hpp>
#include <unroll/train/run_file.hpp>
#include <unroll/unroll.hpp>
#include <vector>

using namespace unroll;

namespace {

using cell_type = with_resets<cells::gru<float>>;
using input = cell_type::input;
constexpr index_t lanes = 16;

/// Episodes of 4 to 12 steps, one behind the other in every lane: a letter, blanks, and a question, whose
/// answer is the letter. No other step has a loss.
class recall {
 public:
  static constexpr std::int32_t letters = 4, blank = letters, question = letters + 1, tokens = letters + 2;

  recall(index_t steps, key k)
      : data_({.steps = steps, .lanes = lanes, .token = true, .label = true}),
        resets_(std::size_t(steps * lanes)) {
    for (index_t lane = 0; lane < lanes; ++lane)
      for (index_t first = 0, episode = 0, n = 0; first < steps; first += n, ++episode) {
        const auto draw = [&](index_t count, std::uint32_t which) {
          return draw_index(fold(k, std::uint64_t(lane)), episode, count, which);
        };
        n = 4 + draw(9, 0);
        const auto letter = std::int32_t(draw(letters, 1));
        for (index_t t = first; t < std::min(first + n, steps); ++t) {
          const bool asked = t == first + n - 1;
          data_.token(t, lane) = t == first ? letter : asked ? question : blank;
          data_.label(t, lane) = asked ? letter : -1;
          resets_[std::size_t(t * lanes + lane)] = t == first;
        }
      }
    inputs_ = resettable_inputs(data_.inputs(), std::span<const std::uint8_t>(resets_), lanes);
  }
  std::span<const input> inputs(index_t first, index_t n) const {
    return std::span(inputs_).subspan(std::size_t(first), std::size_t(n));
  }
  std::span<const input> inputs() const { return inputs_; }

 private:
  data::sequences<float> data_;
  std::vector<std::uint8_t> resets_;  // lanes of every step
  std::vector<input> inputs_;
};

/// The share of the questions that the network answers rightly.
double right_answers(const cell_type& cell, params<const float> theta, std::span<const input> xs) {
  std::vector<float> y(xs.size() * std::size_t(lanes * recall::letters));
  if (training::predict(cell, theta, xs, view<float>(y)).code != status::ok) return 0;
  index_t asked = 0, right = 0;
  for (std::size_t i = 0; i < xs.size() * std::size_t(lanes); ++i) {
    const std::int32_t label = xs[i / lanes].x.label[i % lanes];
    if (label < 0) continue;
    const auto first = y.begin() + std::ptrdiff_t(i) * recall::letters;
    right += std::max_element(first, first + recall::letters) - first == label;
    ++asked;
  }
  return double(right) / double(asked);
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

int main(int argc, char** argv) try {
  const std::filesystem::path folder = argc > 1 ? argv[1] : "";
  const int most = argc > 2 ? std::atoi(argv[2]) : 1'000'000;

  const cell_type cell(cells::gru<float>({.in = recall::tokens,
                                          .hidden = 24,
                                          .out = recall::letters,
                                          .loss = loss_kind::cross_entropy,
                                          .lanes = lanes}));
  parameters<float> theta(cell.size().params);
  cell.system().init(theta, key{1});

  // an update is of two windows of ten steps; losses go back through thirty
  constexpr index_t window = 10;
  tbptt estimator(training::clipped_cotangent(cell, 10.0), {.k1 = window, .k2 = 3 * window});
  estimator.reset(key{2});
  training::run_options options;
  options.steps = 400, options.warm_up = 20, options.rate = 1e-2;  // then half a cosine, down to a tenth
  options.clip = 1, options.decay = 0, options.accumulate = 2, options.report = 40, options.patience = 3;
  training::run<float> run(options, theta, "recall of letters, gru of 24 units");
  const recall stream(options.steps * options.accumulate * window, key{3}), held_out(400, key{4});

  const auto checkpoint = folder / "run.ckpt";
  if (!folder.empty() && std::filesystem::exists(checkpoint)) {
    training::load_run(checkpoint, run, estimator);
    const index_t held = held_inputs(estimator);
    hold_inputs(estimator, stream.inputs(run.position() * window - held, held));
    std::printf("goes on behind step %td\n", index_t(run.step()));
  }
  std::optional<event_file> events;
  if (!folder.empty()) events.emplace(folder / "events", seconds_since_1970(), run.step());

  int reports = 0;
  const status end = training::train(
      run,
      [&](const auto& at, auto& g) {
        return estimator.advance(at, stream.inputs(run.position() * window, window), g);
      },
      [&](const auto& at) { return training::mean_loss(cell, at, held_out.inputs()); },
      [&](const training::course_row& row) {
        std::printf("step %4td   training %.4f   held out %.4f   right %5.1f %%\n", index_t(row.step),
                    row.training, row.held_out, 100 * right_answers(cell, run.theta(), held_out.inputs()));
        if (!folder.empty()) {
          if (run.best() == &run.course().back()) training::save_run(folder / "best.ckpt", run, estimator);
          training::save_run(checkpoint, run, estimator);  // a run that is cut before it does both again
          events->add(row.step, seconds_since_1970(), training::to_row(row));
        }
        return ++reports < most;
      });
  if (end != status::ok) {
    std::printf("step %td is not finite\n", index_t(run.step()));
    return 1;
  }
  if (run.ended_early())
    std::printf("no lower held-out loss for %td reports; the best is of step %td\n", options.patience,
                index_t(run.best()->step));
  if (!folder.empty()) {
    write_csv(folder / "course.csv", training::to_rows(run.course()));
    write_json_lines(folder / "course.jsonl", training::to_rows(run.course()));
  }
} catch (const error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
