#pragma once

#include "unroll/core/arena.hpp"
#include "unroll/kernels/rmsnorm.hpp"
#include "unroll/kernels/swiglu.hpp"
#include "unroll/llama/pass.hpp"
#include "unroll/llama/positions.hpp"

namespace unroll::llama {

/// The layers of a Llama (Touvron et al. 2023, arXiv 2302.13971), without embedding and head. Column n of x
/// is token n. Layer i, with g its gains and without the adapters:
///
///   a = rmsnorm(x, g_1)    q, k, v = W_Q' a, W_K' a, W_V' a; q and k rotated by their positions
///   h = x + W_O' attention(q; keys and values before, k, v)
///   b = rmsnorm(h, g_2)    x <- h + W_D' (up * silu(gate)),   gate, up = W_G' b, W_U' b
///
/// The vjp is exact, also to adapters, to the prefix and to what hooks see. Every product is one call of
/// linalg::gemm over all tokens, q, k, v and gate, up together: with P weights in its layers, a pass is 2 P
/// flops a token, its vjp 2 P without and 4 P with the gradients of the weights; attention comes on top, and
/// with saved::inputs another pass. Nothing allocates: the caller brings tape_size and work_size numbers.
template <class T>
class transformer final {
 public:
  explicit transformer(const config& c) : map_(c), rotary_(make_rotary<T>(c)) {}

  const config& shape() const { return map_.shape(); }
  const weight_map& map() const { return map_; }
  const kernels::rotary<T>& positions() const { return rotary_; }

  /// Numbers that a tape of this pass holds; only sizes of the pass are looked at.
  index_t tape_size(const pass<T>& p) const {
    return p.layers * layer_tape(p) + (p.layers < shape().layers ? input_tape(p) : 0);
  }
  /// Numbers that forward needs to work in, and, if `with_vjp`, vjp.
  index_t work_size(const pass<T>& p, bool with_vjp = true) const {
    arena<T> forward, backward;
    cut_scratch(forward, p, false);
    cut_activations(forward, p);
    if (!with_vjp) return forward.used();
    cut_scratch(backward, p, true);
    if (p.keep == saved::inputs) cut_activations(backward, p);
    return std::max(forward.used(), backward.used());
  }

  /// x: the inputs of layer 0, then the outputs of layer p.layers - 1. An empty tape saves nothing and gives
  /// the same bits. Throws unroll::error on wrong sizes and on positions outside the table.
  template <class Hook = no_hook>
  void forward(const T* weights, adapters<T> a, const pass<T>& p, matrix<T> x, view<T> tape, view<T> work,
               Hook&& hook = {}) const {
    check_pass("transformer::forward", p, x, work.size(), work_size(p, false));
    if (!tape.empty()) check_at_least("transformer::forward", "tape", tape.size(), tape_size(p));
    arena<T> room(work);
    const scratch t = cut_scratch(room, p, false);
    const bool all = !tape.empty() && p.keep == saved::activations;
    activations<T> s;
    if (!all) s = cut_activations(room, p);
    for (index_t i = 0; i < p.layers; ++i) {
      if (!tape.empty()) {
        arena<T> saved(tape.part(i * layer_tape(p), layer_tape(p)));
        copy(x, saved.cut(x.rows, x.cols));
        if (all) s = cut_activations(saved, p);
      }
      attend(i, weights, a, p, x, s, t, hook);
      project(i, weights, a, s, x, t);
      if (all) copy(x, s.mid);
      gate(i, weights, a, x, s, t);
      activate(s.gated, t.hidden);
      linalg::gemm<T>(op::transpose, weight(weights, map_[i].down, shape().mlp, shape().hidden), op::none,
                      t.hidden, true, x);
      adapt(a, i, target_matrix::down, t.hidden, x, t);
    }
    if (p.layers == shape().layers) return;
    if (!tape.empty())
      copy(x, arena<T>(tape.part(p.layers * layer_tape(p), input_tape(p))).cut(x.rows, x.cols));
    if constexpr (hooked<Hook>) {
      norm(weights + map_[p.layers].attention_norm, x, t.normed, t.rstd);
      hook.normed(p.layers, matrix<const T>(t.normed));
    }
  }

  /// dx: the cotangent of the outputs, then that of the inputs (meaningful only if want_dx). ADDS to what
  /// dbefore (one pointer per block of the prefix, laid out like it; null: not wanted; empty: none),
  /// dweights and dadapters point to; null: not wanted. Layers below the lowest one in which something is
  /// wanted do not run, nor do their hooks. The tape is that of a forward with the same arguments.
  template <class Hook = no_hook>
  void vjp(const T* weights, adapters<T> a, const pass<T>& p, view<const T> tape, matrix<T> dx,
           std::span<T* const> dbefore, T* dweights, T* dadapters, bool want_dx, view<T> work,
           Hook&& hook = {}) const {
    check_pass("transformer::vjp", p, dx, work.size(), work_size(p));
    check_at_least("transformer::vjp", "tape", tape.size(), tape_size(p));
    if (!dbefore.empty())
      check_size("transformer::vjp", "dbefore", index_t(dbefore.size()), index_t(p.before.blocks.size()));
    const wanted want{dbefore, dweights, a.map ? dadapters : nullptr, want_dx};
    const index_t lowest = lowest_layer(a, p, want);
    if (lowest == p.layers && !want_dx) return;
    arena<T> room(work);
    const scratch t = cut_scratch(room, p, true);
    if constexpr (hooked<Hook>)
      if (p.layers < shape().layers) {
        const matrix<const T> top = saved_input(tape, p, p.layers);
        const index_t gain = map_[p.layers].attention_norm;
        fill(t.dnormed);
        hook.dnormed(p.layers, t.dnormed);
        norm(weights + gain, top, t.normed, t.rstd);
        kernels::rmsnorm_vjp(top, weights + gain, t.rstd, t.dnormed, dx,
                             dweights ? dweights + gain : nullptr);
      }
    activations<T> again;
    if (p.keep == saved::inputs) again = cut_activations(room, p);
    for (index_t i = p.layers - 1; i >= lowest; --i) {
      const matrix<const T> x = saved_input(tape, p, i);
      activations<const T> s;
      if (p.keep == saved::activations) {
        arena<const T> from(tape.part(i * layer_tape(p), layer_tape(p)));
        from.cut(x.rows, x.cols);
        s = cut_activations(from, p);
      } else {
        no_hook none;
        attend(i, weights, a, p, x, again, t, none);
        copy(x, again.mid);
        project(i, weights, a, again, again.mid, t);
        gate(i, weights, a, again.mid, again, t);
        s = constant(again);
      }
      mlp_vjp(i, weights, a, s, dx, want, t);
      attention_vjp(i, weights, a, p, x, s, dx, want, i > lowest || want_dx || dweights, t, hook);
    }
  }

 private:
  template <class Hook>
  static constexpr bool hooked = !std::is_same_v<std::remove_cvref_t<Hook>, no_hook>;
  static constexpr index_t rank_slice = 64;  ///< columns of A taken at a time

  /// What a layer computes and its vjp needs, beside the layer's input.
  template <class U>
  struct activations {
    matrix<U> rstd, qkv, mixed, log_sum, mid, rstd_mid, gated;
  };
  static activations<const T> constant(const activations<T>& s) {
    return {s.rstd, s.qkv, s.mixed, s.log_sum, s.mid, s.rstd_mid, s.gated};
  }
  struct scratch {
    matrix<T> normed, hidden, z, dz;
    view<T> attention;
    std::span<kernels::key_block<T>> before;
    T* rstd = nullptr;
    matrix<T> dnormed, dqkv, dmixed, dgated;  // of the vjp
    std::span<kernels::key_block_adjoint<T>> dbefore;
  };
  struct wanted {
    std::span<T* const> before;
    T* weights;
    T* adapters;
    bool inputs;
  };

  template <class U>
  activations<U> cut_activations(arena<U>& c, const pass<T>& p) const {
    const config& m = shape();
    const index_t n = p.tokens();
    return {c.cut(n), c.cut(qkv_width(), n), c.cut(m.query_width(), n), c.cut(m.heads, n), c.cut(m.hidden, n),
            c.cut(n), c.cut(2 * m.mlp, n)};
  }
  scratch cut_scratch(arena<T>& c, const pass<T>& p, bool vjp) const {
    const config& m = shape();
    const index_t n = p.tokens(), blocks = index_t(p.before.blocks.size());
    scratch t;
    t.normed = c.cut(m.hidden, n);
    t.hidden = c.cut(m.mlp, n);
    t.z = c.cut(rank_slice, n);
    t.rstd = c.cut(n).data;
    t.attention =
        c.cut_flat(kernels::attention_work(head_shape(), p.length, p.before.total(), p.before.keys));
    t.before = c.template cut_objects<kernels::key_block<T>>(blocks);
    if (!vjp) return t;
    t.dz = c.cut(rank_slice, n);
    t.dnormed = c.cut(m.hidden, n);
    t.dqkv = c.cut(qkv_width(), n);
    t.dmixed = c.cut(m.query_width(), n);
    t.dgated = c.cut(2 * m.mlp, n);
    t.dbefore = c.template cut_objects<kernels::key_block_adjoint<T>>(blocks);
    return t;
  }
  index_t input_tape(const pass<T>& p) const { return arena<T>::rounded(shape().hidden * p.tokens()); }
  index_t layer_tape(const pass<T>& p) const {
    arena<T> c;
    if (p.keep == saved::activations) cut_activations(c, p);
    return input_tape(p) + c.used();
  }
  matrix<const T> saved_input(view<const T> tape, const pass<T>& p, index_t layer) const {
    return {tape.data() + layer * layer_tape(p), shape().hidden, p.tokens()};
  }

  void check_pass(const char* function, const pass<T>& p, matrix<const T> x, index_t got,
                  index_t need) const {
    check_at_least(function, "sequences", p.sequences, 1);
    check_at_least(function, "layers", p.layers, 0);
    if (p.layers > shape().layers)
      fail(function, "layers",
           "are " + std::to_string(p.layers) + ", the model has " + std::to_string(shape().layers));
    check_size(function, "positions", index_t(p.positions.size()), p.length);
    rotary_.check_positions(function, p.positions);
    check_size(function, "x (rows)", x.rows, shape().hidden);
    check_size(function, "x (columns)", x.cols, p.tokens());
    if (!p.before.blocks.empty() && p.sequences != 1)
      fail(function, "sequences", "are " + std::to_string(p.sequences) + ", with a prefix there is one");
    if (p.before.keys > p.before.capacity) fail(function, "before", "has more keys than its capacity");
    check_at_least(function, "work", got, need);
  }

  index_t qkv_width() const { return shape().query_width() + 2 * shape().kv_width(); }
  kernels::attention_shape head_shape() const { return {shape().heads, shape().kv_heads, shape().head}; }
  static matrix<const T> weight(const T* w, index_t offset, index_t in, index_t out) {
    return {w + offset, in, out};
  }
  void norm(const T* gain, matrix<const T> x, matrix<T> y, T* rstd) const {
    kernels::rmsnorm<T>(x, gain, T(shape().norm_epsilon), y, rstd);
  }
  static void copy(matrix<const T> from, matrix<T> to) {
    for (index_t j = 0; j < from.cols; ++j)
      std::copy_n(from.data + j * from.stride, from.rows, to.data + j * to.stride);
  }
  static void fill(matrix<T> m) {
    for (index_t j = 0; j < m.cols; ++j) std::fill_n(m.data + j * m.stride, m.rows, T(0));
  }
  template <class U>
  matrix<U> queries(matrix<U> qkv) const {
    return rows_of(qkv, 0, shape().query_width());
  }
  template <class U>
  matrix<U> keys(matrix<U> qkv) const {
    return rows_of(qkv, shape().query_width(), shape().kv_width());
  }
  template <class U>
  matrix<U> values(matrix<U> qkv) const {
    return rows_of(qkv, shape().query_width() + shape().kv_width(), shape().kv_width());
  }
  void gather(index_t layer, const pass<T>& p, const scratch& t) const {
    for (std::size_t b = 0; b < p.before.blocks.size(); ++b)
      t.before[b] = p.before.at(b, layer, shape().kv_width());
  }

  template <class Hook>
  void attend(index_t i, const T* w, adapters<T> a, const pass<T>& p, matrix<const T> x,
              const activations<T>& s, const scratch& t, Hook& hook) const {
    norm(w + map_[i].attention_norm, x, t.normed, s.rstd.data);
    hook.normed(i, matrix<const T>(t.normed));
    linalg::gemm<T>(op::transpose, weight(w, map_[i].q, shape().hidden, qkv_width()), op::none, t.normed,
                    false, s.qkv);
    adapt(a, i, target_matrix::q, t.normed, queries(s.qkv), t);
    adapt(a, i, target_matrix::k, t.normed, keys(s.qkv), t);
    adapt(a, i, target_matrix::v, t.normed, values(s.qkv), t);
    rotary_.rotate(rows_of(s.qkv, 0, shape().query_width() + shape().kv_width()), p.positions);
    hook.keys(i, matrix<const T>(keys(s.qkv)), matrix<const T>(values(s.qkv)));
    gather(i, p, t);
    for (index_t b = 0; b < p.sequences; ++b) {
      const auto own = [&](auto m) { return columns_of(m, b * p.length, p.length); };
      kernels::attention<T>(head_shape(), p.mask, own(queries(s.qkv)), t.before,
                            {own(keys(s.qkv)), own(values(s.qkv))}, own(s.mixed), own(s.log_sum).data,
                            t.attention);
    }
  }
  /// h += W_O' mixed.
  void project(index_t i, const T* w, adapters<T> a, const activations<T>& s, matrix<T> h,
               const scratch& t) const {
    linalg::gemm<T>(op::transpose, weight(w, map_[i].o, shape().query_width(), shape().hidden), op::none,
                    s.mixed, true, h);
    adapt(a, i, target_matrix::o, s.mixed, h, t);
  }
  void gate(index_t i, const T* w, adapters<T> a, matrix<const T> h, const activations<T>& s,
            const scratch& t) const {
    norm(w + map_[i].mlp_norm, h, t.normed, s.rstd_mid.data);
    linalg::gemm<T>(op::transpose, weight(w, map_[i].gate, shape().hidden, 2 * shape().mlp), op::none,
                    t.normed, false, s.gated);
    adapt(a, i, target_matrix::gate, t.normed, rows_of(s.gated, 0, shape().mlp), t);
    adapt(a, i, target_matrix::up, t.normed, rows_of(s.gated, shape().mlp, shape().mlp), t);
  }
  void activate(matrix<const T> gated, matrix<T> hidden) const {
    for (index_t j = 0; j < gated.cols; ++j) {
      const T* g = gated.data + j * gated.stride;
      kernels::swiglu(g, g + shape().mlp, hidden.data + j * hidden.stride, shape().mlp);
    }
  }

  void mlp_vjp(index_t i, const T* w, adapters<T> a, const activations<const T>& s, matrix<T> dx,
               const wanted& want, const scratch& t) const {
    const config& m = shape();
    T* dw = want.weights;
    const auto adapted = [&](target_matrix k) { return want.adapters && a.map->at(i, k).a >= 0; };
    if (dw || adapted(target_matrix::down)) activate(s.gated, t.hidden);
    if (dw)
      linalg::gemm<T>(op::none, t.hidden, op::transpose, dx, true, {dw + map_[i].down, m.mlp, m.hidden});
    const matrix<T> dhidden = rows_of(t.dgated, m.mlp, m.mlp);
    linalg::gemm<T>(op::none, weight(w, map_[i].down, m.mlp, m.hidden), op::none, dx, false, dhidden);
    adapt_vjp(a, i, target_matrix::down, t.hidden, dx, dhidden, want, t);
    for (index_t j = 0; j < dx.cols; ++j) {
      const T* g = s.gated.data + j * s.gated.stride;
      T* d = t.dgated.data + j * t.dgated.stride;
      kernels::swiglu_vjp(g, g + m.mlp, d + m.mlp, d, d + m.mlp, m.mlp);
    }
    if (dw || adapted(target_matrix::gate) || adapted(target_matrix::up))
      norm(w + map_[i].mlp_norm, s.mid, t.normed, t.rstd);
    if (dw)
      linalg::gemm<T>(op::none, t.normed, op::transpose, t.dgated, true,
                      {dw + map_[i].gate, m.hidden, 2 * m.mlp});
    linalg::gemm<T>(op::none, weight(w, map_[i].gate, m.hidden, 2 * m.mlp), op::none, t.dgated, false,
                    t.dnormed);
    adapt_vjp(a, i, target_matrix::gate, t.normed, rows_of(t.dgated, 0, m.mlp), t.dnormed, want, t);
    adapt_vjp(a, i, target_matrix::up, t.normed, dhidden, t.dnormed, want, t);
    kernels::rmsnorm_vjp(s.mid, w + map_[i].mlp_norm, s.rstd_mid.data, t.dnormed, dx,
                         dw ? dw + map_[i].mlp_norm : nullptr);
  }

  /// `below`: whether anything wants the cotangent of the layer's input.
  template <class Hook>
  void attention_vjp(index_t i, const T* w, adapters<T> a, const pass<T>& p, matrix<const T> x,
                     const activations<const T>& s, matrix<T> dx, const wanted& want, bool below,
                     const scratch& t, Hook& hook) const {
    const config& m = shape();
    T* dw = want.weights;
    if (dw)
      linalg::gemm<T>(op::none, s.mixed, op::transpose, dx, true,
                      {dw + map_[i].o, m.query_width(), m.hidden});
    linalg::gemm<T>(op::none, weight(w, map_[i].o, m.query_width(), m.hidden), op::none, dx, false, t.dmixed);
    adapt_vjp(a, i, target_matrix::o, s.mixed, dx, t.dmixed, want, t);

    gather(i, p, t);
    for (std::size_t b = 0; b < want.before.size(); ++b) {
      const auto like = p.before.at(b, i, m.kv_width());
      T* dk = want.before[b] ? want.before[b] + 2 * i * m.kv_width() * p.before.capacity : nullptr;
      T* dv = dk ? dk + m.kv_width() * p.before.capacity : nullptr;
      t.dbefore[b] = {{dk, like.k.rows, like.k.cols}, {dv, like.v.rows, like.v.cols}};
    }
    fill(rows_of(t.dqkv, m.query_width(), 2 * m.kv_width()));
    for (index_t b = 0; b < p.sequences; ++b) {
      const auto own = [&](auto u) { return columns_of(u, b * p.length, p.length); };
      kernels::attention_vjp<T>(head_shape(), p.mask, own(queries(s.qkv)), t.before,
                                {own(keys(s.qkv)), own(values(s.qkv))}, own(s.mixed), own(s.log_sum).data,
                                own(t.dmixed), own(queries(t.dqkv)), t.dbefore.first(want.before.size()),
                                {own(keys(t.dqkv)), own(values(t.dqkv))}, t.attention);
    }
    rotary_.rotate_back(rows_of(t.dqkv, 0, m.query_width() + m.kv_width()), p.positions);

    if (dw || want.adapters) norm(w + map_[i].attention_norm, x, t.normed, t.rstd);
    if (dw)
      linalg::gemm<T>(op::none, t.normed, op::transpose, t.dqkv, true,
                      {dw + map_[i].q, m.hidden, qkv_width()});
    const matrix<T> dnormed = below ? t.dnormed : matrix<T>();
    if (below)
      linalg::gemm<T>(op::none, weight(w, map_[i].q, m.hidden, qkv_width()), op::none, t.dqkv, false,
                      dnormed);
    adapt_vjp(a, i, target_matrix::q, t.normed, queries(t.dqkv), dnormed, want, t);
    adapt_vjp(a, i, target_matrix::k, t.normed, keys(t.dqkv), dnormed, want, t);
    adapt_vjp(a, i, target_matrix::v, t.normed, values(t.dqkv), dnormed, want, t);
    if (!below) return;
    hook.dnormed(i, dnormed);
    kernels::rmsnorm_vjp(x, w + map_[i].attention_norm, s.rstd.data, dnormed, dx,
                         dw ? dw + map_[i].attention_norm : nullptr);
  }

  /// y += scale B' (A' x), by slices of the rank, so that z has a fixed size.
  void adapt(adapters<T> a, index_t i, target_matrix m, matrix<const T> x, matrix<T> y,
             const scratch& t) const {
    if (!a.map || a.map->at(i, m).a < 0) return;
    for (index_t r0 = 0; r0 < a.map->rank(); r0 += rank_slice) {
      const slice f = slice_of(*a.map, i, m, r0);
      linalg::gemm<T>(op::transpose, f.down(a.theta), op::none, x, false, f.of(t.z));
      linalg::scale(T(a.map->scale()), t.z.data, f.rank * x.cols);
      linalg::gemm<T>(op::transpose, f.up(a.theta), op::none, f.of(t.z), true, y);
    }
  }
  /// With z = scale A' x and dz = scale B dy: dB += z dy', dA += x dz', dx += A dz unless its data is null.
  void adapt_vjp(adapters<T> a, index_t i, target_matrix m, matrix<const T> x, matrix<const T> dy,
                 matrix<T> dx, const wanted& want, const scratch& t) const {
    if (!a.map || a.map->at(i, m).a < 0) return;
    for (index_t r0 = 0; r0 < a.map->rank(); r0 += rank_slice) {
      const slice f = slice_of(*a.map, i, m, r0);
      const matrix<T> z = f.of(t.z), dz = f.of(t.dz);
      linalg::gemm<T>(op::none, f.up(a.theta), op::none, dy, false, dz);
      linalg::scale(T(a.map->scale()), dz.data, f.rank * dy.cols);
      if (dx.data) linalg::gemm<T>(op::none, f.down(a.theta), op::none, dz, true, dx);
      if (!want.adapters) continue;
      linalg::gemm<T>(op::transpose, f.down(a.theta), op::none, x, false, z);
      linalg::scale(T(a.map->scale()), z.data, f.rank * x.cols);
      linalg::gemm<T>(op::none, z, op::transpose, dy, true, f.up(want.adapters));
      linalg::gemm<T>(op::none, x, op::transpose, dz, true, f.down(want.adapters));
    }
  }
  /// Columns [r0, r0 + rank) of A and these rows of B.
  struct slice {
    index_t a, b, in, out, rank, full;
    template <class U>
    matrix<U> down(U* theta) const {
      return {theta + a, in, rank};
    }
    template <class U>
    matrix<U> up(U* theta) const {
      return {theta + b, rank, out, full};
    }
    matrix<T> of(matrix<T> z) const { return {z.data, rank, z.cols}; }
  };
  slice slice_of(const lora_map& map, index_t i, target_matrix m, index_t r0) const {
    const auto f = map.at(i, m);
    const index_t in = lora_map::in_width(shape(), m), out = lora_map::out_width(shape(), m);
    return {f.a + r0 * in, f.b + r0, in, out, std::min(rank_slice, map.rank() - r0), map.rank()};
  }

  index_t lowest_layer(adapters<T> a, const pass<T>& p, const wanted& want) const {
    if (want.weights || want.inputs) return 0;
    for (T* d : want.before)
      if (d) return 0;
    if (want.adapters)
      for (index_t i = 0; i < p.layers; ++i)
        for (std::size_t m = 0; m < target_names.size(); ++m)
          if (a.map->at(i, target_matrix(m)).a >= 0) return i;
    return p.layers;
  }

  weight_map map_;
  kernels::rotary<T> rotary_;
};

}  // namespace unroll::llama
