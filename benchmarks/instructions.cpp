// The rows of the other benchmarks, small, because callgrind computes multiply-adds lane by lane: each row
// leaves a dump of its name, or with a second argument prints the least seconds of a call. instructions.py
// compiles this against two revisions, so it uses only what both have.
#include <valgrind/callgrind.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <unroll/llama.hpp>
#include <unroll/unroll.hpp>
#include <vector>

#include "any_revision.hpp"

using namespace unroll;

namespace {

constexpr index_t steps = 10;
const char* wanted = "";
bool timed = false;

/// Counts f after a first call, which allocates and chooses kernels.
template <class F>
void row(const std::string& name, F&& f) {
  if (std::strstr(name.c_str(), wanted) == nullptr) return;
  f();
  if (timed) {
    double least = 1e9;
    for (double sum = 0; sum < 0.1;) {
      const auto start = std::chrono::steady_clock::now();
      f();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      least = std::min(least, seconds);
      sum += seconds;
    }
    std::printf("%.4e %s\n", least, name.c_str());
    return;
  }
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_ZERO_STATS;
  f();
  CALLGRIND_DUMP_STATS_AT(name.c_str());
  CALLGRIND_STOP_INSTRUMENTATION;
}

std::string shape(std::initializer_list<index_t> sizes) {
  std::string text;
  for (const index_t n : sizes) text += "/" + std::to_string(n);
  return text;
}

/// A network whose input is as wide as its state and whose loss reads the state.
template <class Cell, class Make>
void estimator(const std::string& name, index_t hidden, index_t lanes, const Make& make) {
  using T = typename Cell::scalar;
  const Cell cell({.in = hidden, .hidden = hidden, .out = 0, .lanes = lanes});
  const index_t width = hidden * lanes;
  parameters<T> theta(cell.size().params);
  cell.init(theta, key{1});
  std::vector<T> x(std::size_t(steps * width)), y(x.size());
  draw_normals(key{2}, 0, view<T>(x));
  draw_normals(key{3}, 0, view<T>(y));
  std::vector<cells::example<T>> xs;
  for (index_t t = 0; t < steps; ++t)
    xs.push_back({.x = x.data() + t * width, .target = y.data() + t * width});
  auto e = make(cell);
  gradient<T> g(theta.size());
  row(name + shape({hidden, lanes}), [&] {
    g.zero();
    e.reset(key{7});
    e.advance(theta, xs, g);
    e.finish(theta, g);
  });
}

template <class Cell>
void every_estimator(const std::string& cell) {
  for (const index_t hidden : {16, 64, 256})
    for (const index_t lanes : {1, 32}) {
      const index_t states = hidden * lanes;
      const auto add = [&](const char* name, index_t most, auto make) {
        if (states <= most) estimator<Cell>(cell + "/" + name, hidden, lanes, make);
      };
      constexpr index_t some = 64 * 32, few = 16 * 32;
      add("bptt", some, [](const Cell& c) { return bptt(c, {.max_steps = steps}); });
      add("checkpointed", some,
          [](const Cell& c) { return checkpointed_bptt(c, {.slots = 3, .steps = steps}); });
      add("tbptt(1,5)", some, [](const Cell& c) { return tbptt(c, {.k1 = 1, .k2 = 5}); });
      add("chunked(5)", some, [](const Cell& c) { return chunked_tbptt(c, {.window = 5}); });
      add("artbp(5)", some, [](const Cell& c) { return artbp(c, polynomial_truncation(5)); });
      add("uoro", some, [](const Cell& c) { return uoro(c); });
      add("uoro(5)", some, [](const Cell& c) { return uoro(c, {.block = 5}); });
      add("nobacktrack", few, [](const Cell& c) { return nobacktrack(c); });
      add("es(1)", few, [](const Cell& c) { return es(c, {.sigma = 0.01, .pairs = 1}); });
      add("nres(1,5)", few, [](const Cell& c) { return nres(c, {.sigma = 0.01, .pairs = 1, .window = 5}); });
      add("pes(1,5)", few, [](const Cell& c) { return pes(c, {.sigma = 0.01, .pairs = 1, .window = 5}); });
      if (lanes == 1) add("rtrl", 16, [](const Cell& c) { return rtrl(c); });
      if (lanes > 1)
        add("lanes of bptt", some, [](const Cell& c) {
          return lane_parallel(c, {.groups = 2},
                               [](const auto& part) { return bptt(part, {.max_steps = steps}); });
        });
    }
}

template <class T>
void by_type(const std::string& type) {
  for (const index_t hidden : {16, 64})
    for (const index_t lanes : {1, 32}) {
      const auto add = [&]<class Cell>(std::type_identity<Cell>, const char* name) {
        estimator<Cell>(name + ("<" + type + ">/bptt"), hidden, lanes,
                        [](const Cell& c) { return bptt(c, {.max_steps = steps}); });
      };
      add(std::type_identity<cells::elman<T>>(), "elman");
      add(std::type_identity<cells::gru<T>>(), "gru");
      add(std::type_identity<cells::lstm<T>>(), "lstm");
    }
}

template <class T>
struct numbers_of {
  std::vector<T> x;
  explicit numbers_of(index_t n, T value = T(0.25)) : x(std::size_t(n), value) {}
  matrix<T> as(index_t rows, index_t cols) { return {x.data(), rows, cols}; }
};

template <class T>
void linear_algebra(const std::string& type) {
  const auto product = [&](const char* name, op oa, op ob, index_t m, index_t n, index_t k) {
    numbers_of<T> a(m * k), b(k * n), c(m * n);
    row("gemm<" + type + ", " + name + ">" + shape({m, n, k}), [&] {
      for (index_t i = 0; i < 1 + 20000 / (m * n * k); ++i)
        linalg::gemm<T>(oa, oa == op::none ? a.as(m, k) : a.as(k, m), ob,
                        ob == op::none ? b.as(k, n) : b.as(n, k), true, c.as(m, n));
    });
  };
  for (const index_t h : {16, 32, 64, 128, 192, 256, 512}) {
    product("nn", op::none, op::none, h, 1, h);
    product("tn", op::transpose, op::none, h, 1, h);
  }
  for (const index_t h : {64, 128, 256})
    for (const index_t lanes : {8, 32, 128}) {
      product("nn", op::none, op::none, h, lanes, h);
      product("tn", op::transpose, op::none, h, lanes, h);
      product("nt", op::none, op::transpose, h, h, lanes);
    }
  product("tn", op::transpose, op::none, 288, 64, 288);
  product("tn", op::transpose, op::none, 768, 16, 288);
  product("tn", op::transpose, op::none, 288, 16, 768);
  for (const index_t h : {256, 768}) {  // the next of 64 MiB of matrices
    const index_t k = h == 256 ? 256 : 288, n = h == 256 ? 8 : 16, all = (64 << 20) / index_t(sizeof(T));
    numbers_of<T> b(k * n), c(h * n);
    std::vector<T> a;
    index_t at = 0;
    row("gemm<" + type + ", tn, A of memory>" + shape({h, n, k}), [&] {
      a.resize(std::size_t(all), T(0.25));
      linalg::gemm<T>(op::transpose, {a.data() + at, k, h}, op::none, b.as(k, n), true, c.as(h, n));
      at = at + 2 * h * k <= all ? at + h * k : 0;
    });
  }
  for (const index_t h : {16, 64, 256, 512}) {
    numbers_of<T> x(h), y(h), a(h * h);
    row("ger<" + type + ">" + shape({h, h}), [&] {
      for (index_t i = 0; i < 1 + 20000 / (h * h); ++i)
        linalg::ger<T>(T(0.5), x.x.data(), y.x.data(), a.as(h, h));
    });
  }
  for (const index_t n : {16, 64, 1024}) {
    numbers_of<T> x(n), y(n);
    for (index_t i = 0; i < n; ++i) x.x[std::size_t(i)] = T(-4 + 8 * double(i) / double(n - 1));
    const auto add = [&](const char* name, auto f) {
      row(name + ("<" + type + ">") + shape({n}), [&] {
        for (index_t i = 0; i < 4096 / n; ++i) f(x.x.data(), y.x.data(), n);
      });
    };
    add("tanh", [](auto... a) { linalg::tanh(a...); });
    add("logistic", [](auto... a) { linalg::logistic(a...); });
    add("exp", [](auto... a) { linalg::exp(a...); });
  }
}

void draws() {
  const philox_chooser choose(key{1});
  for (const index_t n : {16, 64, 1024}) {
    numbers_of<float> out(n);
    row("signs" + shape({n}), [&] {
      for (index_t t = 0; t < 4096 / n; ++t) choose.signs(t, view<float>(out.x));
    });
    row("normals" + shape({n}), [&] {
      for (index_t t = 0; t < 4096 / n; ++t) choose.normals(t, view<float>(out.x));
    });
  }
  bool any = false;
  row("coins", [&] {
    for (std::int64_t t = 0; t < 4096; ++t) any = choose.coin(t, 0.1) != any;
  });
  if (any) std::puts("");
}

llama::config llama_shape(index_t hidden, index_t layers, index_t context) {
  llama::config c;
  c.hidden = hidden;
  c.layers = layers;
  c.heads = c.kv_heads = 4;
  bench::set_widths(c, hidden / 4, hidden * 8 / 3 / 4 * 4);
  c.vocabulary = 256;
  c.context = context;
  return c;
}

template <class T>
void llamas(const std::string& type) {
  const llama::config c = llama_shape(128, 2, 64);
  llama::language_model<T> model(c, {.sequences = 1, .length = c.context});
  parameters<T> w(model.stack().map().size());
  llama::init_weights<T>(model.stack().map(), w, key{1});
  gradient<T> g(w.size());
  std::vector<llama::token> ids;
  for (index_t i = 0; i <= c.context; ++i) ids.push_back(llama::token(31 * i * (i + 7) % 256));
  const std::span<const llama::token> all(ids), tokens = all.first(all.size() - 1), targets = all.subspan(1);
  row("llama<" + type + ">/gradient", [&] {
    g.zero();
    model.gradient(w, tokens, targets, g);
  });
  llama::generator<T> text(model.stack(), w);
  row("llama<" + type + ">/prefill", [&] {
    text.reset();
    text.append(tokens);
  });
  row("llama<" + type + ">/decode", [&] {
    text.reset();
    for (const llama::token id : tokens.first(16)) text.append(id);
  });
}

template <class T>
void memories(const std::string& type, index_t hidden, index_t layers, index_t segments, index_t length) {
  const llama::config c = llama_shape(hidden, layers, segments * length);
  llama::memory_options o;
  o.segment = length;
  o.ratio = 8;
  const auto weights = std::make_shared<parameters<T>>(llama::weight_map(c).size());
  llama::init_weights<T>(llama::weight_map(c), *weights, key{1});
  const llama::memory_llama<T> model(c, weights, o);
  parameters<T> theta(model.size().params);
  llama::init_memory<T>(model, theta, key{2}, {-1, 0.1});
  std::vector<llama::token> ids;
  for (index_t i = 0; i < segments * length + 1; ++i) ids.push_back(llama::token(31 * i * (i + 7) % 256));
  const auto text = llama::segments_of(ids, length);
  gradient<T> g(theta.size());
  for (const char* policy : {"rematerialise", "keep_all", "window:2", "reservoir:2", "proportional:2"})
    with_policy(parse_policy(policy), model, segments, philox_chooser{}, [&](auto e) {
      row("memories<" + type + ">/" + policy + shape({hidden, layers, segments, length}), [&] {
        g.zero();
        e.reset(key{3});
        e.advance(theta, text, g);
        e.finish(theta, g);
      });
    });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) wanted = argv[1];
  timed = argc > 2;
  every_estimator<cells::elman<float>>("elman");
  every_estimator<cells::gru<float>>("gru");
  every_estimator<cells::lstm<float>>("lstm");
  by_type<double>("double");
  linear_algebra<float>("float");
  linear_algebra<double>("double");
  draws();
  llamas<float>("float");
  llamas<double>("double");
  memories<float>("float", 64, 3, 4, 32);
  memories<float>("float", 128, 2, 2, 32);
  memories<double>("double", 32, 2, 4, 16);
}
