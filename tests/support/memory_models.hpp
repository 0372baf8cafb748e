#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "tests/support/memory_task.hpp"
#include "unroll/sample/proportional.hpp"
#include "unroll/sample/reservoir.hpp"

// Memory models for proofs: one that shows weights, one that counts, one without checks of its inputs.
namespace memory_task {

/// m_s[t] = theta(t, s) and J_t = sum_s m_s[t] for T segments: entry (t, s) of a gradient estimate is the
/// weight that it gives to dJ_t/dm_s dm_s/dtheta. An input is nothing.
class weights {
 public:
  using scalar = double;
  using input = char;
  explicit weights(index_t segments) : n_(segments) {}

  index_t entry(index_t t, index_t s) const { return t * n_ + s; }
  unroll::memory_dims size() const { return {n_ * n_, n_, 1}; }
  bool independent() const { return true; }
  index_t workspace(index_t, index_t) const { return 0; }

  void write(std::span<const char> xs, index_t s, unroll::params<const double> theta,
             std::span<const double* const>, unroll::view<double> m, unroll::view<double>,
             unroll::view<double>) const {
    for (index_t i = 0; i < index_t(xs.size()); ++i)
      for (index_t t = 0; t < n_; ++t) m[i * n_ + t] = theta[entry(t, s + i)];
  }
  void write_vjp(std::span<const char> xs, index_t s, unroll::params<const double>,
                 std::span<const double* const>, unroll::write_graphs<unroll::numbers<double>> graphs,
                 unroll::memory_gradients<unroll::numbers<double>> to, unroll::view<double>) const {
    for (index_t i = 0; i < index_t(xs.size()); ++i)
      for (index_t t = 0; t < n_; ++t) to.dtheta[entry(t, s + i)] += graphs.dm[i * n_ + t];
  }
  void read(std::span<const char> xs, index_t t, unroll::params<const double>,
            std::span<const double* const> past, double* losses, unroll::view<double>) const {
    for (index_t i = 0; i < index_t(xs.size()); ++i) {
      losses[i] = 0;
      for (index_t s = 0; s < t + i; ++s) losses[i] += past[std::size_t(s)][t + i];
    }
  }
  void read_vjp(std::span<const char> xs, index_t t, unroll::params<const double> theta,
                std::span<const double* const> past, double* losses,
                unroll::memory_gradients<unroll::numbers<double>> to, unroll::view<double> workspace) const {
    for (index_t i = 0; i < index_t(xs.size()); ++i)
      for (double* dm : to.dpast.first(std::size_t(t + i)))
        if (dm) dm[t + i] += 1;
    read(xs, t, theta, past, losses, workspace);
  }

 private:
  index_t n_;
};

/// What a memory model was asked for. A graph is alive from the write into its tape until its vjp or until
/// another write into the same tape.
struct tally {
  index_t graphs = 0, bare_writes = 0, write_vjps = 0, reads = 0, read_vjps = 0, peak = 0;  // in segments
  index_t calls = 0, largest = 0;                                                           // batches
  std::set<const double*> live;
  std::map<index_t, index_t> writes_of;  ///< segment: how often it was written
};

template <class M>
class counted_memory {
 public:
  using scalar = double;
  using input = typename M::input;
  template <class U>
  using view = unroll::view<U>;
  using theta_type = unroll::params<const double>;
  using past_type = std::span<const double* const>;
  using segments = std::span<const input>;

  counted_memory(M model, tally& calls) : f_(std::move(model)), calls_(&calls) {}

  unroll::memory_dims size() const { return f_.size(); }
  bool independent() const { return f_.independent(); }
  bool reads_params() const { return unroll::reads_params(f_); }
  index_t scored(const input& x) const { return index_t(unroll::scored_losses(f_, x)); }
  index_t workspace(index_t earlier, index_t batch) const { return f_.workspace(earlier, batch); }
  void write(segments xs, index_t s, theta_type theta, past_type past, view<double> m, view<double> tape,
             view<double> workspace) const {
    called(xs);
    for (index_t i = 0; i < index_t(xs.size()); ++i) {
      ++calls_->writes_of[s + i];
      if (tape.empty()) {
        ++calls_->bare_writes;
      } else {
        ++calls_->graphs;
        calls_->live.insert(tape.data() + i * size().tape);
        calls_->peak = std::max(calls_->peak, index_t(calls_->live.size()));
      }
    }
    f_.write(xs, s, theta, past, m, tape, workspace);
  }
  void write_vjp(segments xs, index_t s, theta_type theta, past_type past,
                 unroll::write_graphs<unroll::numbers<double>> graphs,
                 unroll::memory_gradients<unroll::numbers<double>> to, view<double> workspace) const {
    calls_->write_vjps += called(xs);
    for (index_t i = 0; i < index_t(xs.size()); ++i) calls_->live.erase(graphs.tape.data() + i * size().tape);
    f_.write_vjp(xs, s, theta, past, graphs, to, workspace);
  }
  void read(segments xs, index_t t, theta_type theta, past_type past, double* losses,
            view<double> workspace) const {
    calls_->reads += called(xs);
    f_.read(xs, t, theta, past, losses, workspace);
  }
  void read_vjp(segments xs, index_t t, theta_type theta, past_type past, double* losses,
                unroll::memory_gradients<unroll::numbers<double>> to, view<double> workspace) const {
    calls_->reads += called(xs);
    calls_->read_vjps += index_t(xs.size());
    f_.read_vjp(xs, t, theta, past, losses, to, workspace);
  }

 private:
  index_t called(segments xs) const {
    ++calls_->calls;
    calls_->largest = std::max(calls_->largest, index_t(xs.size()));
    return index_t(xs.size());
  }
  M f_;
  tally* calls_;
};

/// The same model with a finite() that refuses nothing, so that a bad segment is found out by its loss.
template <class M>
struct unchecked : M {
  explicit unchecked(M model) : M(std::move(model)) {}
  bool finite(const typename M::input&) const { return true; }
};

/// The same, but refuses to read memories that are not finite.
template <class M>
struct only_finite_memories : unchecked<M> {
  using unchecked<M>::unchecked;
  using segments = std::span<const typename M::input>;
  using past_type = std::span<const double* const>;

  void read(segments xs, index_t t, unroll::params<const double> theta, past_type past, double* losses,
            unroll::view<double> workspace) const {
    check(past);
    M::read(xs, t, theta, past, losses, workspace);
  }
  void read_vjp(segments xs, index_t t, unroll::params<const double> theta, past_type past, double* losses,
                unroll::memory_gradients<unroll::numbers<double>> to, unroll::view<double> workspace) const {
    check(past);
    M::read_vjp(xs, t, theta, past, losses, to, workspace);
  }

 private:
  void check(past_type past) const {
    for (const double* m : past)
      if (!std::all_of(m, m + this->size().memory, [](double x) { return std::isfinite(x); }))
        unroll::fail("only_finite_memories", "past", "is not finite");
  }
};
template <class M>
only_finite_memories(M) -> only_finite_memories<M>;

/// By two loops, for an independent model k.model with k.theta over the segments k.xs: the direct part of the
/// gradient, and every z(t, s) = dJ_t/dm_s dm_s/dtheta.
struct parts {
  std::vector<double> direct;
  std::vector<std::vector<std::vector<double>>> z;
};
template <class K>
parts every_part(const K& k) {
  const auto T = k.xs.size();
  const auto d = k.model.size();
  const auto P = std::size_t(d.params), n = std::size_t(d.memory);
  std::vector<double> workspace(std::size_t(k.model.workspace(index_t(T), 1)));
  std::vector<std::vector<double>> m(T, std::vector<double>(n)),
      tape(T, std::vector<double>(std::size_t(d.tape)));
  std::vector<const double*> past;
  parts r{std::vector<double>(P), {}};
  for (std::size_t t = 0; t < T; ++t) {
    std::vector<std::vector<double>> dm(t, std::vector<double>(n)), z(t, std::vector<double>(P));
    std::vector<double*> dpast;
    for (auto& v : dm) dpast.push_back(v.data());
    std::vector<double> direct(P);
    double loss = 0;
    const auto one = [&](std::size_t s) { return std::span(k.xs).subspan(s, 1); };
    k.model.read_vjp(one(t), index_t(t), k.theta, past, &loss, {.dpast = dpast, .dtheta = direct}, workspace);
    for (std::size_t i = 0; i < P; ++i) r.direct[i] += direct[i];
    for (std::size_t s = 0; s < t; ++s)
      k.model.write_vjp(one(s), index_t(s), k.theta, {}, {.tape = tape[s], .dm = dm[s]}, {.dtheta = z[s]},
                        workspace);
    r.z.push_back(std::move(z));
    k.model.write(one(t), index_t(t), k.theta, {}, m[t], tape[t], workspace);
    past.push_back(m[t].data());
  }
  return r;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// tr Var of the reservoir: the sum over t, t' of the covariances of the weights times <z_ts, z_t'u>.
inline double variance_by_formula(const parts& all, const unroll::reservoir& r) {
  double trace = 0;
  for (std::size_t t = 0; t < all.z.size(); ++t)
    for (std::size_t v = 0; v < all.z.size(); ++v) {
      const auto n = std::min(t, v);  // earlier segments at the earlier of the two reads
      for (std::size_t s = 0; s < n; ++s)
        for (std::size_t u = 0; u < n; ++u)
          trace += r.covariance(index_t(n), s == u) * dot(all.z[t][s], all.z[v][u]);
    }
  return trace;
}

/// P(s and u are both in a systematic sample): what their intervals share on a circle of length 1, item by
/// item. Those that are certain have no interval.
inline double inclusion_of_two(const std::vector<double>& p, std::size_t s, std::size_t u) {
  if (p[s] == 1) return p[u];
  if (p[u] == 1) return p[s];
  const auto start = [&](std::size_t item) {
    double sum = 0;
    for (std::size_t i = 0; i < item; ++i)
      if (p[i] < 1) sum += p[i];
    return sum;
  };
  const double n = double(p.size()), a = start(s), b = start(u);
  double shared = 0;
  for (double turn = -n; turn <= n; ++turn)
    shared += std::max(0., std::min(a + p[s], b + turn + p[u]) - std::max(a, b + turn));
  return shared;
}

/// The same for any design; over random orders by visiting all of them.
inline double inclusion_of_two(unroll::sampling_design design, const std::vector<double>& p, std::size_t s,
                               std::size_t u) {
  if (s == u) return p[s];
  if (design == unroll::sampling_design::independent) return p[s] * p[u];
  if (design == unroll::sampling_design::systematic) return inclusion_of_two(p, s, u);
  std::vector<std::size_t> order(p.size());
  for (std::size_t i = 0; i < p.size(); ++i) order[i] = i;
  double sum = 0, orders = 0;
  do {
    std::vector<double> turned(p.size());
    for (std::size_t i = 0; i < p.size(); ++i) turned[order[i]] = p[i];
    sum += inclusion_of_two(turned, order[s], order[u]);
    ++orders;
  } while (std::next_permutation(order.begin(), order.end()));
  return sum / orders;
}

/// tr Var of the sum over a sample: the covariances of the weights 1/p_s and 1/p_u times <G_s,
/// G_u>, G_s = sum_t z_ts. All p are positive.
inline double variance_by_formula(const parts& all, const std::vector<double>& p,
                                  unroll::sampling_design design = unroll::sampling_design::systematic) {
  std::vector<std::vector<double>> sums(p.size(), std::vector<double>(all.direct.size()));
  for (const auto& row : all.z)
    for (std::size_t s = 0; s < row.size(); ++s)
      for (std::size_t i = 0; i < row[s].size(); ++i) sums[s][i] += row[s][i];
  double trace = 0;
  for (std::size_t s = 0; s < p.size(); ++s)
    for (std::size_t u = 0; u < p.size(); ++u)
      trace += (inclusion_of_two(design, p, s, u) / (p[s] * p[u]) - 1) * dot(sums[s], sums[u]);
  return trace;
}

}  // namespace memory_task
