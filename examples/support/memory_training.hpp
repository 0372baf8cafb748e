#pragma once

// A training run with AdamW: rate schedule, clipping, reports, checkpoints that resume bit for bit.

#include "memory_common.hpp"

namespace program {

struct training_options {
  index_t steps = 1000, warm_up = -1, report = 50;
  double rate = 1e-3, last_rate = 0.1, clip = 1, decay = 0.1, beta1 = 0.9, beta2 = 0.95;
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
  std::string identity() const {
    return text_of(
        "%td steps, warm-up %td, report %td, rate %.9g to %.9g, clip %.9g, decay %.9g, betas %.9g %.9g",
        steps, warm_up, report, rate, last_rate, clip, decay, beta1, beta2);
  }
};

/// What the steps since the last report have seen; part of a checkpoint, since one may fall in between.
struct running_sums {
  double loss = 0, tokens = 0, norm = 0, steps = 0;
};

struct timing {
  double seconds = 0, tokens = 0;

  timing& operator+=(const timing& more) {
    seconds += more.seconds, tokens += more.tokens;
    return *this;
  }
  double tokens_per_second() const { return tokens / std::max(1e-9, seconds); }
};

template <class T>
class training_run {
 public:
  /// `identity`: everything that decides about the bits of the run.
  training_run(const training_options& o, parameters<T> theta, std::string identity)
      : o_(o),
        identity_(identity + "; " + o.identity()),
        theta_(std::move(theta)),
        g_(theta_.size()),
        optimiser_(theta_.size(), {.rate = o.rate, .beta1 = o.beta1, .beta2 = o.beta2, .decay = o.decay}),
        schedule_{
            .warm_up = o.warm_up >= 0 ? o.warm_up : o.steps / 100, .total = o.steps, .last = o.last_rate} {
    if (!o.resume) return;
    const auto saved = unroll::load_checkpoint(o.checkpoint);
    if (saved.text("identity") != identity_)
      fail("memory_llama", "checkpoint",
           "\"" + o.checkpoint + "\" belongs to another run: \"" + saved.text("identity") +
               "\", asked for \"" + identity_ + "\"");
    saved.get("theta", theta_);
    saved.load("adam", optimiser_);
    try {
      const json course = json::parse(saved.text("course"));
      const auto& s = course.at("sums");
      sums_ = {s.at("loss"), s.at("tokens"), s.at("norm"), s.at("steps")};
      step_ = course.at("step").get<std::int64_t>();
      history_ = course.at("history");
      for (json& row : history_) row["tokens_per_second"] = row["seconds"] = nullptr;  // not saved
    } catch (const json::exception& e) {
      fail("memory_llama", "checkpoint", "\"" + o.checkpoint + "\" holds no course of a run: " + e.what());
    }
  }

  parameters<T>& theta() { return theta_; }
  std::int64_t step() const { return step_; }
  bool done() const { return step_ >= o_.steps; }
  const json& history() const { return history_; }
  unroll::gradient<T>& zeroed_gradient() {
    g_.zero();
    return g_;
  }

  /// Takes the step that gradient() of the sum `loss` over `tokens` tokens asks for.
  void update(double loss, double tokens, double seconds) {
    if (tokens > 0) unroll::linalg::scale(T(1 / tokens), g_.data(), g_.size());
    const double norm =
        unroll::clip_norm(g_, o_.clip > 0 ? o_.clip : std::numeric_limits<double>::infinity());
    if (!std::isfinite(loss) || !std::isfinite(norm)) not_finite();
    if (optimiser_.step(theta_, g_, schedule_(step_)) != unroll::status::ok) not_finite();
    ++step_;
    sums_.loss += loss;
    sums_.tokens += tokens;
    sums_.norm += norm;
    timed_ += {seconds, tokens};
    sums_.steps += 1;
  }

  /// Ends the run at a step whose loss or gradient is not finite; a checkpoint holds the state before it.
  [[noreturn]] void not_finite() {
    const bool saved = !o_.checkpoint.empty() && unroll::linalg::all_finite(theta_.data(), theta_.size());
    if (saved) save();
    fail("memory_llama", "step",
         std::to_string(step_) + " is not finite; try a smaller --rate" +
             (saved ? "; \"" + o_.checkpoint + "\" holds the state before it" : ""));
  }

  /// Whether it is time to report.
  bool due() const { return sums_.steps > 0 && (step_ % o_.report == 0 || done()); }
  std::string progress_line() const {
    return text_of("step %td / %td   %.4f nats   %.0f tokens/s", index_t(step_), o_.steps,
                   sums_.loss / std::max(1.0, sums_.tokens), timed_.tokens_per_second());
  }

  static void print_head() {
    std::printf("%9s %10s %10s %12s %9s %9s %10s\n", "step", "training", "held-out", "bits a byte", "rate",
                "norm", "tokens/s");
  }
  /// A line of the course, in nats a token; the sums begin anew.
  void report(double held_out, double bytes_per_token, double more_seconds) {
    if (!std::isfinite(held_out))
      fail("memory_llama", "held-out",
           "loss after step " + std::to_string(step_) + " is not finite; try a smaller --rate");
    const double steps = std::max(1.0, sums_.steps), training = sums_.loss / std::max(1.0, sums_.tokens);
    const double bits = held_out / bytes_per_token / std::log(2.0), rate = o_.rate * schedule_(step_ - 1);
    const double speed = timed_.tokens_per_second();
    std::printf("%9td %10.4f %10.4f %12.4f %9.2e %9.3g %10.0f\n", index_t(step_), training, held_out, bits,
                rate, sums_.norm / steps, speed);
    flush_output();
    seconds_ += timed_.seconds + more_seconds;
    history_.push_back({{"step", step_},
                        {"training", training},
                        {"held_out", held_out},
                        {"held_out_bits_per_byte", bits},
                        {"rate", rate},
                        {"norm", sums_.norm / steps},
                        {"tokens_per_second", speed},
                        {"seconds", seconds_}});
    sums_ = {};
    timed_ = {};
  }

  /// Without times: the checkpoints of equal runs are equal files.
  void save() {
    if (o_.checkpoint.empty()) return;
    unroll::checkpoint c;
    json history = history_;
    for (json& row : history) row.erase("tokens_per_second"), row.erase("seconds");
    c.set_text("identity", identity_);
    c.set_text(
        "course",
        json{{"step", step_},
             {"history", history},
             {"sums",
              {{"loss", sums_.loss}, {"tokens", sums_.tokens}, {"norm", sums_.norm}, {"steps", sums_.steps}}}}
            .dump());
    c.set("theta", theta_);
    c.save("adam", optimiser_);
    unroll::save_checkpoint(o_.checkpoint, c);
  }

 private:
  training_options o_;
  std::string identity_;
  parameters<T> theta_;
  unroll::gradient<T> g_;
  unroll::adam<T> optimiser_;
  unroll::cosine_schedule schedule_;
  std::int64_t step_ = 0;
  running_sums sums_;
  timing timed_;        // since the last report
  double seconds_ = 0;  // of this program
  json history_ = json::array();
};

/// The course of a run: training and held-out loss against the step.
inline void draw_course(const json& history, const std::string& title, const std::string& file) {
  std::string rows;
  for (const auto& h : history)
    rows += text_of("%g %g %g\n", h.at("step").get<double>(), h.at("training").get<double>(),
                    h.at("held_out").get<double>());
  draw_figure(file, 800, 480,
              "set title " + quoted(title) +
                  "\nset xlabel 'step'\nset ylabel 'nats a token'\nset grid ytics\n$course << END\n" + rows +
                  "END\nplot $course using 1:2 with lines lc rgb '#9db8d0' title 'training', "
                  "$course using 1:3 with linespoints pt 7 ps 0.4 lc rgb '#1b6ca8' title 'held out'\n");
}

}  // namespace program
