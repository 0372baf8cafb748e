#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "unroll/core/linalg.hpp"
#include "unroll/core/report.hpp"
#include "unroll/diagnose/moments.hpp"
#include "unroll/rng/key.hpp"

namespace unroll {

/// Everything `measure` needs to know about a sample of vectors x_i = draw_i - centre. Memory: 6 P doubles.
class gradient_sample {
 public:
  explicit gradient_sample(index_t size) : x_(size), four_(4 * size) {}

  void clear() {
    x_.clear();
    norm_ = projection_ = projection_squares_ = spread_ = widest_ = seconds_ = 0;
    fours_.clear();
    waiting_ = diverged_ = 0;
    work_ = report{};
  }

  /// Adds one draw. `centre` is empty (zero) or what the draw is compared with.
  template <class T>
  void add(dparams<const T> draw, view<const double> centre, const report& r, double seconds) {
    work_ += r;
    seconds_ += seconds;
    if (r.code != status::ok || !linalg::all_finite(draw.data(), draw.size())) {
      ++diverged_;
      return;
    }
    double norm2 = 0, projection = 0;
    const view<double> x = view<double>(four_).part(waiting_ * x_.size(), x_.size());
    for (index_t j = 0; j < draw.size(); ++j) {
      const auto g = double(draw[j]);
      const double c = centre.empty() ? 0 : centre[j];
      x[j] = g - c;
      norm2 += g * g;
      projection += x[j] * c;
    }
    x_.add(x);
    norm_ += std::sqrt(norm2);
    const double before = projection_, n = double(x_.count());
    projection_ += (projection - before) / n;
    projection_squares_ += (projection - before) * (projection - projection_);
    if (++waiting_ == 4) close_four();
  }

  /// As if the draws of `other` had been added after ours, but for a started group of four, which is dropped.
  void merge(const gradient_sample& other) {
    const double n = double(count()), m = double(other.count());
    if (m > 0) {
      const double delta = other.projection_ - projection_;
      projection_ += delta * (m / (n + m));
      projection_squares_ += other.projection_squares_ + delta * delta * (n * m / (n + m));
    }
    x_.merge(other.x_);
    norm_ += other.norm_;
    spread_ += other.spread_;
    widest_ = std::max(widest_, other.widest_);
    fours_.merge(other.fours_);
    diverged_ += other.diverged_;
    seconds_ += other.seconds_;
    work_ += other.work_;
  }

  index_t count() const { return x_.count(); }    ///< finite draws
  index_t diverged() const { return diverged_; }  ///< draws that were not finite; in no other number
  index_t draws() const { return count() + diverged_; }
  const moments& x() const { return x_; }
  double total_variance() const { return x_.total_variance(); }
  double mean_norm() const { return norm_ / double(count()); }  ///< mean ||draw||
  double mean_projection() const { return projection_; }        ///< mean <x, centre>
  double projection_variance() const { return count() < 2 ? 0 : projection_squares_ / double(count() - 1); }
  /// Largest over summed squared distance of a draw from the mean of its group of four.
  double max_over_sum() const { return spread_ > 0 ? widest_ / spread_ : 0; }
  double seconds() const { return seconds_; }
  const report& work() const { return work_; }

  /// tr V^2 for the covariance V of a draw: the mean over groups of four independent draws of
  /// ((x_a - x_b)'(x_c - x_d) / 2)^2, averaged over the three ways to pair them, which is unbiased, plus its
  /// standard error, since too small a value makes intervals too short; kept between the bounds (tr V)^2 / P
  /// and (tr V)^2. The upper bound where there are fewer than two groups.
  double trace_of_square() const {
    const double most = total_variance() * total_variance(), n = double(fours_.count());
    if (n < 2) return most;
    return std::clamp(fours_.mean()[0] + std::sqrt(fours_.variance(0) / n),
                      most / double(std::max<index_t>(1, x_.size())), most);
  }

 private:
  void close_four() {
    const index_t size = x_.size();
    double* x[4];
    for (int a = 0; a < 4; ++a) x[a] = four_.data() + a * size;
    double gram[4][4] = {};
    for (index_t j = 0; j < size; ++j) {
      const double middle = (x[0][j] + x[1][j] + x[2][j] + x[3][j]) / 4;
      for (int a = 0; a < 4; ++a) x[a][j] -= middle;
    }
    for (int a = 0; a < 4; ++a)
      for (int b = 0; b <= a; ++b) gram[a][b] = gram[b][a] = linalg::dot(x[a], x[b], size);
    const auto pairing = [&](int a, int b, int c, int d) {
      const double product = (gram[a][c] - gram[a][d] - gram[b][c] + gram[b][d]) / 2;
      return product * product;
    };
    const double value = (pairing(0, 1, 2, 3) + pairing(0, 2, 1, 3) + pairing(0, 3, 1, 2)) / 3;
    fours_.add(view<const double>(&value, 1));
    for (int a = 0; a < 4; ++a) {
      spread_ += gram[a][a];
      widest_ = std::max(widest_, gram[a][a]);
    }
    waiting_ = 0;
  }

  moments x_;
  moments fours_{1};    // of the estimates of tr V^2
  block<double> four_;  // the draws of the group of four that is being filled
  double norm_ = 0, projection_ = 0, projection_squares_ = 0;
  double spread_ = 0, widest_ = 0, seconds_ = 0;
  index_t waiting_ = 0, diverged_ = 0;
  report work_;
};

/// How to draw a sample.
struct sample_options {
  key seed{1};
  index_t first = 0;                        ///< draw i has the key fold(seed, first + i)
  index_t threads = 0;                      ///< 0: one a core
  std::atomic<index_t>* done = nullptr;     ///< counts finished draws while the call runs
  const std::atomic<bool>* stop = nullptr;  ///< set it to true to get what is complete
};

/// Calls report draw(key, dparams<T> g) `count` times, on copies of `draw` in several threads. The bits of
/// the result do not depend on the number of threads: draws are cut into blocks of 16 whose samples are
/// merged in order. An exception of a draw ends the call and is passed on.
template <class T, class Draw>
gradient_sample draw_sample(const Draw& draw, index_t params, view<const double> centre, index_t count,
                            const sample_options& options) {
  constexpr index_t block_size = 16;
  const index_t blocks = (count + block_size - 1) / block_size;
  gradient_sample all(params);
  std::atomic<index_t> next{0};
  index_t merged = 0, cut = blocks;  // blocks from `cut` on are not wanted; both guarded by the mutex
  std::exception_ptr thrown;
  std::mutex mutex;
  std::condition_variable turn;

  const auto give_up = [&](index_t b, const std::exception_ptr& why) {
    const std::lock_guard lock(mutex);
    if (b < cut) {
      cut = b;
      thrown = why;
    }
    turn.notify_all();
  };
  const auto stopped = [&] { return options.stop != nullptr && options.stop->load(); };
  const auto work = [&] {
    index_t b = blocks;
    try {
      Draw mine = draw;
      gradient<T> g(params);
      gradient_sample part(params);
      while ((b = next.fetch_add(1)) < blocks) {
        part.clear();
        const index_t end = std::min(count, (b + 1) * block_size);
        for (index_t i = b * block_size; i < end; ++i) {
          if (stopped()) return give_up(b, nullptr);
          g.zero();
          const auto before = std::chrono::steady_clock::now();
          const report r = mine(fold(options.seed, std::uint64_t(options.first + i)), dparams<T>(g));
          const std::chrono::duration<double> time = std::chrono::steady_clock::now() - before;
          part.add(dparams<const T>(dparams<T>(g)), centre, r, time.count());
          if (options.done) options.done->fetch_add(1);
        }
        std::unique_lock lock(mutex);
        turn.wait(lock, [&] { return merged == b || cut <= b; });
        if (cut <= b) return;
        all.merge(part);
        ++merged;
        turn.notify_all();
      }
    } catch (...) {
      give_up(b < blocks ? b : 0, std::current_exception());
    }
  };

  index_t threads = options.threads;
  if (threads == 0) threads = std::max<index_t>(1, index_t(std::thread::hardware_concurrency()));
  threads = std::min(threads, blocks);
  {
    std::vector<std::jthread> others;
    for (index_t i = 1; i < threads; ++i) others.emplace_back(work);
    work();
  }
  if (thrown) std::rethrow_exception(thrown);
  return all;
}

}  // namespace unroll
