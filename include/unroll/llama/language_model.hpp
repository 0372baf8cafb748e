#pragma once

#include <numeric>
#include <vector>

#include "unroll/core/worker_pool.hpp"
#include "unroll/exec/mirror.hpp"
#include "unroll/llama/embedding.hpp"
#include "unroll/llama/lm_head.hpp"
#include "unroll/llama/transformer.hpp"

namespace unroll::llama {

struct language_model_options {
  index_t sequences = 1;  ///< in a call
  index_t length = 256;   ///< tokens of each
  index_t shares = 1;     ///< the sequences are cut into so many runs, each with a gradient of its own
  index_t threads = 1;    ///< work on the shares; results do not depend on their number; 1 but on the host
  saved keep = saved::activations;  ///< what a tape holds
  index_t adapter_size = 0;         ///< numbers of the adapters of which gradient() also computes; 0: none
};

namespace detail {

/// Throws unroll::error on no thread, and on several where they would share the one handle of another place.
template <class E>
void check_threads(std::string_view function, index_t threads) {
  check_at_least(function, "threads", threads, 1);
  if (E::where != place::host && threads > 1)
    fail(function, "threads",
         "are " + std::to_string(threads) + ", must be 1 on an executor whose place is not the host");
}

}  // namespace detail

/// A Llama that predicts the next token of a batch of sequences: scores, and the gradient of all weights.
/// Sequences start at position 0 and see nothing of each other. Owns its memory, about
///   threads x (a tape and the workspace of one share) + (shares - 1) x the weights.
/// Nothing allocates after construction. X: see transformer.
template <class X>
class language_model final {
  using E = exec::of<X>;
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

 public:
  /// Throws unroll::error on options out of range, and where `length` exceeds the model's positions.
  explicit language_model(const config& c, language_model_options o = {}, E e = E{})
      : stack_(c, std::move(e)), options_(checked(c, o)), pool_(o.threads) {
    const index_t largest = (o.sequences + o.shares - 1) / o.shares * o.length;
    const pass<M> p = pass_of(largest / o.length);
    const E& on = stack_.executor();
    for (index_t i = 0; i < o.threads; ++i) {
      x_.push_back(on.template allocate<A>(c.hidden * largest));
      tape_.push_back(on.template allocate<A>(stack_.tape_size(p)));
      workspace_.push_back(on.template allocate<A>(
          std::max(stack_.workspace_size(p), lm_head<E>::workspace_size(c, largest))));
    }
    for (index_t i = 1; i < o.shares; ++i) {
      gradients_.push_back(on.template allocate<P>(stack_.map().size()));
      if (o.adapter_size > 0) adapter_gradients_.push_back(on.template allocate<P>(o.adapter_size));
    }
    sums_ = exec::mirror<E, P>(on, o.shares);
    losses_ = exec::mirror<E, P>(on, o.sequences * o.length);
  }

  const transformer<X>& stack() const { return stack_; }
  const language_model_options& options() const { return options_; }

  /// ids and targets: one sequence after another; a target of -1 is not scored. Returns the sum of
  /// -log p(target) in nats and each of them in `out` unless that is empty. Throws unroll::error on wrong
  /// sizes and on ids outside the vocabulary.
  P nll(params<const W> w, std::span<const token> ids, std::span<const token> targets, view<P> out = {}) {
    check_call("language_model::nll", w, ids, targets);
    if (!out.empty()) check_size("language_model::nll", "out", out.size(), index_t(ids.size()));
    const E& e = stack_.executor();
    const P sum = over_shares([&](index_t share, index_t worker) {
      const range r = range_of(share);
      const matrix<A> x(x_[std::size_t(worker)].data(), stack_.shape().hidden, r.tokens);
      const view<A> workspace = workspace_[std::size_t(worker)];
      embed(e, stack_.map(), w.data(), r.of(ids), x);
      stack_.forward(w.data(), {}, pass_of(r.tokens / options_.length), x, {}, workspace);
      const lm_head<E> head{e, stack_.map(), w.data(), workspace};
      head.losses(x, r.of(targets), losses_.data() + r.first, sums_.data() + share);
    });
    if (!out.empty()) std::copy_n(losses_.fetch(e, out.size()).data(), out.size(), out.data());
    return sum;
  }

  /// The same sum of the model with the adapters `a`, and ADDS its gradient to g, and that of the adapters to
  /// da (options().adapter_size numbers, or empty).
  P gradient(params<const W> w, std::span<const token> ids, std::span<const token> targets, dparams<P> g,
             adapters<P> a = {}, dparams<P> da = {}) {
    check_call("language_model::gradient", w, ids, targets);
    check_size("language_model::gradient", "g", g.size(), stack_.map().size());
    if (!da.empty()) {
      check_size("language_model::gradient", "da", da.size(), options_.adapter_size);
      check_size("language_model::gradient", "a", a.map ? a.map->size() : 0, da.size());
    }
    const E& e = stack_.executor();
    const P sum = over_shares([&](index_t share, index_t worker) {
      const range r = range_of(share);
      const matrix<A> x(x_[std::size_t(worker)].data(), stack_.shape().hidden, r.tokens);
      const view<A> workspace = workspace_[std::size_t(worker)], tape = tape_[std::size_t(worker)];
      P *dw = g.data(), *dadapters = da.empty() ? nullptr : da.data();
      if (share > 0) {
        dw = gradients_[std::size_t(share - 1)].data();
        e.fill(matrix<P>(dw, g.size(), 1), 0);
        if (dadapters) {
          dadapters = adapter_gradients_[std::size_t(share - 1)].data();
          e.fill(matrix<P>(dadapters, da.size(), 1), 0);
        }
      }
      const weight_map& map = stack_.map();
      const pass<M> p = pass_of(r.tokens / options_.length);
      embed(e, map, w.data(), r.of(ids), x);
      stack_.forward(w.data(), a, p, x, tape, workspace);
      const lm_head<E> head{e, map, w.data(), workspace};
      head.losses_vjp(x, r.of(targets), {.dx = x, .dweights = dw}, nullptr, sums_.data() + share);
      stack_.vjp(w.data(), a, p, tape, x, {.weights = dw, .adapters = dadapters, .inputs = true}, workspace);
      embed_vjp(e, map, r.of(ids), matrix<const A>(x), dw);
    });
    for (const auto& part : gradients_) e.axpy(1, part.data(), g.data(), g.size());
    if (!da.empty())
      for (const auto& part : adapter_gradients_) e.axpy(1, part.data(), da.data(), da.size());
    e.synchronise();
    return sum;
  }

  std::size_t bytes() const {
    std::size_t sum = losses_.bytes();
    for (const auto* list : {&x_, &tape_, &workspace_})
      for (const auto& b : *list) sum += b.bytes();
    for (const auto* list : {&gradients_, &adapter_gradients_})
      for (const auto& b : *list) sum += b.bytes();
    return sum;
  }

 private:
  struct range {
    index_t first, tokens;
    std::span<const token> of(std::span<const token> all) const {
      return all.subspan(std::size_t(first), std::size_t(tokens));
    }
  };

  static language_model_options checked(const config& c, const language_model_options& o) {
    check(c, "language_model");
    check_at_least("language_model", "sequences", o.sequences, 1);
    check_at_least("language_model", "length", o.length, 1);
    check_at_least("language_model", "shares", o.shares, 1);
    check_at_least("language_model", "adapter_size", o.adapter_size, 0);
    detail::check_threads<E>("language_model", o.threads);
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
  void check_call(const char* function, params<const W> w, std::span<const token> ids,
                  std::span<const token> targets) const {
    check_size(function, "w", w.size(), stack_.map().size());
    check_size(function, "ids", index_t(ids.size()), options_.sequences * options_.length);
    check_size(function, "targets", index_t(targets.size()), index_t(ids.size()));
    check_tokens(function, "ids", stack_.shape(), ids);
    check_tokens(function, "targets", stack_.shape(), targets, true);
  }
  pass<M> pass_of(index_t sequences) const {
    pass<M> p = stack_.pass_over(0, options_.length);
    p.sequences = sequences;
    p.keep = options_.keep;
    return p;
  }
  range range_of(index_t share) const {
    const index_t first = options_.sequences * share / options_.shares;
    const index_t last = options_.sequences * (share + 1) / options_.shares;
    return {first * options_.length, (last - first) * options_.length};
  }
  /// Runs f(share, worker), which leaves sums_[share], for every share; returns their sum, in order.
  template <class F>
  P over_shares(F f) {
    auto job = [&](index_t worker) {
      for (index_t s = worker; s < options_.shares; s += pool_.size()) f(s, worker);
    };
    pool_.run(job);
    const view<const P> sums = sums_.fetch(stack_.executor(), options_.shares);
    return P(std::accumulate(sums.begin(), sums.end(), 0.0));
  }

  transformer<X> stack_;
  language_model_options options_;
  std::vector<typename E::template block<A>> x_, tape_, workspace_;
  std::vector<typename E::template block<P>> gradients_, adapter_gradients_;  // of all shares but the first
  exec::mirror<E, P> sums_, losses_;
  worker_pool pool_;
};

}  // namespace unroll::llama
