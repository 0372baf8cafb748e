#include "unroll/kernels/attention_cut.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/catch.hpp"
#include "unroll/kernels/attention.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;
using namespace unroll::kernels;
using testing::relative_error;

namespace {

using numbers_type = std::vector<double>;
enum class mistake { none, no_weight, mean_of_kept, weighted_mean_of_kept };

// One sequence: a prefix in blocks of two keys, n queries behind mask.first tokens that have keys only.
struct problem {
  attention_shape shape;
  attention_mask mask;
  index_t n, blocks;
  numbers_type numbers, out, log_sum, workspace;
  std::vector<key_block<double>> before;
  attention_inputs<double> in;
  matrix<const double> dout;

  problem(attention_shape s, attention_mask m, index_t queries, index_t prefix)
      : shape(s), mask(m), n(queries), blocks(prefix), numbers(4096) {
    draw_normals(key{7}, 0, view<double>(numbers));
    const double* at = numbers.data();
    const auto next = [&](index_t rows, index_t cols) {
      at += rows * cols;
      return matrix<const double>(at - rows * cols, rows, cols);
    };
    const auto block = [&](index_t cols) {
      const auto k = next(s.kv_width(), cols), v = next(s.kv_width(), cols);
      return key_block<double>{k, v};
    };
    for (index_t b = 0; b < blocks; ++b) before.push_back(block(2));
    in = {shape, mask, next(s.query_width(), n), before, block(tokens())};
    dout = next(s.query_width(), n);
    out.resize(std::size_t(s.query_width() * n));
    log_sum.resize(std::size_t(s.heads * n));
    workspace.resize(std::size_t(attention_workspace(shape, tokens(), 2 * blocks, 2)));
    attention<double>(in, {out.data(), s.query_width(), n}, log_sum.data(), workspace);
  }
  problem(const problem&) = delete;
  problem& operator=(const problem&) = delete;

  index_t tokens() const { return mask.first + n; }
  index_t keys() const { return 2 * blocks + tokens(); }
  attention_cotangents<double> given() const {
    return {{out.data(), shape.query_width(), n}, log_sum.data(), dout};
  }

  // dq, and the adjoints of all keys and values, by f(adjoints).
  template <class F>
  numbers_type adjoints(F&& f) {
    const index_t w = shape.kv_width();
    numbers_type to(std::size_t(shape.query_width() * n + 2 * w * keys()));
    double* at = to.data() + shape.query_width() * n;
    std::vector<key_block_adjoint<double>> dbefore;
    for (index_t b = 0; b < blocks; ++b, at += 4 * w) dbefore.push_back({{at, w, 2}, {at + 2 * w, w, 2}});
    f(attention_adjoints<double>{
        {to.data(), shape.query_width(), n}, dbefore, {{at, w, tokens()}, {at + w * tokens(), w, tokens()}}});
    return to;
  }
  numbers_type exact() {
    return adjoints([&](const auto& to) { attention_vjp<double>(in, given(), to, workspace); });
  }
  numbers_type cut(const attention_cut& how, index_t sequence = 0) {
    return adjoints(
        [&](const auto& to) { attention_cut_vjp<double>(in, given(), to, how, sequence, workspace); });
  }

  // f(head, query, key, its probability) for all pairs that see each other.
  template <class F>
  void for_pairs(F&& f) const {
    for (index_t j = 0; j < shape.heads; ++j)
      for (index_t i = 0; i < n; ++i)
        for (index_t t = 0; t < keys(); ++t) {
          const index_t own = t - 2 * blocks;
          if (own >= mask.visible(i) && !(mask.memory_token(i) && own == mask.first + i)) continue;
          double s = 0;
          for (index_t r = 0; r < shape.head_dim; ++r) s += query(j, i)[r] * key_of(j, t)[r];
          f(j, i, t,
            std::exp(s / std::sqrt(double(shape.head_dim)) - log_sum[std::size_t(j + i * shape.heads)]));
        }
  }
  // The vjp by its formula, with weights in the order of for_pairs.
  numbers_type plain(const numbers_type& weights, mistake m = mistake::none) {
    const double root = 1 / std::sqrt(double(shape.head_dim));
    numbers_type along(std::size_t(shape.heads * n));
    std::size_t pair = 0;
    for_pairs([&](index_t j, index_t i, index_t t, double a) {
      const double w = weights[pair++];
      if (m == mistake::mean_of_kept && w == 0) return;
      along[std::size_t(j + i * shape.heads)] +=
          (m == mistake::weighted_mean_of_kept ? w : 1) * a * dot(value_of(j, t), cotangent(j, i));
    });
    return adjoints([&](const attention_adjoints<double>& to) {
      pair = 0;
      for_pairs([&](index_t j, index_t i, index_t t, double a) {
        double w = weights[pair++];
        if (m == mistake::no_weight && w > 0) w = 1;
        const double ds =
            w * a * (dot(value_of(j, t), cotangent(j, i)) - along[std::size_t(j + i * shape.heads)]) * root;
        const bool prefix = t < 2 * blocks;
        const auto& b = prefix ? to.dbefore[std::size_t(t / 2)] : to.own;
        const index_t c = prefix ? t % 2 : t - 2 * blocks;
        for (index_t r = 0; r < shape.head_dim; ++r) {
          b.dv.data[row(j) + r + c * b.dv.stride] += w * a * cotangent(j, i)[r];
          b.dk.data[row(j) + r + c * b.dk.stride] += ds * query(j, i)[r];
          to.dq.data[j * shape.head_dim + r + i * to.dq.stride] += ds * key_of(j, t)[r];
        }
      });
    });
  }

 private:
  index_t row(index_t j) const { return j / (shape.heads / shape.kv_heads) * shape.head_dim; }
  double dot(const double* x, const double* y) const { return linalg::dot(x, y, shape.head_dim); }
  const double* query(index_t j, index_t i) const { return in.q.data + j * shape.head_dim + i * in.q.stride; }
  const double* cotangent(index_t j, index_t i) const {
    return dout.data + j * shape.head_dim + i * dout.stride;
  }
  const double* key_of(index_t j, index_t t) const {
    const key_block<double>& b = t < 2 * blocks ? before[std::size_t(t / 2)] : in.own;
    return b.k.data + row(j) + (t < 2 * blocks ? t % 2 : t - 2 * blocks) * b.k.stride;
  }
  const double* value_of(index_t j, index_t t) const {
    const key_block<double>& b = t < 2 * blocks ? before[std::size_t(t / 2)] : in.own;
    return b.v.data + row(j) + (t < 2 * blocks ? t % 2 : t - 2 * blocks) * b.v.stride;
  }
};

}  // namespace

TEST_CASE("attention with pairs cut has the exact adjoints as its mean over every set of pairs") {
  problem k({2, 1, 3}, {.first = 1}, 2, 0);  // two queries, two heads
  const auto exact = k.exact();
  const double pairs = 1.5;
  numbers_type p;
  k.for_pairs([&](index_t, index_t, index_t, double a) { p.push_back(std::min(1., pairs * a)); });
  REQUIRE(p.size() == 10);
  CHECK(std::count(p.begin(), p.end(), 1.) > 0);  // some are never cut
  const auto mean_with = [&](mistake m) {
    numbers_type mean(exact.size()), w(p.size());
    for (unsigned kept = 0; kept < 1u << p.size(); ++kept) {
      double probability = 1;
      for (std::size_t i = 0; i < p.size(); ++i) {
        const bool taken = (kept >> i & 1u) != 0;
        probability *= taken ? p[i] : 1 - p[i];
        w[i] = taken ? 1 / p[i] : 0;
      }
      if (probability == 0) continue;
      const auto g = k.plain(w, m);
      for (std::size_t i = 0; i < g.size(); ++i) mean[i] += probability * g[i];
    }
    return mean;
  };
  CHECK(relative_error(mean_with(mistake::none), exact) < 1e-12);
  for (const mistake m : {mistake::no_weight, mistake::mean_of_kept, mistake::weighted_mean_of_kept}) {
    CAPTURE(int(m));
    CHECK(relative_error(mean_with(m), exact) > 1e-2);
  }
}

TEST_CASE("attention with pairs cut is the formula with the weights of its draws") {
  for (const attention_mask& mask :
       {attention_mask{}, attention_mask{.first = 2}, attention_mask{.ordinals = 16, .ratio = 4}}) {
    problem k({4, 2, 5}, mask, 20, 3);
    const auto exact = k.exact();
    CHECK(relative_error(k.cut({.pairs = 1e9}), exact) < 1e-13);  // every pair is kept
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const attention_cut how{.pairs = 2, .draws = key{seed}, .first = 3};
      numbers_type w;
      double cut = 0;
      attention_cut::row sample(0, 0);
      index_t row = -1;
      k.for_pairs([&](index_t j, index_t i, index_t, double a) {
        const index_t now = j + (mask.first + i) * 4;
        if (now != row) sample = {how.pairs, draw_uniform(fold(key{seed}, 4), now)};
        row = now;
        w.push_back(sample.weight(a));
        cut += w.back() == 0;
      });
      CHECK(cut > double(w.size()) / 2);
      const auto got = k.cut(how, 1);
      CHECK(relative_error(got, k.plain(w)) < 1e-9);  // weights of a probability with other last bits
      CHECK(relative_error(got, exact) > 1e-2);
      CHECK(got != k.cut(how, 0));
    }
  }
}

TEST_CASE("a probability that is no number reaches the adjoints, and one of 0 never has a weight") {
  problem k({2, 1, 3}, {.first = 1}, 2, 0);
  k.log_sum[0] = std::numeric_limits<double>::quiet_NaN();
  const auto got = k.cut({.pairs = 1});
  CHECK(std::isnan(got[0]));                                 // dq of its head
  CHECK(std::isfinite(got[std::size_t(k.shape.head_dim)]));  // and of the other one
  attention_cut::row sample(1, 0.5 - 0x1p-53);  // whose sum is rounded up to where the next key is kept
  CHECK(sample.weight(0.5) == 0);
  CHECK(sample.weight(1 - 0x1p-53) == Approx(1));
  CHECK(sample.weight(0) == 0);
}

TEST_CASE("a pair is kept with the probability that its weight says, and few are kept") {
  const double pairs = 3;
  const numbers_type a{0.02, 0.3, 0.4, 0, 0.07, 0.1, 0.01, 0.05, 0.05};  // of a softmax
  numbers_type ends{0}, kept(a.size());  // between two neighbouring ends of 1 - u all draws have one sample
  double sum = 0;
  for (const double x : a) {
    sum += pairs * x < 1 ? pairs * x : 0;
    ends.push_back(sum - std::floor(sum));
  }
  ends.push_back(1);
  std::sort(ends.begin(), ends.end());
  for (std::size_t i = 0; i + 1 < ends.size(); ++i) {
    attention_cut::row sample(pairs, 1 - (ends[i] + ends[i + 1]) / 2);
    double count = 0;
    for (std::size_t t = 0; t < a.size(); ++t) {
      const double w = sample.weight(a[t]);
      CHECK((w == 0 || std::abs(w - std::max(1., 1 / (pairs * a[t]))) < 1e-12));
      if (ends[i + 1] > ends[i]) kept[t] += w * (ends[i + 1] - ends[i]);
      count += w > 0;
    }
    if (ends[i + 1] > ends[i]) CHECK(count <= pairs + 1);
  }
  for (std::size_t t = 0; t < a.size(); ++t) CHECK(kept[t] == Approx(a[t] > 0 ? 1 : 0).margin(1e-12));
}
