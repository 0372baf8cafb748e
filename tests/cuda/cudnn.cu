// Attention through cuDNN on this device: against sums in double at the borders, the bits of two runs, and
// its speed beside our kernels and beside cuDNN called directly.
#include <chrono>

#include "tests/cuda/attention_run.hpp"
#include "tests/cuda/check.hpp"
#include "unroll/cuda/cudnn_stream.hpp"

namespace {

using namespace device_test;
using namespace attention_test;
using numbers16 = unroll::numbers<bf16>;
using through = cuda::cudnn_stream<numbers16>;
static_assert(exec::executor<through>);

void right(report& to) {
  const through with;
  for (const attention_case& c : attention_borders()) {
    const attention_inputs in(c, {std::uint64_t(2028)});
    const index_t repaired = with.repaired();
    const outcome o = run(with, in), again = run(with, in);
    const attention_error e = compare(in, o.out, o.log_sum, 1000);
    const auto want = in.vjp_reference(false);
    auto rounded = in.vjp_reference(true);
    for (double& x : rounded.dprefix) x = double(float(bf16(x)));  // cuDNN's adjoints are bfloat16
    row forward{c.name};
    forward.error = e.ours, forward.limit = 2 * e.rounded;
    forward.pass = e.finite && e.ours <= forward.limit && e.log_sum < 1e-5;
    const auto blocks = in.blocks_from(in.prefix.data());
    const std::string why = with.why_bodies(call_of(in, in.q.data(), in.k.data(), in.v.data(), blocks));
    forward.note = why.empty() ? "cuDNN" : "our kernels: " + why;
    if (with.repaired() > repaired)
      forward.note += ", which left " + std::to_string(with.repaired() - repaired) + " not finite";
    to.add(forward);
    const auto near = [&](const char* what, const auto& x, const std::vector<double>& y,
                          const std::vector<double>& z) {
      if (y.empty()) return;
      row r{c.name + ", " + what};
      r.error = distance(x, y), r.limit = 2 * distance(z, y);
      r.pass = r.error <= r.limit;
      to.add(r);
    };
    near("dq", o.dq, want.dq, rounded.dq);
    near("dk", o.dk, want.dk, rounded.dk);
    near("dv", o.dv, want.dv, rounded.dv);
    near("adjoint of the prefix", o.dprefix, want.dprefix, rounded.dprefix);
    row runs{c.name + ", second run"};
    runs.differing = count_differing(o.out, again.out) + count_differing(o.log_sum, again.log_sum) +
                     count_differing(o.dq, again.dq) + count_differing(o.dk, again.dk) +
                     count_differing(o.dv, again.dv) + count_differing(o.dprefix, again.dprefix);
    runs.of = (long long)(o.out.size() + o.log_sum.size() + o.dq.size() + 2 * o.dk.size() + o.dprefix.size());
    runs.pass = runs.differing == 0;
    to.add(runs);
  }
}

/// A large case on the device.
struct large {
  through with;
  cuda::device_block<bf16> q, k, v, out, dout, dq, dk, dv, prefix, workspace;
  cuda::device_block<float> log_sum, dprefix;
  std::vector<const bf16*> blocks;
  std::vector<float*> dblocks;
  exec::attention_call<numbers16> call;
  exec::attention_adjoint<numbers16> adjoint;
  double pairs;

  large(index_t heads, index_t head, index_t length, index_t n_blocks, index_t keys) {
    const index_t width = heads * head, n = width * length, block = 2 * width * keys;
    const auto random = [&](index_t size, std::uint64_t what) {
      auto x = with.allocate<bf16>(size);
      auto drawn = with.allocate<float>(size);
      with.normals({what}, 0, drawn.data(), size);
      with.copy(matrix<const float>(drawn.data(), size, 1), matrix<bf16>(x.data(), size, 1));
      with.synchronise();
      return x;
    };
    q = random(n, 1), k = random(n, 2), v = random(n, 3), dout = random(n, 4),
    prefix = random(n_blocks * block, 5);
    out = with.allocate<bf16>(n), dq = out, dk = out, dv = out;
    log_sum = with.allocate<float>(heads * length), dprefix = with.allocate<float>(prefix.size());
    for (index_t b = 0; b < n_blocks; ++b)
      blocks.push_back(prefix.data() + b * block), dblocks.push_back(dprefix.data() + b * block);
    const auto columns = [&](auto& x) { return matrix(x.data(), width, length); };
    call = {.shape = {heads, heads, head},
            .mask = {},
            .sequences = 1,
            .q = columns(q),
            .k = columns(k),
            .v = columns(v),
            .before = {blocks, 0, width * keys, keys, {}}};
    adjoint = {columns(out), log_sum.data(), columns(dout), columns(dq), columns(dk), columns(dv), dblocks};
    workspace =
        with.allocate<bf16>(through::attention_workspace(call.shape, {1, length, n_blocks, keys, true}));
    pairs =
        double(heads) * (double(n_blocks * keys) * double(length) + double(length) * double(length + 1) / 2);
  }
};

void speed_of(report& to, const std::string& name, index_t length, index_t blocks, index_t keys) {
  large l(32, 128, length, blocks, keys);
  const auto add = [&](const std::string& what, double products, auto&& enqueue) {
    row r{name + what};
    cuda::event_handle before, after;
    std::vector<double> times;
    for (int i = 0; i < 3; ++i) enqueue();
    for (int i = 0; i < 20; ++i) {
      before.record(l.with.native());
      enqueue();
      after.record(l.with.native());
      after.synchronise();
      times.push_back(after.milliseconds_since(before));
    }
    std::nth_element(times.begin(), times.begin() + 10, times.end());
    r.ms = times[10];
    r.rate = 2 * products * 128 * l.pairs / r.ms * 1e-9, r.unit = "TFLOP/s";
    to.add(r);
  };
  const auto begin = std::chrono::steady_clock::now();
  const std::string why = l.with.why_bodies(l.call, &l.adjoint);
  row plans{name + ", plans"};
  plans.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  plans.note = why, plans.pass = why.empty();
  to.add(plans);
  const cuda::stream<numbers16>& ours = l.with;
  const auto of_out = matrix<bf16>(l.out.data(), l.call.q.rows, length);
  add(", forward, our kernel", 2, [&] { ours.attention(l.call, of_out, l.log_sum.data(), l.workspace); });
  add(", forward, through cuDNN", 2,
      [&] { l.with.attention(l.call, of_out, l.log_sum.data(), l.workspace); });
  add(", backward, our kernel", 5, [&] { ours.attention_vjp(l.call, l.adjoint, l.workspace); });
  add(", backward, through cuDNN", 5, [&] { l.with.attention_vjp(l.call, l.adjoint, l.workspace); });

  // cuDNN called directly: keys and values gathered before, nothing checked, nothing dealt out
  const index_t width = l.call.q.rows, n_keys = through::padded_keys(length + blocks * keys);
  const auto packed_k = l.with.allocate<bf16>(width * n_keys);
  auto packed_v = packed_k, dk = packed_k, dv = packed_k;
  auto log_sum = l.with.allocate<float>(32 * length);
  const auto n = to_device(std::vector<std::int32_t>{std::int32_t(length)}),
             m = to_device(std::vector<std::int32_t>{std::int32_t(length + blocks * keys)});
  exec::sdpa_shape s{.heads = 32, .kv_heads = 32, .head_dim = 128, .queries = length, .keys = n_keys};
  s.q_stride = s.kv_stride = s.out_stride = width;
  for (const bool fixed : {true, false}) {
    cuda::cudnn direct(l.with.native(), {.deterministic = fixed});
    for (const bool vjp : {false, true}) {
      if (!vjp && !fixed) continue;
      s.vjp = vjp, s.dout_stride = vjp ? width : 0;
      const cuda::device_block<unsigned char> room(direct.workspace(s), "cuDNN's workspace");
      unsigned char* const at = const_cast<unsigned char*>(room.data());
      add(std::string(vjp ? ", backward" : ", forward") + ", cuDNN called directly" +
              (fixed ? "" : ", any order"),
          vjp ? 5 : 2, [&] {
            if (vjp)
              direct.vjp(s,
                         {l.q.data(), packed_k.data(), packed_v.data(), l.out.data(), l.dout.data(), n.data(),
                          m.data(), log_sum.data(), l.dq.data(), dk.data(), dv.data()},
                         at);
            else
              direct.forward(s,
                             {l.q.data(), packed_k.data(), packed_v.data(), n.data(), m.data(), l.out.data(),
                              log_sum.data()},
                             at);
          });
    }
  }
}

void speed(report& to) {
  speed_of(to, "32 heads of 128, 4096 causal", 4096, 0, 0);
  speed_of(to, "32 heads of 128, 1024 behind 3104 memories", 1024, 97, 32);
}

}  // namespace

int main(int argc, char** argv) {
  if (cuda::device_count() > 0)
    if (const std::string missing = cuda::cudnn::missing(); !missing.empty()) {
      std::printf("skipped: cudnn: %s\n", missing.c_str());
      return 77;
    }
  return device_test::run("cudnn", argc, argv, {{"right", right}, {"speed", speed}});
}
