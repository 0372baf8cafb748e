// Prints the gradient of every estimator over every cell, a line a case: its name and the numbers in
// hexadecimal. bits.py compiles it against the headers of two revisions and compares.
#include <cstdio>
#include <string>
#include <unroll/unroll.hpp>
#include <vector>

using namespace unroll;

namespace {

constexpr index_t steps = 40;

template <class Cell, class Make>
void print(const std::string& name, index_t hidden, index_t lanes, const Make& make) {
  using T = typename Cell::scalar;
  const Cell cell({.in = 3, .hidden = hidden, .out = 2, .lanes = lanes});
  parameters<T> theta(cell.size().params);
  cell.init(theta, key{1});
  std::vector<T> x(std::size_t(steps * 3 * lanes)), y(std::size_t(steps * 2 * lanes));
  draw_normals(key{2}, 0, view<T>(x));
  draw_normals(key{3}, 0, view<T>(y));
  std::vector<cells::example<T>> xs;
  for (index_t t = 0; t < steps; ++t)
    xs.push_back({.x = x.data() + t * 3 * lanes, .target = y.data() + t * 2 * lanes});
  auto estimator = make(cell);
  gradient<T> g(theta.size());
  estimator.reset(key{7});
  report r = estimator.advance(theta, xs, g);
  r += estimator.finish(theta, g);
  std::printf("%s/%ld/%ld %a", name.c_str(), long(hidden), long(lanes), r.loss);
  for (const T v : g) std::printf(" %a", double(v));
  std::printf("\n");
}

template <class Cell>
void every_estimator(const std::string& cell) {
  for (const index_t hidden : {5, 16})
    for (const index_t lanes : {1, 3, 32}) {
      const auto row = [&](const char* name, auto make) { print<Cell>(cell + name, hidden, lanes, make); };
      row("/bptt", [](const Cell& c) { return bptt(c, {.max_steps = steps}); });
      row("/checkpointed", [](const Cell& c) { return checkpointed_bptt(c, {.slots = 5, .steps = steps}); });
      row("/tbptt", [](const Cell& c) { return tbptt(c, {.k1 = 2, .k2 = 10}); });
      row("/chunked", [](const Cell& c) { return chunked_tbptt(c, {.window = 10}); });
      row("/artbp", [](const Cell& c) { return artbp(c, polynomial_truncation(10)); });
      row("/uoro", [](const Cell& c) { return uoro(c); });
      row("/uoro_blocks", [](const Cell& c) { return uoro(c, {.block = 10}); });
      row("/nobacktrack", [](const Cell& c) { return nobacktrack(c); });
      row("/es", [](const Cell& c) { return es(c, {.sigma = 0.01, .pairs = 2}); });
      row("/nres", [](const Cell& c) { return nres(c, {.sigma = 0.01, .pairs = 2, .window = 10}); });
      row("/pes", [](const Cell& c) { return pes(c, {.sigma = 0.01, .pairs = 2, .window = 10}); });
      if (lanes < 32) row("/rtrl", [](const Cell& c) { return rtrl(c); });
    }
}

template <class T>
void every_cell(const std::string& numbers) {
  every_estimator<cells::elman<T>>("elman<" + numbers + ">");
  every_estimator<cells::gru<T>>("gru<" + numbers + ">");
  every_estimator<cells::lstm<T>>("lstm<" + numbers + ">");
}

}  // namespace

int main() {
  every_cell<double>("double");
  every_cell<float>("float");
}
