#pragma once

// A training run of the program: its options, its lines, its checkpoints, its figure.

#include <unroll/exec/mirror.hpp>
#include <unroll/train/run_file.hpp>

#include "model_options.hpp"
#include "text_options.hpp"

namespace program {

struct training_options : unroll::training::run_options {
  std::string checkpoint;
  bool resume = false;

  void add(CLI::App* app) {
    app->add_option("--steps", steps, "updates")->check(CLI::Range(1, 1'000'000'000))->capture_default_str();
    app->add_option("--rate", rate, "of AdamW, at its highest")->check(positive)->capture_default_str();
    app->add_option("--last-rate", last_rate, "where the cosine ends, as a share of the highest")
        ->check(CLI::Range(0.0, 1.0))
        ->check(not_negative)
        ->capture_default_str();
    app->add_option("--warm-up", warm_up, "steps in which the rate rises; by default a hundredth of all")
        ->check(CLI::Range(0, 1'000'000'000));
    app->add_option("--clip", clip, "norm of the gradient of a step, 0: off")
        ->check(not_negative)
        ->capture_default_str();
    app->add_option("--clip-value", clip_value,
                    "bound of every number of the gradient of a step, in front of --clip; 0: off")
        ->check(not_negative)
        ->capture_default_str();
    app->add_option("--patience", patience,
                    "reports without a lower held-out loss after which the run ends early; 0: never")
        ->check(CLI::Range(0, 1'000'000'000))
        ->capture_default_str();
    app->add_option("--decay", decay, "decoupled weight decay")->check(not_negative)->capture_default_str();
    app->add_option("--beta1", beta1, "of AdamW")->check(CLI::Range(0.0, 0.9999))->capture_default_str();
    app->add_option("--beta2", beta2, "of AdamW")->check(CLI::Range(0.0, 0.99999))->capture_default_str();
    app->add_option("--report", report, "steps between two reports, each with a checkpoint")
        ->check(CLI::Range(1, 1'000'000'000))
        ->capture_default_str();
    CLI::Option* file = app->add_option("--checkpoint", checkpoint,
                                        "file to save the run to at every report and when the run ends early")
                            ->check(writable);
    app->add_flag("--resume", resume, "continue from the checkpoint, with the same bits")->needs(file);
  }
};

/// The run of a command, with its lines on the terminal and its checkpoint. X: as training::run has it, or
/// device_place.
template <class X>
class training_run {
  using executor = unroll::exec::of<X>;
  using T = typename executor::numbers::parameter;

 public:
  training_run(const training_options& o, parameters<T> theta, std::string identity, executor e)
      : options_(o), run_(o, std::move(theta), std::move(identity), std::move(e)) {
    if (o.resume) unroll::training::load_run(o.checkpoint, run_);
  }
  unroll::training::run<X>* operator->() { return &run_; }
  /// Theta for the host to read: as it is there, or brought there.
  auto theta_on_host() { return unroll::exec::on_host(run_.executor(), params<const T>(run_.theta())); }

  void update(double loss, double tokens, double seconds) {
    if (run_.update(loss, tokens, seconds) != unroll::status::ok) not_finite();
  }
  /// Ends the program at a step whose loss or gradient is not finite; a checkpoint holds the state before it.
  [[noreturn]] void not_finite() {
    const auto theta = theta_on_host();
    const bool saved = !options_.checkpoint.empty() && unroll::linalg::all_finite(theta.data(), theta.size());
    if (saved) save();
    world.wait_for_all();  // no rank ends while the first one writes
    fail("memory_llama", "step",
         std::to_string(run_.step()) + " is not finite; try a smaller --rate" +
             (saved ? "; \"" + options_.checkpoint + "\" holds the state before it" : ""));
  }

  static void print_head() {
    std::printf("%9s %10s %10s %12s %9s %9s %10s\n", "step", "training", "held-out", "bits a byte", "rate",
                "norm", "tokens/s");
  }
  /// A line of the course.
  void report(double held_out, double bytes_per_token, double seconds) {
    if (!std::isfinite(held_out))
      fail("memory_llama", "held-out",
           "loss after step " + std::to_string(run_.step()) + " is not finite; try a smaller --rate");
    const auto& r = run_.report(held_out, bytes_per_token, seconds);
    std::printf("%9td %10.4f %10.4f %12.4f %9.2e %9.3g %10.0f\n", index_t(r.step), r.training, r.held_out,
                r.held_out_bits_per_byte, r.rate, r.norm, r.tokens_per_second);
    if (run_.ended_early())
      std::printf("no lower held-out loss for %td reports; the best is that of step %td\n", options_.patience,
                  index_t(run_.best()->step));
    flush_output();
  }
  std::string progress_line() const {
    return text_of("step %td / %td   %.4f nats   %.0f tokens/s", index_t(run_.step()), options_.steps,
                   run_.training_loss(), run_.tokens_per_second());
  }
  void save() {
    if (!options_.checkpoint.empty() && world.first()) unroll::training::save_run(options_.checkpoint, run_);
  }
  /// Throws unroll::error unless all ranks have the same run, at the same step and parameters, bit for bit.
  void check_ranks() {
    if (world.size() == 1) return;
    const std::string& identity = run_.identity();
    world.check_same("memory_llama", "the run", fingerprint(identity.data(), identity.size()));
    world.check_same("memory_llama", "the step", std::uint64_t(run_.step()));
    const auto theta = theta_on_host();
    world.check_same("memory_llama", "theta after step " + std::to_string(run_.step()),
                     fingerprint(theta.data(), std::size_t(theta.size())));
  }

 private:
  training_options options_;
  unroll::training::run<X> run_;
};

/// The course of a run: training and held-out loss against the step.
inline void draw_course(const std::vector<unroll::training::course_row>& course, const std::string& title,
                        const std::string& file) {
  if (file.empty() || course.empty()) return;
  std::string rows;
  for (const auto& r : course) rows += text_of("%g %g %g\n", double(r.step), r.training, r.held_out);
  draw_figure(file, 800, 480,
              "set title " + quoted(title) +
                  "\nset xlabel 'step'\nset ylabel 'nats a token'\nset grid ytics\n$course << END\n" + rows +
                  "END\nplot $course using 1:2 with lines lc rgb '#9db8d0' title 'training', "
                  "$course using 1:3 with linespoints pt 7 ps 0.4 lc rgb '#1b6ca8' title 'held out'\n");
}

}  // namespace program
