#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "unroll/estimate/parts/segment_run.hpp"

namespace unroll {

/// The sums A_s = sum_t dJ_t/dm_s of all memories of a run, adjoint s of its bank, at one theta: what
/// rematerialise and proportional_replay collect in advance() and send back in finish().
template <class M>
class adjoint_sums {
 public:
  using T = typename M::scalar;
  using input = typename M::input;
  using adjoint_type = typename memory_bank<M>::adjoint_type;
  using loss_type = typename memory_bank<M>::loss_type;

  adjoint_sums(segment_run<M>& run, const M& model, params<const T> theta)
      : run_(run), bank_(run.bank()), model_(model), theta_(theta) {}

  /// How many of xs are worth a try together: those in front of the first one that is not finite or invalid,
  /// but one at least.
  std::size_t first_group(std::span<const input> xs) const {
    std::size_t n = 0;
    try {
      while (n < xs.size() && finite_input(model_, xs[n])) ++n;
    } catch (const error&) {
    }
    return std::max<std::size_t>(1, n);
  }

  /// Takes all of xs into the run, or nothing: writes the memories in front of them, with graphs or without,
  /// reads xs in batches, and then looks at all losses. False where an input, a memory or a loss is not
  /// finite; the run, g and the sums are then as before. So they are where the model throws: the exception
  /// leaves this function where xs is a single segment, and is answered by false where there are several.
  /// A single segment is read only where its input and the memories written for it are finite.
  bool take(std::span<const input> xs, bool graphs, dparams<T> g, report& r) {
    const bool single = xs.size() == 1;
    if (single && !finite_input(model_, xs.front())) return false;
    const index_t t0 = run_.size(), written = bank_.written();
    const auto finite_memories = [&] { return bank_.finite(written, bank_.written() - written); };
    run_.remember(g);
    run_.push(xs);
    try {
      if (single) {
        write_in_front_of(t0, graphs);
        if (!finite_memories()) {
          end_in_front_of(t0, written);
          return false;
        }
      }
      read_in_batches(t0, graphs, g);
      if ((single || finite_memories()) && run_.losses_finite(t0, index_t(xs.size()))) {
        run_.enter(model_, t0, r);
        return true;
      }
    } catch (...) {
      take_back(t0, written, g);
      if (single) throw;
      return false;
    }
    take_back(t0, written, g);
    return false;
  }

  /// Takes xs one after another: all of them together where that can be done, which is before the first loss
  /// is looked at; where that fails, one by one, up to the one at fault. False: there is one.
  bool take_all(std::span<const input> xs, bool graphs, dparams<T> g, report& r) {
    for (std::size_t n = first_group(xs); !xs.empty(); n = 1) {
      if (take(xs.first(n), graphs, g, r))
        xs = xs.subspan(n);
      else if (n == 1)
        return false;
    }
    return true;
  }

  /// Whether the graph of segment s is alive.
  bool has_graph(index_t s) const { return bank_.graphs().owner(slot(s)) == s; }
  /// The first segment of the batch that was written together with s, whose graph is alive.
  index_t first_of_graph(index_t s) const { return bank_.graphs().first_of_batch(slot(s)); }
  /// The first segment of the batch of s.
  index_t batch_start(index_t s) const { return s - s % bank_.batch(); }
  /// Sends A_s .. A_{s+n-1}, of one batch, back through their graphs, after which these sums are 0: whoever
  /// goes through all segments again after an exception sends none twice. Where the graphs are gone, the
  /// segments are written once more.
  void send_back(index_t s, index_t n, dparams<T> g) {
    const auto xs = run_.segments(s, n);
    if (!has_graph(s)) bank_.rewrite(model_, xs, s, theta_, slot(s));
    const auto dpast = route_adjoints(model_.independent() ? 0 : s);
    bank_.write_vjp(model_, xs, theta_, slot(s), bank_.adjoint(s, n), {.dpast = dpast, .dtheta = g});
    bank_.clear_adjoint(s, n);
  }

  /// The same for those of the segments first .. end - 1 that are taken, each times 1 / p: neighbours of a
  /// batch together, the last ones first.
  void send_back_sample(index_t first, index_t end, view<const char> taken, view<const double> p,
                        dparams<T> g) {
    for (index_t s = first; s < end; ++s)
      if (taken[s] && p[s] < 1) bank_.scale_adjoint(1 / p[s], s);
    for (index_t s = end - 1; s >= first; --s) {
      if (!taken[s]) continue;
      const index_t last = s, least = std::max(first, batch_start(last));
      while (s > least && taken[s - 1]) --s;
      send_back(s, last + 1 - s, g);
    }
  }

  /// WRITES the Euclidean norms of the first out.size() sums. They come to the host through the room of the
  /// losses, which are overwritten. Only a sum of zeros has the norm 0: where the squares underflow, the sum
  /// is multiplied by a power of two first.
  void norms(view<double> out) {
    const index_t n = out.size();
    const view<const loss_type> measured = measure(n);
    std::copy(measured.begin(), measured.end(), out.begin());
    if (std::find(out.begin(), out.end(), 0.) == out.end()) return;
    const double multiple = std::ldexp(1., std::numeric_limits<adjoint_type>::max_exponent / 4 * 3);
    for (index_t s = 0; s < n; ++s)
      if (out[s] == 0) bank_.scale_adjoint(multiple, s);
    measure(n);
    for (index_t s = 0; s < n; ++s) {
      if (out[s] != 0) continue;
      out[s] = double(measured[s]) / multiple;
      bank_.scale_adjoint(1 / multiple, s);
    }
  }

 private:
  // Of the graph of segment s.
  index_t slot(index_t s) const { return s % bank_.graphs().size(); }
  view<const loss_type> measure(index_t n) {
    for (index_t s = 0; s < n; ++s) bank_.norm_of_adjoint(s, run_.losses(s));
    return run_.look_at_losses(0, n);
  }
  // Reads the segments from t on that the run has, with the memories in front of them.
  void read_in_batches(index_t t, bool graphs, dparams<T> g) {
    for (index_t n = 0; t < run_.size(); t += n) {
      // the memories in front of segments t .. t + n - 1 belong to one batch of writes
      n = t == 0 ? 1 : std::min(run_.size() - t, batch_start(t - 1) + bank_.batch() - (t - 1));
      write_in_front_of(t + n - 1, graphs);
      read(t, n, g);
    }
  }
  // Writes the memories of the segments in front of t that are not written yet, which are of one batch.
  void write_in_front_of(index_t t, bool graphs) {
    if (const index_t s = bank_.written(); s < t)
      bank_.write(model_, run_.segments(s, t - s), theta_, graphs ? slot(s) : memory_bank<M>::none);
  }
  void read(index_t t, index_t n, dparams<T> g) {
    run_.read(model_, theta_, t, run_.segments(t, n), route_adjoints(t + n - 1), g);
  }
  // Keeps t segments and `written` memories.
  void end_in_front_of(index_t t, index_t written) {
    run_.drop_last(run_.size() - t);
    bank_.keep_first(written);
  }
  // The same after reads: g is again as it was remembered, and the segments in front of t are read once more
  // to have their sums again, with the same bits because they are added in the same order.
  void take_back(index_t t, index_t written, dparams<T> g) {
    run_.restore(g);
    end_in_front_of(t, written);
    bank_.clear_adjoints();
    for (index_t u = 1, n = 0; u < t; u += n) {
      n = std::min(t - u, bank_.batch());
      read(u, n, {});
    }
  }
  // The addresses of A_0 .. A_{t-1}, for a call of the model.
  std::span<adjoint_type*> route_adjoints(index_t t) {
    const std::span<adjoint_type*> dpast = bank_.null_dpast(t);
    for (index_t s = 0; s < t; ++s) dpast[std::size_t(s)] = bank_.adjoint(s).data();
    return dpast;
  }

  segment_run<M>& run_;
  memory_bank<M>& bank_;
  const M& model_;
  params<const T> theta_;
};

}  // namespace unroll
