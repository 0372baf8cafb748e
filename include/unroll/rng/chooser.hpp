#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "unroll/core/visit.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll {

/// The only door through which randomness enters an estimator. Draws are named by (step, index), never by
/// the order of the calls: asking twice gives the same answer.
///   reset(k)            a new stream
///   mirror(on)          the antithetic twin of the stream: normals negated, signs negated at odd steps
///                       (negating every sign would leave a rank-one estimate unchanged), uniforms u -> 1 - u
///   signs(t, out)       out[i] = -1 or +1 with probability 1/2 each
///   coin(t, p)          true with probability p
///   uniform(t, n)       one of 0 .. n-1
///   normals(t, out)     standard normal
/// and, so that an estimator can be saved, visit(v) (core/visit.hpp).
template <class C>
concept chooser = std::copyable<C> && requires(C c, key k, std::int64_t t, view<double> out) {
  c.reset(k);
  c.mirror(true);
  c.signs(t, out);
  { c.coin(t, 0.5) } -> std::same_as<bool>;
  { c.uniform(t, index_t{2}) } -> std::same_as<index_t>;
  c.normals(t, out);
};

/// What a chooser shows (core/visit.hpp): draws are pure functions of the key.
template <class V>
void visit_stream(V&& v, key& k, bool& mirrored) {
  auto seed = static_cast<std::int64_t>(k.seed);
  v("key", view<std::int64_t>(&seed, 1));
  k.seed = static_cast<std::uint64_t>(seed);
  visit_flag(v, "mirrored", mirrored);
}

/// The running face: counter-based random numbers.
class philox_chooser {
 public:
  philox_chooser() = default;
  explicit philox_chooser(key k) : key_(k) {}

  void reset(key k) { key_ = k; }
  void mirror(bool on) { mirrored_ = on; }
  template <class V>
  void visit(V&& v) {
    visit_stream(v, key_, mirrored_);
  }

  template <class T, class Space>
  void signs(std::int64_t t, view<T, Space> out) const {
    draw_signs(key_, t, out);
    if (mirrored_ && t % 2 != 0)
      for (T& x : out) x = -x;
  }
  bool coin(std::int64_t t, double p) const {
    const double u = draw_uniform(key_, t);
    return mirrored_ ? u >= 1.0 - p : u < p;
  }
  index_t uniform(std::int64_t t, index_t n) const {
    const index_t i = draw_index(key_, t, n);
    return mirrored_ ? n - 1 - i : i;
  }
  template <class T, class Space>
  void normals(std::int64_t t, view<T, Space> out) const {
    draw_normals(key_, t, out);
    if (mirrored_)
      for (T& x : out) x = -x;
  }

 private:
  key key_;
  bool mirrored_ = false;
};

/// Visits every outcome of a random computation with its probability:
///
///     enumerator all;
///     do { run(enumerating_chooser(all)); mean += all.probability() * result; } while (all.next());
///
/// The tree of outcomes may depend on earlier outcomes. Normals become the nodes of a Gauss-Hermite rule,
/// exact for integrands that are polynomials of degree below 2 * nodes in each normal.
class enumerator {
 public:
  /// nodes: points of the quadrature that stands for a normal, 3, 5, 7 or 9.
  explicit enumerator(int nodes = 9) : nodes_(nodes) {
    if (nodes != 3 && nodes != 5 && nodes != 7 && nodes != 9)
      fail("enumerator", "nodes", "is " + std::to_string(nodes) + ", must be 3, 5, 7 or 9");
  }

  /// Moves to the next outcome; false when all have been visited (and then starts over).
  bool next() {
    names_.clear();
    uniforms_.clear();
    asked_ = 0;
    while (!path_.empty()) {
      auto& last = path_.back();
      if (++last.taken < index_t(last.probability.size())) return true;
      path_.pop_back();
    }
    return false;
  }

  /// Probability (for normals: quadrature weight) of the current outcome.
  double probability() const {
    double p = 1;
    for (const auto& c : path_) p *= c.probability[std::size_t(c.taken)];
    return p;
  }

  /// The branch taken at the choice of this name; `probability` lists the branches when it is new.
  template <class Probabilities>
  index_t choose(const std::tuple<std::uint64_t, draw_kind, std::int64_t, index_t>& name,
                 const Probabilities& probability) {
    const auto [at, fresh] = names_.try_emplace(name, asked_);
    if (fresh) {
      if (asked_ == path_.size())
        path_.push_back({std::vector<double>(probability.begin(), probability.end()), 0});
      ++asked_;
    }
    return path_[at->second].taken;
  }

  /// Whether the uniform number of this name lies below x. Every question that earlier answers leave open
  /// branches and narrows the interval in which the number lies, so that questions with several x, of a coin
  /// and of its antithetic twin, go together.
  bool below(std::uint64_t seed, std::int64_t t, double x) {
    interval& u = uniforms_.try_emplace({seed, t}).first->second;
    if (x <= u.low || x >= u.high) return x >= u.high;
    const double p = (x - u.low) / (u.high - u.low);
    const bool answer =
        choose({seed, draw_kind::uniform, t, u.questions++}, std::array<double, 2>{p, 1 - p}) == 0;
    (answer ? u.high : u.low) = x;
    return answer;
  }

  int nodes() const { return nodes_; }

 private:
  struct interval {
    double low = 0, high = 1;
    index_t questions = 0;
  };
  struct choice {
    std::vector<double> probability;
    index_t taken;
  };
  std::vector<choice> path_;
  std::map<std::tuple<std::uint64_t, draw_kind, std::int64_t, index_t>, std::size_t> names_;
  std::map<std::pair<std::uint64_t, std::int64_t>, interval> uniforms_;
  std::size_t asked_ = 0;
  int nodes_;
};

/// Probabilists' Gauss-Hermite rule: E f(z) = sum weight_i f(node_i) for z ~ N(0, 1).
struct hermite_rule {
  std::vector<double> node, weight;
};
hermite_rule make_hermite_rule(int nodes);

/// The enumerating face, for tests: every draw branches.
class enumerating_chooser {
 public:
  explicit enumerating_chooser(enumerator& all) : all_(&all), rule_(make_hermite_rule(all.nodes())) {}

  void reset(key k) { key_ = k; }
  void mirror(bool on) { mirrored_ = on; }
  template <class V>
  void visit(V&& v) {
    visit_stream(v, key_, mirrored_);
  }

  template <class T, class Space>
  void signs(std::int64_t t, view<T, Space> out) const {
    const std::array<double, 2> half{0.5, 0.5};
    for (index_t i = 0; i < out.size(); ++i)
      out[i] = all_->choose({key_.seed, draw_kind::sign, t, i}, half) == 0 ? T(1) : T(-1);
    if (mirrored_ && t % 2 != 0)
      for (T& x : out) x = -x;
  }
  bool coin(std::int64_t t, double p) const {
    return mirrored_ ? !all_->below(key_.seed, t, 1 - p) : all_->below(key_.seed, t, p);
  }
  index_t uniform(std::int64_t t, index_t n) const {
    const index_t i = all_->choose({key_.seed, draw_kind::index, t, 0},
                                   std::vector<double>(std::size_t(n), 1.0 / double(n)));
    return mirrored_ ? n - 1 - i : i;
  }
  template <class T, class Space>
  void normals(std::int64_t t, view<T, Space> out) const {
    for (index_t i = 0; i < out.size(); ++i) {
      const index_t n = all_->choose({key_.seed, draw_kind::normal, t, i}, rule_.weight);
      out[i] = T(mirrored_ ? -rule_.node[std::size_t(n)] : rule_.node[std::size_t(n)]);
    }
  }

 private:
  enumerator* all_;
  hermite_rule rule_;
  key key_;
  bool mirrored_ = false;
};

/// Nodes by Newton's method on the Hermite polynomial He_n, weights n! / (n He_{n-1}(x))^2.
inline hermite_rule make_hermite_rule(int nodes) {
  hermite_rule r;
  const auto he = [](int n, double x) {  // (He_n, He_{n-1}) by He_{k+1} = x He_k - k He_{k-1}
    double a = 1, b = 0;
    for (int k = 0; k < n; ++k) {
      const double c = x * a - double(k) * b;
      b = a;
      a = c;
    }
    return std::pair{a, b};
  };
  double factorial = 1;
  for (int k = 2; k <= nodes; ++k) factorial *= k;
  const double bound = 2 * std::sqrt(double(nodes)) + 1;
  double before = -bound;
  const int grid = 400 * nodes;
  for (int i = 1; i <= grid; ++i) {  // every sign change on a fine grid brackets one root
    const double after = -bound + 2 * bound * (i - 0.5) / grid;
    const double f0 = he(nodes, before).first, f1 = he(nodes, after).first;
    if ((f0 < 0) != (f1 < 0)) {
      double x = (before + after) / 2;
      for (int k = 0; k < 50; ++k) {
        const auto [f, g] = he(nodes, x);
        x -= f / (nodes * g);  // He_n' = n He_{n-1}
      }
      const double g = he(nodes, x).second;
      r.node.push_back(x);
      r.weight.push_back(factorial / (double(nodes) * nodes * g * g));
    }
    before = after;
  }
  return r;
}

static_assert(chooser<philox_chooser>);
static_assert(chooser<enumerating_chooser>);

}  // namespace unroll
