// Matrix products through cuBLASLt: right with matrices of any stride and kind, the same bits in two runs,
// and what the bits of a column depend on when the algorithm is kept.
#include <cmath>

#include "tests/cuda/check.hpp"
#include "unroll/cuda/cublaslt.hpp"
#include "unroll/cuda/launch.hpp"
#include "unroll/kernels/gemv_body.hpp"
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

/// One column by gemv_body, against cuBLASLt's sums in float.
void column(report& to) {
  if (missing(to, "column")) return;
  cuda::cublaslt lt;
  cuda::stream_handle stream;
  for (const linear& l : linears) {
    const auto w = random<bf16>(l.in * l.out, 1);
    const auto x = random<bf16>(l.in, 2);
    cuda::device_block<float> y(l.out), other(l.out);
    const double bytes = 2 * double(l.in) * double(l.out);
    row library{std::string(l.name) + ", one column, cuBLASLt"},
        own{std::string(l.name) + ", one column, gemv"};
    library.ms = median_ms(stream, [&](cudaStream_t s) {
      lt.gemm<bf16, bf16, float>(op::transpose, {w.data(), l.in, l.out}, op::none, {x.data(), l.in, 1}, 1,
                                 false, {other.data(), l.out, 1}, s);
    });
    own.ms = median_ms(stream, [&](cudaStream_t s) {
      cuda::launch(kernels::gemv_body<float>{{w.data(), l.in, l.out}, x.data(), 1, false, y.data()}, s);
    });
    library.rate = bytes / library.ms * 1e-6;
    own.rate = bytes / own.ms * 1e-6;
    library.unit = own.unit = "GB/s";
    const auto got = to_host(y), want = to_host(other);
    double error = 0, largest = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      error = std::max(error, double(std::abs(got[i] - want[i])));
      largest = std::max(largest, double(std::abs(want[i])));
    }
    own.error = error / largest;
    own.limit = 1e-5;
    own.pass = own.error <= own.limit;
    to.add(library), to.add(own);
  }
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
                          {{"ceilings", ceilings}, {"right", right}, {"bits", bits}, {"column", column}});
}
