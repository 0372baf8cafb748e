#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/cuda/model_host.hpp"
#include "unroll/estimate/captured.hpp"
#include "unroll/estimate/policy.hpp"
#include "unroll/exec/kept_cast.hpp"
#include "unroll/memory/memory_llama/start.hpp"
#include "unroll/train/document_gradients.hpp"
#include "unroll/train/loop.hpp"

// A small Llama with memories on any executor: every call of the memory model, every policy and a short
// training run, and what each of them writes; for comparing executors.
namespace model_test {

using namespace unroll;
using namespace unroll::llama;

/// Largest error over largest magnitude; NaN is an infinite error.
inline double distance(const std::vector<double>& x, const std::vector<double>& want) {
  double most = x.size() == want.size() ? 0 : INFINITY, size = 0;
  for (std::size_t i = 0; i < std::min(x.size(), want.size()); ++i) {
    const double e = std::abs(x[i] - want[i]);
    most = e <= most ? most : e == e ? e : INFINITY;
    size = std::max(size, std::abs(want[i]));
  }
  return most / size;
}
inline long long differing(const std::vector<double>& x, const std::vector<double>& y) {
  long long n = (long long)std::max(x.size(), y.size()) - (long long)std::min(x.size(), y.size());
  for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) n += !(x[i] == y[i]);
  return n;
}

struct model_case {
  const char* name;
  config shape;
  memory_options options;
  index_t segments;
  double weights = 8;  ///< in multiples of the standard deviation that training begins with
};

/// Heads that run without tensor cores, and heads that run on them; the last segment is a shorter one.
inline std::vector<model_case> model_cases() {
  model_case small{"heads of 12", {}, {}, 5};
  small.shape = {.hidden = 48,
                 .intermediate_size = 40,
                 .layers = 3,
                 .heads = 4,
                 .kv_heads = 2,
                 .head_dim = 12,
                 .vocabulary = 50,
                 .context = 96};
  small.options.segment = 12;
  small.options.ratio = 4;
  small.options.encoder.rank = 4;
  small.options.transfer_head.rank = 3;
  model_case wide{"heads of 64", {}, {}, 4};
  wide.shape = {.hidden = 64,
                .intermediate_size = 48,
                .layers = 3,
                .heads = 2,
                .kv_heads = 1,
                .head_dim = 64,
                .vocabulary = 64,
                .context = 96};
  wide.options.segment = 24;
  wide.options.ratio = 8;
  wide.options.encoder.rank = 8;
  wide.options.transfer_head.rank = 8;
  wide.weights = 5;
  return {small, wide};
}

/// Everything of one case at the place of an executor.
template <class E>
class setting {
 public:
  using model_type = memory_llama<E>;
  using W = typename E::numbers::weight;
  using A = typename E::numbers::activation;
  using M = typename E::numbers::memory;
  using P = typename E::numbers::parameter;

  setting(const E& on, const model_case& c) : e(on), of(c), model(c.shape, weights_of(on, c), c.options, on) {
    const memory_map& map = model.trainable();
    parameters<float> start(map.size());
    init_memory(map, matrix<const float>(nullptr, c.shape.hidden, c.shape.vocabulary), params<float>(start),
                key{5}, {-1, 0.3});
    for (float& x : map.memory_part(params<float>(start))) x *= 30;
    std::vector<P> at_place;
    for (const float x : start) at_place.push_back(P(float(bf16(x))));
    first.swap(at_place);
    const index_t tokens = c.options.segment * c.segments - 2;
    for (index_t i = 0; i < tokens; ++i) ids.push_back(token(draw_index({3}, i, c.shape.vocabulary)));
    text = segments_of(ids, c.options.segment);
  }

  auto theta() const {
    auto t = e.template allocate<P, param_space>(index_t(first.size()));
    e.upload(first.data(), t.size(), t.data());
    return t;
  }
  template <class U>
  std::vector<double> fetched(const U* at, index_t n) const {
    std::vector<U> x(static_cast<std::size_t>(n));
    e.download(at, n, x.data());
    e.synchronise();
    std::vector<double> out;
    for (const U u : x) out.push_back(double(float(u)));
    if constexpr (std::same_as<U, double>) out.assign(x.begin(), x.end());
    return out;
  }

  E e;
  model_case of;
  model_type model;
  std::vector<P> first;  // theta to begin with
  std::vector<token> ids;
  std::vector<segment> text;

 private:
  static auto weights_of(const E& e, const model_case& c) {
    const weight_map map(c.shape);
    parameters<double> drawn(map.size());
    init_weights<double>(map, drawn, {11});
    std::vector<W> w;
    for (const double x : drawn) w.push_back(W(float(bf16(float(x == 1 ? x : c.weights * x)))));
    auto at = e.template allocate<W, param_space>(map.size());
    e.upload(w.data(), at.size(), at.data());
    return std::make_shared<const typename model_type::weights_type>(std::move(at));
  }
};

/// write, write_vjp, read and read_vjp; `together`: of all segments in one call.
template <class E>
void calls(const setting<E>& s, bool together, results& out) {
  using A = typename setting<E>::A;
  using M = typename setting<E>::M;
  using P = typename setting<E>::P;
  const auto& e = s.e;
  const auto& model = s.model;
  const index_t T = index_t(s.text.size()), n = T - 1;
  const memory_dims d = model.size();
  const std::string how = together ? ", together" : ", one by one";
  auto theta = s.theta();
  auto m = e.template allocate<M>(n * d.memory);
  auto tape = e.template allocate<A>(n * d.tape);
  auto workspace = e.template allocate<A>(model.workspace(n, T));
  auto dm = e.template allocate<P>(n * d.memory), toward = e.template allocate<P>(n * d.memory);
  auto g = e.template allocate<P, param_space>(d.params);
  auto losses = e.template allocate<P>(T);
  const std::span<const segment> text(s.text);
  const params<const P> at(theta);
  const auto part = [](auto& b, index_t i, index_t k, index_t size) {
    return view<std::remove_pointer_t<decltype(b.data())>>(b.data() + i * size, k * size);
  };
  const index_t step = together ? n : 1;
  for (index_t i = 0; i < n; i += step)
    model.write(text.subspan(std::size_t(i), std::size_t(step)), i, at, {}, part(m, i, step, d.memory),
                part(tape, i, step, d.tape), view<A>(workspace));
  out.push_back({"memories" + how, s.fetched(m.data(), m.size())});

  std::vector<const M*> past;
  std::vector<P*> dpast;
  for (index_t i = 0; i < n; ++i) {
    past.push_back(m.data() + i * d.memory);
    dpast.push_back(dm.data() + i * d.memory);
  }
  const auto reads = [&](auto&& call) {
    call(index_t{0}, index_t{1});
    for (index_t t = 1; t < T; t += step) call(t, step);
  };
  reads([&](index_t t, index_t k) {
    model.read(text.subspan(std::size_t(t), std::size_t(k)), t, at,
               std::span<const M* const>(past.data(), std::size_t(t + k - 1)), losses.data() + t,
               view<A>(workspace));
  });
  out.push_back({"losses" + how, s.fetched(losses.data(), T)});
  reads([&](index_t t, index_t k) {
    model.read_vjp(text.subspan(std::size_t(t), std::size_t(k)), t, at,
                   std::span<const M* const>(past.data(), std::size_t(t + k - 1)), losses.data() + t,
                   {.dpast = {dpast.data(), std::size_t(t + k - 1)}}, view<A>(workspace));
  });
  out.push_back({"losses of read_vjp" + how, s.fetched(losses.data(), T)});
  out.push_back({"adjoints of memories" + how, s.fetched(dm.data(), dm.size())});

  std::vector<P> drawn;
  for (index_t i = 0; i < toward.size(); ++i)
    drawn.push_back(P(float(bf16(float(draw_normal({9}, 0, std::uint64_t(i)))))));
  e.upload(drawn.data(), toward.size(), toward.data());
  for (index_t i = n - step; i >= 0; i -= step)
    model.write_vjp(text.subspan(std::size_t(i), std::size_t(step)), i, at, {},
                    {.tape = part(tape, i, step, d.tape), .dm = part(toward, i, step, d.memory)},
                    {.dtheta = {g.data(), g.size()}}, view<A>(workspace));
  out.push_back({"gradient by write_vjp" + how, s.fetched(g.data(), g.size())});
}

inline const std::vector<std::string>& policies() {
  static const std::vector<std::string> names{"rematerialise", "rematerialise/2", "keep:2",        "window:2",
                                              "reservoir:2",   "proportional:2",  "proportional:8"};
  return names;
}
/// Whether a result depends on draws that only equal bits make equal.
inline bool draws_by_norms(const std::string& name) { return name == "gradient, proportional:2"; }

template <class E>
result gradient_of(const setting<E>& s, const std::string& name) {
  using P = typename setting<E>::P;
  auto theta = s.theta();
  auto g = s.e.template allocate<P, param_space>(theta.size());
  const params<const P> at(theta.data(), theta.size());
  const dparams<P> to(g.data(), g.size());
  result out{"gradient, " + name, {}};
  with_policy(parse_policy(name), s.model, index_t(s.text.size()), philox_chooser{}, [&](auto estimator) {
    estimator.reset(key{4});
    unroll::report r = estimator.advance(at, s.text, to);
    r += estimator.finish(at, to);
    if (r.code != status::ok) out.name += ": not ok";
  });
  out.numbers = s.fetched(g.data(), g.size());
  return out;
}

/// The same with the memories in memory of the host, where the executor keeps any there.
template <class E>
void with_memories_on_host(const E& e, model_case c, results& out) {
  c.options.memories_on_host = exec::offloading<E>;
  const setting<E> s(e, c);
  for (const char* name : {"rematerialise/2", "window:2"}) {
    out.push_back(gradient_of(s, name));
    out.back().name += ", memories on the host";
  }
}

/// The same with its operations recorded, where the executor can: of another text of the same lengths first,
/// then of this one twice, so that the last list was there before.
template <class E>
result recorded_gradient_of(const setting<E>& s, const std::string& name) {
  using P = typename setting<E>::P;
  if constexpr (!exec::recordable<E>) {
    result out = gradient_of(s, name);
    out.name += ", recorded";
    return out;
  } else {
    auto theta = s.theta();
    auto g = s.e.template allocate<P, param_space>(theta.size());
    const params<const P> at(theta.data(), theta.size());
    const dparams<P> to(g.data(), g.size());
    const std::vector<token> reversed(s.ids.rbegin(), s.ids.rend());
    const auto other = segments_of(reversed, s.of.options.segment);
    result out{"gradient, " + name + ", recorded", {}};
    with_policy(parse_policy(name), s.model, index_t(s.text.size()), philox_chooser{}, [&](auto estimator) {
      if constexpr (requires { estimator.put_off_looks(); }) {
        captured recorded(std::move(estimator));
        for (const auto* text : {&other, &s.text, &s.text}) {
          s.e.fill(matrix<P>(g.data(), g.size(), 1), 0);
          recorded.reset(key{4});
          unroll::report r = recorded.advance(at, *text, to);
          r += recorded.finish(at, to);
          if (r.code != status::ok) out.name += ": not ok";
        }
      }
    });
    out.numbers = s.fetched(g.data(), g.size());
    return out;
  }
}

/// The losses of a training run of `steps` steps, each on the text and on its first half as two documents.
template <class E>
result training_losses(const setting<E>& s, index_t steps) {
  using P = typename setting<E>::P;
  parameters<P> begin(index_t(s.first.size()));
  std::copy(s.first.begin(), s.first.end(), begin.begin());
  training::run<E> run(
      {.steps = steps, .warm_up = 0, .rate = 3e-3, .last_rate = 1, .decay = 0.01, .beta2 = 0.99},
      std::move(begin), "a run", s.e);
  const exec::kept_cast<E> kept(s.e, params<const P>(run.theta()));
  const std::vector<std::vector<segment>> texts{
      s.text, {s.text.begin(), s.text.begin() + std::ptrdiff_t(s.text.size() / 2)}};
  training::document_gradients gradients(
      rematerialise(s.model, {.segments = index_t(s.text.size()), .batch = 2}), 2, 1);
  result out{"losses of a training run", {}};
  const status end = training::train(
      run,
      [&](const auto& theta, auto& g) {
        const unroll::report r = gradients.add(key{4}, theta, texts, g);
        out.numbers.push_back(r.loss);
        return r;
      },
      [](const auto&) { return 1.0; }, [](const training::course_row&) {});
  if (end != status::ok) out.name += ": not ok";
  return out;
}

template <class E>
results run(const E& e, const model_case& c) {
  const setting<E> s(e, c);
  results out;
  calls(s, false, out);
  calls(s, true, out);
  for (const std::string& name : policies()) out.push_back(gradient_of(s, name));
  for (const char* name : {"rematerialise/2", "window:2"}) out.push_back(recorded_gradient_of(s, name));
  with_memories_on_host(e, c, out);
  out.push_back(training_losses(s, 8));
  return out;
}

}  // namespace model_test
