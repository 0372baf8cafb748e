#include "unroll/kernels/attention.hpp"

#include <vector>

#include "tests/kernels/differences.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
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
  std::vector<T> q, k, v, out, lse, dout, dq, dk, dv, workspace;
  std::vector<std::vector<T>> block;  // k, v of every block
  std::vector<std::vector<T>> dblock;

  index_t keys() const { return at.mask.first + at.queries; }
  index_t width() const { return at.shape.heads * at.shape.head_dim; }
  index_t kv_width() const { return at.shape.kv_heads * at.shape.head_dim; }
  index_t total() const {
    index_t sum = 0;
    for (index_t n : at.before) sum += n;
    return sum;
  }
  explicit numbers(problem p) : at(std::move(p)) {
    std::uint32_t seed = 1;
    const auto fill = [&](index_t n) { return tests::random_numbers<T>(n, seed++); };
    q = fill(width() * at.queries);
    k = fill(kv_width() * keys());
    v = fill(kv_width() * keys());
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
    workspace.assign(std::size_t(attention_workspace(at.shape, keys(), total(), most)), T(3));
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
  matrix<const T> columns(const std::vector<T>& x) const {  // a column a query
    return {x.data(), index_t(x.size()) / at.queries, at.queries};
  }
  matrix<T> columns(std::vector<T>& x) const {
    return {x.data(), index_t(x.size()) / at.queries, at.queries};
  }
  matrix<const T> key_columns(const std::vector<T>& x) const { return {x.data(), kv_width(), keys()}; }
  matrix<T> key_columns(std::vector<T>& x) const { return {x.data(), kv_width(), keys()}; }
  attention_inputs<T> inputs(const std::vector<key_block<T>>& before) const {
    return {at.shape, at.mask, columns(q), before, {key_columns(k), key_columns(v)}};
  }
  attention_cotangents<T> cotangents() const { return {columns(out), lse.data(), columns(dout)}; }
  void forward() {
    const auto b = blocks();
    attention<T>(inputs(b), columns(out), lse.data(), workspace);
  }
  void backward() {
    const auto b = blocks();
    const auto db = dblocks();
    attention_vjp<T>(inputs(b), cotangents(), {columns(dq), db, {key_columns(dk), key_columns(dv)}},
                     workspace);
  }
};

// The definition, one pair at a time.
template <class T>
std::vector<double> definition(const numbers<T>& x) {
  const index_t head = x.at.shape.head_dim, heads = x.at.shape.heads, n = x.at.queries;
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
      for (index_t t = 0; t < x.keys(); ++t)
        if (t == x.at.mask.first + i || t < x.at.mask.visible(i)) {
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

// Masks, queries in the middle of their sequence, grouped queries, odd sizes, prefixes: none, empty, one
// large, many small, more queries than a block.
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
      {{4, 2, 16}, {}, 50, {300, 20}},
      {{4, 4, 6}, {}, 8, std::vector<index_t>(97, 4)},
      {{2, 1, 6}, {.first = 50}, 90},
      {{2, 2, 4}, {.ordinals = 60, .ratio = 9, .first = 33}, 34, {5}},
      {{2, 1, 4}, {}, 90, {350, 20}},
      {{2, 1, 4}, {}, 70, {500}},
  };
}

std::string name(const problem& p) {
  return "heads " + std::to_string(p.shape.heads) + "/" + std::to_string(p.shape.kv_heads) + " of " +
         std::to_string(p.shape.head_dim) + ", ordinals " + std::to_string(p.mask.ordinals) + ", queries " +
         std::to_string(p.queries) + ", blocks " + std::to_string(p.before.size());
}

}  // namespace

TEST_CASE("a token sees the tokens up to itself, a memory token its share of the ordinals", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  const attention_mask causal, memory{5, 2};
  for (index_t i = 0; i < 8; ++i) CHECK(causal.visible(i) == i + 1);
  const index_t expected[] = {1, 2, 3, 4, 5, 2, 4, 5, 5};  // the last share of 5 ordinals is a short one
  for (index_t i = 0; i < 9; ++i) {
    CHECK(memory.visible(i) == expected[i]);
    CHECK(memory.memory_token(i) == (i >= 5));
  }
}

TEMPLATE_TEST_CASE("attention is the definition under every mask", "[attention]", float, double) {
  FOR_EACH_INSTRUCTION_SET();
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<TestType> x(p);
    x.forward();
    CHECK(tests::distance(x.out, definition(x)) < 40 * double(std::numeric_limits<TestType>::epsilon()));
  }
}

TEST_CASE("attention_vjp agrees with finite differences", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
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

TEST_CASE("attention_vjp is the transpose of the derivative in a direction of all inputs at once",
          "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<double> x(p);
    x.forward();
    x.backward();
    const auto loss = [&] {
      x.forward();
      return tests::dot(x.out, x.dout);
    };
    double expected = 0, got = 0;
    std::uint32_t seed = 100;
    const auto along = [&](std::vector<double>& at, const std::vector<double>& slope) {
      const auto d = tests::random_numbers<double>(index_t(at.size()), seed++);
      expected += tests::derivative_along(loss, at, d);
      got += tests::dot(slope, d);
    };
    along(x.q, x.dq);
    along(x.k, x.dk);
    along(x.v, x.dv);
    for (std::size_t b = 0; b < x.block.size(); ++b) along(x.block[b], x.dblock[b]);
    CHECK(got == Approx(expected).epsilon(1e-8).margin(1e-8));
  }
}

TEST_CASE("attention and its vjp in float are those in double rounded", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<float> x(p);
    numbers<double> y(p);
    x.forward();
    y.forward();
    x.backward();
    y.backward();
    // Numbers below 1; a sum of n terms is off by less than n eps, of random signs by about sqrt(n) eps.
    const double eps = double(std::numeric_limits<float>::epsilon());
    const double queries = std::sqrt(double(p.queries * p.shape.heads));
    CHECK(tests::distance(x.out, y.out) < 16 * eps);
    CHECK(tests::distance(x.lse, y.lse) < 16 * eps * (1 + std::log(double(p.queries + x.total()))));
    CHECK(tests::distance(x.dq, y.dq) < 64 * eps);
    CHECK(tests::distance(x.dk, y.dk) < 64 * eps * queries);
    CHECK(tests::distance(x.dv, y.dv) < 64 * eps * queries);
    for (std::size_t b = 0; b < x.block.size(); ++b)
      CHECK(tests::distance(x.dblock[b], y.dblock[b]) < 64 * eps * queries);
  }
}

TEST_CASE("attention_vjp writes dq, adds to the adjoints of keys and leaves out those that are null",
          "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<double> once(p), twice(p), none(p), half(p);
    once.forward();
    once.backward();
    twice.forward();
    twice.backward();
    twice.backward();
    const auto doubled = [](const std::vector<double>& x) {
      std::vector<double> y(x);
      for (double& v : y) v *= 2;
      return y;
    };
    CHECK(twice.dq == once.dq);
    CHECK(tests::distance(twice.dk, doubled(once.dk)) < 1e-13);
    CHECK(tests::distance(twice.dv, doubled(once.dv)) < 1e-13);
    for (std::size_t b = 0; b < p.before.size(); ++b)
      CHECK(tests::distance(twice.dblock[b], doubled(once.dblock[b])) < 1e-13);

    none.forward();
    const auto blocks = none.blocks();
    attention_vjp<double>(none.inputs(blocks), none.cotangents(), {none.columns(none.dq)}, none.workspace);
    CHECK(none.dq == once.dq);

    half.forward();
    auto wanted = half.dblocks();
    for (std::size_t b = 0; b < wanted.size(); ++b) {
      if (b % 2 == 0) wanted[b].dk = {};
      if (b % 3 == 0) wanted[b].dv = {};
    }
    attention_vjp<double>(half.inputs(blocks), half.cotangents(),
                          {half.columns(half.dq), wanted, {{}, half.key_columns(half.dv)}}, half.workspace);
    CHECK(half.dq == once.dq);
    CHECK(half.dv == once.dv);
    CHECK(half.dk == std::vector<double>(half.dk.size(), 0.0));
    for (std::size_t b = 0; b < wanted.size(); ++b) {
      const std::size_t keys = half.dblock[b].size() / 2;
      const auto same = [&](std::size_t from, bool kept) {
        bool ok = true;
        for (std::size_t i = from; i < from + keys; ++i)
          ok = ok && half.dblock[b][i] == (kept ? once.dblock[b][i] : 0.0);
        return ok;
      };
      CHECK(same(0, b % 2 != 0));
      CHECK(same(keys, b % 3 != 0));
    }
  }
}

TEST_CASE("the adjoint of the queries may take the memory of the queries or of the outputs' cotangent",
          "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<double> x(p), y(p);
    x.forward();
    const numbers<double> kept = x;
    x.backward();
    const auto backward_into = [&](std::vector<double> numbers<double>::*place) {
      y = kept;
      const auto blocks = y.blocks();
      const auto dblocks = y.dblocks();
      attention_vjp<double>(y.inputs(blocks), y.cotangents(),
                            {y.columns(y.*place), dblocks, {y.key_columns(y.dk), y.key_columns(y.dv)}},
                            y.workspace);
      return y.*place;
    };
    CHECK(backward_into(&numbers<double>::q) == x.dq);
    CHECK(y.dk == x.dk);
    CHECK(backward_into(&numbers<double>::dout) == x.dq);
    CHECK(y.dv == x.dv);
  }
}

TEST_CASE("heads may be rows of wider matrices, and nothing beside them is touched", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  const problem p{{4, 2, 6}, {5, 2}, 8, {3, 3}};
  numbers<double> x(p);
  x.forward();
  x.backward();
  const index_t wide = x.width() + 2 * x.kv_width() + 3;
  const auto widened = [&](const numbers<double>& y, bool fill) {
    std::vector<double> all(std::size_t(wide * p.queries), 9.0);
    if (fill)
      for (index_t i = 0; i < p.queries; ++i) {
        double* to = all.data() + i * wide;
        std::copy_n(y.q.data() + i * y.width(), y.width(), to);
        std::copy_n(y.k.data() + i * y.kv_width(), y.kv_width(), to + y.width());
        std::copy_n(y.v.data() + i * y.kv_width(), y.kv_width(), to + y.width() + y.kv_width());
      }
    return all;
  };
  const auto rows = [&](auto& all, index_t first, index_t count) {
    return matrix<std::remove_reference_t<decltype(all[0])>>(all.data() + first, count, p.queries, wide);
  };
  const index_t w = x.width(), kv = x.kv_width();
  const auto in = widened(x, true);
  auto out = widened(x, false), down = widened(x, false), dout = widened(x, false);
  for (index_t i = 0; i < p.queries; ++i) {
    std::copy_n(x.dout.data() + i * w, w, dout.data() + i * wide);
    std::fill_n(down.data() + i * wide + w, 2 * kv, 0.0);
  }
  const auto blocks = x.blocks();
  const auto dblocks = x.dblocks();
  const attention_inputs<double> wide_inputs = {
      p.shape, p.mask, rows(in, 0, w), blocks, {rows(in, w, kv), rows(in, w + kv, kv)}};
  attention<double>(wide_inputs, rows(out, 0, w), x.lse.data(), x.workspace);
  attention_vjp<double>(wide_inputs, {rows(out, 0, w), x.lse.data(), rows(dout, 0, w)},
                        {rows(down, 0, w), dblocks, {rows(down, w, kv), rows(down, w + kv, kv)}},
                        x.workspace);
  bool same = true;
  for (index_t i = 0; i < p.queries; ++i)
    for (index_t r = 0; r < wide; ++r) {
      const double o = out[std::size_t(r + i * wide)], d = down[std::size_t(r + i * wide)];
      same = same && o == (r < w ? x.out[std::size_t(r + i * w)] : 9.0);
      same = same && d == (r < w            ? x.dq[std::size_t(r + i * w)]
                           : r < w + kv     ? x.dk[std::size_t(r - w + i * kv)]
                           : r < w + 2 * kv ? x.dv[std::size_t(r - w - kv + i * kv)]
                                            : 9.0);
    }
  CHECK(same);
}

TEST_CASE("scores of any size neither overflow nor vanish", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  numbers<float> x({{2, 1, 4}, {6, 2}, 9, {3}});
  for (float& v : x.q) v *= 1e4f;
  for (float& v : x.k) v *= 1e4f;
  x.forward();
  x.backward();
  CHECK(linalg::all_finite(x.out.data(), index_t(x.out.size())));
  CHECK(linalg::all_finite(x.dq.data(), index_t(x.dq.size())));
  for (float o : x.out) CHECK(std::abs(o) <= 1.0001f);  // averages of values below 1
}

TEST_CASE("a key that is not finite reaches the outputs that see it and no others", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  numbers<float> x({{1, 1, 4}, {}, 70});
  x.k[std::size_t(66 * 4)] = std::numeric_limits<float>::quiet_NaN();
  x.forward();
  for (index_t i = 0; i < 70; ++i) CHECK(std::isfinite(x.out[std::size_t(4 * i)]) == (i < 66));
}

TEST_CASE("log-sum-exps are optional and the workspace is not read before it is written", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<double> x(p), y(p);
    x.forward();
    for (double& w : y.workspace) w = std::numeric_limits<double>::quiet_NaN();
    const auto blocks = y.blocks();
    attention<double>(y.inputs(blocks), y.columns(y.out), nullptr, y.workspace);
    CHECK(y.out == x.out);
    y.lse = x.lse;
    for (double& w : y.workspace) w = std::numeric_limits<double>::quiet_NaN();
    x.backward();
    y.backward();
    CHECK(y.dq == x.dq);
    CHECK(y.dk == x.dk);
    CHECK(y.dblock == x.dblock);
  }
}

TEST_CASE("one query over a cache has the output of the last of all queries", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const index_t head : {5, 16, 48, 64, 100})
    for (const index_t keys : {1, 2, 15, 64, 333}) {
      INFO("head " << head << ", keys " << keys);
      const attention_shape shape{6, 3, head};
      numbers<float> all({shape, {}, keys}), last({shape, {}, 1, {keys - 1}});
      const index_t kv = all.kv_width();
      std::copy_n(all.k.data(), kv * (keys - 1), last.block[0].data());
      std::copy_n(all.v.data(), kv * (keys - 1), last.block[0].data() + kv * (keys - 1));
      std::copy_n(all.k.end() - kv, kv, last.k.begin());
      std::copy_n(all.v.end() - kv, kv, last.v.begin());
      std::copy_n(all.q.end() - all.width(), all.width(), last.q.begin());
      all.forward();
      last.forward();
      const std::vector<float> expected(all.out.end() - all.width(), all.out.end());
      CHECK(tests::distance(last.out, expected) < 4e-6);
      const std::vector<float> lse(all.lse.end() - shape.heads, all.lse.end());
      CHECK(tests::distance(last.lse, lse) < 4e-6);
    }
}

TEST_CASE("attention and its vjp do not allocate", "[attention]") {
  FOR_EACH_INSTRUCTION_SET();
  for (const problem& p : problems()) {
    INFO(name(p));
    numbers<float> x(p);
    const auto blocks = x.blocks();
    const auto dblocks = x.dblocks();
    const testing::allocation_counter counter;
    attention<float>(x.inputs(blocks), x.columns(x.out), x.lse.data(), x.workspace);
    attention_vjp<float>(x.inputs(blocks), x.cotangents(),
                         {x.columns(x.dq), dblocks, {x.key_columns(x.dk), x.key_columns(x.dv)}}, x.workspace);
    const auto count = counter.count();
    CHECK((testing::allocations_are_counted() || testing::counting_is_replaced()));
    CHECK(count == 0);
  }
}

TEST_CASE("fewer queries never need more workspace") {
  FOR_EACH_INSTRUCTION_SET();
  for (const attention_shape shape : {attention_shape{4, 2, 8}, attention_shape{200, 8, 2}})
    for (const index_t before : {0, 3, 5000})
      for (index_t n = 1; n < 120; ++n)
        CHECK(attention_workspace(shape, n, before, 3) <= attention_workspace(shape, n + 1, before, 3));
}

TEST_CASE("the workspace of attention grows with the keys, not with their square") {
  FOR_EACH_INSTRUCTION_SET();
  const attention_shape shape{32, 32, 128};
  for (const index_t n : {1024, 8192, 65536}) {
    CHECK(attention_workspace(shape, n, 0, 0) < 100 * n);
    CHECK(attention_workspace(shape, 1024, n, n) < 200 * n);
    CHECK(attention_workspace(shape, 1024, n, 32) < (200 + 4 * shape.head_dim) * n);  // copies of one head
  }
}
