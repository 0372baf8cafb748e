#pragma once

#include "unroll/exec/mirror.hpp"
#include "unroll/llama/cache.hpp"
#include "unroll/llama/sampling.hpp"
#include "unroll/memory/memory_llama/model.hpp"

namespace unroll::llama {

/// A text that a memory model reads and continues, with all that the model remembers of it. Two texts are two
/// sessions, or one with a reset() between.
///
/// Tokens join the residual, which the decoder reads behind the memories. When the residual has l tokens and
/// another one comes, it is encoded into one more memory, and its keys and values are dropped. So the logits
/// behind any token are those of memory_llama::read on the same text, up to rounding. Of many tokens at once
/// only those that stay in the residual are decoded, and up to `batch` segments are encoded together, in a
/// workspace of so many, with the bits of one by one.
///
/// Memories and residual share one cache of positions() columns, 2 layers kv_width positions() numbers.
/// Nothing allocates after the construction. `theta` must outlive the session and keep its values.
template <class X>
class memory_session final {
  using E = exec::of<X>;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

 public:
  /// Throws unroll::error where a recurrent model is to encode several segments together.
  memory_session(memory_llama<X> model, params<const P> theta, index_t batch = 1)
      : model_(std::move(model)), theta_(theta), cache_(shape(), shape().positions(), executor()) {
    check_size("memory_session", "theta", theta.size(), model_.names().size());
    check_at_least("memory_session", "batch", batch, 1);
    if (batch > 1 && !model_.independent())
      fail("memory_session", "batch",
           "is " + std::to_string(batch) + ", recurrent memories are written one by one");
    together_.resize(std::size_t(batch));
    memory_ = executor().template allocate<M>(batch * model_.sizes().memory());
    x_ = executor().template allocate<A>(shape().hidden * segment_length());
    logits_ = exec::mirror<E, P>(executor(), shape().vocabulary);
    residual_.resize(std::size_t(segment_length()));
    prefix<M> full = cache_.before();
    full.keys = full.capacity;
    workspace_ = executor().template allocate<A>(std::max(
        {model_.encode_workspace(full, batch), lm_head<E>::workspace_size(shape(), 1),
         model_.stack().workspace_size(model_.stack().pass_over(0, segment_length(), full), false)}));
  }

  /// theta must outlive the session.
  memory_session(memory_llama<X> model, typename E::template block<P, param_space>&& theta,
                 index_t batch = 1) = delete;

  const memory_llama<X>& model() const { return model_; }
  const config& shape() const { return model_.shape(); }
  index_t memories() const { return memories_; }  ///< written so far
  /// Tokens since the last reset.
  index_t consumed() const { return memories_ * segment_length() + tokens_; }
  /// Tokens that are not yet a memory.
  std::span<const token> residual() const& { return {residual_.data(), std::size_t(tokens_)}; }
  /// Logits of the token behind the last one, V numbers. Throws unroll::error where no token stands behind
  /// the memories.
  view<const P> logits() const& {
    if (tokens_ == 0) fail("memory_session::logits", "tokens", "none were appended");
    return logits_.fetched();
  }
  void residual() && = delete;
  void logits() && = delete;
  std::size_t bytes() const {
    return cache_.bytes() + memory_.bytes() + x_.bytes() + logits_.bytes() + workspace_.bytes();
  }

  /// Forgets everything.
  void reset() {
    cache_.clear();
    memories_ = tokens_ = 0;
  }

  /// Whether n more tokens have positions.
  bool room(index_t n = 1) const {
    const index_t all = tokens_ + n, full = all == 0 ? 0 : (all - 1) / segment_length();
    return (memories_ + full) * model_.memory_tokens() + all - full * segment_length() <=
               shape().positions() &&
           (full == 0 || model_.can_write(memories_ + full - 1));
  }

  /// Takes the tokens. Throws unroll::error on ids outside the vocabulary and where positions end; nothing is
  /// taken then.
  void append(std::span<const token> ids) {
    check_tokens("memory_session", "ids", shape(), ids);
    check_room(room(index_t(ids.size())), index_t(ids.size()));
    while (!ids.empty()) {
      if (tokens_ == segment_length()) {
        const index_t more =
            std::min(index_t(together_.size()), 1 + (index_t(ids.size()) - 1) / segment_length()) - 1;
        compress(ids.first(std::size_t(more * segment_length())));
        ids = ids.subspan(std::size_t(more * segment_length()));
      }
      const index_t n = std::min(segment_length() - tokens_, index_t(ids.size()));
      std::copy_n(ids.begin(), n, residual_.begin() + tokens_);
      ids = ids.subspan(std::size_t(n));
      if (ids.empty()) decode(n);  // else they are compressed before anybody sees their logits
      tokens_ += n;
    }
  }
  void append(token id) { append(std::span(&id, 1)); }

  /// Takes a whole segment straight into memory. Throws unroll::error unless it has l tokens of the
  /// vocabulary, the residual is empty and there is room.
  void remember(std::span<const token> ids) {
    check_size("memory_session::remember", "residual", tokens_, 0);
    check_size("memory_session::remember", "ids", index_t(ids.size()), segment_length());
    check_tokens("memory_session", "ids", shape(), ids);
    check_room(model_.can_write(memories_), index_t(ids.size()));
    std::copy(ids.begin(), ids.end(), residual_.begin());
    compress();
  }

 private:
  index_t segment_length() const { return model_.options().segment; }

  void check_room(bool enough, index_t n) const {
    if (!enough)
      fail("memory_session", "ids",
           "are " + std::to_string(n) + " behind " + std::to_string(memories_) + " memories and " +
               std::to_string(tokens_) + " tokens, too many for the " + std::to_string(shape().positions()) +
               " positions of the model: the longest text has " + std::to_string(model_.longest_text()) +
               " tokens");
  }

  const E& executor() const { return model_.executor(); }

  // The n tokens of the residual behind its first tokens_: their keys and values, and the logits of the last.
  void decode(index_t n) {
    const matrix<A> x(x_.data(), shape().hidden, n);
    const auto& stack = model_.stack();
    const auto* const w = model_.weights().data();
    embed(executor(), stack.map(), w, std::span<const token>(residual_.data() + tokens_, std::size_t(n)), x);
    stack.forward(w, {}, stack.pass_over(cache_.size(), n, cache_.before()), x, view<A>{},
                  view<A>(workspace_), cache_.hook());
    cache_.extend(n);
    const lm_head<E> head{executor(), stack.map(), w, view<A>(workspace_)};
    head.logits(columns_of(x, n - 1, 1), matrix<P>(logits_.data(), shape().vocabulary, 1));
    logits_.fetch(executor(), logits_.size());
  }

  // The whole residual, and every whole segment behind it, becomes a memory; what the cache holds of the
  // residual's tokens is dropped.
  void compress(std::span<const token> behind = {}) {
    const index_t columns = model_.memory_tokens(), area = shape().kv_width() * columns;
    const index_t n = 1 + index_t(behind.size()) / segment_length();
    cache_.keep_first(memories_ * columns);
    const view<M> m(memory_.data(), n * model_.sizes().memory());
    if (n == 1) {
      model_.encode(residual_, memories_, theta_, cache_.before(), m, {}, view<A>(workspace_));
    } else {
      for (index_t b = 0; b < n; ++b)
        together_[std::size_t(b)].tokens =
            b == 0 ? std::span<const token>(residual_)
                   : behind.subspan(std::size_t((b - 1) * segment_length()), std::size_t(segment_length()));
      model_.write(std::span<const segment>(together_.data(), std::size_t(n)), memories_, theta_, {}, m, {},
                   view<A>(workspace_));
    }
    for (index_t b = 0; b < n; ++b) {
      for (index_t i = 0; i < shape().layers; ++i) {
        const matrix<const M> k(memory_.data() + b * model_.sizes().memory() + 2 * i * area,
                                shape().kv_width(), columns);
        cache_.store(i, k, matrix<const M>(k.data + area, k.rows, k.cols));
      }
      cache_.extend(columns);
    }
    memories_ += n;
    tokens_ = 0;
  }

  memory_llama<X> model_;
  params<const P> theta_;
  key_value_cache<X> cache_;
  typename E::template block<M> memory_;
  typename E::template block<A> x_, workspace_;
  exec::mirror<E, P> logits_;
  std::vector<token> residual_;
  std::vector<segment> together_;  // what one call encodes
  index_t memories_ = 0, tokens_ = 0;
};

/// Greedy auto-encoding: resets the session, has it encode `text`, one whole segment, into a memory, and
/// WRITES to `out`, as long as the text, the most probable tokens behind `begin`. They are chosen among the
/// first `pieces` tokens of the model's vocabulary; 0: among all.
template <class X>
void reproduce(memory_session<X>& session, std::span<const token> text, token begin, std::span<token> out,
               index_t pieces = 0) {
  check_size("reproduce", "out", index_t(out.size()), index_t(text.size()));
  session.reset();
  session.remember(text);
  token next = begin;
  for (token& t : out) {
    session.append(next);
    const auto logits = session.logits();
    t = next = most_probable(pieces > 0 ? logits.part(0, pieces) : logits);
  }
}

}  // namespace unroll::llama
