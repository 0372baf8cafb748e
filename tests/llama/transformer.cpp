#include "unroll/llama/transformer.hpp"

#include <numeric>

#include "tests/llama/small_llama.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/allocations.hpp"
#include "unroll/testing/guarded.hpp"

using namespace unroll;
using namespace unroll::llama;
using tests::lively_weights;
using tests::normals;
using tests::small_llama;
using unroll::testing::detail::dot;
using unroll::testing::detail::guarded;
using unroll::testing::detail::same_bits;

namespace {

lora_options all_adapted(index_t rank, index_t first = 0, index_t layers = 0) {
  return {.rank = rank,
          .alpha = 3,
          .adapted = {true, true, true, true, true, true, true},
          .first_layer = first,
          .layers = layers};
}

/// A linear function of what hooks see, as a part of the loss; its coefficients are their cotangents.
template <class T>
struct linear_hook {
  std::vector<std::vector<T>> coefficients;
  double loss = 0;
  std::vector<index_t> layers, dlayers, keys_of;

  void normed(index_t layer, matrix<const T> a) {
    layers.push_back(layer);
    for (index_t i = 0; i < a.rows * a.cols; ++i)
      loss += double(coefficients[std::size_t(layer)][std::size_t(i)]) * double(a.data[i]);
  }
  void keys(index_t layer, matrix<const T>, matrix<const T>) { keys_of.push_back(layer); }
  void dnormed(index_t layer, matrix<T> da) {
    dlayers.push_back(layer);
    linalg::axpy(1, coefficients[std::size_t(layer)].data(), da.data, da.rows * da.cols);
  }
};

/// The loss <c, outputs> + what the hook sees, with everything it depends on, and its gradient.
template <class T>
struct problem {
  transformer<T> stack;
  lora_map lora;
  bool adapted;
  std::vector<index_t> positions;
  pass<T> p;
  bool hooked = false;
  std::vector<T> weights, theta, x, c;
  std::vector<std::vector<T>> before;
  linear_hook<T> hook = {};

  std::vector<T> out, dweights, dtheta, dx;
  index_t inputs_from = 0;
  std::vector<std::vector<T>> dbefore;
  std::vector<const T*> blocks = {};
  std::vector<T*> dblocks = {};

  problem(const config& shape, lora_options o, index_t sequences, index_t length, index_t layers,
          index_t prefix_blocks = 0)
      : stack(shape), lora(shape, o), adapted(true), positions(std::size_t(length)) {
    std::iota(positions.begin(), positions.end(), index_t{prefix_blocks > 0 ? 7 : 0});
    p = {.sequences = sequences, .length = length, .layers = layers, .positions = positions};
    const index_t tokens = sequences * length;
    weights = lively_weights<T>(stack.map());
    theta = normals<T>(lora.size(), 2, 0.3);
    x = normals<T>(shape.hidden * tokens, 3, 1);
    c = normals<T>(shape.hidden * tokens, 4, 1);
    for (index_t b = 0; b < prefix_blocks; ++b)
      before.push_back(normals<T>(2 * shape.layers * shape.kv_width() * 4, 5 + b, 1));
    p.before = {.blocks = {}, .keys = before.empty() ? 0 : 3, .capacity = before.empty() ? 0 : 4};
    for (index_t i = 0; i <= shape.layers; ++i)
      hook.coefficients.push_back(normals<T>(shape.hidden * tokens, 20 + i, 1));
    dweights.assign(weights.size(), T(0));
    dtheta.assign(theta.size(), T(0));
    for (const auto& b : before) dbefore.emplace_back(b.size(), T(0));
    dx.resize(x.size());
    out.resize(x.size());
  }
  problem(const problem&) = delete;

  void connect() {
    blocks.clear();
    dblocks.clear();
    for (auto& b : before) blocks.push_back(b.data());
    for (auto& b : dbefore) dblocks.push_back(b.data());
    p.before.blocks = blocks;
  }
  adapters<T> a() const { return adapted ? adapters<T>{&lora, theta.data()} : adapters<T>{}; }
  matrix<T> columns(std::vector<T>& v) const { return {v.data(), stack.shape().hidden, p.tokens()}; }

  double loss(view<T> tape = {}) {
    connect();
    std::vector<T> workspace(std::size_t(stack.workspace_size(p)), T(5));
    out = x;
    hook.loss = 0;
    if (hooked)
      stack.forward(weights.data(), a(), p, columns(out), tape, workspace, hook);
    else
      stack.forward(weights.data(), a(), p, columns(out), tape, workspace);
    return dot(c, out) + hook.loss;
  }
  struct asked {
    bool weights = true, adapters = true, before = true, inputs = true;
  };
  void gradient() { gradient({}); }
  void gradient(asked want) {
    connect();
    std::vector<T> tape(std::size_t(stack.tape_size(p))),
        workspace(std::size_t(stack.workspace_size(p)), T(5));
    loss(tape);
    dx = c;
    const auto run = [&](auto&& h) {
      stack.vjp(weights.data(), a(), p, view<const T>(tape.data(), index_t(tape.size())), columns(dx),
                {want.before ? std::span<T* const>(dblocks) : std::span<T* const>(),
                 want.weights ? dweights.data() : nullptr, want.adapters ? dtheta.data() : nullptr,
                 want.inputs, inputs_from},
                workspace, h);
    };
    if (hooked)
      run(hook);
    else
      run(no_hook{});
  }
};

/// Checks <gradient, u> for a random direction u in values[first, first + n) against the extrapolated
/// central difference; its error is about h^4 and eps / h, some 1e-9 of the loss' size.
void check_slope(problem<double>& at, std::vector<double>& values, const std::vector<double>& gradient,
                 index_t first, index_t n) {
  const auto u = normals<double>(n, 99, 1);
  const double h = 2e-3 / std::sqrt(dot(u, u));
  const auto begin = values.begin() + first;
  const std::vector<double> centre(begin, begin + n);
  const auto moved = [&](double step) {
    for (index_t i = 0; i < n; ++i) begin[i] = centre[std::size_t(i)] + step * u[std::size_t(i)];
    return at.loss();
  };
  const double wide = (moved(2 * h) - moved(-2 * h)) / (4 * h), near = (moved(h) - moved(-h)) / (2 * h);
  std::copy(centre.begin(), centre.end(), begin);
  const double expected = (4 * near - wide) / 3;
  double slope = 0, size = 0;
  for (index_t i = 0; i < n; ++i) {
    slope += gradient[std::size_t(first + i)] * u[std::size_t(i)];
    size += std::abs(gradient[std::size_t(first + i)] * u[std::size_t(i)]);
  }
  CHECK(std::abs(slope - expected) <= 1e-8 * (size + 1));
  CHECK(size > 1e-6);
}

void check_all_slopes(problem<double>& at) {
  at.gradient();
  const auto dweights = at.dweights, dtheta = at.dtheta, dx = at.dx;
  const auto dbefore = at.dbefore;
  const config& c = at.stack.shape();
  for (const layout_block& b : at.stack.map().names().blocks()) {
    const bool used = b.name.find("layers") != std::string::npos &&
                      (at.p.layers == c.layers || b.name.find("layers.0") != std::string::npos);
    INFO(b.name);
    if (used) {
      check_slope(at, at.weights, dweights, b.offset, b.size());
    } else if (!(at.hooked && b.name == "model.layers.1.input_layernorm.weight")) {
      const auto first = dweights.begin() + b.offset;
      CHECK(std::all_of(first, first + b.size(), [](double v) { return v == 0; }));
    } else {
      check_slope(at, at.weights, dweights, b.offset, b.size());
    }
  }
  if (at.adapted)
    for (const layout_block& b : at.lora.names().blocks()) {
      INFO(b.name);
      if (at.p.layers == c.layers || b.name.find("layers.0") != std::string::npos)
        check_slope(at, at.theta, dtheta, b.offset, b.size());
    }
  {
    INFO("inputs");
    check_slope(at, at.x, dx, 0, index_t(dx.size()));
  }
  for (std::size_t b = 0; b < at.before.size(); ++b)
    for (index_t layer = 0; layer < at.p.layers; ++layer)
      for (index_t value = 0; value < 2; ++value) {
        INFO("prefix block " << b << ", layer " << layer << (value ? ", values" : ", keys"));
        const index_t first = (2 * layer + value) * c.kv_width() * at.p.before.capacity;
        check_slope(at, at.before[b], dbefore[b], first, c.kv_width() * at.p.before.keys);
        for (index_t i = c.kv_width() * at.p.before.keys; i < c.kv_width() * at.p.before.capacity; ++i)
          CHECK(dbefore[b][std::size_t(first + i)] == 0);
      }
}

}  // namespace

TEST_CASE("The gradients of a transformer agree with differences: batch of sequences, all adapters") {
  problem<double> at(small_llama(), all_adapted(3), 2, 7, 2);
  check_all_slopes(at);
}

TEST_CASE("The gradients of a transformer agree with differences: prefix, mask of memory tokens, hooks") {
  for (const saved keep : {saved::activations, saved::inputs})
    for (const index_t layers : {2, 1}) {
      problem<double> at(small_llama(), all_adapted(3), 1, 8, layers, 2);
      at.p.mask = {.ordinals = 6, .ratio = 3};
      at.p.keep = keep;
      at.hooked = true;
      check_all_slopes(at);
    }
}

TEST_CASE("The gradients of a transformer agree with differences: no adapters, one token, neighbours") {
  config shape = small_llama();
  shape.pairs = rope_pairs::neighbours;
  problem<double> at(shape, all_adapted(2), 1, 1, 2, 3);
  at.adapted = false;
  at.gradient();  // with one key of its own and the prefix, every weight matters
  const auto dx = at.dx, dweights = at.dweights;
  check_slope(at, at.x, dx, 0, index_t(dx.size()));
  check_slope(at, at.weights, dweights, 0, index_t(dweights.size()));
}

namespace {

/// Wants the outputs of the tokens from `first` on of each sequence only; those in front have the cotangent
/// `others`.
template <class T>
void want_from(problem<T>& at, index_t first, T others = 0) {
  at.p.outputs_from = first;
  for (index_t j = 0; j < at.p.tokens(); ++j)
    if (j % at.p.length < first) {
      const auto column = at.c.begin() + j * at.stack.shape().hidden;
      std::fill(column, column + at.stack.shape().hidden, others);
    }
}

/// Three sequences with positions and prefixes of their own: blocks 0 and 1, 1 alone and with fewer keys,
/// none.
template <class T>
struct several {
  static constexpr index_t count = 3, length = 8;
  problem<T> all;
  std::vector<kernels::prefix_range> ranges = {{0, 2, 3}, {1, 1, 2}, {2, 0, 3}};

  explicit several(index_t layers, index_t outputs_from = 0)
      : all(small_llama(), all_adapted(3), count, length, layers, 2) {
    all.positions = {7, 8, 9, 10, 11, 12, 13, 14, 0, 1, 2, 3, 4, 5, 6, 7, 3, 5, 7, 9, 11, 13, 15, 17};
    all.p.positions = all.positions;
    all.p.before.ranges = ranges;
    all.p.mask = {.ordinals = 6, .ratio = 3};
    all.hooked = true;
    want_from(all, outputs_from);
  }
};

}  // namespace

TEST_CASE("The gradients of a transformer agree with differences: prefixes and positions of each sequence") {
  for (const saved keep : {saved::activations, saved::inputs})
    for (const index_t layers : {2, 1}) {
      several<double> at(layers, 5);
      at.all.p.keep = keep;
      check_all_slopes(at.all);
    }
}

TEST_CASE("Outputs that are not wanted are not computed, the others are the same") {
  for (const index_t sequences : {1, 2})
    for (const index_t from : {1, 5}) {
      CAPTURE(sequences, from);
      problem<double> all(small_llama(), all_adapted(3), sequences, 8, 2),
          some(small_llama(), all_adapted(3), sequences, 8, 2);
      want_from(all, from);
      all.p.outputs_from = 0;
      want_from(some, from, 3.0);  // looked at by nobody
      all.gradient();
      some.gradient();
      const auto close = [](const std::vector<double>& x, const std::vector<double>& y, std::size_t first = 0,
                            std::size_t end = std::size_t(-1)) {
        double most = 0, size = 0;
        for (std::size_t i = first; i < std::min(end, x.size()); ++i) {
          most = std::max(most, std::abs(x[i] - y[i]));
          size = std::max(size, std::abs(x[i]));
        }
        return most <= 1e-13 * size;
      };
      for (index_t b = 0; b < sequences; ++b)
        CHECK(close(all.out, some.out, std::size_t((b * 8 + from) * 10), std::size_t((b + 1) * 80)));
      CHECK(close(all.dweights, some.dweights));
      CHECK(close(all.dtheta, some.dtheta));
      CHECK(close(all.dx, some.dx));
      CHECK(some.stack.tape_size(some.p) < all.stack.tape_size(all.p));
    }
}

TEST_CASE("A pass over several sequences has the bits of one by one") {
  for (const index_t from : {0, 5})
    for (const index_t layers : {2, 1}) {
      CAPTURE(from, layers);
      several<float> batch(layers, from);
      batch.all.gradient({.weights = false});
      problem<float> one(small_llama(), all_adapted(3), 1, several<float>::length, layers, 2);
      one.p.mask = batch.all.p.mask;
      one.p.outputs_from = from;
      one.hooked = true;
      const std::vector<float> x = batch.all.x, c = batch.all.c;
      const auto coefficients = batch.all.hook.coefficients;
      const std::size_t width = std::size_t(10 * several<float>::length),
                        seen = std::size_t(10 * (several<float>::length - from));
      std::vector<float> out, dx;
      for (std::size_t b = 0; b < several<float>::count; ++b) {
        const auto slice = [&](const std::vector<float>& v, std::size_t n) {
          return std::vector<float>(v.begin() + index_t(b * n), v.begin() + index_t((b + 1) * n));
        };
        one.x = slice(x, width);
        one.c = slice(c, width);
        for (std::size_t i = 0; i < coefficients.size(); ++i)
          one.hook.coefficients[i] = slice(coefficients[i], seen);
        one.positions.assign(batch.all.positions.begin() + index_t(b) * several<float>::length,
                             batch.all.positions.begin() + index_t(b + 1) * several<float>::length);
        one.p.positions = one.positions;
        const std::vector<kernels::prefix_range> range = {batch.ranges[b]};
        one.p.before.ranges = range;
        one.gradient({.weights = false});
        for (std::size_t j = std::size_t(from) * 10; j < width; ++j)
          REQUIRE(one.out[j] == batch.all.out[b * width + j]);
        dx.insert(dx.end(), one.dx.begin(), one.dx.end());
      }
      CHECK(same_bits(dx, batch.all.dx));
      CHECK(same_bits(one.dtheta, batch.all.dtheta));
      CHECK(same_bits(one.dbefore[0], batch.all.dbefore[0]));
      CHECK(same_bits(one.dbefore[1], batch.all.dbefore[1]));
    }
}

TEST_CASE("An adapter of a rank above the slice is the sum of its slices") {
  problem<double> at(small_llama(), all_adapted(70), 1, 5, 2);
  for (double& v : at.theta) v *= 0.2;
  check_all_slopes(at);
}

TEST_CASE("Hooks see every layer and the one behind the last") {
  problem<double> all(small_llama(), all_adapted(2), 1, 4, 2), one(small_llama(), all_adapted(2), 1, 4, 1);
  all.hooked = one.hooked = true;
  all.gradient();
  CHECK(all.hook.layers == std::vector<index_t>{0, 1});
  CHECK(all.hook.dlayers == std::vector<index_t>{1, 0});
  CHECK(all.hook.keys_of == std::vector<index_t>{0, 1});
  one.gradient();
  CHECK(one.hook.layers == std::vector<index_t>{0, 1});
  CHECK(one.hook.dlayers == std::vector<index_t>{1, 0});
  CHECK(one.hook.keys_of == std::vector<index_t>{0});
}

TEST_CASE("Outputs have the same bits with and without a tape, gradients for both kinds of tape") {
  problem<float> at(small_llama(), all_adapted(3), 1, 9, 2, 2);
  at.loss();
  const auto untaped = at.out;
  at.gradient();
  CHECK(same_bits(untaped, at.out));
  problem<float> again(small_llama(), all_adapted(3), 1, 9, 2, 2);
  again.p.keep = saved::inputs;
  again.gradient();
  CHECK(same_bits(untaped, again.out));
  CHECK(same_bits(at.dweights, again.dweights));
  CHECK(same_bits(at.dtheta, again.dtheta));
  CHECK(same_bits(at.dx, again.dx));
  CHECK(same_bits(at.dbefore[1], again.dbefore[1]));
  CHECK(again.stack.tape_size(again.p) < at.stack.tape_size(at.p) / 5);
}

TEST_CASE("What is not wanted costs no gradient and changes no bit of the others") {
  const auto run = [](typename problem<double>::asked want) {
    auto at = std::make_unique<problem<double>>(small_llama(), all_adapted(3), 1, 6, 2, 1);
    at->gradient(want);
    return at;
  };
  const auto zero = [](const std::vector<double>& v) {
    return std::all_of(v.begin(), v.end(), [](double x) { return x == 0; });
  };
  const auto all = run({});
  const auto frozen = run({.weights = false});
  CHECK(zero(frozen->dweights));
  CHECK(same_bits(frozen->dtheta, all->dtheta));
  CHECK(same_bits(frozen->dx, all->dx));
  const auto adapters_only = run({.weights = false, .adapters = true, .before = false, .inputs = false});
  CHECK(zero(adapters_only->dweights));
  CHECK(zero(adapters_only->dbefore[0]));
  CHECK(same_bits(adapters_only->dtheta, all->dtheta));
  const auto before_only = run({.weights = false, .adapters = false, .before = true, .inputs = false});
  CHECK(zero(before_only->dtheta));
  CHECK(same_bits(before_only->dbefore[0], all->dbefore[0]));
  const auto nothing = run({.weights = false, .adapters = false, .before = false, .inputs = false});
  CHECK(same_bits(nothing->dx, nothing->c));
}

TEST_CASE("Cotangents of inputs from a token on are those of all inputs") {
  for (const index_t from : {1, 3}) {
    problem<double> all(small_llama(), all_adapted(2), 2, 5, 2), some(small_llama(), all_adapted(2), 2, 5, 2);
    all.hooked = some.hooked = true;
    all.gradient({.weights = false});
    some.inputs_from = from;
    some.gradient({.weights = false});
    CHECK(same_bits(some.dtheta, all.dtheta));
    const index_t hidden = small_llama().hidden;
    for (const index_t b : {0, 1})
      for (index_t i = (b * 5 + from) * hidden; i < (b + 1) * 5 * hidden; ++i)
        CHECK(some.dx[std::size_t(i)] == all.dx[std::size_t(i)]);
  }
}

TEST_CASE("Layers below the lowest adapter do not run backwards") {
  problem<double> all(small_llama(), all_adapted(2, 1), 1, 5, 2),
      upper(small_llama(), all_adapted(2, 1), 1, 5, 2);
  all.hooked = upper.hooked = true;
  all.gradient();
  upper.gradient({.weights = false, .adapters = true, .before = false, .inputs = false});
  CHECK(same_bits(all.dtheta, upper.dtheta));
  CHECK(upper.hook.dlayers.empty());
}

TEST_CASE("Gradients are added") {
  problem<double> at(small_llama(), all_adapted(2), 1, 4, 2, 1);
  at.gradient();
  const auto dweights = at.dweights, dtheta = at.dtheta;
  const auto dbefore = at.dbefore[0];
  at.gradient();
  for (std::size_t i = 0; i < dweights.size(); ++i)
    CHECK(at.dweights[i] == Approx(2 * dweights[i]).margin(1e-9));
  for (std::size_t i = 0; i < dtheta.size(); ++i) CHECK(at.dtheta[i] == Approx(2 * dtheta[i]).margin(1e-9));
  for (std::size_t i = 0; i < dbefore.size(); ++i)
    CHECK(at.dbefore[0][i] == Approx(2 * dbefore[i]).margin(1e-9));
}

TEST_CASE("A batch of sequences is its sequences one by one") {
  constexpr index_t length = 6;
  problem<double> batch(small_llama(), all_adapted(2), 3, length, 2),
      one(small_llama(), all_adapted(2), 1, length, 2);
  batch.gradient();
  const std::size_t n = one.x.size();
  std::vector<double> dx, out;
  for (std::size_t s = 0; s < 3; ++s) {
    std::copy_n(batch.x.begin() + std::ptrdiff_t(s * n), n, one.x.begin());
    std::copy_n(batch.c.begin() + std::ptrdiff_t(s * n), n, one.c.begin());
    one.gradient();  // weights and adapters: summed
    dx.insert(dx.end(), one.dx.begin(), one.dx.end());
    out.insert(out.end(), one.out.begin(), one.out.end());
  }
  const auto close = [](const std::vector<double>& a, const std::vector<double>& b) {
    double worst = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      worst = std::max(worst, std::abs(a[i] - b[i]));
      size = std::max(size, std::abs(b[i]));
    }
    return worst <= 1e-12 * size;
  };
  CHECK(close(out, batch.out));
  CHECK(close(dx, batch.dx));
  CHECK(close(one.dweights, batch.dweights));
  CHECK(close(one.dtheta, batch.dtheta));
}

TEST_CASE("Later tokens do not change earlier outputs") {
  problem<float> at(small_llama(), all_adapted(2), 1, 12, 2);
  at.loss();
  const auto before = at.out;
  const std::size_t kept = std::size_t(8 * at.stack.shape().hidden);
  for (std::size_t i = kept; i < at.x.size(); ++i) at.x[i] += 1;
  at.loss();
  CHECK(std::equal(before.begin(), before.begin() + std::ptrdiff_t(kept), at.out.begin()));
  CHECK(before.back() != at.out.back());
}

TEST_CASE("Tokens behind the keys of earlier tokens give the outputs of the whole") {
  constexpr index_t head = 5, rest = 4;
  const config shape = small_llama();
  const index_t width = shape.kv_width();
  problem<double> whole(shape, all_adapted(2), 1, head + rest, 2), tail(shape, all_adapted(2), 1, rest, 2);
  struct keep_keys : no_hook {
    std::vector<double>* to;
    index_t width, count, capacity;
    void keys(index_t layer, matrix<const double> k, matrix<const double> v) {
      for (index_t j = 0; j < count; ++j) {
        std::copy_n(k.data + j * k.stride, width, to->data() + (2 * layer * capacity + j) * width);
        std::copy_n(v.data + j * v.stride, width, to->data() + ((2 * layer + 1) * capacity + j) * width);
      }
    }
  };
  std::vector<double> cache(std::size_t(2 * shape.layers * width * 8));
  keep_keys hook{{}, &cache, width, head, 8};
  std::vector<double> workspace(std::size_t(whole.stack.workspace_size(whole.p)));
  whole.out = whole.x;
  whole.stack.forward(whole.weights.data(), whole.a(), whole.p, whole.columns(whole.out), {}, workspace,
                      hook);
  tail.before = {cache};
  tail.p.before.keys = head;
  tail.p.before.capacity = 8;
  std::iota(tail.positions.begin(), tail.positions.end(), index_t{head});
  std::copy_n(whole.x.end() - std::ptrdiff_t(tail.x.size()), tail.x.size(), tail.x.begin());
  tail.loss();
  for (std::size_t i = 0; i < tail.out.size(); ++i)
    CHECK(tail.out[i] == Approx(whole.out[whole.out.size() - tail.out.size() + i]).margin(1e-12));
}

TEST_CASE("Both conventions of rotary pairs are the same model after the rows are permuted") {
  config shape = small_llama();
  problem<double> halves(shape, all_adapted(2), 1, 9, 2);
  shape.pairs = rope_pairs::neighbours;
  problem<double> neighbours(shape, all_adapted(2), 1, 9, 2);
  halves.adapted = neighbours.adapted = false;
  const auto permute = [&](index_t offset, index_t heads) {
    for (index_t h = 0; h < heads; ++h)
      for (index_t i = 0; i < shape.head_dim / 2; ++i)
        for (index_t side = 0; side < 2; ++side) {
          const index_t to = h * shape.head_dim + 2 * i + side,
                        from = h * shape.head_dim + i + side * shape.head_dim / 2;
          std::copy_n(halves.weights.begin() + offset + from * shape.hidden, shape.hidden,
                      neighbours.weights.begin() + offset + to * shape.hidden);
        }
  };
  for (index_t i = 0; i < shape.layers; ++i) {
    permute(halves.stack.map()[i].q, shape.heads);
    permute(halves.stack.map()[i].k, shape.kv_heads);
  }
  halves.loss();
  neighbours.loss();
  for (std::size_t i = 0; i < halves.out.size(); ++i)
    CHECK(halves.out[i] == Approx(neighbours.out[i]).margin(1e-12));
}

TEST_CASE("Only differences of positions matter, and policies stretch them") {
  config shape = small_llama();
  problem<double> at(shape, all_adapted(2), 1, 6, 2);
  at.loss();
  const auto out = at.out;
  for (index_t& p : at.positions) p += 11;
  at.loss();
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(at.out[i] == Approx(out[i]).margin(1e-11));
  at.positions.back() = shape.context;
  CHECK_THROWS_WITH(at.loss(), Catch::Matchers::ContainsSubstring("position"));

  shape.beyond = position_policy::linear;
  shape.position_factor = 2;
  problem<double> linear(shape, all_adapted(2), 1, 6, 2);
  CHECK(linear.stack.rotary().positions() == 2 * small_llama().context);
  for (index_t& p : linear.positions) p *= 2;
  linear.loss();
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(linear.out[i] == Approx(out[i]).margin(1e-11));

  shape.beyond = position_policy::ntk;
  const auto ntk = make_rotary<double>(shape), plain = make_rotary<double>(small_llama());
  std::vector<double> a{1, 1, 1, 0, 0, 0}, b = a;
  const index_t ten[] = {10}, twenty[] = {20};
  ntk.rotate({a.data(), 6, 1}, twenty);
  plain.rotate({b.data(), 6, 1}, ten);
  CHECK(a[2] == Approx(b[2]).margin(1e-12));  // the slowest pair, half as fast
  a = b = {1, 1, 1, 0, 0, 0};
  ntk.rotate({a.data(), 6, 1}, ten);
  plain.rotate({b.data(), 6, 1}, ten);
  CHECK(a[0] == Approx(b[0]).margin(1e-12));  // the fastest pair
}

TEST_CASE("A pass keeps to its memory and allocates nothing") {
  for (const saved keep : {saved::activations, saved::inputs}) {
    problem<float> at(small_llama(), all_adapted(3), 1, 9, 2, 2);
    at.p.keep = keep;
    at.connect();
    guarded<float> tape(at.stack.tape_size(at.p)), workspace(at.stack.workspace_size(at.p)),
        forward_workspace(at.stack.workspace_size(at.p, false));
    const view<float> t(tape.data(), tape.size()), w(workspace.data(), workspace.size()),
        f(forward_workspace.data(), forward_workspace.size());
    at.out = at.x;
    at.dx = at.c;
    const unroll::testing::allocation_counter counter;
    at.stack.forward(at.weights.data(), at.a(), at.p, at.columns(at.out), {}, f);
    at.stack.forward(at.weights.data(), at.a(), at.p, at.columns(at.out), t, f);
    at.stack.vjp(at.weights.data(), at.a(), at.p, t, at.columns(at.dx),
                 {at.dblocks, at.dweights.data(), at.dtheta.data(), true}, w);
    CHECK(counter.count() == 0);
    CHECK(tape.intact());
    CHECK(workspace.intact());
    CHECK(forward_workspace.intact());
  }
}

TEST_CASE("Wrong sizes are refused by name") {
  problem<float> at(small_llama(), all_adapted(2), 1, 4, 2, 1);
  at.connect();
  std::vector<float> workspace(std::size_t(at.stack.workspace_size(at.p)));
  const auto forward = [&](const pass<float>& p, index_t workspace_size) {
    at.stack.forward(at.weights.data(), at.a(), p, at.columns(at.out), {},
                     view<float>(workspace.data(), workspace_size));
  };
  using Catch::Matchers::ContainsSubstring;
  CHECK_THROWS_WITH(forward(at.p, 10), ContainsSubstring("workspace"));
  pass<float> p = at.p;
  p.layers = 3;
  CHECK_THROWS_WITH(forward(p, index_t(workspace.size())), ContainsSubstring("layers"));
  p = at.p;
  p.length = 5;
  CHECK_THROWS_WITH(forward(p, index_t(workspace.size())), ContainsSubstring("positions"));
  p = at.p;
  p.sequences = 2;
  CHECK_THROWS_WITH(forward(p, index_t(workspace.size())), ContainsSubstring("columns"));
  p = at.p;
  p.before.keys = 5;
  CHECK_THROWS_WITH(forward(p, index_t(workspace.size())), ContainsSubstring("capacity"));
  CHECK(at.stack.positions(0, 32).back() == 31);
  CHECK(at.stack.positions(32, 0).empty());
  CHECK_THROWS_WITH(at.stack.positions(30, 3),
                    ContainsSubstring("is 30 of 3 tokens, there are 32 positions"));
  CHECK_THROWS_WITH(at.stack.pass_over(-1, 1), ContainsSubstring("is -1 of 1"));
}
