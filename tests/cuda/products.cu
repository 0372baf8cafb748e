// Matrix products through cuBLASLt: right with matrices of any stride and kind, the same bits in two runs,
// and what the bits of a column depend on when the algorithm is kept. Products that have bodies of their own
// beside it, and the bandwidth of the bodies that only move numbers.
#include <cmath>

#include "tests/cuda/check.hpp"
#include "unroll/cuda/cublaslt.hpp"
#include "unroll/cuda/launch.hpp"
#include "unroll/kernels/decode_attention_body.hpp"
#include "unroll/kernels/gemv_body.hpp"
#include "unroll/kernels/movement_body.hpp"
#include "unroll/kernels/rmsnorm_body.hpp"
#include "unroll/kernels/rotary_body.hpp"
#include "unroll/kernels/split_product_body.hpp"
#include "unroll/kernels/swiglu_body.hpp"
#include "unroll/rng/draw.hpp"

namespace {

using namespace device_test;

template <class T>
__global__ void fill_random(T* x, index_t n, key k) {
  for (index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += index_t(gridDim.x) * blockDim.x) {
    const auto r = draw_bits(k, draw_kind::normal, 0, std::uint64_t(i));
    float sum = 0;
    for (int j = 0; j < 4; ++j) sum += float(int(r[j] & 0xffff) - 32768) + float(int(r[j] >> 16) - 32768);
    x[i] = T(sum * (1.2247449f / 32768));
  }
}
template <class T>
cuda::device_block<T> random(index_t n, std::uint64_t what) {
  cuda::device_block<T> x(n);
  fill_random<<<1024, 256>>>(x.data(), n, fold(key{9}, what));
  cuda::check(cudaDeviceSynchronize(), "products", "fill_random");
  return x;
}

bool missing(report& to, const char* name) {
  const std::string why = cuda::cublaslt_library::missing();
  if (why.empty()) return false;
  row r{name};
  r.note = "skipped: " + why;
  to.add(r);
  return true;
}

std::string described(const cuda::matmul_plan& p) {
  return "algorithm " + std::to_string(p.setting(CUBLASLT_ALGO_CONFIG_ID)) + " tile " +
         std::to_string(p.setting(CUBLASLT_ALGO_CONFIG_TILE_ID)) + " stages " +
         std::to_string(p.setting(CUBLASLT_ALGO_CONFIG_STAGES_ID)) + " parts of k " +
         std::to_string(p.setting(CUBLASLT_ALGO_CONFIG_SPLITK_NUM)) + ", workspace " +
         std::to_string(p.workspace());
}

template <class A, class B, class C>
void one(report& to, const char* name, op oa, op ob, bool add, double limit) {
  const index_t m = 200, n = 72, k = 336, pad = 8;
  const bool ta = oa == op::transpose, tb = ob == op::transpose;
  const index_t ra = ta ? k : m, ca = ta ? m : k, rb = tb ? n : k, cb = tb ? k : n;
  const auto a = random<A>((ra + pad) * ca, 1);
  const auto b = random<B>((rb + pad) * cb, 2);
  auto c = random<C>((m + pad) * n, 3);
  const auto ha = to_host(a);
  const auto hb = to_host(b);
  const auto before = to_host(c);
  cuda::cublaslt lt;
  cuda::stream_handle stream;
  lt.gemm<A, B, C>(oa, {a.data(), ra, ca, ra + pad}, ob, {b.data(), rb, cb, rb + pad}, 0.5, add,
                   {c.data(), m, n, m + pad}, stream.get());
  stream.synchronise();
  const auto got = to_host(c);
  double error = 0, largest = 0;
  bool outside = true;
  for (index_t j = 0; j < n; ++j)
    for (index_t i = 0; i < m + pad; ++i) {
      const auto at = std::size_t(i + j * (m + pad));
      if (i >= m) {
        outside = outside && std::memcmp(&got[at], &before[at], sizeof(C)) == 0;
        continue;
      }
      double sum = 0;
      for (index_t l = 0; l < k; ++l)
        sum += double(ha[std::size_t(ta ? l + i * (ra + pad) : i + l * (ra + pad))]) *
               double(hb[std::size_t(tb ? j + l * (rb + pad) : l + j * (rb + pad))]);
      sum = 0.5 * sum + (add ? double(before[at]) : 0);
      largest = std::max(largest, std::abs(sum));
      error = std::max(error, std::abs(double(got[at]) - sum));
    }
  row r{name};
  r.error = error / largest;
  r.limit = limit;
  r.pass = r.error <= limit && outside;
  if (!outside) r.note = "writes outside of c";
  to.add(r);
}

void right(report& to) {
  if (missing(to, "right")) return;
  one<bf16, bf16, bf16>(to, "bf16 = bf16' bf16", op::transpose, op::none, false, 4e-3);
  one<bf16, bf16, bf16>(to, "bf16 += bf16 bf16", op::none, op::none, true, 4e-3);
  one<bf16, bf16, float>(to, "float = bf16' bf16", op::transpose, op::none, false, 1e-5);
  one<bf16, bf16, float>(to, "float += bf16 bf16'", op::none, op::transpose, true, 1e-5);
  one<float, float, float>(to, "float += float' float, no tf32", op::transpose, op::none, true, 1e-5);
  one<double, double, double>(to, "double = double double'", op::none, op::transpose, false, 1e-13);
}

// The products of Llama-2-7B, y = W' x for n tokens.
struct linear {
  const char* name;
  index_t out, in;
};
const linear linears[] = {
    {"q, k, v", 12288, 4096}, {"o", 4096, 4096}, {"gate, up", 22016, 4096}, {"down", 4096, 11008}};

void bits(report& to) {
  if (missing(to, "bits")) return;
  cuda::cublaslt lt;
  cuda::stream_handle stream;
  for (const linear& l : linears) {
    const index_t most = 4224;
    const auto w = random<bf16>(l.in * l.out, 1);
    const auto x = random<bf16>(l.in * most, 2);
    cuda::device_block<bf16> y(l.out * most);
    const auto shape = [&](index_t n) {
      return cuda::matmul_plan::shape{
          op::transpose, op::none, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF, l.out, n, l.in, l.in, l.in, l.out};
    };
    const auto run = [&](const cuda::matmul_plan& p, index_t first) {
      p.run(lt.handle(), w.data(), x.data() + first * l.in, y.data() + first * l.out, 1, false,
            lt.workspace_data(), stream.get());
      stream.synchronise();
    };
    const cuda::matmul_plan whole(lt.handle(), shape(most), lt.workspace());
    run(whole, 0);
    const auto reference = to_host(y);
    row r{std::string(l.name) + ", 4224 tokens"};
    r.ms = median_ms(stream, [&](cudaStream_t s) {
      whole.run(lt.handle(), w.data(), x.data(), y.data(), 1, false, lt.workspace_data(), s);
    });
    r.rate = 2.0 * double(l.in) * double(l.out) * double(most) / r.ms * 1e-9;
    r.unit = "TFLOP/s";
    r.note = described(whole);
    r.differing = count_differing(reference, to_host(y));
    r.of = (long long)reference.size();
    r.pass = r.differing == 0;
    to.add(r);
    for (const index_t n : {index_t(1056), index_t(1024), index_t(128), index_t(1)}) {
      // four parts from the columns 0, n, ... with the algorithm of the whole, then with the part's own
      for (const bool kept : {true, false}) {
        row part{std::string(l.name) + ", " + std::to_string(n) + " tokens, " +
                 (kept ? "the algorithm of 4224" : "an algorithm of its own")};
        try {
          const cuda::matmul_plan p(lt.handle(), shape(n), lt.workspace(),
                                    kept ? &whole.algorithm() : nullptr);
          cudaMemset(y.data(), 0xff, std::size_t(4 * n * l.out) * sizeof(bf16));
          for (index_t i = 0; i < 4; ++i) run(p, i * n);
          const auto got = to_host(y);
          part.of = 4 * n * l.out;
          part.differing = 0;
          for (std::size_t i = 0; i < std::size_t(part.of); ++i)
            part.differing += got[i].bits != reference[i].bits;
          part.ms = median_ms(
              stream,
              [&](cudaStream_t s) {
                p.run(lt.handle(), w.data(), x.data(), y.data(), 1, false, lt.workspace_data(), s);
              },
              10, 200);
          part.rate = 2.0 * double(l.in) * double(l.out) * double(n) / part.ms * 1e-9;
          part.unit = "TFLOP/s";
          part.note = described(p);
        } catch (const cuda::device_error& e) {
          part.note = e.what();
        }
        to.add(part);
      }
    }
  }
}

/// Largest error over largest magnitude of y = w' x, x: k x n, for sampled rows of w, in double.
double error_of(const std::vector<bf16>& w, const std::vector<bf16>& x, index_t k,
                const std::vector<float>& y, index_t m) {
  double error = 0, largest = 0;
  for (index_t j = 0; j < index_t(y.size()) / m; ++j)
    for (index_t i = j % 7; i < m; i += m / 64 + 1) {
      double sum = 0;
      for (index_t t = 0; t < k; ++t)
        sum += double(float(w[std::size_t(t + i * k)])) * double(float(x[std::size_t(t + j * k)]));
      error = std::max(error, std::abs(double(y[std::size_t(i + j * m)]) - sum));
      largest = std::max(largest, std::abs(sum));
    }
  return error / largest;
}

/// One column by gemv_body and by cuBLASLt.
void column(report& to) {
  if (missing(to, "column")) return;
  cuda::cublaslt lt;
  cuda::stream_handle stream;
  for (const linear& l : linears) {
    const auto w = random<bf16>(l.in * l.out, 1);
    const auto x = random<bf16>(l.in, 2);
    const auto on_host = to_host(w), column = to_host(x);
    cuda::device_block<float> y(l.out);
    std::vector<float> first;
    const auto one = [&](const std::string& how, double limit, auto&& enqueue) {
      row r{std::string(l.name) + ", one column, " + how};
      r.ms = median_ms(stream, enqueue);
      r.rate = 2 * double(l.in) * double(l.out) / r.ms * 1e-6;
      r.unit = "GB/s";
      const auto got = to_host(y);
      r.error = error_of(on_host, column, l.in, got, l.out);
      if (limit > 0) {
        r.limit = limit;
        if (first.empty()) first = got;
        r.differing = count_differing(got, first);
        r.of = (long long)got.size();
        r.pass = r.error <= limit && r.differing == 0;
      }
      to.add(r);
    };
    const auto gemv = [&]<int ahead>(std::integral_constant<int, ahead>) {
      one("gemv, " + std::to_string(ahead) + " loads ahead", 1e-5, [&](cudaStream_t s) {
        cuda::launch(kernels::gemv_body<float, ahead>{{w.data(), l.in, l.out}, x.data(), 1, false, y.data()},
                     s);
      });
    };
    one("cuBLASLt", 0, [&](cudaStream_t s) {
      lt.gemm<bf16, bf16, float>(op::transpose, {w.data(), l.in, l.out}, op::none, {x.data(), l.in, 1}, 1,
                                 false, {y.data(), l.out, 1}, s);
    });
    gemv(std::integral_constant<int, 4>{});
    gemv(std::integral_constant<int, 8>{});
  }
}

/// An adapter's A' x of few tokens: in parts and by cuBLASLt.
void parts(report& to) {
  if (missing(to, "parts")) return;
  using split = kernels::product_split;
  cuda::cublaslt lt;
  cuda::stream_handle stream;
  for (const index_t n : {32, 128, 512})
    for (const index_t k : {4096, 11008}) {
      const index_t m = 128;
      const auto a = random<bf16>(k * m, 1), b = random<bf16>(k * n, 2);
      const auto on_host = to_host(a), columns = to_host(b);
      cuda::device_block<float> c(m * n), products(m * n * split::parts(k));
      const auto one = [&](const char* how, double limit, auto&& enqueue) {
        row r{"128 x " + std::to_string(n) + " x " + std::to_string(k) + ", " + how};
        r.ms = median_ms(stream, enqueue);
        r.rate = 2.0 * double(m) * double(n) * double(k) / r.ms * 1e-9;
        r.unit = "TFLOP/s";
        r.error = error_of(on_host, columns, k, to_host(c), m);
        if (limit > 0) r.limit = limit, r.pass = r.error <= limit;
        to.add(r);
      };
      one("cuBLASLt", 0, [&](cudaStream_t s) {
        lt.gemm<bf16, bf16, float>(op::transpose, {a.data(), k, m}, op::none, {b.data(), k, n}, 1, false,
                                   {c.data(), m, n}, s);
      });
      one("in parts", 1e-5, [&](cudaStream_t s) {
        cuda::launch(kernels::gemm_mma_body<bf16, bf16, float>{op::transpose,
                                                               {a.data(), k, m},
                                                               op::none,
                                                               {b.data(), k, n},
                                                               1,
                                                               false,
                                                               {products.data(), m, n},
                                                               split::terms(k)},
                     s);
        cuda::launch(
            kernels::join_products_body<float>{products.data(), split::parts(k), 1, false, {c.data(), m, n}},
            s);
      });
    }
}

/// Bytes a second of the bodies that are as fast as memory, for four segments of Llama-2-7B; and of attention
/// of one token behind 3136 keys.
void bandwidth(report& to) {
  cuda::stream_handle stream;
  const index_t n = 4224, hidden = 4096, mlp = 11008, head = 128, keys = 3136;
  const auto x = random<bf16>(2 * mlp * n, 1);
  cuda::device_block<bf16> y(2 * mlp * n);
  const auto gain = random<bf16>(hidden, 2);
  const auto factor = random<float>(hidden * n, 3), table = random<float>(n * head, 4);
  cuda::device_block<float> rstd(n);
  std::vector<index_t> at;
  for (index_t i = 0; i < n; ++i) at.push_back(i);
  const auto positions = to_device(at);
  const auto one = [&](const char* name, double numbers, auto&& enqueue) {
    row r{name};
    r.ms = median_ms(stream, enqueue);
    r.rate = 2 * numbers / r.ms * 1e-6;
    r.unit = "GB/s";
    to.add(r);
  };
  const double size = double(hidden) * double(n), wide = double(mlp) * double(n);
  const matrix<const bf16> columns(x.data(), hidden, n), other(x.data() + hidden * n, hidden, n);
  one("copy", 2 * size, [&](cudaStream_t s) {
    cuda::launch(kernels::copy_body<bf16, bf16>{columns, {y.data(), hidden, n}}, s);
  });
  one("cast to bfloat16", 3 * size, [&](cudaStream_t s) {
    cuda::launch(kernels::copy_body<float, bf16>{{factor.data(), hidden, n}, {y.data(), hidden, n}}, s);
  });
  one("cast of a factor of 4096 x 128", 3 * 4096 * 128, [&](cudaStream_t s) {
    cuda::launch(kernels::copy_body<float, bf16>{{factor.data(), 4096, 128}, {y.data(), 4096, 128}}, s);
  });
  one("rmsnorm", 2 * size, [&](cudaStream_t s) {
    cuda::launch(
        kernels::rmsnorm_body<bf16, bf16, float>{
            columns, gain.data(), 1e-5f, {y.data(), hidden, n}, rstd.data()},
        s);
  });
  one("rmsnorm of one column", 2 * double(hidden), [&](cudaStream_t s) {
    cuda::launch(
        kernels::rmsnorm_body<bf16, bf16, float>{
            columns_of(columns, 0, 1), gain.data(), 1e-5f, {y.data(), hidden, 1}, rstd.data()},
        s);
  });
  one("vjp of rmsnorm", 4 * size, [&](cudaStream_t s) {
    cuda::launch(
        kernels::rmsnorm_vjp_body<bf16, bf16, float>{
            columns, gain.data(), rstd.data(), other, {y.data(), hidden, n}},
        s);
  });
  one("rotary positions", 4 * size, [&](cudaStream_t s) {
    cuda::launch(kernels::rotary_body<bf16, float>{kernels::turn::forward,
                                                   {table.data(), head, n, false},
                                                   positions.data(),
                                                   n,
                                                   {y.data(), 2 * hidden, n}},
                 s);
  });
  one("swiglu", 3 * wide, [&](cudaStream_t s) {
    cuda::launch(kernels::swiglu_body<bf16>{{x.data(), 2 * mlp, n}, {y.data(), mlp, n}}, s);
  });
  one("vjp of swiglu", 5 * wide, [&](cudaStream_t s) {
    const matrix<bf16> d(y.data(), 2 * mlp, n);
    cuda::launch(
        kernels::swiglu_vjp_body<bf16>{{x.data(), 2 * mlp, n}, matrix<const bf16>(rows_of(d, mlp, mlp)), d},
        s);
  });
  const std::vector<const bf16*> blocks = {x.data()};
  const auto prefix = to_device(blocks);
  const index_t heads = hidden / head;
  cuda::device_block<float> workspace(kernels::attention_shares<128>::numbers(1, heads, keys + 1));
  const kernels::flash_operands on{{heads, heads, head},
                                   {},
                                   1,
                                   {x.data(), hidden, 1},
                                   {x.data(), hidden, 1},
                                   {x.data(), hidden, 1},
                                   {prefix.data(), 0, hidden * keys, nullptr, {0, 1, keys}}};
  const kernels::attention_shares<128> shares{workspace.data(), kernels::key_parts::bound(keys + 1)};
  one("attention of one token, 32 heads of 128, 3137 keys", 2 * double(hidden) * double(keys),
      [&](cudaStream_t s) {
        cuda::launch(kernels::decode_attention_body<128>{on, shares}, s);
        cuda::launch(kernels::decode_attention_join_body<128>{on, shares, {y.data(), hidden, 1}, nullptr}, s);
      });
}

void ceilings(report& to) {
  cuda::stream_handle stream;
  {
    const std::size_t bytes = std::size_t{4} << 30;
    cuda::device_block<unsigned char> from((index_t(bytes))), onto((index_t(bytes)));
    row r{"copy of 4 GiB, bytes read and written"};
    r.ms = median_ms(stream, [&](cudaStream_t s) {
      cudaMemcpyAsync(onto.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, s);
    });
    r.rate = 2 * double(bytes) / r.ms * 1e-6;
    r.unit = "GB/s";
    to.add(r);
  }
  if (missing(to, "ceilings")) return;
  const index_t n = 8192;
  const auto a = random<bf16>(n * n, 1);
  const auto b = random<bf16>(n * n, 2);
  cuda::device_block<bf16> c(n * n);
  cuda::cublaslt lt;
  row r{"product of 8192 x 8192 bf16, random"};
  r.ms = median_ms(stream, [&](cudaStream_t s) {
    lt.gemm<bf16, bf16, bf16>(op::transpose, {a.data(), n, n}, op::none, {b.data(), n, n}, 1, false,
                              {c.data(), n, n}, s);
  });
  r.rate = 2.0 * double(n) * double(n) * double(n) / r.ms * 1e-9;
  r.unit = "TFLOP/s";
  r.note = "cuBLASLt " + std::to_string(cuda::cublaslt_library::get().GetVersion());
  to.add(r);
}

}  // namespace

int main(int argc, char** argv) {
  return device_test::run("products", argc, argv,
                          {{"ceilings", ceilings},
                           {"right", right},
                           {"bits", bits},
                           {"column", column},
                           {"parts", parts},
                           {"bandwidth", bandwidth}});
}
