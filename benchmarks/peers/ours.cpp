// One side of compare.py: this library. Answers commands on standard input, so that both sides of a pair run
// in processes that stay warm.
//   usage: ours WORKLOAD CELL HIDDEN LANES STEPS TYPE FOLDER
// WORKLOAD is bptt, forward, tbptt-K (chunked, as `detach` does it), uoro, rtrl or generic-rtrl; CELL is
// elman, gru, lstm or lstm-2, a stack of two; TYPE is f32 or f64. FOLDER holds x.bin and y.bin (STEPS x LANES
// x HIDDEN numbers each).
//   layout         -> "name offset rows cols" of every parameter, then "end"
//   gradient IN OUT-> reads parameters from IN, writes the gradient to OUT
//   sample N       -> CPU seconds of one of N repetitions
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>
#include <unroll/unroll.hpp>
#include <vector>

using namespace unroll;

namespace {

struct workload {
  std::string name, cell, folder;
  index_t hidden, lanes, steps;
};

template <class T>
std::vector<T> read(const std::string& path, index_t n) {
  std::vector<T> v(static_cast<std::size_t>(n));
  std::ifstream in(path, std::ios::binary);
  if (!in.read(reinterpret_cast<char*>(v.data()), std::streamsize(v.size() * sizeof(T))))
    fail("ours", "file", path + " holds fewer than " + std::to_string(n) + " numbers");
  return v;
}

double cpu_seconds() { return double(std::clock()) / CLOCKS_PER_SEC; }

/// Hides the optional hooks of a cell, so that an estimator takes its generic path.
template <class F>
struct plain {
  using scalar = typename F::scalar;
  using input = typename F::input;
  F f;
  dims size() const { return f.size(); }
  void step(const input& x, const edge<scalar>& e) const { f.step(x, e); }
  void vjp(const input& x, const const_edge<scalar>& e, dstate<const scalar> dnext, scalar dloss,
           dstate<scalar> ds, dparams<scalar> dtheta) const {
    f.vjp(x, e, dnext, dloss, ds, dtheta);
  }
};

template <class E>
void serve(E estimator, const layout& names, const workload& w) {
  using T = typename E::scalar;
  const index_t width = w.hidden * w.lanes;
  const auto x = read<T>(w.folder + "/x.bin", w.steps * width),
             y = read<T>(w.folder + "/y.bin", w.steps * width);
  std::vector<cells::example<T>> xs;
  for (index_t t = 0; t < w.steps; ++t)
    xs.push_back({.x = x.data() + t * width, .target = y.data() + t * width});
  parameters<T> theta(names.size());
  gradient<T> g(names.size());
  const auto run = [&] {
    g.zero();
    estimator.reset(key{1});
    estimator.advance(theta, xs, g);
    estimator.finish(theta, g);
  };
  std::string command;
  while (std::cin >> command) {
    if (command == "layout") {
      for (const auto& b : names.blocks())
        std::printf("%s %td %td %td\n", b.name.c_str(), b.offset, b.rows, b.cols);
      std::printf("end\n");
    } else if (command == "gradient") {
      std::string in, out;
      std::cin >> in >> out;
      const auto values = read<T>(in, names.size());
      std::copy(values.begin(), values.end(), theta.begin());
      run();
      std::ofstream(out, std::ios::binary)
          .write(reinterpret_cast<const char*>(g.data()), std::streamsize(g.bytes()));
      std::printf("end\n");
    } else if (command == "sample") {
      int n = 0;
      std::cin >> n;
      const double start = cpu_seconds();
      for (int i = 0; i < n; ++i) run();
      std::printf("%.9g\n", (cpu_seconds() - start) / n);
    }
    std::fflush(stdout);
  }
}

/// The forward pass of a window as an "estimator", so that it is timed by the same loop.
template <class F>
class forward_only {
 public:
  using scalar = typename F::scalar;
  forward_only(F f, index_t steps)
      : f_(f),
        steps_(steps),
        states_((steps + 1) * f.size().state),
        tape_(steps * f.size().tape),
        loss_(steps),
        workspace_(window_workspace(f, steps)) {}
  void reset(key) {}
  void advance(params<const scalar> theta, std::span<const typename F::input> xs, dparams<scalar>) {
    window_forward(f_, xs, {theta, steps_, states_.data(), tape_.data(), loss_.data(), workspace_, 0});
  }
  void finish(params<const scalar>, dparams<scalar>) {}

 private:
  F f_;
  index_t steps_;
  buffer<scalar> states_, tape_, loss_, workspace_;
};

template <class F>
void with_cell(const F& f, const workload& w) {
  const auto names = f.layout();
  if (w.name == "bptt")
    serve(bptt(f, {.max_steps = w.steps}), names, w);
  else if (w.name == "forward")
    serve(forward_only<F>(f, w.steps), names, w);
  else if (w.name.starts_with("tbptt-"))
    serve(chunked_tbptt(f, {.window = std::atoi(w.name.c_str() + 6)}), names, w);
  else if (w.name == "uoro")
    serve(uoro(f), names, w);
  else if (has_jacobian<F> && w.name == "rtrl") {
    if constexpr (has_jacobian<F>) serve(rtrl(f), names, w);
  } else if (w.name == "generic-rtrl")
    serve(rtrl(plain<F>{f}), names, w);
  else
    fail("ours", "workload",
         "\"" + w.name + "\" is none of bptt, forward, tbptt-K, uoro, generic-rtrl, rtrl (of one layer)");
}

template <class T>
void with_type(const workload& w) {
  const index_t h = w.hidden;
  if (w.cell == "elman")
    with_cell(cells::elman<T>({.in = h, .hidden = h, .out = 0, .lanes = w.lanes}), w);
  else if (w.cell == "gru")
    with_cell(cells::gru<T>({.in = h, .hidden = h, .out = 0, .lanes = w.lanes}), w);
  else if (w.cell == "lstm")
    with_cell(cells::lstm<T>({.in = h, .hidden = h, .out = 0, .lanes = w.lanes}), w);
  else if (w.cell == "lstm-2")
    with_cell(cells::stack<cells::lstm<T>>({.in = h, .hidden = h, .out = 0, .lanes = w.lanes}, 2), w);
  else
    fail("ours", "cell", "\"" + w.cell + "\" is none of elman, gru, lstm, lstm-2");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 8) fail("ours", "arguments", "are WORKLOAD CELL HIDDEN LANES STEPS TYPE FOLDER");
  const workload w{argv[1], argv[2], argv[7], std::atoi(argv[3]), std::atoi(argv[4]), std::atoi(argv[5])};
  std::string(argv[6]) == "f64" ? with_type<double>(w) : with_type<float>(w);
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
