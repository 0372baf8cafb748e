#pragma once

#include <vector>

#include "unroll/exec/mirror.hpp"
#include "unroll/llama/cache.hpp"
#include "unroll/llama/embedding.hpp"
#include "unroll/llama/lm_head.hpp"
#include "unroll/llama/sampling.hpp"
#include "unroll/llama/transformer.hpp"

namespace unroll::llama {

/// A model that takes a text token by token, or chunk by chunk, and knows the logits of the next token: up to
/// rounding those of one pass over the whole text. The stack and its weights must outlive it.
/// `Cache` decides what is remembered: key_value_cache everything, streaming_cache sinks and a window.
/// Nothing allocates after the construction. X: see transformer.
template <class X, class Cache = key_value_cache<X>>
class generator final {
  using E = exec::of<X>;
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

 public:
  /// With room for all positions of the model.
  generator(const transformer<X>& stack, params<const W> weights, adapters<P> a = {})
      : generator(stack, weights, Cache(stack.shape(), stack.shape().positions(), stack.executor()), a) {}

  /// `chunk`: tokens of a pass; more are cut into several.
  generator(const transformer<X>& stack, params<const W> weights, Cache cache, adapters<P> a = {},
            index_t chunk = 64)
      : stack_(&stack), weights_(weights), adapters_(a), cache_(std::move(cache)), chunk_(chunk) {
    check_size("generator", "weights", weights.size(), stack.map().size());
    check_at_least("generator", "chunk", chunk, 1);
    const config& c = stack.shape();
    chunk_ = std::min({chunk, cache_.largest_chunk(), c.positions()});
    pass_size largest = stack.pass_over(0, chunk_, cache_.before());
    largest.keys = cache_.capacity();
    const E& e = stack.executor();
    workspace_ = e.template allocate<A>(
        std::max(lm_head<E>::workspace_size(c, chunk_), stack.workspace_size(largest, false)));
    x_ = e.template allocate<A>(c.hidden * chunk_);
    logits_ = exec::mirror<E, P>(e, c.vocabulary);
    losses_ = exec::mirror<E, P>(e, chunk_ + 1);
  }

  template <class... Rest>  // a temporary would be gone before the first token
  generator(const transformer<X>&&, Rest&&...) = delete;
  template <class... Rest>
  generator(const transformer<X>&, typename E::template block<W, param_space>&&, Rest&&...) = delete;

  const config& shape() const { return stack_->shape(); }
  const Cache& cache() const { return cache_; }   ///< what was read and written so far
  index_t consumed() const { return consumed_; }  ///< tokens since the last reset
  std::size_t bytes() const {
    return cache_.bytes() + workspace_.bytes() + x_.bytes() + logits_.bytes() + losses_.bytes();
  }

  void reset() {
    cache_.clear();
    consumed_ = 0;
  }

  /// Whether n more tokens can be taken.
  bool room(index_t n = 1) const { return cache_.takes(n); }

  /// Takes the tokens. Throws unroll::error on ids out of range and, in a cache that forgets nothing, where
  /// there is no room; nothing is taken then.
  void append(std::span<const token> ids) {
    if (ids.empty()) return;
    const E& e = stack_->executor();
    run(ids, [&](matrix<const A> x, index_t first) {
      if (first + x.cols < index_t(ids.size())) return;
      head().logits(columns_of(x, x.cols - 1, 1), matrix<P>(logits_.data(), logits_.size(), 1));
      logits_.fetch(e, logits_.size());
    });
  }
  void append(token id) { append(std::span(&id, 1)); }

  /// Logits of the token behind those taken, V numbers. Throws unroll::error before the first append.
  view<const P> logits() const& {
    if (consumed_ == 0) fail("generator::logits", "tokens", "none were appended");
    return logits_.fetched();
  }
  void logits() && = delete;

  /// Takes the tokens and returns the sum of -log p(targets[i] | tokens up to ids[i]), in nats; targets of -1
  /// do not count. `nll`: one number a token, or empty. logits() keeps what the last append left.
  P append_scored(std::span<const token> ids, std::span<const token> targets, view<P> nll = {}) {
    check_size("generator::append_scored", "targets", index_t(targets.size()), index_t(ids.size()));
    if (!nll.empty()) check_size("generator::append_scored", "nll", nll.size(), index_t(ids.size()));
    check_tokens("generator", "targets", shape(), targets, true);
    P sum = 0;
    const E& e = stack_->executor();
    run(ids, [&](matrix<const A> x, index_t first) {
      head().losses(x, targets.subspan(std::size_t(first), std::size_t(x.cols)), losses_.data(),
                    losses_.data() + x.cols);
      const view<const P> got = losses_.fetch(e, x.cols + 1);
      sum += got[x.cols];
      if (!nll.empty()) std::copy_n(got.data(), x.cols, nll.data() + first);
    });
    return sum;
  }

 private:
  lm_head<E> head() { return {stack_->executor(), stack_->map(), weights_.data(), view<A>(workspace_)}; }
  /// The next n tokens.
  pass<M> next(index_t n) const { return stack_->pass_over(cache_.size(), n, cache_.before()); }
  // Calls use(outputs of the last layer, number of their first token) chunk by chunk.
  template <class Use>
  void run(std::span<const token> ids, Use&& use) {
    check_tokens("generator", "ids", shape(), ids);
    if (!cache_.takes(index_t(ids.size())))
      fail("generator", "ids",
           "are " + std::to_string(ids.size()) + " behind " + std::to_string(cache_.size()) +
               ", there is room for " + std::to_string(cache_.capacity()));
    for (index_t first = 0; first < index_t(ids.size()); first += chunk_) {
      const index_t n = std::min(chunk_, index_t(ids.size()) - first);
      cache_.make_room(n);
      const matrix<A> x(x_.data(), shape().hidden, n);
      embed(stack_->executor(), stack_->map(), weights_.data(),
            ids.subspan(std::size_t(first), std::size_t(n)), x);
      stack_->forward(weights_.data(), adapters_, next(n), x, view<A>{}, view<A>(workspace_), cache_.hook());
      cache_.extend(n);
      consumed_ += n;
      use(matrix<const A>(x), first);
    }
  }

  const transformer<X>* stack_;
  params<const W> weights_;
  adapters<P> adapters_;
  Cache cache_;
  index_t chunk_, consumed_ = 0;
  typename E::template block<A> workspace_, x_;
  exec::mirror<E, P> logits_, losses_;
};

/// Why a generation ended: as many tokens as asked for, an end token, no room in the cache, or the visitor.
enum class stop_reason { tokens, end, room, asked };

/// What a generator wrote.
struct generation {
  index_t tokens = 0;                     ///< given to the visitor
  stop_reason why = stop_reason::tokens;  ///< it ended
};

/// Draws up to `tokens` tokens behind those that `g`, a generator or a memory_session, has taken, and gives
/// each to `visit(token)`, which returns whether to go on. A token in `ends` ends the text and is not given.
/// `g` takes each token too, while there is room, so that a second call continues the text. The n-th token of
/// the text is draw n of the key. A sampler with a smaller vocabulary than the model's draws from the first
/// ids only: never a row of the embedding that belongs to no token. The sampler sees what it draws; what `g`
/// has taken before is the caller's to show.
template <class Text, class Visit>
generation generate(Text& g, sampler& s, index_t tokens, std::span<const token> ends, key k, Visit&& visit) {
  check_at_least("generate", "tokens", tokens, 0);
  generation done;
  while (done.tokens < tokens) {
    const auto logits = g.logits();
    check_at_least("generate", "logits", logits.size(), s.vocabulary());
    const token t = s.draw(logits.part(0, s.vocabulary()), k, g.consumed());
    if (std::find(ends.begin(), ends.end(), t) != ends.end()) {
      done.why = stop_reason::end;
      break;
    }
    ++done.tokens;
    s.saw(std::span(&t, 1));
    const bool more = visit(t);
    const bool room = g.room();
    if (room) g.append(t);
    if (more && room) continue;
    if (done.tokens < tokens) done.why = more ? stop_reason::room : stop_reason::asked;
    break;
  }
  return done;
}

}  // namespace unroll::llama
