#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <vector>

#include "unroll/core/clock.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/core/report.hpp"
#include "unroll/core/thread.hpp"
#include "unroll/diagnose/along_mean.hpp"
#include "unroll/diagnose/batch_sums.hpp"
#include "unroll/diagnose/draw_block.hpp"
#include "unroll/diagnose/shared_blocks.hpp"
#include "unroll/rng/key.hpp"

namespace unroll {

/// Everything `measure` needs to know about a sample of vectors x_i = draw_i - centre. Memory: 35 P doubles,
/// 3 P without the batch sums.
class gradient_sample {
 public:
  explicit gradient_sample(index_t size, bool keep_batches = true)
      : sums_(size), along_(size), batches_(size, keep_batches) {}

  /// Adds the draws of the block after ours. A group of four that the block has begun is no part of tr V^2.
  void append(const draw_block& next) {
    sums_.merge(next.sums());
    for (index_t i = 0; i < next.count(); ++i) {
      along_.add(next.x(i));
      batches_.add(next.x(i));
    }
  }

  index_t count() const { return sums_.x.count(); }       ///< finite draws
  index_t diverged() const { return sums_.diverged; }     ///< draws that were not finite; in no other number
  index_t draws() const { return count() + diverged(); }  ///< finite or not
  const moments& x() const& { return sums_.x; }           ///< moments of draw - centre
  const moments& x() && = delete;
  double total_variance() const { return x().total_variance(); }               ///< tr V of one draw
  double mean_norm() const { return sums_.norm / double(count()); }            ///< mean ||draw||
  double mean_projection() const { return sums_.projection.mean()[0]; }        ///< mean <x, centre>
  double projection_variance() const { return sums_.projection.variance(0); }  ///< variance of <x, centre>
  /// Largest over summed squared distance of a draw from the mean of its group of four.
  double max_over_sum() const { return sums_.spread > 0 ? sums_.widest / sums_.spread : 0; }
  double seconds() const { return sums_.seconds; }     ///< that the draws took, one thread
  report work() const { return sums_.work; }           ///< steps and products of all draws
  const along_mean& along() const& { return along_; }  ///< what varies along the mean
  const along_mean& along() && = delete;
  const batch_sums& batches() const& { return batches_; }  ///< sums of neighbouring draws
  const batch_sums& batches() && = delete;
  std::size_t bytes() const { return 3 * std::size_t(x().size()) * sizeof(double) + batches_.bytes(); }

  /// tr V^2 for the covariance V of a draw, the larger of two estimates, since too small a value makes
  /// intervals too short: that of the batch sums, and the mean over groups of four independent draws of
  /// ((x_a - x_b)'(x_c - x_d) / 2)^2, averaged over the three ways to pair them, which is unbiased, plus its
  /// standard error. Kept between the bounds (tr V)^2 / P and (tr V)^2; the upper bound where there are fewer
  /// than two groups.
  double trace_of_square() const {
    const double most = total_variance() * total_variance(), n = double(sums_.fours.count());
    if (n < 2) return most;
    const double of_fours = sums_.fours.mean()[0] + std::sqrt(sums_.fours.variance(0) / n);
    return std::clamp(std::max(of_fours, batches_.trace_of_square(x().mean())),
                      most / double(std::max<index_t>(1, x().size())), most);
  }

 private:
  detail::sample_sums sums_;
  along_mean along_;
  batch_sums batches_;
};

/// How to draw a sample.
struct sample_options {
  key seed{1};
  index_t first = 0;                        ///< draw i has the key fold(seed, first + i)
  index_t threads = 0;                      ///< 0: one a core
  bool keep_batches = true;                 ///< keep 32 sums of draws, for tr V^2
  std::atomic<index_t>* done = nullptr;     ///< counts finished draws while the call runs
  const std::atomic<bool>* stop = nullptr;  ///< set it to true to get what is complete
  ranks among = {};                         ///< that draw it together, and all get it
};

/// Calls report draw(key, dparams<T> g) `count` times, on copies of `draw` in several threads. The bits of
/// the result do not depend on the number of threads: draws are cut into blocks of 16 that are appended in
/// order. Nor do they depend on the number of ranks, to which the blocks are dealt in turn: each block goes
/// to all. An exception of a draw ends the call and is passed on, on other ranks as an unroll::error. Where
/// the system starts fewer threads, those do the work. Memory: that of the sample, and a draw_block, a
/// gradient and a copy of `draw` a thread, and one more draw_block where there are several ranks.
template <class T, class Draw>
gradient_sample draw_sample(const Draw& draw, index_t params, view<const double> centre, index_t count,
                            const sample_options& options) {
  constexpr index_t block_size = draw_block::most;
  const ranks& among = options.among;
  const index_t blocks = (count + block_size - 1) / block_size;
  gradient_sample all(params, options.keep_batches);
  std::atomic<index_t> next{among.rank()};
  index_t merged = 0, cut = blocks;  // blocks from `cut` on are not wanted; both guarded by the mutex
  index_t thrown_by = blocks;  // the first block whose draw threw, and what; kept whoever stops before it
  std::exception_ptr thrown;
  detail::mutex mutex;
  std::atomic<unsigned> turn{0};  // moves on with `merged` and `cut`
  detail::shared_blocks others(among, params);

  const auto next_turn = [&] {
    turn.fetch_add(1);
    turn.notify_all();
  };
  const auto my_turn = [&](index_t b) {  // our block before b is merged
    const detail::lock_guard lock(mutex);
    return merged > b - among.size() || cut <= b;
  };
  const auto give_up = [&](index_t b, const std::exception_ptr& why) {
    const detail::lock_guard lock(mutex);
    cut = std::min(cut, b);
    if (why && b < thrown_by) {
      thrown_by = b;
      thrown = why;
    }
    next_turn();
  };
  const auto take_in = [&](index_t end) {  // blocks of other ranks in front of our block `end`
    for (; merged < end && among.owner(merged) != among.rank(); ++merged) {
      const draw_block* block = others.receive(merged);
      if (block == nullptr) {
        cut = std::min(cut, merged);
        return;
      }
      all.append(*block);
      if (options.done) options.done->fetch_add(block->count() + block->sums().diverged);
    }
  };
  const auto stopped = [&] { return options.stop != nullptr && options.stop->load(); };
  const auto work = [&] {
    index_t b = blocks;
    try {
      Draw mine = draw;
      gradient<T> g(params);
      draw_block part(params);
      while ((b = next.fetch_add(among.size())) < blocks) {
        part.clear();
        const index_t end = std::min(count, (b + 1) * block_size);
        for (index_t i = b * block_size; i < end; ++i) {
          if (stopped()) return give_up(b, nullptr);
          g.zero();
          const double before = detail::monotonic_seconds();
          const report r = mine(fold(options.seed, std::uint64_t(options.first + i)), dparams<T>(g));
          const double seconds = detail::monotonic_seconds() - before;
          part.add(dparams<const T>(dparams<T>(g)), centre, r, seconds);
          if (options.done) options.done->fetch_add(1);
        }
        for (unsigned seen = turn.load(); !my_turn(b); seen = turn.load()) turn.wait(seen);
        const detail::lock_guard lock(mutex);
        if (cut > b) take_in(b);
        if (cut <= b) return next_turn();
        others.send(part);
        all.append(part);
        ++merged;
        next_turn();
      }
    } catch (...) {
      give_up(b < blocks ? b : 0, std::current_exception());
    }
  };

  const index_t own = (blocks - among.rank() + among.size() - 1) / among.size();
  index_t threads = options.threads;
  if (threads == 0) threads = detail::processors();
  threads = std::min(threads, own);
  std::vector<detail::thread> helpers;
  helpers.reserve(std::size_t(std::max<index_t>(0, threads)));
  try {
    for (index_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  } catch (const std::exception&) {  // the system starts no more: those that run share the blocks
  }
  work();  // throws nothing
  for (detail::thread& t : helpers) t.join();
  if (!others.ended()) take_in(blocks);
  if (!others.ended() && merged < blocks) others.send_end(thrown);  // they wait for our next block
  if (thrown) std::rethrow_exception(thrown);
  others.rethrow();
  return all;
}

}  // namespace unroll
