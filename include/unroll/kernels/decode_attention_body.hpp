#pragma once

#include "unroll/kernels/flash_attention_parts.hpp"

// Attention of one token a sequence, as in decoding: there are too few heads to fill a device, so the keys of
// a head are dealt to blocks, whose shares a second body joins (Dao et al. 2023, "Flash-Decoding for
// long-context inference").
namespace unroll::kernels {

/// How n keys are dealt: to at most 64 parts of whole tiles. Depends on n alone.
struct key_parts {
  static constexpr index_t tile = 128, most = 64;
  UNROLL_HD static index_t size(index_t n) { return tile * ceil_div(n, tile * most); }
  UNROLL_HD static index_t count(index_t n) { return ceil_div(n, size(n)); }
  /// Of n keys or fewer.
  UNROLL_HD static constexpr index_t bound(index_t n) { return smaller(most, ceil_div(n, tile)); }
};

/// What the blocks leave: for every sequence, head and part of the keys the sum of p v, the largest score and
/// the sum of p, with p = 2^(s c - m c) as in flash_attention_body.hpp. Not rounded.
template <int Head>
struct attention_shares {
  float* data;
  index_t parts;

  static index_t numbers(index_t sequences, index_t heads, index_t keys) {
    return sequences * heads * key_parts::bound(keys) * (Head + 2);
  }
  /// Head numbers, then the largest score and the sum.
  UNROLL_HD float* of(index_t row, index_t part) const { return data + (row * parts + part) * (Head + 2); }
};

/// One block a sequence, query head and part of the keys. Head / 8 lanes have one key: every group of them
/// walks over keys of its own, then the groups are joined in order. Keys and values are read once a query
/// head.
template <int Head>
struct decode_attention_body {
  static_assert(Head == 64 || Head == 128);
  static constexpr int threads = 128, warps = threads / 32;
  static constexpr int group = Head / 8, groups = 32 / group;  // lanes of a key; keys of a warp at a time
  static constexpr int ahead = 8;                              // keys of a group whose loads are under way

  flash_operands on;  ///< one query a sequence, causal
  attention_shares<Head> shares;

  UNROLL_HD index_t blocks() const { return on.sequences * on.shape.heads * shares.parts; }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<float>(warps * groups * Head) + 2 * shared_size<float>(warps * groups);
  }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    const int heads = int(on.shape.heads), head = int(c.block() % heads);
    const int part = int(c.block() / heads % shares.parts);
    const index_t sequence = c.block() / heads / shares.parts;
    const detail::sequence_keys<Head> keys(on, sequence, head / (heads / int(on.shape.kv_heads)));
    const int n = keys.prefix + keys.tokens, size = int(key_parts::size(n));
    const int from = part * size, end = int(smaller(from + size, n));
    if (from >= end) return;
    const float scale = 1.44269504f / sqrtf(float(Head));
    float* const sums = c.template shared<float>(warps * groups * Head);
    float* const most = c.template shared<float>(warps * groups);
    float* const mass = c.template shared<float>(warps * groups);

    c.warps([&](const auto& w) {
      auto q = w.template fragment<float, 8>();
      auto sum = w.template fragment<float, 8>();
      auto state = w.template fragment<float, 2>();  // the largest score, the sum of p
      auto score = w.template fragment<float, ahead>();
      auto value = w.template fragment<word, 4 * ahead>();
      w.lanes([&](int l) {
        float x[8];
        load_eight(on.q.data + head * Head + 8 * (l % group) + sequence * on.q.stride, 8, x);
        UNROLL_UNROLLED
        for (int e = 0; e < 8; ++e) q(l, e) = x[e], sum(l, e) = 0;
        state(l, 0) = lowest;
        state(l, 1) = 0;
      });
      const int own = int(key_parts::tile) / warps;  // of a tile's keys
      for (int at = from + w.index() * own; at < end; at += int(key_parts::tile))
        for (int first = at; first < at + own && first < end; first += ahead * groups) {
          const auto key_of = [=](int l, int i) { return first + i * groups + l / group; };
          w.lanes([&](int l) {
            sixteen_bytes k[ahead], v[ahead];
            UNROLL_UNROLLED
            for (int i = 0; i < ahead; ++i) {
              k[i] = v[i] = sixteen_bytes{};
              if (key_of(l, i) >= end) continue;
              const auto place = keys(key_of(l, i));
              k[i] = load_once(place.k + 8 * (l % group));
              v[i] = load_once(place.v + 8 * (l % group));
            }
            UNROLL_UNROLLED
            for (int i = 0; i < ahead; ++i) {
              float s = 0;
              UNROLL_UNROLLED
              for (int e = 0; e < 4; ++e) {
                s = fmaf(q(l, 2 * e), low_of(k[i].words[e]), s);
                s = fmaf(q(l, 2 * e + 1), high_of(k[i].words[e]), s);
                value(l, 4 * i + e) = v[i].words[e];
              }
              score(l, i) = s;
            }
          });
          w.sum(score, group);
          w.lanes([&](int l) {
            float m = state(l, 0);
            UNROLL_UNROLLED
            for (int i = 0; i < ahead; ++i)
              if (key_of(l, i) < end) m = m < score(l, i) ? score(l, i) : m;
            const float shift = m * scale;
            const float down = math::exp2((state(l, 0) - m) * scale);
            state(l, 0) = m;
            float all = state(l, 1) * down;
            UNROLL_UNROLLED
            for (int e = 0; e < 8; ++e) sum(l, e) = sum(l, e) * down;
            UNROLL_UNROLLED
            for (int i = 0; i < ahead; ++i) {
              const float p = math::exp2(fmaf(score(l, i), scale, -shift));
              if (key_of(l, i) >= end) continue;
              all = all + p;
              UNROLL_UNROLLED
              for (int e = 0; e < 4; ++e) {
                sum(l, 2 * e) = fmaf(p, low_of(value(l, 4 * i + e)), sum(l, 2 * e));
                sum(l, 2 * e + 1) = fmaf(p, high_of(value(l, 4 * i + e)), sum(l, 2 * e + 1));
              }
            }
            state(l, 1) = all;
          });
        }
      w.lanes([&](int l) {
        const int row = w.index() * groups + l / group;
        UNROLL_UNROLLED
        for (int e = 0; e < 8; ++e) sums[row * Head + 8 * (l % group) + e] = sum(l, e);
        if (l % group != 0) return;
        most[row] = state(l, 0);
        mass[row] = state(l, 1);
      });
    });
    float* const to = shares.of(sequence * heads + head, part);
    c.phase([&](int t) {
      if (t >= Head) return;
      float m = most[0];
      UNROLL_UNROLLED
      for (int r = 1; r < warps * groups; ++r) m = m < most[r] ? most[r] : m;
      float sum = 0, all = 0;
      UNROLL_UNROLLED
      for (int r = 0; r < warps * groups; ++r) {
        const float p = math::exp2((most[r] - m) * scale);
        sum = fmaf(p, sums[r * Head + t], sum);
        all = fmaf(p, mass[r], all);
      }
      to[t] = sum;
      if (t == 0) to[Head] = m, to[Head + 1] = all;
    });
  }

 private:
  static constexpr float lowest = -1e30f;  // below every score, and finite
};

/// out and log_sum from the shares, one block a sequence and query head: each of four groups of threads adds
/// every fourth part, in order, then the groups are added in order.
template <int Head>
struct decode_attention_join_body {
  static constexpr int groups = 4, threads = groups * Head, ahead = 4;

  flash_operands on;
  attention_shares<Head> shares;
  matrix<bf16> out;
  float* log_sum = nullptr;  ///< heads x sequences; may be null

  UNROLL_HD index_t blocks() const { return on.sequences * on.shape.heads; }
  UNROLL_HD index_t shared_bytes() const {
    return shared_size<float>(threads) + 2 * shared_size<float>(key_parts::most);
  }
  template <class Context>
  UNROLL_HD void operator()(Context& c) const {
    const index_t sequence = c.block() / on.shape.heads, head = c.block() % on.shape.heads;
    const prefix_range seen = on.before.range(sequence);
    const int parts = int(key_parts::count(seen.blocks * seen.keys + on.mask.first + 1));
    const float scale = 1.44269504f / sqrtf(float(Head));
    float* const sums = c.template shared<float>(threads);
    float* const most = c.template shared<float>(key_parts::most);
    float* const mass = c.template shared<float>(key_parts::most);
    c.phase([&](int t) {
      if (t >= parts) return;
      most[t] = shares.of(c.block(), t)[Head];
      mass[t] = shares.of(c.block(), t)[Head + 1];
    });
    const auto largest = [&] {
      float m = most[0];
      for (int i = 1; i < parts; ++i) m = m < most[i] ? most[i] : m;
      return m;
    };
    c.phase([&](int t) {
      const float m = largest();
      float sum = 0;
      for (int first = t / Head; first < parts; first += ahead * groups) {
        float x[ahead];
        UNROLL_UNROLLED
        for (int i = 0; i < ahead; ++i) {
          const int part = first + i * groups;
          x[i] = part < parts ? shares.of(c.block(), part)[t % Head] : 0.f;
        }
        UNROLL_UNROLLED
        for (int i = 0; i < ahead; ++i) {
          const int part = first + i * groups;
          if (part < parts) sum = fmaf(math::exp2((most[part] - m) * scale), x[i], sum);
        }
      }
      sums[t] = sum;
    });
    c.phase([&](int t) {
      if (t >= Head) return;
      const float m = largest();
      float sum = sums[t], all = 0;
      for (int g = 1; g < groups; ++g) sum = sum + sums[g * Head + t];
      for (int i = 0; i < parts; ++i) all = fmaf(math::exp2((most[i] - m) * scale), mass[i], all);
      out.data[head * Head + t + sequence * out.stride] = bf16(sum / all);
      if (t == 0 && log_sum) log_sum[c.block()] = fmaf(m, 1.0f / sqrtf(float(Head)), math::log(all));
    });
  }
};

}  // namespace unroll::kernels
