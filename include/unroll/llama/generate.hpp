#pragma once

#include <vector>

#include "unroll/llama/cache.hpp"
#include "unroll/llama/head.hpp"
#include "unroll/llama/sampling.hpp"
#include "unroll/llama/transformer.hpp"

namespace unroll::llama {

/// A model that takes a text token by token, or chunk by chunk, and knows the logits of the next token: the
/// same as those of one pass over the whole text, up to rounding. The stack and its weights must outlive it.
/// `Cache` decides what is remembered: key_value_cache everything, streaming_cache sinks and a window.
/// Nothing allocates after the construction.
template <class T, class Cache = key_value_cache<T>>
class generator final {
 public:
  /// With room for all positions of the model.
  generator(const transformer<T>& stack, params<const T> weights, adapters<T> a = {})
      : generator(stack, weights, Cache(stack.shape(), stack.shape().positions()), a) {}

  /// `chunk`: tokens of a pass; more are cut into several.
  generator(const transformer<T>& stack, params<const T> weights, Cache cache, adapters<T> a = {},
            index_t chunk = 64)
      : stack_(&stack), weights_(weights), adapters_(a), cache_(std::move(cache)), chunk_(chunk) {
    check_size("generator", "weights", weights.size(), stack.map().size());
    check_at_least("generator", "chunk", chunk, 1);
    chunk_ = std::min(chunk, cache_.largest_chunk());
    positions_.resize(std::size_t(cache_.capacity()));
    for (std::size_t i = 0; i < positions_.size(); ++i) positions_[i] = index_t(i);
    const config& c = stack.shape();
    pass<T> largest = pass_over(chunk_);
    largest.before.keys = cache_.capacity();
    work_ = buffer<T>(std::max(head_work(c, chunk_), stack.work_size(largest, false)));
    x_ = buffer<T>(c.hidden * chunk_);
    logits_ = buffer<T>(c.vocabulary);
  }

  template <class... Rest>  // a temporary would be gone before the first token
  generator(const transformer<T>&&, Rest&&...) = delete;
  template <class... Rest>
  generator(const transformer<T>&, parameters<T>&&, Rest&&...) = delete;

  const config& shape() const { return stack_->shape(); }
  const Cache& cache() const { return cache_; }
  index_t consumed() const { return consumed_; }  ///< tokens since the last reset
  std::size_t bytes() const { return cache_.bytes() + work_.bytes() + x_.bytes() + logits_.bytes(); }

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
    run(ids, [&](matrix<const T> x, index_t first) {
      if (first + x.cols < index_t(ids.size())) return;
      const matrix<const T> last(x.data + (x.cols - 1) * x.stride, x.rows, 1);
      head_logits(stack_->map(), weights_.data(), last, matrix<T>(logits_.data(), logits_.size(), 1),
                  view<T>(work_));
    });
  }
  void append(token id) { append(std::span(&id, 1)); }

  /// Logits of the token behind those taken, V numbers. Throws unroll::error before the first append.
  view<const T> logits() const& {
    if (consumed_ == 0) fail("generator::logits", "tokens", "none were appended");
    return logits_;
  }
  void logits() && = delete;

  /// Takes the tokens and returns the sum of -log p(targets[i] | tokens up to ids[i]), in nats; targets of -1
  /// do not count. `nll`: one number a token, or empty. logits() keeps what the last append left.
  T append_scored(std::span<const token> ids, std::span<const token> targets, view<T> nll = {}) {
    check_size("generator::append_scored", "targets", index_t(targets.size()), index_t(ids.size()));
    if (!nll.empty()) check_size("generator::append_scored", "nll", nll.size(), index_t(ids.size()));
    check_tokens("generator", "targets", shape(), targets, true);
    T sum = 0;
    run(ids, [&](matrix<const T> x, index_t first) {
      sum += head_nll(stack_->map(), weights_.data(), x, targets.data() + first,
                      nll.empty() ? nullptr : nll.data() + first, view<T>(work_));
    });
    return sum;
  }

 private:
  pass<T> pass_over(index_t n) const {
    pass<T> p;
    p.length = n;
    p.layers = stack_->shape().layers;
    p.before = cache_.before();
    p.positions = std::span(positions_).subspan(std::size_t(cache_.size()), std::size_t(n));
    return p;
  }
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
      const matrix<T> x(x_.data(), shape().hidden, n);
      embed(stack_->map(), weights_.data(), ids.data() + first, n, x);
      stack_->forward(weights_.data(), adapters_, pass_over(n), x, view<T>{}, view<T>(work_), cache_.hook());
      cache_.extend(n);
      consumed_ += n;
      use(matrix<const T>(x), first);
    }
  }

  const transformer<T>* stack_;
  params<const T> weights_;
  adapters<T> adapters_;
  Cache cache_;
  index_t chunk_, consumed_ = 0;
  std::vector<index_t> positions_;
  buffer<T> work_, x_, logits_;
};

/// Why a generation ended: as many tokens as asked for, an end token, no room in the cache, or the visitor.
enum class stop_reason { tokens, end, room, asked };

struct generation {
  index_t tokens = 0;  ///< given to the visitor
  stop_reason why = stop_reason::tokens;
};

/// Draws up to `tokens` tokens behind those that `g`, a generator or a memory_session, has taken and gives
/// each to `visit(token)`, which returns whether to go on. A token in `ends` ends the text and is not given.
/// Each token is also taken by `g`, where there is room: a second call goes on where the first one stopped.
/// Draw n of the key is that of the n-th token of the text. A sampler of fewer tokens than the model has
/// draws among the first ones: rows of the embedding that only fill it up are never drawn.
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
