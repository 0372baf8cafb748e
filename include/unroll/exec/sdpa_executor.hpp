#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "unroll/exec/body_executor.hpp"
#include "unroll/exec/sdpa.hpp"
#include "unroll/kernels/sdpa_body.hpp"

namespace unroll::exec {

namespace detail {

/// A machine that runs a body where *flag has a value, and else nothing.
template <class Machine>
struct machine_where {
  Machine of;
  const float* flag;
  float value;

  template <class Body>
  void run(const Body& body) const {
    of.run(kernels::only_where_body<Body>{flag, value, body});
  }
  template <class U>
  auto staged(std::span<U> numbers) const {
    return of.staged(numbers);
  }
  double* partial_sums() const { return of.partial_sums(); }
};

}  // namespace detail

/// An executor E of kernel bodies whose attention in bfloat16 runs through a library where the library can
/// do it, and through the bodies else: `why_bodies` says why.
///
/// The library has one sequence at a time, so that a sequence's bits, and the workspace, do not depend on the
/// others. Keys and values of the prefix and the sequence's own are gathered side by side and padded with
/// zeros to padded_keys(n), unless there is no prefix and nothing to pad; how many there are is always said.
/// A memory token's row is no causal row, and vjps need it to add into the keys of the others: the rows of
/// ordinary tokens are the library's, those of memory tokens the bodies'. One query a sequence, as in
/// decoding, is the bodies' too.
///
/// What the library writes is read once more: where a number of a sequence is not finite, the bodies compute
/// that sequence again, on the device and without waiting, and `repaired` counts it. Same arguments, same
/// bits, as long as the library keeps to that; between batches as well.
template <class E, sdpa_library S>
class sdpa_executor : public E {
 public:
  using numbers = typename E::numbers;

 private:
  using N = numbers;
  using T = typename N::activation;
  using P = typename N::parameter;
  static constexpr bool possible = std::same_as<T, bf16> && std::same_as<typename N::memory, bf16>;

 public:
  /// library: null where there is none, for the reason given.
  explicit sdpa_executor(E device, std::shared_ptr<S> library, std::string missing = {})
      : E(device),
        library_(std::move(library)),
        missing_(std::move(missing)),
        flags_(std::make_shared<typename E::template block<float>>(device.template allocate<float>(2))) {}

  const std::shared_ptr<S>& library() const { return library_; }  ///< null where there is none
  /// Sequences whose results the library left not finite so far, which the bodies have computed again. Waits.
  index_t repaired() const {
    return index_t(value(*this, flags_->data())) + index_t(value(*this, flags_->data() + 1));
  }

  /// The columns to which n keys are padded: a multiple of 128, and beyond 1024 of an eighth of the power of
  /// two below n, so that the library makes few plans.
  static constexpr index_t padded_keys(index_t n) {
    index_t step = 128;
    while (16 * step < n) step *= 2;
    return (n + step - 1) / step * step;
  }

  static index_t attention_workspace(const kernels::attention_shape& shape, const attention_size& size) {
    const index_t bodies = E::attention_workspace(shape, size);
    if (!possible || !has_shape(shape) || size.length < 2) return bodies;
    return bodies + sizes(shape, size.length, size.blocks * size.keys + size.length, size.vjp);
  }

  /// Why attention of this call, or its vjp with `d`, runs by the bodies; empty: through the library. Makes
  /// the library's plans for the call.
  std::string why_bodies(const attention_call<N>& c, const attention_adjoint<N>* d = nullptr) const {
    return why_bodies(c, d ? d->out : matrix<const T>(nullptr, c.q.rows, c.q.cols), d);
  }

  void attention(const attention_call<N>& c, matrix<T> out, P* log_sum, view<T> workspace) const {
    if constexpr (possible)
      if (why_bodies(c, out, nullptr).empty()) {
        for (index_t s = 0; s < c.sequences; ++s) {
          const one_sequence one(c, s);
          const index_t n = one.ordinary.q.cols, begin = s * one.queries;
          const auto log_sum_at = [&](index_t i) { return log_sum ? log_sum + c.shape.heads * i : nullptr; };
          forward(one, columns_of(out, begin, n), log_sum_at(begin), workspace);
          if (one.memory.q.cols > 0)
            E::attention(one.memory, columns_of(out, begin + n, one.memory.q.cols), log_sum_at(begin + n),
                         workspace);
        }
        return;
      }
    E::attention(c, out, log_sum, workspace);
  }
  /// dq last: it may be the memory of q or of dout.
  void attention_vjp(const attention_call<N>& c, const attention_adjoint<N>& d, view<T> workspace) const {
    if constexpr (possible)
      if (why_bodies(c, &d).empty()) {
        for (index_t s = 0; s < c.sequences; ++s) vjp(one_sequence(c, s), s, d, workspace);
        return;
      }
    E::attention_vjp(c, d, workspace);
  }

 private:
  /// A sequence of a call in two: the rows of ordinary tokens, and those of memory tokens.
  struct one_sequence {
    one_sequence(const attention_call<N>& c, index_t s) : seen(c.before.range(s)), ordinary(c) {
      const index_t tokens = c.k.cols / c.sequences, first = c.mask.first;
      queries = tokens - first;
      ordinary.sequences = 1;
      ordinary.before.ranges = {&seen, 1};
      memory = ordinary;
      const index_t n = ordinary_queries(c);
      ordinary.mask = {.first = first};
      ordinary.q = columns_of(c.q, s * queries, n);
      ordinary.k = columns_of(c.k, s * tokens, first + n),
      ordinary.v = columns_of(c.v, s * tokens, first + n);
      memory.mask.first = first + n;
      memory.q = columns_of(c.q, s * queries + n, queries - n);
      memory.k = columns_of(c.k, s * tokens, tokens), memory.v = columns_of(c.v, s * tokens, tokens);
    }
    one_sequence(const one_sequence&) = delete;
    one_sequence& operator=(const one_sequence&) = delete;

    /// Keys that the last ordinary query sees.
    index_t keys() const { return seen.blocks * seen.keys + ordinary.k.cols; }
    /// Whether they have to be gathered.
    bool packs() const {
      return keys() != ordinary.k.cols || padded_keys(keys()) != keys() ||
             ordinary.k.stride != ordinary.v.stride;
    }

    kernels::prefix_range seen;  // of the prefix
    index_t queries = 0;
    attention_call<N> ordinary, memory;
  };
  /// What a call of one sequence takes from the workspace, behind what the bodies take.
  struct pieces {
    pieces(arena<bf16>& a, const kernels::attention_shape& shape, index_t queries, index_t keys,
           index_t tokens, bool vjp) {
      const index_t width = shape.kv_width();
      k = a.cut(width, keys), v = a.cut(width, keys);
      log_sum = a.template cut_as<float>(queries, shape.heads);
      if (!vjp) return;
      dq = a.cut(shape.query_width(), queries);
      dk = a.cut(width, keys), dv = a.cut(width, keys);
      memory_dk = a.cut(width, tokens), memory_dv = a.cut(width, tokens);
    }
    matrix<bf16> k, v, dq, dk, dv, memory_dk, memory_dv;
    matrix<float> log_sum;
  };

  static bool has_shape(const kernels::attention_shape& s) {
    return s.head_dim % 8 == 0 && s.head_dim > 0 && s.head_dim <= 128;
  }
  template <class U>
  static bool aligned(const matrix<U>& m) {
    return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.stride % 8 == 0;
  }
  static index_t ordinary_queries(const attention_call<N>& c) {
    const index_t queries = c.k.cols / c.sequences - c.mask.first;
    if (c.mask.ordinals < 0) return queries;
    return std::clamp<index_t>(c.mask.ordinals - c.mask.first, 0, queries);
  }
  /// Numbers of the workspace for `length` tokens that see up to `keys`, and for the library's own.
  static index_t sizes(const kernels::attention_shape& shape, index_t length, index_t keys, bool vjp) {
    arena<bf16> a;
    const index_t padded = padded_keys(keys);
    const pieces all(a, shape, length, padded, length, vjp);
    index_t bytes = 0;
    for (const bool which : {false, vjp}) {
      const sdpa_shape s{.heads = shape.heads,
                         .kv_heads = shape.kv_heads,
                         .head_dim = shape.head_dim,
                         .queries = length,
                         .keys = padded,
                         .vjp = which};
      bytes = std::max(bytes, S::workspace_bound(s));
    }
    a.cut((bytes + alignment) / index_t(sizeof(bf16)));
    return a.used();
  }
  std::string why_bodies(const attention_call<N>& c, matrix<const T> out,
                         const attention_adjoint<N>* d) const {
    if constexpr (possible) {
      if (!library_) return missing_.empty() ? "there is no library" : missing_;
      if (!has_shape(c.shape))
        return "a head has " + std::to_string(c.shape.head_dim) + " numbers, not a multiple of 8 up to 128";
      if (c.sequences == 0 || c.k.cols / c.sequences - c.mask.first < 2) return "a sequence has one query";
      if (ordinary_queries(c) == 0) return "all queries are memory tokens";
      if (!aligned(c.q) || !aligned(c.k) || !aligned(c.v) || !aligned(out) || (d && !aligned(d->dout)))
        return "an operand is not aligned to 16 bytes";
      if (d && d->cut.pairs > 0) return "pairs are cut";
      for (index_t s = 0; s < c.sequences; ++s)
        if (const std::string& why = library_->refuses(library_shape(one_sequence(c, s), out, d));
            !why.empty())
          return why;
      return {};
    } else {
      return "numbers are not bfloat16";
    }
  }
  /// The ordinary rows of a sequence as the library sees them.
  static sdpa_shape library_shape(const one_sequence& one, matrix<const T> out,
                                  const attention_adjoint<N>* d) {
    const kernels::attention_shape& shape = one.ordinary.shape;
    return {.heads = shape.heads,
            .kv_heads = shape.kv_heads,
            .head_dim = shape.head_dim,
            .queries = one.ordinary.q.cols,
            .keys = padded_keys(one.keys()),
            .q_stride = one.ordinary.q.stride,
            .kv_stride = one.packs() ? shape.kv_width() : one.ordinary.k.stride,
            .out_stride = out.stride,
            .vjp = d != nullptr,
            .dout_stride = d ? d->dout.stride : 0};
  }
  /// f(k, v, how many queries, how many keys), the numbers at the place: what the library reads beside q, at
  /// the beginning of a check.
  template <class F>
  void with_keys(const one_sequence& one, const pieces& own, F&& f) const {
    const attention_call<N>& c = one.ordinary;
    this->machine().run(kernels::begin_check_body{flags_->data()});
    const auto blocks = this->machine().staged(c.before.blocks);
    if (one.packs())
      this->machine().run(kernels::pack_keys_body{
          {blocks.data(), c.before.key_offset, c.before.value_offset, nullptr, one.seen},
          c.k,
          c.v,
          own.k,
          own.v});
    const std::int32_t n[] = {std::int32_t(c.q.cols)}, m[] = {std::int32_t(one.keys())};
    const auto n_at = this->machine().staged(std::span<const std::int32_t>(n));
    const auto m_at = this->machine().staged(std::span<const std::int32_t>(m));
    if (one.packs())
      f(own.k.data, own.v.data, n_at.data(), m_at.data());
    else
      f(c.k.data, c.v.data, n_at.data(), m_at.data());
  }
  void* library_workspace(arena<T>& a, const sdpa_shape& shape) const {
    const view<T> room = a.cut_flat((library_->workspace(shape) + alignment) / index_t(sizeof(T)));
    const auto at = reinterpret_cast<std::uintptr_t>(room.data());
    return room.data() + (alignment - at % alignment) % alignment / sizeof(T);
  }
  /// The executor of bodies that run where the last check found what `value` says: 0 finite, 1 not.
  auto bodies_where(float value) const {
    using machine = detail::machine_where<std::remove_cvref_t<decltype(this->machine())>>;
    return body_executor<N, machine>(machine{this->machine(), flags_->data(), value});
  }
  template <class U>
  void check_finite(matrix<const U> written) const {
    this->machine().run(kernels::check_finite_body<U>{written, flags_->data()});
  }

  void forward(const one_sequence& one, matrix<T> out, P* log_sum, view<T> workspace) const {
    const attention_call<N>& c = one.ordinary;
    const sdpa_shape shape = library_shape(one, out, nullptr);
    arena<T> a(workspace);
    const pieces own(a, c.shape, shape.queries, shape.keys, 0, false);
    void* const library_room = library_workspace(a, shape);
    with_keys(one, own, [&](const T* k, const T* v, const std::int32_t* n, const std::int32_t* m) {
      const sdpa_call call{c.q.data, k, v, n, m, out.data, own.log_sum.data};
      this->machine().happen([to = library_.get(), shape, call, library_room](const auto&) {
        to->forward(shape, call, library_room);
      });
    });
    check_finite<T>(out);
    if (log_sum) {
      check_finite<float>(own.log_sum);
      this->machine().run(
          kernels::transpose_body{own.log_sum, matrix<P>(log_sum, c.shape.heads, shape.queries)});
    }
    bodies_where(1).attention(c, out, log_sum, a.rest());
  }

  void vjp(const one_sequence& one, index_t s, const attention_adjoint<N>& d, view<T> workspace) const {
    const attention_call<N>& c = one.ordinary;
    const index_t n = c.q.cols, begin = s * one.queries, tokens = one.memory.k.cols;
    const index_t seen = one.seen.blocks * one.seen.keys, heads = c.shape.heads;
    /// The adjoint of queries [from, from + n) of the sequence, and of its first m keys.
    const auto adjoint = [&](index_t from, index_t queries, matrix<T> dk, matrix<T> dv) {
      const auto part = [&](const auto& all) { return columns_of(all, begin + from, queries); };
      return attention_adjoint<N>{
          part(d.out), d.log_sum + heads * (begin + from), part(d.dout), part(d.dq), dk, dv, d.dbefore};
    };
    const matrix<T> dk = columns_of(d.dk, s * tokens, tokens), dv = columns_of(d.dv, s * tokens, tokens);
    const attention_adjoint<N> of = adjoint(0, n, columns_of(dk, 0, c.k.cols), columns_of(dv, 0, c.k.cols));

    const sdpa_shape shape = library_shape(one, of.out, &of);
    arena<T> a(workspace);
    const pieces own(a, c.shape, n, shape.keys, one.memory.q.cols > 0 ? tokens : 0, true);
    void* const library_room = library_workspace(a, shape);
    this->machine().run(kernels::transpose_body{matrix<const P>(of.log_sum, heads, n), own.log_sum});
    with_keys(one, own, [&](const T* k, const T* v, const std::int32_t* n_at, const std::int32_t* m_at) {
      const sdpa_vjp_call call{c.q.data,     k,           v,          of.out.data,
                               of.dout.data, n_at,        m_at,       own.log_sum.data,
                               own.dq.data,  own.dk.data, own.dv.data};
      this->machine().happen([to = library_.get(), shape, call, library_room](const auto&) {
        to->vjp(shape, call, library_room);
      });
    });
    check_finite<T>(own.dq);
    check_finite<T>(columns_of(own.dk, 0, one.keys()));
    check_finite<T>(columns_of(own.dv, 0, one.keys()));

    const auto finite = bodies_where(0);
    finite.copy(matrix<const T>(columns_of(own.dk, seen, c.k.cols)), of.dk);
    finite.copy(matrix<const T>(columns_of(own.dv, seen, c.k.cols)), of.dv);
    if (!d.dbefore.empty() && seen > 0) {
      const auto dbefore = this->machine().staged(d.dbefore);
      finite.machine().run(kernels::add_packed_body{own.dk, own.dv, dbefore.data(), c.before.key_offset,
                                                    c.before.value_offset, one.seen});
    }
    bodies_where(1).attention_vjp(c, of, a.rest());
    finite.copy(matrix<const T>(own.dq), of.dq);
    if (one.memory.q.cols > 0) {
      E::attention_vjp(one.memory, adjoint(n, one.memory.q.cols, own.memory_dk, own.memory_dv), a.rest());
      const index_t m = c.k.cols;
      const auto add = [&](matrix<T> more, matrix<T> to) {
        this->machine().run(kernels::add_columns_body{columns_of(more, 0, m), columns_of(to, 0, m)});
        this->copy(matrix<const T>(columns_of(more, m, tokens - m)), columns_of(to, m, tokens - m));
      };
      add(own.memory_dk, dk);
      add(own.memory_dv, dv);
    }
  }

  static constexpr index_t alignment = 256;  // bytes, of a library's workspace
  std::shared_ptr<S> library_;
  std::string missing_;
  std::shared_ptr<typename E::template block<float>> flags_;  // of the last call, and how many before
};

}  // namespace unroll::exec
