#include "unroll/kernels/attention.hpp"

#include <vector>

#include "tests/kernels/differences.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/allocations.hpp"

using namespace unroll;
using namespace unroll::kernels;

namespace {

struct problem {
  attention_shape shape;
  attention_mask mask;
  index_t queries;
  std::vector<index_t> before = {};  // keys of each block
};

template <class T>
struct numbers {
  problem at;
  std::vector<T> q, k, v, out, lse, dout, dq, dk, dv, work;
  std::vector<std::vector<T>> block;  // k, v of every block
  std::vector<std::vector<T>> dblock;

  index_t width() const { return at.shape.heads * at.shape.head; }
  index_t kv_width() const { return at.shape.kv_heads * at.shape.head; }
  index_t total() const {
    index_t sum = 0;
    for (index_t n : at.before) sum += n;
    return sum;
  }
  explicit numbers(problem p) : at(std::move(p)) {
    std::uint32_t seed = 1;
    const auto fill = [&](index_t n) { return tests::random_numbers<T>(n, seed++); };
    q = fill(width() * at.queries);
    k = fill(kv_width() * at.queries);
    v = fill(kv_width() * at.queries);
    dout = fill(width() * at.queries);
    out.assign(q.size(), T(7));
    dq.assign(q.size(), T(7));
    lse.assign(std::size_t(at.shape.heads * at.queries), T(7));
    dk.assign(k.size(), T(0));
    dv.assign(k.size(), T(0));
    index_t most = 0;
    for (index_t n : at.before) {
      block.push_back(fill(2 * kv_width() * n));
      dblock.emplace_back(block.back().size(), T(0));
      most = std::max(most, n);
    }
    work.assign(std::size_t(attention_work(at.shape, at.queries, total(), most)), T(3));
  }
  std::vector<key_block<T>> blocks() const {
    std::vector<key_block<T>> b;
    for (std::size_t i = 0; i < block.size(); ++i) {
      const index_t n = at.before[i];
      b.push_back({{block[i].data(), kv_width(), n}, {block[i].data() + kv_width() * n, kv_width(), n}});
    }
    return b;
  }
  std::vector<key_block_adjoint<T>> dblocks() {
    std::vector<key_block_adjoint<T>> b;
    for (std::size_t i = 0; i < dblock.size(); ++i) {
      const index_t n = at.before[i];
      b.push_back({{dblock[i].data(), kv_width(), n}, {dblock[i].data() + kv_width() * n, kv_width(), n}});
    }
    return b;
  }
  matrix<const T> columns(const std::vector<T>& x) const {
    return {x.data(), index_t(x.size()) / at.queries, at.queries};
  }
  matrix<T> columns(std::vector<T>& x) const {
    return {x.data(), index_t(x.size()) / at.queries, at.queries};
  }
  void forward() {
    const auto b = blocks();
    attention<T>(at.shape, at.mask, columns(q), b, {columns(k), columns(v)}, columns(out), lse.data(), work);
  }
  void backward() {
    const auto b = blocks();
    const auto db = dblocks();
    attention_vjp<T>(at.shape, at.mask, columns(q), b, {columns(k), columns(v)}, columns(out), lse.data(),
                     columns(dout), columns(dq), db, {columns(dk), columns(dv)}, work);
  }
};

// The definition, one pair at a time.
template <class T>
std::vector<double> definition(const numbers<T>& x) {
  const index_t head = x.at.shape.head, heads = x.at.shape.heads, n = x.at.queries;
  std::vector<double> out(x.q.size(), 0.0);
  for (index_t j = 0; j < heads; ++j)
    for (index_t i = 0; i < n; ++i) {
      const index_t row = j / (heads / x.at.shape.kv_heads) * head;
      std::vector<const T*> keys, values;
      for (const key_block<T>& b : x.blocks())
        for (index_t t = 0; t < b.k.cols; ++t) {
          keys.push_back(b.k.data + row + t * b.k.stride);
          values.push_back(b.v.data + row + t * b.v.stride);
        }
      for (index_t t = 0; t < n; ++t)
        if (t == i || t < x.at.mask.visible(i)) {
          keys.push_back(x.k.data() + row + t * x.kv_width());
          values.push_back(x.v.data() + row + t * x.kv_width());
        }
      std::vector<double> p;
      double sum = 0;
      for (const T* key : keys) {
        double s = 0;
        for (index_t e = 0; e < head; ++e)
          s += double(key[e]) * double(x.q[std::size_t(j * head + e + i * x.width())]);
        p.push_back(std::exp(s / std::sqrt(double(head))));
        sum += p.back();
      }
      for (std::size_t t = 0; t < keys.size(); ++t)
        for (index_t e = 0; e < head; ++e)
          out[std::size_t(j * head + e + i * x.width())] += p[t] / sum * double(values[t][e]);
    }
  return out;
}

// Masks, grouped queries, odd sizes, prefixes: none, empty, one large, many small, more queries than a block.
std::vector<problem> problems() {
  return {
      {{1, 1, 1}, {}, 1},
      {{2, 1, 4}, {}, 1, {3}},
      {{2, 2, 6}, {}, 5},
      {{4, 2, 6}, {}, 7, {}},
      {{3, 1, 10}, {}, 70},
      {{2, 1, 17}, {}, 9, {5, 0, 3}},
      {{4, 2, 8}, {}, 6, {70}},
      {{4, 4, 8}, {}, 6, {70, 3}},
      {{2, 2, 4}, {}, 6, {0, 0}},
      {{2, 1, 6}, {8, 4}, 10},
      {{2, 2, 6}, {9, 2}, 14, {3}},
      {{4, 2, 4}, {7, 2}, 12, {4, 4, 4, 4, 4, 4, 4}},
      {{2, 1, 4}, {5, 0}, 8},
      {{2, 1, 4}, {0, 3}, 3, {2}},
      {{2, 1, 6}, {80, 10}, 88, {4, 4}},
      {{2, 1, 6}, {70, 1}, 140},
      {{2, 1, 12}, {}, 1, std::vector<index_t>(97, 4)},
      {{4, 2, 48}, {}, 1, {300}},
      {{6, 2, 16}, {}, 3, {300, 20}},
  };
}

std::string name(const problem& p) {
  return "heads " + std::to_string(p.shape.heads) + "/" + std::to_string(p.shape.kv_heads) + " of " +
         std::to_string(p.shape.head) + ", ordinals " + std::to_string(p.mask.ordinals) + ", queries " +
         std::to_string(p.queries) + ", blocks " + std::to_string(p.before.size());
}

}  // namespace

TEMPLATE_TEST_CASE("attention is the definition under every mask", "[attention]", float, double) {
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<TestType> x(p);
    x.forward();
    CHECK(tests::distance(x.out, definition(x)) < 40 * double(std::numeric_limits<TestType>::epsilon()));
  }
}

TEST_CASE("attention_vjp agrees with finite differences", "[attention]") {
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<double> x(p);
    x.forward();
    x.backward();
    const auto loss = [&] {
      x.forward();
      return linalg::dot(x.out.data(), x.dout.data(), index_t(x.out.size()));
    };
    const auto check = [&](std::vector<double>& at, const std::vector<double>& slope) {
      CHECK(tests::worst_slope(loss, at, slope) < 1e-8);
    };
    check(x.q, x.dq);
    check(x.k, x.dk);
    check(x.v, x.dv);
    for (std::size_t b = 0; b < x.block.size() && b < 3; ++b) check(x.block[b], x.dblock[b]);
  }
}
