// What the host and a device must agree about bit for bit: rounding to bfloat16, elementary functions, random
// bits.
#include <cmath>

#include "tests/cuda/check.hpp"
#include "unroll/kernels/device_math.hpp"
#include "unroll/kernels/flash_attention_body.hpp"
#include "unroll/rng/draw.hpp"

namespace {

using namespace device_test;

/// counts[0]: floats whose rounding to bfloat16 differs from the instruction's, [1]: NaNs among them, [2]:
/// pairs that the packing instruction rounds otherwise.
__global__ void round_all(unsigned long long* counts) {
  const std::uint64_t step = std::uint64_t(gridDim.x) * blockDim.x;
  unsigned long long different = 0, nan = 0, packed = 0;
  for (std::uint64_t u = std::uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; u < std::uint64_t{1} << 32;
       u += step) {
    const float x = __uint_as_float(std::uint32_t(u));
    const std::uint16_t ours = bf16(x).bits;
    std::uint16_t device;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(device) : "f"(x));
    const bool differs = ours != device;
    different += differs;
    nan += differs && !(x == x);
    packed += kernels::detail::pack_rounded(x, -x) != kernels::pack(x, -x);
  }
  if (different) atomicAdd(counts, different);
  if (nan) atomicAdd(counts + 1, nan);
  if (packed) atomicAdd(counts + 2, packed);
}

void rounding(report& to) {
  cuda::device_block<unsigned long long> counts(3);
  cuda::stream_handle stream;
  round_all<<<1320, 256>>>(counts.data());
  const auto n = to_host(counts);
  row r{"float to bf16, all of them, against cvt.rn.bf16.f32"};
  r.differing = (long long)n[0];
  r.of = 1ll << 32;
  r.pass = n[0] == 0;
  if (n[1]) r.note = std::to_string(n[1]) + " of these are NaN";
  to.add(r);
  row p{"two floats to bf16, against cvt.rn.bf16x2.f32"};
  p.differing = (long long)n[2];
  p.of = 1ll << 32;
  p.pass = n[2] == 0;
  to.add(p);
}

template <class F>
__global__ void apply(F f, std::uint32_t first, std::uint32_t step, index_t n, std::uint32_t* out) {
  for (index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += index_t(gridDim.x) * blockDim.x)
    out[i] = __builtin_bit_cast(std::uint32_t, f(__builtin_bit_cast(float, first + std::uint32_t(i) * step)));
}

struct exp2_of {
  UNROLL_HD float operator()(float x) const { return kernels::math::exp2(x); }
};
struct exp_of {
  UNROLL_HD float operator()(float x) const { return kernels::math::exp(x); }
};
struct log_of {
  UNROLL_HD float operator()(float x) const { return kernels::math::log(x); }
};
struct logistic_of {
  UNROLL_HD float operator()(float x) const { return kernels::math::logistic(x); }
};
struct root_of {
  UNROLL_HD float operator()(float x) const { return kernels::math::reciprocal_sqrt(x); }
};
struct power_of {
  UNROLL_HD float operator()(float x) const { return kernels::detail::exp2_of_negative(x < 0 ? x : -x); }
};
struct log_double_of {
  UNROLL_HD float operator()(float x) const {
    return float(kernels::math::log(x > 0 ? double(x) * 1.0000001 : 1.5));
  }
};
struct turn_of {
  UNROLL_HD float operator()(float x) const {
    const double v = x < 1 && x >= 0 ? double(x) : 0.3;
    return float(kernels::math::turn_of(v, true) * 7 + kernels::math::turn_of(v, false));
  }
};

/// Every 251st float, of both signs, NaN and infinities among them. NaN is compared as NaN: its bits are the
/// hardware's.
template <class F>
void function(report& to, const char* name) {
  const std::uint32_t step = 251;
  const index_t n = index_t((std::uint64_t{1} << 32) / step);
  cuda::device_block<std::uint32_t> out(n);
  apply<<<1320, 256>>>(F{}, 0, step, n, out.data());
  const auto got = to_host(out);
  row r{std::string(name) + ", every 251st float"};
  r.differing = 0;
  r.of = n;
  for (index_t i = 0; i < n; ++i) {
    const float x = __builtin_bit_cast(float, std::uint32_t(i) * step), want = F{}(x);
    const float device = __builtin_bit_cast(float, got[std::size_t(i)]);
    if (__builtin_bit_cast(std::uint32_t, want) == got[std::size_t(i)] || (want != want && device != device))
      continue;
    if (r.differing++ == 0) {
      char text[96];
      std::snprintf(text, sizeof text, "first at %a: device %a, host %a", double(x), double(device),
                    double(want));
      r.note = text;
    }
  }
  r.pass = r.differing == 0;
  to.add(r);
}

void functions(report& to) {
  function<exp2_of>(to, "exp2");
  function<exp_of>(to, "exp");
  function<log_of>(to, "log");
  function<logistic_of>(to, "logistic");
  function<root_of>(to, "1 / sqrt");
  function<power_of>(to, "2^x of attention");
  function<log_double_of>(to, "log in double");
  function<turn_of>(to, "sine and cosine in double");
}

__global__ void random_bits(key k, index_t n, std::uint32_t* out) {
  for (index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += index_t(gridDim.x) * blockDim.x) {
    const auto r = draw_bits(fold(k, std::uint64_t(i)), draw_kind::normal, i, std::uint64_t(3 * i));
    for (int j = 0; j < 4; ++j) out[4 * i + j] = r[std::size_t(j)];
  }
}

void philox(report& to) {
  const index_t n = 1000000;
  cuda::device_block<std::uint32_t> out(4 * n);
  random_bits<<<1320, 256>>>(key{42}, n, out.data());
  const auto got = to_host(out);
  row r{"Philox, folded keys"};
  r.differing = 0;
  r.of = 4 * n;
  for (index_t i = 0; i < n; ++i) {
    const auto want = draw_bits(fold(key{42}, std::uint64_t(i)), draw_kind::normal, i, std::uint64_t(3 * i));
    for (int j = 0; j < 4; ++j) r.differing += got[std::size_t(4 * i + j)] != want[std::size_t(j)];
  }
  r.pass = r.differing == 0;
  to.add(r);
}

}  // namespace

int main(int argc, char** argv) {
  return device_test::run("arithmetic", argc, argv,
                          {{"rounding", rounding}, {"functions", functions}, {"philox", philox}});
}
