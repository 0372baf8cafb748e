// The memory model over a Llama of the shape of Llama-2-7B, random bfloat16 weights made on the device, LoRA
// of rank 128 on queries and values: prefill, decoding behind it, the exact gradient. Bytes against the plan,
// and where the time goes.
#include <chrono>

#include "tests/cuda/check.hpp"
#include "unroll/cuda/stream.hpp"
#include "unroll/estimate/plan.hpp"
#include "unroll/exec/kept_cast.hpp"
#include "unroll/memory/memory_llama/costs.hpp"
#include "unroll/memory/memory_llama/session.hpp"

namespace {

using namespace device_test;
using E = cuda::stream<numbers<bf16>>;
using model_type = llama::memory_llama<E>;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
double used_gb() {
  std::size_t free = 0, all = 0;
  cuda::check(cudaMemGetInfo(&free, &all), "bench_model", "cudaMemGetInfo");
  return double(all - free) / 1e9;
}

llama::config shape_of(index_t layers, index_t ratio, index_t segments) {
  llama::config c{.hidden = 4096,
                  .intermediate_size = 11008,
                  .layers = layers,
                  .heads = 32,
                  .kv_heads = 32,
                  .head_dim = 128};
  c.vocabulary = 32000;
  c.context = 4096;
  c.tied = false;
  if (const index_t end = (segments - 1) * 1024 / ratio + 1024; end > c.context) {  // memories and a segment
    c.beyond = llama::position_policy::linear;
    c.position_factor = double((end + c.context - 1) / c.context);
  }
  return c;
}
llama::memory_options options_of(index_t ratio, bool on_host) {
  llama::memory_options o;
  o.memories_on_host = on_host;
  o.segment = 1024;
  o.ratio = ratio;
  o.encoder.rank = 128;
  o.transfer_head.rank = 128;
  return o;
}

/// Normals of standard deviation `size`, drawn in float piece by piece.
template <class U>
void draw(const E& e, key k, double size, U* to, index_t n) {
  const index_t piece = std::min<index_t>(n, index_t{1} << 26);
  auto drawn = e.allocate<float>(piece);
  for (index_t at = 0, step = 0; at < n; at += piece, ++step) {
    const index_t now = std::min(piece, n - at);
    e.normals(k, step, drawn.data(), now);
    e.scale(size, drawn.data(), now);
    e.copy(matrix<const float>(drawn.data(), now, 1), matrix<U>(to + at, now, 1));
  }
  e.synchronise();
}

std::shared_ptr<const model_type::weights_type> random_weights(const E& e, const llama::config& c) {
  const llama::weight_map map(c);
  auto w = e.allocate<bf16, param_space>(map.size());
  draw(e, key{1}, 0.02, w.data(), w.size());
  for (const layout_block& b : map.names().blocks()) {
    const bool to_residual =
        b.name.find("o_proj") != std::string::npos || b.name.find("down_proj") != std::string::npos;
    if (b.cols == 1) e.fill(matrix<bf16>(w.data() + b.offset, b.rows, 1), 1);
    if (to_residual) draw(e, key{2 + std::uint64_t(b.offset)}, 0.0025, w.data() + b.offset, b.size());
  }
  e.synchronise();
  return std::make_shared<const model_type::weights_type>(std::move(w));
}

struct bench {
  E e;
  llama::config c;
  llama::memory_options o;
  llama::memory_costs<E> costs;
  std::string shape;
  double base;
  model_type model;
  E::block<float, param_space> theta;
  exec::kept_cast<E> kept;
  std::vector<llama::token> ids;

  bench(index_t layers, index_t ratio, index_t segments, bool profiled, bool early = false,
        bool on_host = false)
      : e(0, {.early = early, .profile = profiled}),
        c(shape_of(layers, ratio, segments)),
        o(options_of(ratio, on_host)),
        costs(c, o),
        shape(std::to_string(layers) + " layers, ratio " + std::to_string(ratio) +
              (on_host ? ", memories on the host" : "")),
        base(used_gb()),
        model(c, random_weights(e, c), o, e),
        theta(e.allocate<float, param_space>(model.trainable().size())),
        kept(e, params<const float>(theta.data(), theta.size())) {
    draw(e, key{7}, 0.01, theta.data(), theta.size());
    for (index_t i = 0; i <= segments * o.segment; ++i) ids.push_back(llama::token(i * 7919 % c.vocabulary));
    e.times();
  }
  void table(device_test::report& to, const std::string& of) {
    double all = 0;
    const auto entries = e.times();
    for (const auto& x : entries) all += x.ms;
    for (std::size_t i = 0; i < std::min<std::size_t>(entries.size(), 24); ++i) {
      const auto& x = entries[i];
      row r{of + ": " + x.name};
      r.ms = x.ms;
      r.rate = 100 * x.ms / all;
      r.unit = "%";
      r.note = std::to_string(x.calls) + " calls";
      to.add(r);
    }
  }
};

/// Prefill of whole segments, `batch` of them together, and decoding behind it.
void read_and_decode(device_test::report& to, index_t layers, index_t ratio, index_t segments, index_t batch,
                     bool profiled, bool early = true) {
  bench b(layers, ratio, segments, profiled, early);
  const std::string of = b.shape + ", " + std::to_string(segments * b.o.segment) + " tokens" +
                         (batch > 1 ? " by " + std::to_string(batch) + " segments" : "") +
                         (profiled ? ", profiled" : "") + (early ? "" : ", no early launches");
  llama::memory_session<E> session(b.model, b.theta, batch);
  const auto text = std::span<const llama::token>(b.ids);
  // algorithms are chosen, clocks rise
  session.append(text.first(std::size_t(std::min(segments, batch + 1) * b.o.segment)));
  session.append(b.ids[0]);
  session.reset();
  b.e.times();
  double t = now();
  session.append(text.first(std::size_t(segments * b.o.segment)));
  const double prefill = now() - t;
  double operations = 0;
  for (index_t s = 0; s + 1 < segments; ++s) operations += b.costs.write(s);
  operations += b.costs.read(segments - 1, b.o.segment) -
                double(b.o.segment - 1) * 2 * double(b.c.hidden) * double(b.c.vocabulary);
  row r{"prefill, " + of};
  r.ms = 1e3 * prefill;
  r.rate = operations / prefill / 1e12;
  r.unit = "TFLOP/s";
  const double gb = used_gb() - b.base;
  const double planned = (double(b.model.weights().size()) * 2 + double(b.theta.bytes() + b.kept.bytes()) +
                          double(session.bytes())) /
                         1e9;
  r.note = std::to_string(gb) + " GB, planned " + std::to_string(planned);
  const auto logits = session.logits();
  r.pass =
      std::all_of(logits.data(), logits.data() + logits.size(), [](float x) { return std::isfinite(x); });
  to.add(r);
  if (profiled) b.table(to, "prefill");

  t = now();
  session.append(b.ids[0]);
  row first{"a token behind a full segment, which it writes, " + of};
  first.ms = 1e3 * (now() - t);
  to.add(first);
  b.e.times();
  const int decoded = 32;
  t = now();
  for (int i = 1; i <= decoded; ++i) session.append(b.ids[std::size_t(i)]);
  row d{"decoding a token, " + of};
  d.ms = 1e3 * (now() - t) / decoded;
  const double bytes = double(b.model.weights().size() - b.c.hidden * b.c.vocabulary) * 2 +
                       double(segments * b.model.memory_tokens() + decoded) * double(b.c.layers) * 2 *
                           double(b.c.kv_width()) * 2;
  d.rate = bytes / d.ms / 1e6;
  d.unit = "GB/s";
  to.add(d);
  if (profiled) b.table(to, "decoding");
}

void train(device_test::report& to, index_t layers, index_t ratio, index_t segments, const std::string& name,
           bool profiled, bool on_host = false) {
  bench b(layers, ratio, segments, profiled, true, on_host);
  const std::string of = b.shape + ", " + std::to_string(segments * b.o.segment) + " tokens, " + name +
                         (profiled ? ", profiled" : "");
  const index_t tokens = segments * b.o.segment;
  const auto text = llama::segments_of(b.ids, b.o.segment);
  const policy how = parse_policy(name);
  const memory_plan planned = plan(b.costs, tokens, how, number_bytes{2, 10, 2, 2, 4, 2});
  auto g = b.e.allocate<float, param_space>(b.theta.size());
  const params<const float> at(b.theta.data(), b.theta.size());
  const dparams<float> to_g(g.data(), g.size());
  auto norm = b.e.allocate<float>(1);
  rematerialise estimator(b.model, {.segments = segments, .batch = how.batch});
  const auto step = [&](std::span<const llama::segment> xs) {
    estimator.reset(key{1});
    unroll::report r = estimator.advance(at, xs, to_g);
    r += estimator.finish(at, to_g);
    b.e.synchronise();
    return r;
  };
  step(std::span<const llama::segment>(text).first(std::size_t(std::min(segments, how.batch + 1))));
  b.e.times();
  b.e.fill(matrix<float>(g.data(), g.size(), 1), 0);  // the norm below is of one gradient
  const double t = now();
  const auto done = step(text);
  const double seconds = now() - t;
  b.e.norm(g.data(), g.size(), norm.data());
  row r{"exact gradient, " + of};
  r.ms = 1e3 * seconds;
  r.rate = planned.operations() / seconds / 1e12;
  r.unit = "TFLOP/s";
  r.note = std::to_string(used_gb() - b.base) + " GB, planned " +
           std::to_string(planned.place_bytes() / 1e9) + ", on the host " +
           std::to_string(planned.host_bytes / 1e9) + "; loss a token " +
           std::to_string(done.loss / double(done.losses)) + ", norm " +
           std::to_string(exec::value(b.e, norm.data()));
  r.pass = done.code == status::ok && std::isfinite(exec::value(b.e, norm.data()));
  to.add(r);
  if (profiled) b.table(to, "exact gradient");
}

constexpr index_t all = 97;  // segments of 1024 tokens: 99,328

void trial(device_test::report& to) {
  read_and_decode(to, 2, 32, 4, 1, false);
  train(to, 2, 32, 4, "rematerialise", false);
}
void read_32(device_test::report& to) { read_and_decode(to, 32, 32, all, 1, false, false); }
void read_32_by_4(device_test::report& to) { read_and_decode(to, 32, 32, all, 4, false); }
void read_8(device_test::report& to) { read_and_decode(to, 32, 8, all, 4, false); }
void profile_reading(device_test::report& to) { read_and_decode(to, 32, 32, 13, 4, true); }
void train_32(device_test::report& to) { train(to, 32, 32, all, "rematerialise", false); }
void train_32_by_4(device_test::report& to) { train(to, 32, 32, all, "rematerialise/4", false); }
void train_on_host(device_test::report& to) { train(to, 32, 32, all, "rematerialise/4", false, true); }
void train_million(device_test::report& to) { train(to, 32, 32, 977, "rematerialise/8", false, true); }
void profile_training(device_test::report& to) { train(to, 32, 32, 9, "rematerialise/4", true); }

}  // namespace

int main(int argc, char** argv) {
  return device_test::run("bench_model", argc, argv,
                          {{"trial", trial},
                           {"read_32", read_32},
                           {"read_32_by_4", read_32_by_4},
                           {"train_32", train_32},
                           {"profile_reading", profile_reading},
                           {"profile_training", profile_training},
                           {"read_8", read_8},
                           {"train_32_by_4", train_32_by_4},
                           {"train_on_host", train_on_host},
                           {"train_million", train_million}});
}
