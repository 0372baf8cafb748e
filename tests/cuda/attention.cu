// Attention on the tensor cores of this device: the bits of the same body on the host, the double reference
// at the borders and at size, two runs, and its speed.
#include "tests/cuda/attention_case.hpp"
#include "tests/cuda/check.hpp"
#include "unroll/cuda/launch.hpp"
#include "unroll/testing/simt/context.hpp"

namespace {

using namespace device_test;
using namespace attention_test;

struct outputs {
  std::vector<bf16> out;
  std::vector<float> log_sum;
};
outputs poisoned(const attention_inputs& in) {
  bf16 nan;
  nan.bits = 0x7fff;
  return {std::vector<bf16>(std::size_t(in.qw * in.columns), nan),
          std::vector<float>(std::size_t(in.of.heads * in.columns), NAN)};
}

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
    std::vector<const bf16*> at;
    for (int b = 0; b < in.of.blocks; ++b) at.push_back(prefix.data() + in.block_size() * std::size_t(b));
    blocks = to_device(at);
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
  std::vector<const bf16*> blocks;
  for (int b = 0; b < in.of.blocks; ++b)
    blocks.push_back(in.prefix.data() + in.block_size() * std::size_t(b));
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
  const outputs wide = on_device<kernels::flash_attention_body<Head, 2>>(in).run();
  const attention_error e = compare(in, o.out, o.log_sum, 1000);
  row r{c.name};
  r.error = e.ours;
  r.limit = 2 * e.rounded;
  r.pass = e.finite && e.ours <= r.limit && e.log_sum < 1e-6;
  if (!e.finite) r.note = "not finite";
  to.add(r);
  row bits{c.name + ", against the host's run"};
  bits.differing = count_differing(o.out, host.out) + count_differing(o.log_sum, host.log_sum);
  bits.of = (long long)(o.out.size() + o.log_sum.size());
  bits.pass = bits.differing == 0;
  to.add(bits);
  row runs{c.name + ", second run and wider tiles"};
  runs.differing = count_differing(o.out, again.out) + count_differing(o.log_sum, again.log_sum) +
                   count_differing(o.out, wide.out) + count_differing(o.log_sum, wide.log_sum);
  runs.of = 2 * bits.of;
  runs.pass = runs.differing == 0;
  to.add(runs);
}

void borders(report& to) {
  for (const attention_case& c : attention_borders())
    if (c.head == 64)
      border<64>(to, c);
    else
      border<128>(to, c);
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

/// A large case, made on the device; its numbers are brought to the host for the reference.
template <int Head, int RowTiles>
void speed(report& to, const attention_case& c, const char* which) {
  using body = kernels::flash_attention_body<Head, RowTiles>;
  attention_case empty = c;
  empty.length = 0;
  empty.blocks = 0;
  attention_inputs in(empty, {1});
  in.of = c;
  in.columns = in.tokens = c.length * c.sequences;
  in.q.resize(std::size_t(in.qw) * std::size_t(in.columns));
  in.k.resize(std::size_t(in.kvw) * std::size_t(in.tokens));
  in.v.resize(in.k.size());
  in.prefix.resize(in.block_size() * std::size_t(c.blocks));
  on_device<body> device(in);
  const auto fill = [](cuda::device_block<bf16>& x, std::vector<bf16>& host, std::uint64_t what) {
    if (x.size() == 0) return;
    fill_random<<<1024, 256>>>(x.data(), x.size(), fold(key{3}, what));
    host = to_host(x);
  };
  fill(device.q, in.q, 0);
  fill(device.k, in.k, 1);
  fill(device.v, in.v, 2);
  fill(device.prefix, in.prefix, 3);
  const outputs o = device.run(), again = device.run();
  const attention_error e = compare(in, o.out, o.log_sum, 3);
  cuda::stream_handle stream;
  double pairs = double(c.blocks) * c.keys * c.length;
  for (int i = 0; i < c.length; ++i) pairs += double(std::min(c.length, i + 1));
  row r{c.name + which};
  r.ms = median_ms(stream, [&](cudaStream_t s) { cuda::launch(device.body, s); });
  r.rate = 4.0 * Head * pairs * c.heads * c.sequences / r.ms * 1e-9;
  r.unit = "TFLOP/s";
  r.error = e.ours;
  r.limit = 2 * e.rounded;
  r.differing = count_differing(o.out, again.out) + count_differing(o.log_sum, again.log_sum);
  r.of = (long long)(o.out.size() + o.log_sum.size());
  r.pass = e.finite && e.ours <= r.limit && r.differing == 0;
  to.add(r);
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
  speed<128, 1>(to, causal, ", 64 queries a block");
  speed<128, 2>(to, causal, ", 128 queries a block");
  speed<128, 1>(to, behind, ", 64 queries a block");
  speed<128, 2>(to, behind, ", 128 queries a block");
  speed<128, 1>(to, batch, ", 64 queries a block");
  speed<128, 2>(to, batch, ", 128 queries a block");
  speed<64, 1>(to, small, ", 64 queries a block");
  speed<64, 2>(to, small, ", 128 queries a block");
}

}  // namespace

int main(int argc, char** argv) {
  return device_test::run("attention", argc, argv, {{"borders", borders}, {"forward", forward}});
}
