// Attention on the tensor cores of this device: the bits of the same body on the host, the double reference
// at the borders and at size, two runs, and its speed.
#include "tests/cuda/attention_case.hpp"
#include "tests/cuda/check.hpp"
#include "unroll/cuda/launch.hpp"
#include "unroll/testing/simt/context.hpp"

namespace {

using namespace device_test;
using namespace attention_test;

/// A case on the device.
template <class Body>
struct on_device {
  cuda::device_block<bf16> q, k, v, prefix, out;
  cuda::device_block<float> log_sum;
  cuda::device_block<const bf16*> blocks;
  cuda::device_block<kernels::prefix_range> ranges;
  Body body;

  explicit on_device(const attention_inputs& in)
      : q(to_device(in.q)), k(to_device(in.k)), v(to_device(in.v)), prefix(to_device(in.prefix)) {
    const outputs o = poisoned(in);
    out = to_device(o.out);
    log_sum = to_device(o.log_sum);
    blocks = to_device(in.blocks_from<const bf16>(prefix.data()));
    ranges = to_device(in.of.ranges);
    body =
        in.body<Body>(q.data(), k.data(), v.data(), blocks.data(), ranges.data(), out.data(), log_sum.data());
  }
  outputs run() {
    cuda::launch(body);
    cuda::check(cudaDeviceSynchronize(), "attention", "cudaDeviceSynchronize");
    return {to_host(out), to_host(log_sum)};
  }
};

template <class Body>
outputs on_host(const attention_inputs& in) {
  const auto blocks = in.blocks_from(in.prefix.data());
  outputs o = poisoned(in);
  testing::simt::run(in.body<Body>(in.q.data(), in.k.data(), in.v.data(), blocks.data(), in.of.ranges.data(),
                                   o.out.data(), o.log_sum.data()));
  return o;
}

template <int Head>
void border(report& to, const attention_case& c) {
  using body = kernels::flash_attention_body<Head>;
  const attention_inputs in(c, {std::uint64_t(2026)});
  on_device<body> device(in);
  const outputs o = device.run(), again = device.run(), host = on_host<body>(in);
  const outputs two = on_device<kernels::flash_attention_body<Head, 2, true, 64>>(in).run(),
                three = on_device<kernels::flash_attention_body<Head, 3, true, 64>>(in).run();
  using large_tiles = kernels::flash_attention_body<Head, 2, true, 128>;
  const outputs large = on_device<large_tiles>(in).run(), large_host = on_host<large_tiles>(in);
  const attention_error e = compare(in, o.out, o.log_sum, 1000);
  row r{c.name};
  r.error = e.ours;
  r.limit = 2 * e.rounded;
  r.pass = e.finite && e.ours <= r.limit && e.log_sum < 6e-6;
  if (!e.finite) r.note = "not finite";
  to.add(r);
  row bits{c.name + ", against the host's run"};
  bits.differing = count_differing(o.out, host.out) + count_differing(o.log_sum, host.log_sum);
  bits.of = (long long)(o.out.size() + o.log_sum.size());
  bits.pass = bits.differing == 0;
  to.add(bits);
  const auto compared = [&](const char* what, const outputs& x, const outputs& with) {
    row other{c.name + what};
    other.differing = count_differing(x.out, with.out) + count_differing(x.log_sum, with.log_sum);
    other.of = bits.of;
    other.pass = other.differing == 0;
    to.add(other);
  };
  compared(", second run", again, o);
  compared(", by wgmma, 128 queries x 64 keys", two, o);
  compared(", by wgmma, 192 x 64", three, o);
  compared(", by wgmma, 128 x 128, against the host's run", large, large_host);
}

void borders(report& to) {
  for (const attention_case& c : attention_borders())
    if (c.head == 64)
      border<64>(to, c);
    else
      border<128>(to, c);
}

struct adjoints {
  std::vector<bf16> dq, dk, dv;
  std::vector<float> dprefix;
};

/// The vjp on the device, from outputs that lie on the host.
template <int Head, int DkvGroups = 1, int DqGroups = 1, bool Together = kernels::multiply_in_groups,
          int KeyTile = 64>
adjoints vjp_on_device(const attention_inputs& in, const outputs& o) {
  on_device<kernels::flash_attention_body<Head>> device(in);
  auto out = to_device(o.out);
  auto log_sum = to_device(o.log_sum);
  auto dout = to_device(in.dout);
  cuda::device_block<float> delta(index_t(o.log_sum.size())), dprefix(index_t(in.prefix.size()));
  const std::vector<bf16> nan(std::size_t(in.kvw * in.tokens), bf16(NAN));
  auto dk = to_device(nan), dv = to_device(nan);
  auto dblocks = to_device(in.blocks_from(dprefix.data()));
  run_vjp<Head, DkvGroups, DqGroups, Together, KeyTile>(
      in, device.body.on, out.data(), log_sum.data(), dout.data(), delta.data(), device.q.data(), dk.data(),
      dv.data(), dblocks.data(), [](const auto& body) { cuda::launch(body); });
  cuda::check(cudaDeviceSynchronize(), "attention", "cudaDeviceSynchronize");
  auto dq = to_host(device.q);
  dq.resize(std::size_t(in.qw * in.columns));
  return {dq, to_host(dk), to_host(dv), to_host(dprefix)};
}
template <int Head>
adjoints vjp_on_host(const attention_inputs& in, const outputs& o) {
  adjoints a;
  a.dprefix.resize(in.prefix.size());
  const auto blocks = in.blocks_from<const bf16>(in.prefix.data());
  const auto dblocks = in.blocks_from(a.dprefix.data());
  std::vector<float> delta(o.log_sum.size());
  a.dk.resize(std::size_t(in.kvw * in.tokens));
  a.dv = a.dk;
  a.dq.assign(in.q.begin(), in.q.begin() + in.qw * in.columns);
  const auto on =
      in.body<kernels::flash_attention_body<Head>>(a.dq.data(), in.k.data(), in.v.data(), blocks.data(),
                                                   in.of.ranges.data(), nullptr, nullptr)
          .on;
  run_vjp<Head>(in, on, o.out.data(), o.log_sum.data(), in.dout.data(), delta.data(), a.dq.data(),
                a.dk.data(), a.dv.data(), dblocks.data(), [](const auto& body) { testing::simt::run(body); });
  return a;
}
long long differing(const adjoints& a, const adjoints& b) {
  return count_differing(a.dq, b.dq) + count_differing(a.dk, b.dk) + count_differing(a.dv, b.dv) +
         count_differing(a.dprefix, b.dprefix);
}

template <int Head>
void vjp_border(report& to, const attention_case& c) {
  const attention_inputs in(c, {std::uint64_t(2027)});
  const outputs o = on_host<kernels::flash_attention_body<Head>>(in);
  const adjoints got = vjp_on_device<Head>(in, o), again = vjp_on_device<Head>(in, o),
                 host = vjp_on_host<Head>(in, o);
  const auto want = in.vjp_reference(false), rounded = in.vjp_reference(true);
  const auto near = [&](const char* what, const auto& x, const std::vector<double>& y,
                        const std::vector<double>& z) {
    if (y.empty()) return;
    row r{c.name + ", " + what};
    r.error = distance(x, y);
    r.limit = 2 * distance(z, y);
    r.pass = r.error <= r.limit;
    to.add(r);
  };
  near("dq", got.dq, want.dq, rounded.dq);
  near("dk", got.dk, want.dk, rounded.dk);
  near("dv", got.dv, want.dv, rounded.dv);
  near("adjoint of the prefix", got.dprefix, want.dprefix, rounded.dprefix);
  row bits{c.name + ", vjp against the host's run"};
  bits.differing = differing(got, host);
  bits.of = (long long)(got.dq.size() + 2 * got.dk.size() + got.dprefix.size());
  bits.pass = bits.differing == 0;
  to.add(bits);
  const auto compared = [&](const char* what, const adjoints& x) {
    row runs{c.name + what};
    runs.differing = differing(got, x);
    runs.of = bits.of;
    runs.pass = runs.differing == 0;
    to.add(runs);
  };
  compared(", vjp, second run", again);
  compared(", vjp, by wgmma, 128 keys and 128 queries x 64", vjp_on_device<Head, 2, 2, true>(in, o));
  compared(", vjp, by wgmma, 128 keys and 192 x 64", vjp_on_device<Head, 2, 3, true>(in, o));
  compared(", vjp, by wgmma, 128 keys and 128 x 128", vjp_on_device<Head, 2, 2, true, 128>(in, o));
}

void vjp_borders(report& to) {
  for (const attention_case& c : attention_borders())
    if (c.head == 64)
      vjp_border<64>(to, c);
    else
      vjp_border<128>(to, c);
}

__global__ void fill_random(bf16* x, index_t n, key k) {
  for (index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += index_t(gridDim.x) * blockDim.x) {
    const auto r = draw_bits(k, draw_kind::normal, 0, std::uint64_t(i));
    float sum = 0;  // of 8 uniforms: variance 2 / 3
    for (int j = 0; j < 4; ++j) sum += float(int(r[j] & 0xffff) - 32768) + float(int(r[j] >> 16) - 32768);
    x[i] = bf16(sum * (1.2247449f / 32768));
  }
}

/// A large case, made on the device.
template <class Body>
struct large_case {
  attention_inputs in;
  on_device<Body> device;

  explicit large_case(const attention_case& c) : in(sized(c)), device(in) {
    fill(device.q, 0);
    fill(device.k, 1);
    fill(device.v, 2);
    fill(device.prefix, 3);
  }
  /// Brings its numbers to the host, for the reference.
  void to_the_host() {
    in.q = to_host(device.q);
    in.k = to_host(device.k);
    in.v = to_host(device.v);
    in.prefix = to_host(device.prefix);
  }
  double pairs() const {
    const attention_case& c = in.of;
    return (double(c.blocks) * c.keys * c.length + double(c.length) * (c.length + 1) / 2) * c.heads *
           c.sequences;
  }
  static void fill(cuda::device_block<bf16>& x, std::uint64_t what) {
    if (x.size() > 0) fill_random<<<1024, 256>>>(x.data(), x.size(), fold(key{3}, what));
    cuda::check(cudaDeviceSynchronize(), "attention", "fill_random");
  }

 private:
  static attention_inputs sized(const attention_case& c) {
    attention_case empty = c;
    empty.length = empty.blocks = 0;
    attention_inputs in(empty, {1});
    in.of = c;
    in.columns = in.tokens = c.length * c.sequences;
    in.q.resize(std::size_t(in.qw) * std::size_t(in.columns));
    in.k.resize(std::size_t(in.kvw) * std::size_t(in.tokens));
    in.v.resize(in.k.size());
    in.prefix.resize(in.block_size() * std::size_t(c.blocks));
    return in;
  }
};

template <class Body, int Head>
void speed_of(report& to, const attention_case& c, const char* which) {
  large_case<Body> large(c);
  const outputs o = large.device.run(), again = large.device.run();
  large.to_the_host();
  const attention_error e = compare(large.in, o.out, o.log_sum, 3);
  cuda::stream_handle stream;
  row r{c.name + which};
  r.ms = median_ms(stream, [&](cudaStream_t s) { cuda::launch(large.device.body, s); });
  r.rate = 4.0 * Head * large.pairs() / r.ms * 1e-9;
  r.unit = "TFLOP/s";
  r.error = e.ours;
  r.limit = 2 * e.rounded;
  r.differing = count_differing(o.out, again.out) + count_differing(o.log_sum, again.log_sum);
  r.of = (long long)(o.out.size() + o.log_sum.size());
  r.pass = e.finite && e.ours <= r.limit && r.differing == 0;
  to.add(r);
}

template <int Head>
void speed(report& to, const attention_case& c) {
  using namespace kernels;
  speed_of<flash_attention_body<Head, 1, false, 64>, Head>(to, c, ", 64 queries x 64 keys");
  speed_of<flash_attention_body<Head, 2, true, 64>, Head>(to, c, ", by wgmma, 128 x 64");
  speed_of<flash_attention_body<Head, 3, true, 64>, Head>(to, c, ", by wgmma, 192 x 64");
  speed_of<flash_attention_body<Head, 2, true, 128>, Head>(to, c, ", by wgmma, 128 x 128");
}

template <int Head, int DkvGroups, int DqGroups, bool Together, int KeyTile>
void backward_speed(report& to, const attention_case& c, const std::string& which) {
  large_case<kernels::flash_attention_body<Head>> large(c);
  cuda::launch(large.device.body);
  const attention_inputs& in = large.in;
  cuda::device_block<bf16> dout(large.device.q.size()), dq(large.device.q.size()), dk(large.device.k.size()),
      dv(large.device.k.size());
  large.fill(dout, 4);
  cuda::device_block<float> delta(large.device.log_sum.size()), dprefix(large.device.prefix.size());
  auto dblocks = to_device(in.blocks_from(dprefix.data()));
  cuda::stream_handle stream;
  const auto timed = [&](const char* what, double products, int only) {
    row r{c.name + ", backward" + what + which};
    r.ms = median_ms(stream, [&](cudaStream_t s) {
      int i = 0;
      run_vjp<Head, DkvGroups, DqGroups, Together, KeyTile>(
          in, large.device.body.on, large.device.out.data(), large.device.log_sum.data(), dout.data(),
          delta.data(), dq.data(), dk.data(), dv.data(), dblocks.data(), [&](const auto& body) {
            if (only < 0 || i == only || (only == 1 && i == 2)) cuda::launch(body, s);
            ++i;
          });
    });
    r.rate = 2 * products * Head * large.pairs() / r.ms * 1e-9;
    r.unit = "TFLOP/s";
    to.add(r);
  };
  timed("", 5, -1);
  timed(", dk and dv (4 products)", 4, 1);
  timed(", dq (3 products)", 3, 3);
}

void forward(report& to) {
  const attention_case causal{
      .name = "32 heads of 128, 4096 causal", .heads = 32, .kv_heads = 32, .length = 4096};
  const attention_case behind{.name = "32 heads of 128, 1024 behind 3104 memories",
                              .heads = 32,
                              .kv_heads = 32,
                              .length = 1024,
                              .blocks = 97,
                              .keys = 32};
  const attention_case batch{.name = "32 heads of 128, 4 x 1024 behind 3104 memories",
                             .heads = 32,
                             .kv_heads = 32,
                             .length = 1024,
                             .sequences = 4,
                             .blocks = 97,
                             .keys = 32};
  const attention_case small{
      .name = "32 heads of 64, 4096 causal", .head = 64, .heads = 32, .kv_heads = 32, .length = 4096};
  speed<128>(to, causal);
  speed<128>(to, behind);
  speed<128>(to, batch);
  speed<64>(to, small);
}

void backward(report& to) {
  const attention_case causal{
      .name = "32 heads of 128, 4096 causal", .heads = 32, .kv_heads = 32, .length = 4096};
  const attention_case behind{.name = "32 heads of 128, 1024 behind 3104 memories",
                              .heads = 32,
                              .kv_heads = 32,
                              .length = 1024,
                              .blocks = 97,
                              .keys = 32};
  for (const attention_case& c : {causal, behind}) {
    backward_speed<128, 1, 1, false, 64>(to, c, ", 64 keys and 64 queries x 64");
    backward_speed<128, 2, 2, true, 64>(to, c, ", by wgmma, 128 keys and 128 x 64");
    backward_speed<128, 2, 3, true, 64>(to, c, ", by wgmma, 128 keys and 192 x 64");
    backward_speed<128, 2, 2, true, 128>(to, c, ", by wgmma, 128 keys and 128 x 128");
  }
}

}  // namespace

int main(int argc, char** argv) {
  return device_test::run(
      "attention", argc, argv,
      {{"borders", borders}, {"vjp_borders", vjp_borders}, {"forward", forward}, {"backward", backward}});
}
