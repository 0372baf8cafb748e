#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "unroll/rng/chooser.hpp"
#include "unroll/testing/gauss_hermite.hpp"

namespace unroll::testing {

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
    const auto [at, added] = names_.try_emplace(name, asked_);
    if (added) {
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

  int nodes() const { return nodes_; }  ///< of the rule that stands for a normal

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

static_assert(chooser<enumerating_chooser>);

}  // namespace unroll::testing
