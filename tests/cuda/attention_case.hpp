#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "unroll/kernels/flash_attention_body.hpp"
#include "unroll/kernels/flash_attention_vjp_body.hpp"
#include "unroll/rng/draw.hpp"

// Inputs of attention with its borders, and what must come out; for tests of the body on the host and on a
// device.
namespace attention_test {

using namespace unroll;

struct attention_case {
  std::string name;
  int head = 128, heads = 2, kv_heads = 1;
  int length = 64, sequences = 1;
  int blocks = 0, keys = 0;  // of the prefix: columns of each block
  std::vector<kernels::prefix_range> ranges = {};
  int first = 0;                 // tokens of a sequence that have no query
  int ordinals = -1, ratio = 0;  // of the mask
  float along = 0;  // queries are -along times a direction that all keys share: scores are negative
};

/// n numbers that nothing has written, at an address even where n is 0, as memory of a device has one.
inline std::vector<bf16> poisoned(std::size_t n) {
  bf16 nan;
  nan.bits = 0x7fff;
  std::vector<bf16> x;
  x.reserve(n + 1);
  x.assign(n, nan);
  return x;
}

/// The numbers of a case. Columns behind the last token, and columns of blocks that no range shows, are NaN.
struct attention_inputs {
  static constexpr int tail = 3;
  attention_case of;
  std::vector<bf16> q, k, v, dout, prefix;  // prefix: of every block keys, then values
  int qw, kvw, columns, tokens;             // columns: of queries; tokens: of own keys

  attention_inputs(const attention_case& c, key k0)
      : of(c),
        qw(c.heads * c.head),
        kvw(c.kv_heads * c.head),
        columns(c.length * c.sequences),
        tokens((c.first + c.length) * c.sequences) {
    const std::size_t all = std::size_t(tokens + tail);
    q = random(k0, 0, std::size_t(qw * (columns + tail)), qw, -c.along);
    const float shared = c.along != 0 ? 1 : 0;
    k = random(k0, 1, std::size_t(kvw) * all, kvw, shared);
    v = random(k0, 2, std::size_t(kvw) * all, kvw, 0);
    dout = random(k0, 4, std::size_t(qw * (columns + tail)), qw, 0);
    poison(q, qw, columns, columns + tail);
    poison(dout, qw, columns, columns + tail);
    poison(k, kvw, tokens, tokens + tail);
    poison(v, kvw, tokens, tokens + tail);
    prefix = random(k0, 3, block_size() * std::size_t(c.blocks), kvw, shared);
    for (int b = 0; b < c.blocks; ++b) {
      index_t shown = c.ranges.empty() ? c.keys : 0;
      for (const auto& r : c.ranges)
        if (b >= r.first && b < r.first + r.blocks && r.keys > shown) shown = r.keys;
      for (index_t half = 0; half < 2; ++half)
        poison(prefix, kvw, (2 * b + half) * c.keys + shown, (2 * b + half + 1) * c.keys);
    }
  }
  std::size_t block_size() const { return std::size_t(2 * of.keys) * std::size_t(kvw); }
  /// Where the blocks of a prefix, or of its adjoint, begin that lies at `first`.
  template <class T>
  std::vector<T*> blocks_from(T* first) const {
    std::vector<T*> blocks;
    for (int b = 0; b < of.blocks; ++b) blocks.push_back(first + block_size() * std::size_t(b));
    return blocks;
  }
  kernels::prefix_range range(int sequence) const {
    return of.ranges.empty() ? kernels::prefix_range{0, of.blocks, of.keys}
                             : of.ranges[std::size_t(sequence)];
  }
  /// The body over these numbers at other addresses; `block_addresses` and `ranges` lie where the body runs.
  template <class Body>
  Body body(const bf16* q_at, const bf16* k_at, const bf16* v_at, const bf16* const* block_addresses,
            const kernels::prefix_range* ranges, bf16* out, float* log_sum) const {
    Body b;
    b.on = {{of.heads, of.kv_heads, of.head},
            {of.ordinals, of.ratio, of.first},
            of.sequences,
            {q_at, qw, columns},
            {k_at, kvw, tokens},
            {v_at, kvw, tokens},
            {block_addresses,
             0,
             index_t(of.keys) * kvw,
             of.ranges.empty() ? nullptr : ranges,
             {0, of.blocks, of.keys}}};
    b.out = {out, qw, columns};
    b.log_sum = log_sum;
    return b;
  }

  /// out and the logarithm of the sum for one query and head, in double; in `rounded` as a computation that
  /// rounds probabilities and outputs to bfloat16 has it.
  void reference(int sequence, int i, int head, std::vector<double>& out, std::vector<double>& rounded,
                 double& log_sum) const {
    const auto range_ = range(sequence);
    const int g = head / (of.heads / of.kv_heads);
    const kernels::attention_mask mask{of.ordinals, of.ratio, of.first};
    const auto at = [&](const std::vector<bf16>& m, int width, index_t column, int row) {
      return m.data() + column * width + row;
    };
    const bf16* const query = at(q, qw, sequence * of.length + i, head * of.head);
    std::vector<const bf16*> values;
    std::vector<double> scores;
    const auto take = [&](const bf16* key, const bf16* value) {
      double s = 0;
      for (int d = 0; d < of.head; ++d) s += double(float(query[d])) * double(float(key[d]));
      scores.push_back(s / std::sqrt(double(of.head)));
      values.push_back(value);
    };
    for (index_t b = range_.first; b < range_.first + range_.blocks; ++b)
      for (index_t j = 0; j < range_.keys; ++j)
        take(at(prefix, kvw, 2 * b * of.keys + j, g * of.head),
             at(prefix, kvw, (2 * b + 1) * of.keys + j, g * of.head));
    const index_t own = index_t(sequence) * (of.first + of.length);
    for (int j = 0; j < of.first + of.length; ++j)
      if (j < mask.visible(i) || j == of.first + i)
        take(at(k, kvw, own + j, g * of.head), at(v, kvw, own + j, g * of.head));
    double most = -std::numeric_limits<double>::infinity(), sum = 0;
    for (const double s : scores) most = std::max(most, s);
    for (const double s : scores) sum += std::exp(s - most);
    log_sum = most + std::log(sum);
    out.assign(std::size_t(of.head), 0);
    rounded.assign(std::size_t(of.head), 0);
    for (std::size_t j = 0; j < scores.size(); ++j) {
      const double p = std::exp(scores[j] - log_sum), p16 = double(float(bf16(p)));
      for (std::size_t d = 0; d < out.size(); ++d) {
        out[d] += p * double(float(values[j][d]));
        rounded[d] += p16 * double(float(values[j][d]));
      }
    }
    for (double& x : rounded) x = double(float(bf16(x)));
  }

  /// What the vjp must give, all in double; in `rounded`, p and ds are rounded to bfloat16 first and the
  /// results at last, those of the prefix excepted.
  struct adjoints {
    std::vector<double> dq, dk, dv, dprefix;
  };
  adjoints vjp_reference(bool rounded) const {
    adjoints a{std::vector<double>(std::size_t(qw * columns)), std::vector<double>(std::size_t(kvw * tokens)),
               std::vector<double>(std::size_t(kvw * tokens)), std::vector<double>(prefix.size())};
    const auto round = [rounded](double x) { return rounded ? double(float(bf16(x))) : x; };
    const kernels::attention_mask mask{of.ordinals, of.ratio, of.first};
    const double root = 1 / std::sqrt(double(of.head));
    for (int s = 0; s < of.sequences; ++s)
      for (int i = 0; i < of.length; ++i)
        for (int j = 0; j < of.heads; ++j) {
          const int g = j / (of.heads / of.kv_heads);
          const auto at = std::size_t((s * of.length + i) * qw + j * of.head);
          std::vector<double> out, unused;
          double log_sum = 0, delta = 0;
          reference(s, i, j, out, unused, log_sum);
          const auto number = [](bf16 x) { return double(float(x)); };
          for (std::size_t d = 0; d < out.size(); ++d) delta += round(out[d]) * number(dout[at + d]);
          const auto take = [&](const bf16* key, const bf16* value, double* dk, double* dv) {
            double score = 0, dp = 0;
            for (std::size_t d = 0; d < out.size(); ++d) {
              score += number(q[at + d]) * number(key[d]);
              dp += number(dout[at + d]) * number(value[d]);
            }
            const double p = std::exp(score * root - log_sum), ds = round(p * (dp - delta) * root);
            for (std::size_t d = 0; d < out.size(); ++d) {
              a.dq[at + d] += ds * number(key[d]);
              dk[d] += ds * number(q[at + d]);
              dv[d] += round(p) * number(dout[at + d]);
            }
          };
          const auto seen = range(s);
          for (index_t b = seen.first; b < seen.first + seen.blocks; ++b)
            for (index_t t = 0; t < seen.keys; ++t) {
              const auto k_at = std::size_t((2 * b * of.keys + t) * kvw + g * of.head);
              const auto v_at = std::size_t(((2 * b + 1) * of.keys + t) * kvw + g * of.head);
              take(prefix.data() + k_at, prefix.data() + v_at, a.dprefix.data() + k_at,
                   a.dprefix.data() + v_at);
            }
          for (int t = 0; t < of.first + of.length; ++t)
            if (t < mask.visible(i) || t == of.first + i) {
              const auto k_at = std::size_t((s * (of.first + of.length) + t) * kvw + g * of.head);
              take(k.data() + k_at, v.data() + k_at, a.dk.data() + k_at, a.dv.data() + k_at);
            }
        }
    for (auto* x : {&a.dq, &a.dk, &a.dv})
      for (double& u : *x) u = round(u);
    return a;
  }

 private:
  static std::vector<bf16> random(key k0, std::uint64_t what, std::size_t n, int width, float along) {
    std::vector<float> x(n), direction(std::size_t(width > 0 ? width : 1));
    draw_normals(fold(k0, what), 0, view<float>(x));
    draw_normals(fold(k0, 100), 0, view<float>(direction));
    std::vector<bf16> y = poisoned(n);
    for (std::size_t i = 0; i < n; ++i) y[i] = bf16(x[i] + along * direction[i % direction.size()]);
    return y;
  }
  static void poison(std::vector<bf16>& m, int width, index_t from, index_t to) {
    for (index_t i = from * width; i < to * width; ++i) m[std::size_t(i)].bits = 0x7fff;
  }
};

struct outputs {
  std::vector<bf16> out;
  std::vector<float> log_sum;
};
/// Outputs of a case that nothing has written.
inline outputs poisoned(const attention_inputs& in) {
  return {poisoned(std::size_t(in.qw * in.columns)),
          std::vector<float>(std::size_t(in.of.heads * in.columns), NAN)};
}

/// How far an output is from the reference over sampled rows: largest error over largest magnitude.
struct attention_error {
  double ours = 0, rounded = 0, log_sum = 0;
  bool finite = true;
};
inline attention_error compare(const attention_inputs& in, const std::vector<bf16>& out,
                               const std::vector<float>& log_sum, int rows) {
  const auto& c = in.of;
  attention_error e;
  double largest = 0;
  std::vector<double> exact, rounded;
  for (int s = 0; s < c.sequences; ++s)
    for (int r = 0; r < std::min(rows, c.length); ++r)
      for (int head = 0; head < c.heads; ++head) {
        // the first and the last rows, and rows in between
        const int i = c.length <= rows ? r
                      : r % 2          ? c.length - 1 - r / 2
                                       : int(index_t(r) * (c.length - 1) / rows);
        double l = 0;
        in.reference(s, i, head, exact, rounded, l);
        const index_t column = s * c.length + i;
        const double off = std::abs(double(log_sum[std::size_t(head + column * c.heads)]) - l);
        if (!std::isfinite(off)) e.finite = false;  // std::max leaves NaN out
        e.log_sum = std::max(e.log_sum, off / std::max(1.0, std::abs(l)));
        for (int d = 0; d < c.head; ++d) {
          const double ours = double(float(out[std::size_t(column * in.qw + head * c.head + d)]));
          if (!std::isfinite(ours)) e.finite = false;
          largest = std::max(largest, std::abs(exact[std::size_t(d)]));
          e.ours = std::max(e.ours, std::abs(ours - exact[std::size_t(d)]));
          e.rounded = std::max(e.rounded, std::abs(rounded[std::size_t(d)] - exact[std::size_t(d)]));
        }
      }
  e.ours /= largest;
  e.rounded /= largest;
  return e;
}

/// The largest error over the largest magnitude.
template <class T>
double distance(const std::vector<T>& x, const std::vector<double>& y) {
  double most = 0, largest = 1e-30;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double e = std::abs(double(float(x[i])) - y[i]);
    most = e <= most ? most : e;  // NaN counts
    largest = std::max(largest, std::abs(y[i]));
  }
  return most / largest;
}

/// Runs the vjp by `run(body)` on numbers that lie where it runs.
template <int Head, int DkvGroups = 1, int DqGroups = 1, bool Together = kernels::multiply_in_groups,
          int KeyTile = 64, class Run>
void run_vjp(const attention_inputs& in, const kernels::flash_operands& on, const bf16* out,
             const float* log_sum, const bf16* dout, float* delta, bf16* dq, bf16* dk, bf16* dv,
             float* const* dbefore, Run&& run) {
  const matrix<const bf16> dout_at(dout, in.qw, in.columns);
  run(kernels::flash_delta_body<Head>{{out, in.qw, in.columns}, dout_at, on.shape.heads, delta});
  const kernels::flash_cotangents given{log_sum, delta, dout_at};
  run(kernels::flash_dkv_body<Head, false, DkvGroups, Together>{
      on, given, {dk, in.kvw, in.tokens}, {dv, in.kvw, in.tokens}});
  run(kernels::flash_dkv_body<Head, true, DkvGroups, Together>{
      on, given, {}, {}, dbefore, in.of.blocks, in.of.keys});
  run(kernels::flash_dq_body<Head, DqGroups, Together, KeyTile>{on, given, {dq, in.qw, in.columns}});
}

/// The borders at which libraries were reported wrong, small enough for the host.
inline std::vector<attention_case> attention_borders() {
  const auto range = [](index_t first, index_t blocks, index_t keys) {
    return kernels::prefix_range{first, blocks, keys};
  };
  return {
      {.name = "no memory", .length = 100},
      {.name = "memory 32 mod 128", .length = 70, .blocks = 5, .keys = 32},
      {.name = "memory 64 mod 128", .length = 64, .blocks = 1, .keys = 64},
      {.name = "memory 96 mod 128", .length = 33, .blocks = 3, .keys = 32},
      {.name = "length 64 mod 128, log sum below -88.7", .heads = 1, .length = 64, .along = 12},
      {.name = "length 64 mod 128 of two tiles, log sum below -88.7", .heads = 1, .length = 192, .along = 12},
      {.name = "one query behind 128 keys, negative",
       .head = 64,
       .heads = 1,
       .length = 1,
       .blocks = 4,
       .keys = 32,
       .along = 20},
      {.name = "prefixes of different lengths",
       .head = 64,
       .length = 20,
       .sequences = 3,
       .blocks = 3,
       .keys = 24,
       .ranges = {range(0, 0, 24), range(0, 2, 24), range(1, 2, 10)}},
      {.name = "memory tokens",
       .head = 64,
       .heads = 4,
       .kv_heads = 2,
       .length = 150,
       .blocks = 2,
       .keys = 9,
       .ordinals = 128,
       .ratio = 6},
      {.name = "the last queries only",
       .head = 64,
       .length = 5,
       .sequences = 2,
       .blocks = 1,
       .keys = 8,
       .first = 130},
      {.name = "the last memory tokens",
       .head = 64,
       .heads = 1,
       .length = 20,
       .first = 70,
       .ordinals = 75,
       .ratio = 5},
      {.name = "memory tokens, several tiles",
       .head = 64,
       .heads = 1,
       .length = 272,
       .ordinals = 200,
       .ratio = 3},
  };
}

}  // namespace attention_test
