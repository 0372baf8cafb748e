// What the tensor cores compute, against the host's model of them (testing/simt/tensor_core.hpp), bit for
// bit: mma.sync on every architecture, wgmma where there is one. Where the model is wrong, which of its
// relatives is right.
#include <cmath>

#include "tests/cuda/check.hpp"
#include "unroll/cuda/launch.hpp"
#include "unroll/cuda/wgmma.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/testing/simt/tensor_core.hpp"

namespace {

using namespace device_test;
using kernels::word;

// One product a block: a is 16 x 16 by rows, b 16 x 8 by columns, c and d 16 x 8 by rows.
__global__ void products_mma(const bf16* a, const bf16* b, const float* c, float* d) {
  a += blockIdx.x * 256;
  b += blockIdx.x * 128;
  c += blockIdx.x * 128;
  d += blockIdx.x * 128;
  const int lane = int(threadIdx.x), g = lane / 4, t = 2 * (lane % 4);
  const auto words = [](const bf16* at) { return kernels::pack(at[0], at[1]); };
  cuda::fragment<float, 4> sum;
  cuda::fragment<word, 4> fa;
  cuda::fragment<word, 2> fb;
  for (int i = 0; i < 4; ++i) {
    sum(lane, i) = c[(g + i / 2 * 8) * 8 + t + i % 2];
    fa(lane, i) = words(a + (g + i % 2 * 8) * 16 + t + i / 2 * 8);
  }
  for (int i = 0; i < 2; ++i) fb(lane, i) = words(b + g * 16 + t + i * 8);
  cuda::warp().mma(sum, fa, fb);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t + i % 2] = sum(lane, i);
}

// The same products by wgmma.m64n8k16, which takes four of them that have one b: rows 16 w to 16 w + 15 are
// those of block 4 i + w, so b is that of the first.
__global__ void __launch_bounds__(128)
    products_wgmma(const bf16* a, const bf16* b, const float* c, float* d) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  alignas(128) __shared__ bf16 keys[128];
  const int thread = int(threadIdx.x), lane = thread % 32, g = lane / 4, t = 2 * (lane % 4);
  const index_t block = 4 * index_t(blockIdx.x) + thread / 32;
  b += index_t(blockIdx.x) * 4 * 128;
  // two matrices of 8 columns x 8 along the sum, each contiguous
  keys[thread % 16 / 8 * 64 + thread / 16 * 8 + thread % 8] = b[thread];
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  a += block * 256;
  c += block * 128;
  d += block * 128;
  const auto words = [](const bf16* at) { return kernels::pack(at[0], at[1]); };
  float s[4];
  word f[4];
  for (int i = 0; i < 4; ++i) {
    s[i] = c[(g + i / 2 * 8) * 8 + t + i % 2];
    f[i] = words(a + (g + i % 2 * 8) * 16 + t + i / 2 * 8);
  }
  const std::uint64_t address = std::uint64_t(__cvta_generic_to_shared(keys));
  const std::uint64_t description =
      (address & 0x3ffff) >> 4 | std::uint64_t(128 >> 4) << 16 | std::uint64_t(256 >> 4) << 32;
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %9, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, add, 1, "
      "1, 0;\n}"
      : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
      : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "l"(description), "r"(1));
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t + i % 2] = s[i];
#endif
}

// From matrices in panels with exchanged pieces: s = q k' of 64 x 128 and 64 x 128, then o = q' v of the
// first 64 columns of q as fragments with v of 64 x 128.
__global__ void __launch_bounds__(128)
    products_of_panels(const bf16* q, const bf16* k, const bf16* v, float* s, float* o) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  alignas(1024) __shared__ bf16 panels[3 * 64 * 128];
  const int thread = int(threadIdx.x), lane = thread % 32, row = thread / 32 * 16 + lane / 4,
            t = 2 * (lane % 4);
  for (int i = thread; i < 64 * 128; i += 128) {
    const int r = i / 128, c = i % 128, to = c / 64 * 4096 + r * 64 + (c % 64 / 8 ^ r % 8) * 8 + c % 8;
    panels[to] = q[i];
    panels[8192 + to] = k[i];
    panels[16384 + to] = v[i];
  }
  cuda::wgmma::publish();
  __syncthreads();
  float scores[32], sum[64];
  for (float& x : sum) x = 0;
  word a[16];
  for (int i = 0; i < 16; ++i) {
    const bf16* const at = q + (row + i % 2 * 8) * 128 + i / 4 * 16 + t + i % 4 / 2 * 8;
    a[i] = kernels::pack(at[0], at[1]);
  }
  using cuda::wgmma;
  wgmma::begin<32>(scores);
  wgmma::multiply_rows<8, 64>(scores, wgmma::describe(panels, 16), 8192, wgmma::describe(panels + 8192, 16),
                              8192);
  wgmma::commit();
  wgmma::end<0, 32>(scores);
  wgmma::begin<64>(sum);
  wgmma::multiply_fragments<4, 128>(sum, a, wgmma::describe(panels + 16384, 8192));
  wgmma::commit();
  wgmma::end<0, 64>(sum);
  for (int i = 0; i < 32; ++i) s[(row + i % 4 / 2 * 8) * 64 + i / 4 * 8 + t + i % 2] = scores[i];
  for (int i = 0; i < 64; ++i) o[(row + i % 4 / 2 * 8) * 128 + i / 4 * 8 + t + i % 2] = sum[i];
#endif
}

constexpr int kinds = 8;
const char* const kind_names[kinds] = {
    "of moderate size", "of very different size", "that cancel",   "with a large addend",
    "with zeros",       "with subnormals",        "that overflow", "with inf and nan"};

struct inputs {
  std::vector<bf16> a, b;
  std::vector<float> c;
};

/// `count` products of one kind; b is the same in four of them.
inputs make(int kind, int count) {
  inputs in;
  in.a.resize(std::size_t(count) * 256);
  in.b.resize(std::size_t(count) * 128);
  in.c.resize(std::size_t(count) * 128);
  std::uint64_t at = 0;
  const key k = fold(key{2026}, std::uint64_t(kind));
  const auto bits = [&] { return draw_bits(k, draw_kind::index, 0, at++); };
  const auto number = [&](int least, int most) {
    const auto r = bits();
    const int e = least + int(r[0] % std::uint32_t(most - least + 1));
    const float m = 1 + float(r[1] & 0x7fffff) / 8388608.0f;
    return (r[2] & 1 ? -1.0f : 1.0f) * std::ldexp(m, e);
  };
  const auto any = [&](bool addend) -> float {
    const std::uint32_t odd = bits()[3] % 16;
    switch (kind) {
      case 0:
        return number(-3, 3);
      case 1:
        return number(-20, 20);
      case 2:
        return number(-2, 2);
      case 3:
        return addend ? number(18, 30) : number(-4, 4);
      case 4:
        return odd < 8 ? 0.0f : odd == 8 ? -0.0f : number(-8, 8);
      case 5:
        return addend ? number(-149, -120) : odd < 4 ? number(-133, -127) : number(-72, -58);
      case 6:
        return addend ? number(120, 127) : number(58, 64);
      default:
        if (odd == 0) return INFINITY;
        if (odd == 1) return -INFINITY;
        if (odd == 2 && bits()[0] % 4 == 0) return NAN;
        return number(-3, 3);
    }
  };
  for (bf16& x : in.a) x = bf16(any(false));
  for (std::size_t i = 0; i < in.b.size(); ++i) in.b[i] = i / 128 % 4 ? in.b[i - 128] : bf16(any(false));
  for (float& x : in.c) x = any(true);
  if (kind == 2)  // the second half of a sum takes the first away but for one bit here and there
    for (std::size_t i = 0; i < in.a.size(); i += 16)
      for (std::size_t j = 0; j < 8; ++j) {
        in.a[i + 8 + j].bits = std::uint16_t(in.a[i + j].bits ^ 0x8000 ^ (bits()[0] % 8 == 0));
        const std::size_t col = i / 256 * 128 + i / 16 % 8 * 16;
        in.b[col + 8 + j] = in.b[col + j];
      }
  return in;
}

/// The relatives of the model: `group` products at a time, `guard` bits behind a float's 23, exponents of
/// products normalised or not, sums cut or rounded.
struct model {
  int group = 16, guard = 2, floor = -133;
  bool normalised = false;

  float operator()(const bf16* a, const bf16* b, float c) const {
    for (int k = 0; k < 16; k += group) c = part(a + k, b + k, c);
    return c;
  }

 private:
  float part(const bf16* a, const bf16* b, float c) const {
    double special = 0;
    int largest = floor;
    const auto exponent = [this](double x, int e) { return normalised ? std::ilogb(x) : e; };
    double terms[17];
    int of[17], n = 0;
    const auto single = [](float x) { return x == 0 ? -1000 : std::max(std::ilogb(x), -126); };
    const auto push = [&](double x, int e) {
      if (!std::isfinite(x)) special += x;
      if (x == 0 || !std::isfinite(x)) return;
      terms[n] = x;
      of[n++] = e;
      largest = std::max(largest, e);
    };
    for (int i = 0; i < group; ++i) {
      const float x = float(a[i]), y = float(b[i]);
      const double p = double(x) * double(y);
      push(p, p == 0 || !std::isfinite(p) ? 0 : exponent(p, single(x) + single(y)));
    }
    push(double(c), c == 0 || !std::isfinite(c) ? 0 : single(c));
    if (special != 0) return std::isnan(special) ? __builtin_bit_cast(float, 0x7fffffffu) : float(special);
    const int unit = largest - 23 - guard;
    double sum = 0;  // of integers below 2^53
    for (int i = 0; i < n; ++i) sum += std::trunc(std::ldexp(terms[i], -unit));
    if (sum == 0) return 0;
    const int last = std::max(std::ilogb(sum) - 23 + unit, -149);
    return float(std::ldexp(std::trunc(std::ldexp(sum, unit - last)), last));
  }
};

float expected(const bf16* a, const bf16* b, float c) {
  testing::simt::tensor_core_sum sum;
  sum.add(c);
  for (int k = 0; k < 16; ++k) sum.add_product(a[k], b[k]);
  return sum.result();
}

template <class F>
std::vector<float> all(const inputs& in, F&& f) {
  std::vector<float> d(in.c.size());
  for (std::size_t i = 0; i < d.size(); ++i)
    d[i] = f(in.a.data() + i / 8 * 16, in.b.data() + i / 128 * 128 + i % 8 * 16, in.c[i]);
  return d;
}

template <class Launch>
void compare(report& to, const std::string& instruction, int count, Launch&& launch) {
  for (int kind = 0; kind < kinds; ++kind) {
    const inputs in = make(kind, count);
    const auto a = to_device(in.a), b = to_device(in.b);
    const auto c = to_device(in.c);
    cuda::device_block<float> d(index_t(in.c.size()));
    launch(a.data(), b.data(), c.data(), d.data());
    cuda::check(cudaGetLastError(), "tensor_core", "launch");
    const auto got = to_host(d), want = all(in, expected);
    row r{instruction + ", sums " + kind_names[kind]};
    r.differing = count_differing(got, want);
    r.of = (long long)got.size();
    r.pass = r.differing == 0;
    if (!r.pass) {
      std::size_t i = 0;
      while (std::memcmp(&got[i], &want[i], 4) == 0) ++i;
      char text[160];
      std::snprintf(text, sizeof text, "first at %zu: device %a (%08x), model %a (%08x), addend %a", i,
                    double(got[i]), __builtin_bit_cast(unsigned, got[i]), double(want[i]),
                    __builtin_bit_cast(unsigned, want[i]), double(in.c[i]));
      r.note = text;
    }
    to.add(r);
    if (r.pass || kind >= 6) continue;
    long long fewest = r.differing;
    std::string best;
    for (const int group : {16, 8, 4})
      for (const int guard : {0, 1, 2, 3, 4, 8})
        for (const bool normalised : {false, true})
          for (const int floor : {-133, -149, -1000}) {
            if (floor != -133 && kind != 5) continue;
            const model m{group, guard, floor, normalised};
            const long long n = count_differing(got, all(in, m));
            if (n >= fewest) continue;
            fewest = n;
            best = "group " + std::to_string(group) + ", guard bits " + std::to_string(guard) + ", floor " +
                   std::to_string(floor) + (normalised ? ", normalised" : "");
          }
    row other{instruction + ", sums " + kind_names[kind] + ", the nearest other model"};
    other.differing = fewest;
    other.of = r.of;
    other.note = best.empty() ? "none is nearer" : best;
    to.add(other);
  }
}

void panels(report& to) {
  std::vector<bf16> x[3];
  cuda::device_block<bf16> at[3];
  for (int i = 0; i < 3; ++i) {
    x[i].resize(64 * 128);
    for (std::size_t j = 0; j < x[i].size(); ++j)
      x[i][j] = bf16(float(draw_bits(key{5}, draw_kind::index, std::uint64_t(i), j)[0] % 4001) / 1000 - 2);
    at[i] = to_device(x[i]);
  }
  cuda::device_block<float> s(64 * 64), o(64 * 128);
  products_of_panels<<<1, 128>>>(at[0].data(), at[1].data(), at[2].data(), s.data(), o.data());
  cuda::check(cudaDeviceSynchronize(), "tensor_core", "cudaDeviceSynchronize");
  const auto against = [&](const char* name, const std::vector<float>& got, std::size_t cols,
                           std::size_t inner, auto&& b) {
    std::vector<float> want(got.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      for (std::size_t k = 0; k < inner; k += 16) {
        bf16 column[16];
        for (std::size_t j = 0; j < 16; ++j) column[j] = b(k + j, i % cols);
        want[i] = expected(x[0].data() + i / cols * 128 + k, column, want[i]);
      }
    }
    row r{name};
    r.differing = count_differing(got, want);
    r.of = (long long)got.size();
    r.pass = r.differing == 0;
    to.add(r);
  };
  against("wgmma, rows of two matrices in panels", to_host(s), 64, 128,
          [&](std::size_t k, std::size_t col) { return x[1][col * 128 + k]; });
  against("wgmma, fragments times columns in panels", to_host(o), 128, 64,
          [&](std::size_t k, std::size_t col) { return x[2][k * 128 + col]; });
}

void mma(report& to) {
  compare(to, "mma.sync", 1024, [](const bf16* a, const bf16* b, const float* c, float* d) {
    products_mma<<<1024, 32>>>(a, b, c, d);
  });
}

void wgmma(report& to) {
  int major = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  if (major != 9) {
    row r{"wgmma"};
    r.note = "this device has none";
    to.add(r);
    return;
  }
  compare(to, "wgmma", 1024, [](const bf16* a, const bf16* b, const float* c, float* d) {
    products_wgmma<<<256, 128>>>(a, b, c, d);
  });
  panels(to);
}

}  // namespace

int main(int argc, char** argv) {
  return device_test::run("tensor_core", argc, argv, {{"mma", mma}, {"wgmma", wgmma}});
}
