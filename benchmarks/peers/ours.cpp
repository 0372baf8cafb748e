// One side of compare.py: this library. Answers commands on standard input, so that both sides of a pair run
// in processes that stay warm.
//   usage: ours WORKLOAD CELL HIDDEN LANES STEPS TYPE FOLDER
// WORKLOAD is bptt, forward, tbptt-K (chunked, as `detach` does it), uoro, rtrl, generic-rtrl or one of
// with_estimators; CELL is elman, gru, lstm or lstm-2, a stack of two, for some estimators leaky or lru; TYPE
// is f32 or f64. FOLDER holds x.bin and y.bin (STEPS x LANES x HIDDEN numbers each).
//   layout         -> "name offset rows cols" of every parameter, then "end"
//   gradient IN OUT-> reads parameters from IN, writes the gradient to OUT
//   noise OUT      -> with the last parameters, writes all that an estimator draws, in its order, as doubles
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

std::vector<double>* notes = nullptr;  // where draws are noted, if anywhere

/// The draws of philox_chooser, noted.
class noting_chooser {
 public:
  void reset(key k) { draws_.reset(k); }
  void mirror(bool on) { draws_.mirror(on); }
  template <class V>
  void visit(V&& v) {
    draws_.visit(v);
  }
  template <class T, class S>
  void signs(std::int64_t t, view<T, S> out) const {
    draws_.signs(t, out);
    note(out);
  }
  bool coin(std::int64_t t, double p) const {
    const double one = draws_.coin(t, p);
    note(view<const double>(&one, 1));
    return one != 0;
  }
  void coins(std::int64_t t, double p, view<double> out) const {
    draws_.coins(t, p, out);
    note(out);
  }
  index_t uniform(std::int64_t t, index_t n) const {
    const double one = double(draws_.uniform(t, n));
    note(view<const double>(&one, 1));
    return index_t(one);
  }
  template <class T, class S>
  void normals(std::int64_t t, view<T, S> out) const {
    draws_.normals(t, out);
    note(out);
  }

 private:
  template <class V>
  static void note(const V& v) {
    if (notes) notes->insert(notes->end(), v.begin(), v.end());
  }
  philox_chooser draws_;
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
    } else if (command == "noise") {
      std::string out;
      std::cin >> out;
      std::vector<double> all;
      notes = &all;
      run();
      notes = nullptr;
      std::ofstream(out, std::ios::binary)
          .write(reinterpret_cast<const char*>(all.data()), std::streamsize(all.size() * sizeof(double)));
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

/// Those whose formulas jax_estimators.py has; false: none of them.
template <class F>
bool with_estimators(const F& f, const workload& w) {
  using C = noting_chooser;
  const auto names = f.layout();
  const std::string& n = w.name;
  if constexpr (std::is_same_v<F, cells::lru<typename F::scalar>>) {
    if (n == "diagonal-rtrl") return serve(diagonal_rtrl(f), names, w), true;
  } else if constexpr (std::is_same_v<F, cells::leaky<typename F::scalar>>) {
    if (n == "rflo") return serve(rflo(f, {.leak = 0.5}), names, w), true;
  } else {
    if (n == "uoro") return serve(uoro(f, {}, C{}), names, w), true;
    if constexpr (std::is_same_v<F, cells::elman<typename F::scalar>>) {
      if (n == "preuoro") return serve(preuoro(f, {}, C{}), names, w), true;
      if (n == "kf-rtrl") return serve(kf_rtrl(f, {}, C{}), names, w), true;
      if (n == "nobacktrack") return serve(nobacktrack(f, {}, C{}), names, w), true;
      if (n == "random-path") return serve(random_path(f, {.p = 0.5}, C{}), names, w), true;
      if (n == "snap-1") return serve(snap(f, {.reach = 1}), names, w), true;
      if (n == "eprop") return serve(eprop(f, {.filter = 0.5}), names, w), true;
      if (n == "sliding-10") return serve(tbptt(f, {.k1 = 1, .k2 = 10}), names, w), true;
      if (n == "artbp-10") return serve(artbp(f, polynomial_truncation(10), {}, C{}), names, w), true;
      if (n == "forward-gradient")
        return serve(forward_gradient(f, {.window = w.steps}, C{}), names, w), true;
      if (n == "es") return serve(es(f, {.sigma = 0.1}, C{}), names, w), true;
      if (n == "pes-10") return serve(pes(f, {.sigma = 0.1, .window = 10}, C{}), names, w), true;
    }
  }
  return false;
}

template <class F>
void with_cell(const F& f, const workload& w) {
  const auto names = f.layout();
  if constexpr (!std::is_same_v<F, cells::stack<cells::lstm<typename F::scalar>>>)
    if (with_estimators(f, w)) return;
  if (w.name == "bptt")
    serve(bptt(f, {.max_steps = w.steps}), names, w);
  else if (w.name == "forward")
    serve(forward_only<F>(f, w.steps), names, w);
  else if (w.name.starts_with("tbptt-"))
    serve(chunked_tbptt(f, {.window = std::atoi(w.name.c_str() + 6)}), names, w);
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
  else if (w.cell == "leaky" &&
           with_estimators(cells::leaky<T>({.in = h, .hidden = h, .out = 0, .lanes = w.lanes}), w))
    return;
  else if (w.cell == "lru" &&
           with_estimators(cells::lru<T>({.in = h, .hidden = h, .out = 0, .lanes = w.lanes}), w))
    return;
  else
    fail("ours", "cell",
         "\"" + w.cell +
             "\" is none of elman, gru, lstm, lstm-2, or of leaky and lru with their own workloads");
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
