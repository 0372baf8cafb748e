#pragma once

#include <numeric>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/worker_pool.hpp"
#include "unroll/llama/head.hpp"
#include "unroll/llama/transformer.hpp"

namespace unroll::llama {

struct language_model_options {
  index_t sequences = 1;  ///< in a call
  index_t length = 256;   ///< tokens of each
  index_t shares = 1;     ///< the sequences are cut into so many runs, each with a gradient of its own
  index_t threads = 1;    ///< work on the shares; results do not depend on their number
  saved keep = saved::activations;
};

/// A Llama that predicts the next token of a batch of sequences: scores, and the gradient of all weights.
/// Sequences start at position 0 and see nothing of each other. Owns its memory, about
///   threads x (a tape and the work of one share) + (shares - 1) x the weights.
/// Nothing allocates after construction.
template <class T>
class language_model final {
 public:
  /// Throws unroll::error on options out of range, and where `length` exceeds the model's positions.
  explicit language_model(const config& c, language_model_options o = {})
      : stack_(c), options_(checked(c, o)), positions_(std::size_t(o.length)), pool_(o.threads) {
    std::iota(positions_.begin(), positions_.end(), index_t{0});
    const index_t largest = (o.sequences + o.shares - 1) / o.shares * o.length;
    const pass<T> p = pass_of(largest / o.length);
    for (index_t i = 0; i < o.threads; ++i) {
      x_.emplace_back(c.hidden * largest);
      tape_.emplace_back(stack_.tape_size(p));
      work_.emplace_back(std::max(stack_.work_size(p), head_work(c, largest)));
    }
    for (index_t i = 1; i < o.shares; ++i) gradients_.emplace_back(stack_.map().size());
    sums_.resize(std::size_t(o.shares));
  }

  const transformer<T>& stack() const { return stack_; }
  const language_model_options& options() const { return options_; }

  /// ids and targets: one sequence after another; a target of -1 is not scored. Returns the sum of
  /// -log p(target) in nats and each of them in `out` unless that is empty. Throws unroll::error on wrong
  /// sizes and on ids outside the vocabulary.
  T nll(params<const T> w, std::span<const token> ids, std::span<const token> targets, view<T> out = {}) {
    check_call("language_model::nll", w, ids, targets);
    if (!out.empty()) check_size("language_model::nll", "out", out.size(), index_t(ids.size()));
    return over_shares([&](index_t share, index_t worker) {
      const range r = range_of(share);
      const matrix<T> x(x_[std::size_t(worker)].data(), stack_.shape().hidden, r.tokens);
      buffer<T>& work = work_[std::size_t(worker)];
      embed(stack_.map(), w.data(), ids.data() + r.first, r.tokens, x);
      stack_.forward(w.data(), {}, pass_of(r.tokens / options_.length), x, {}, work);
      return head_nll(stack_.map(), w.data(), x, targets.data() + r.first,
                      out.empty() ? nullptr : out.data() + r.first, work);
    });
  }

  /// The same sum, and ADDS its gradient to g.
  T gradient(params<const T> w, std::span<const token> ids, std::span<const token> targets, dparams<T> g) {
    check_call("language_model::gradient", w, ids, targets);
    check_size("language_model::gradient", "g", g.size(), stack_.map().size());
    const T sum = over_shares([&](index_t share, index_t worker) {
      const range r = range_of(share);
      const matrix<T> x(x_[std::size_t(worker)].data(), stack_.shape().hidden, r.tokens);
      buffer<T>&work = work_[std::size_t(worker)], &tape = tape_[std::size_t(worker)];
      T* dw = g.data();
      if (share > 0) {
        gradients_[std::size_t(share - 1)].zero();
        dw = gradients_[std::size_t(share - 1)].data();
      }
      const weight_map& map = stack_.map();
      const pass<T> p = pass_of(r.tokens / options_.length);
      embed(map, w.data(), ids.data() + r.first, r.tokens, x);
      stack_.forward(w.data(), {}, p, x, tape, work);
      const T loss = head_vjp(map, w.data(), x, targets.data() + r.first, 1, x, dw, nullptr, work);
      stack_.vjp(w.data(), {}, p, tape, x, {}, dw, nullptr, true, work);
      embed_vjp(map, ids.data() + r.first, r.tokens, x, dw);
      return loss;
    });
    for (const buffer<T>& part : gradients_) linalg::axpy(1, part.data(), g.data(), g.size());
    return sum;
  }

  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto* list : {&x_, &tape_, &work_, &gradients_})
      for (const buffer<T>& b : *list) sum += b.bytes();
    return sum;
  }

 private:
  struct range {
    index_t first, tokens;
  };

  static language_model_options checked(const config& c, const language_model_options& o) {
    check(c, "language_model");
    check_at_least("language_model", "sequences", o.sequences, 1);
    check_at_least("language_model", "length", o.length, 1);
    check_at_least("language_model", "shares", o.shares, 1);
    check_at_least("language_model", "threads", o.threads, 1);
    if (o.shares > o.sequences)
      fail("language_model", "shares",
           "are " + std::to_string(o.shares) + ", more than the " + std::to_string(o.sequences) +
               " sequences");
    if (o.length > c.positions())
      fail("language_model", "length",
           "is " + std::to_string(o.length) + ", the model has " + std::to_string(c.positions()) +
               " positions");
    return o;
  }
  void check_call(const char* function, params<const T> w, std::span<const token> ids,
                  std::span<const token> targets) const {
    check_size(function, "w", w.size(), stack_.map().size());
    check_size(function, "ids", index_t(ids.size()), options_.sequences * options_.length);
    check_size(function, "targets", index_t(targets.size()), index_t(ids.size()));
    check_tokens(function, "ids", stack_.shape(), ids);
    check_tokens(function, "targets", stack_.shape(), targets, true);
  }
  pass<T> pass_of(index_t sequences) const {
    return {.sequences = sequences,
            .length = options_.length,
            .layers = stack_.shape().layers,
            .positions = positions_,
            .mask = {},
            .before = {},
            .keep = options_.keep};
  }
  range range_of(index_t share) const {
    const index_t first = options_.sequences * share / options_.shares;
    const index_t last = options_.sequences * (share + 1) / options_.shares;
    return {first * options_.length, (last - first) * options_.length};
  }
  /// Runs f(share, worker) for every share; returns the sum of its results in the order of the shares.
  template <class F>
  T over_shares(F f) {
    auto job = [&](index_t worker) {
      for (index_t s = worker; s < options_.shares; s += pool_.size()) sums_[std::size_t(s)] = f(s, worker);
    };
    pool_.run(job);
    return T(std::accumulate(sums_.begin(), sums_.end(), 0.0));
  }

  transformer<T> stack_;
  language_model_options options_;
  std::vector<index_t> positions_;
  std::vector<buffer<T>> x_, tape_, work_, gradients_;
  std::vector<T> sums_;
  worker_pool pool_;
};

}  // namespace unroll::llama
