#pragma once

#include <array>

#include "unroll/exec/of.hpp"
#include "unroll/llama/transformer.hpp"

// The keys and values of the tokens that a model has seen. Both caches are used alike:
//
//   cache.make_room(n);                 // before n more tokens
//   pass.before = cache.before();       // their positions are cache.size(), cache.size() + 1, ...
//   stack.forward(..., cache.hook());   // stores their keys and values behind those there are
//   cache.extend(n);                    // counts them
namespace unroll::llama {

/// The hook of a pass whose keys and values `cache` stores.
template <class Cache>
struct storing_hook : no_hook {
  Cache* cache;  ///< outlives the pass
  /// k and v of one layer, kv_width x tokens each.
  template <class A>
  void keys(index_t layer, matrix<const A> k, matrix<const A> v) {
    cache->store(layer, k, v);
  }
};

namespace detail {

// One prefix block (see pass.hpp) of `capacity` columns, `size` of them filled.
template <class E>
class cache_block {
 public:
  using M = typename E::numbers::memory;
  using A = typename E::numbers::activation;

  cache_block(const config& c, index_t capacity, std::string_view name, E e)
      : executor_(std::move(e)), capacity_(capacity), kv_width_(c.kv_width()), layers_(c.layers) {
    check(c, name);
    check_at_least(name, "capacity", capacity, 1);
    if (capacity > c.positions())
      fail(name, "capacity",
           "is " + std::to_string(capacity) + ", the model has " + std::to_string(c.positions()) +
               " positions");
    data_ = executor_.template allocate<M>(2 * layers_ * kv_width_ * capacity);
    blocks_ = {data_.data()};
  }
  cache_block(const cache_block& other)
      : executor_(other.executor_),
        capacity_(other.capacity_),
        kv_width_(other.kv_width_),
        layers_(other.layers_),
        size_(other.size_),
        data_(other.data_),
        blocks_{data_.data()} {}
  cache_block(cache_block&&) noexcept = default;
  cache_block& operator=(const cache_block& other) { return *this = cache_block(other); }
  cache_block& operator=(cache_block&&) noexcept = default;

  prefix<M> before() const { return {blocks_, size_, capacity_}; }
  /// All keys, and all values, of a layer: kv_width x capacity.
  matrix<M> keys(index_t layer) { return {data_.data() + 2 * layer * area(), kv_width_, capacity_}; }
  matrix<M> values(index_t layer) { return {keys(layer).data + area(), kv_width_, capacity_}; }
  /// from, kv_width x n, into the columns of `to`, kv_width x capacity, behind those that are filled.
  template <class U>
  void store(matrix<const U> from, matrix<M> to) const {
    executor_.copy(from, columns_of(to, size_, from.cols));
  }
  /// The keys k and values v of a layer, kv_width x n each, behind those there are.
  template <class U>
  void store(index_t layer, matrix<const U> k, matrix<const U> v) {
    if (k.cols == 1 && k.stride == v.stride && v.data == k.data + k.rows) {  // rows of one column: one copy
      const matrix<M> to = columns_of(keys(layer), size_, 1);
      return executor_.copy(matrix<const U>(k.data, k.rows, 2), matrix<M>(to.data, to.rows, 2, area()));
    }
    store(k, keys(layer));
    store(v, values(layer));
  }

  E executor_;
  index_t capacity_, kv_width_, layers_, size_ = 0;
  typename E::template block<M> data_;

 private:
  index_t area() const { return kv_width_ * capacity_; }
  std::array<const M*, 1> blocks_;
};

}  // namespace detail

/// The keys and values of all tokens so far, at most `capacity`. 2 layers kv_width capacity numbers.
template <class X>
class key_value_cache final {
  using E = exec::of<X>;
  using M = typename E::numbers::memory;

 public:
  /// Throws unroll::error when `capacity` is more than the model has positions.
  key_value_cache(const config& c, index_t capacity, E e = E{})
      : block_(c, capacity, "key_value_cache", std::move(e)) {}

  index_t size() const { return block_.size_; }
  index_t capacity() const { return block_.capacity_; }  ///< tokens that it has room for
  std::size_t bytes() const { return block_.data_.bytes(); }
  prefix<M> before() const { return block_.before(); }  ///< the tokens so far, as a prefix
  void clear() { block_.size_ = 0; }
  /// Forgets all but the first n tokens.
  void keep_first(index_t n) { block_.size_ = std::min(n, size()); }

  index_t largest_chunk() const { return capacity(); }              ///< tokens of one pass
  bool takes(index_t n) const { return n <= capacity() - size(); }  ///< whether so many more tokens fit
  /// Throws unroll::error when fewer than n columns are left.
  void make_room(index_t n) const {
    if (!takes(n))
      fail("key_value_cache", "capacity",
           "is " + std::to_string(capacity()) + ", too little for " + std::to_string(size()) +
               " tokens and " + std::to_string(n) + " more");
  }
  /// Writes keys k and values v of one layer, kv_width x n each, behind those of the tokens so far.
  template <class A>
  void store(index_t layer, matrix<const A> k, matrix<const A> v) {
    block_.store(layer, k, v);
  }
  /// Counts n more tokens, whose keys and values are stored.
  void extend(index_t n) {
    make_room(n);
    block_.size_ += n;
  }
  storing_hook<key_value_cache> hook() { return {{}, this}; }  ///< for the pass over these tokens

 private:
  detail::cache_block<E> block_;
};

/// The first `sinks` tokens and up to `window` of the last ones: StreamingLLM (Xiao et al. 2024, arXiv
/// 2309.17453); with 0 sinks a sliding window. Positions count the tokens in the cache, so that a text may be
/// longer than the model has positions: keys are also kept without rotation, and are rotated again after
/// every eviction. Of tokens that come one at a time each sees itself and up to sinks + window - 1 others; of
/// n at once only the last one sees so many, the first one n - 1 fewer. The keys and values of upper layers
/// keep what they have of evicted tokens. 3 layers kv_width (sinks + window) numbers; an eviction moves them
/// all.
template <class X>
class streaming_cache final {
  using E = exec::of<X>;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

 public:
  /// `stack`: the model whose keys are kept. Throws unroll::error when sinks + window is more than it has
  /// positions.
  streaming_cache(const transformer<X>& stack, index_t sinks, index_t window)
      : block_(stack.shape(), checked(sinks, window), "streaming_cache", stack.executor()),
        stack_(stack),
        sinks_(sinks),
        unrotated_(block_.executor_.template allocate<M>(stack.shape().layers * stack.shape().kv_width() *
                                                         (sinks + window))) {
    if constexpr (!std::same_as<M, P>)
      if (stack.rotary().attention() != 1)
        fail("streaming_cache", "stack",
             "has the attention factor " + number_text(stack.rotary().attention()) +
                 ", keys of another kind than theta are turned back where it is 1");
  }

  index_t size() const { return block_.size_; }
  index_t capacity() const { return block_.capacity_; }  ///< tokens that it has room for
  std::size_t bytes() const { return block_.data_.bytes() + unrotated_.bytes(); }
  prefix<M> before() const { return block_.before(); }  ///< the tokens held, as a prefix
  void clear() { block_.size_ = 0; }

  index_t largest_chunk() const { return capacity() - sinks_; }  ///< tokens of one pass
  bool takes(index_t) const { return true; }                     ///< a text never ends
  /// Evicts the oldest tokens behind the sinks until there is room for n. Throws unroll::error when n is more
  /// than the window.
  void make_room(index_t n) {
    if (n > largest_chunk())
      fail("streaming_cache", "window",
           "is " + std::to_string(largest_chunk()) + ", too little for " + std::to_string(n) +
               " tokens at once");
    const index_t evicted = size() + n - capacity();
    if (evicted <= 0) return;
    block_.size_ -= evicted;
    const index_t from = sinks_, count = size() - sinks_;
    const E& e = block_.executor_;
    const auto move_up = [&](matrix<M> a) {
      e.copy(columns_of(a, from + evicted, count), columns_of(a, from, count));
    };
    for (index_t layer = 0; layer < block_.layers_; ++layer) {
      move_up(block_.values(layer));
      move_up(unrotated(layer));
      const matrix<M> keys = columns_of(block_.keys(layer), from, count);
      e.copy(columns_of(unrotated(layer), from, count), keys);
      if (count > 0) e.rotary(kernels::turn::forward, stack_.table(), stack_.positions(from, count), keys);
    }
  }
  /// Writes keys k and values v of one layer, kv_width x n each, behind those of the tokens held.
  template <class A>
  void store(index_t layer, matrix<const A> k, matrix<const A> v) {
    block_.store(layer, k, v);
    const matrix<M> all = unrotated(layer);
    block_.store(k, all);
    const matrix<M> own = columns_of(all, size(), k.cols);
    block_.executor_.rotary(kernels::turn::back, stack_.table(), stack_.positions(size(), k.cols), own);
    if constexpr (std::same_as<M, P>) {
      const double factor = stack_.rotary().attention() * stack_.rotary().attention();
      if (factor != 1) block_.executor_.scale(1 / factor, own.data, own.rows * own.cols);
    }
  }
  /// Counts n more tokens, whose keys and values are stored.
  void extend(index_t n) {
    make_room(n);
    block_.size_ += n;
  }
  storing_hook<streaming_cache> hook() { return {{}, this}; }  ///< for the pass over these tokens

 private:
  static index_t checked(index_t sinks, index_t window) {
    check_at_least("streaming_cache", "sinks", sinks, 0);
    check_at_least("streaming_cache", "window", window, 1);
    return sinks + window;
  }
  /// The keys of a layer without rotation, kv_width x capacity.
  matrix<M> unrotated(index_t layer) {
    const index_t area = block_.kv_width_ * capacity();
    return {unrotated_.data() + layer * area, block_.kv_width_, capacity()};
  }

  detail::cache_block<E> block_;
  transformer<X> stack_;
  index_t sinks_;
  typename E::template block<M> unrotated_;
};

}  // namespace unroll::llama
