// Trains a small recurrent network online. The gradient needs no window and no history, and is unbiased while
// theta stands still; here theta moves every ten steps.
#include <cstdio>
#include <unroll/unroll.hpp>

int main() {
  using namespace unroll;
  const cells::elman<float> cell({.in = 1, .hidden = 16, .out = 1});
  parameters<float> theta(cell.size().params);
  cell.init(theta, key{1});
  gradient<float> g(theta.size());
  uoro estimator(cell);  // or tbptt, rtrl, nobacktrack ...: the loop below stays the same
  estimator.reset(key{2});
  adam<float> optimiser(theta.size(), {.rate = 1e-3});
  const auto task =
      data::delay<float>({.steps = 100'000, .lag = 2}, key{3});  // x = +-1, target = x two steps ago
  report last;                                                   // of the last tenth
  for (index_t t = 0; t < 100'000; t += 10) {
    g.zero();
    const report r = estimator.advance(theta, task.inputs().subspan(std::size_t(t), 10), g);
    if (t >= 90'000) last += r;
    if (optimiser.step(theta, g) != status::ok) return 1;  // g is not finite; theta is as it was
  }
  std::printf("loss per step %.4f (guessing gives 0.5)\n", last.loss / double(last.losses));
}
