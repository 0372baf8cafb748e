#pragma once

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "unroll/core/bf16.hpp"
#include "unroll/core/matrix.hpp"
#include "unroll/cuda/handles.hpp"

namespace unroll::cuda {

/// The functions of cuBLASLt, found when the program runs: UNROLL_CUBLASLT names the file; where it is unset
/// or empty, libcublasLt.so.13 (or the major version of the toolkit) in the loader's usual places.
class cublaslt_library {
 public:
  /// The library, loaded once a process. Throws with the places tried.
  static const cublaslt_library& get() {
    static const cublaslt_library library;
    return library;
  }
  /// The file that UNROLL_CUBLASLT names, or empty.
  static std::string named() {
    const char* const file = std::getenv("UNROLL_CUBLASLT");
    return file ? file : "";
  }
  /// What is missing, or empty.
  static std::string missing() {
    try {
      get();
    } catch (const device_error& e) {
      return e.what();
    }
    return {};
  }

// The functions that are called, by their names without cublasLt.
// clang-format off
#define UNROLL_CUBLASLT_FUNCTIONS(each) \
  each(Create) \
  each(Destroy) \
  each(GetVersion) \
  each(Matmul) \
  each(MatmulDescCreate) \
  each(MatmulDescDestroy) \
  each(MatmulDescSetAttribute) \
  each(MatrixLayoutCreate) \
  each(MatrixLayoutDestroy) \
  each(MatmulPreferenceCreate) \
  each(MatmulPreferenceDestroy) \
  each(MatmulPreferenceSetAttribute) \
  each(MatmulAlgoGetHeuristic) \
  each(MatmulAlgoCheck) \
  each(MatmulAlgoConfigGetAttribute)
// clang-format on
#define UNROLL_CUBLASLT_MEMBER(name) decltype(&::cublasLt##name) name = nullptr;
  UNROLL_CUBLASLT_FUNCTIONS(UNROLL_CUBLASLT_MEMBER)
#undef UNROLL_CUBLASLT_MEMBER

 private:
  cublaslt_library() {
    const std::string file =
        named().empty() ? "libcublasLt.so." + std::to_string(CUDART_VERSION / 1000) : named();
    void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle)
      fail_device("cuda::cublaslt", (named().empty() ? "dlopen " : "UNROLL_CUBLASLT names ") + file,
                  dlerror());
    const auto find = [&]<class F>(F& f, const char* name) {
      f = reinterpret_cast<F>(dlsym(handle, name));
      if (!f) fail_device("cuda::cublaslt", "dlsym in " + file, std::string("has no ") + name);
    };
#define UNROLL_CUBLASLT_FIND(name) find(name, "cublasLt" #name);
    UNROLL_CUBLASLT_FUNCTIONS(UNROLL_CUBLASLT_FIND)
#undef UNROLL_CUBLASLT_FIND
#undef UNROLL_CUBLASLT_FUNCTIONS
  }
};

namespace detail {

inline void check_lt(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail_device("cuda::cublaslt", call, "returned status " + std::to_string(int(status)));
}

template <class T>
inline constexpr cudaDataType_t type_of = CUDA_R_32F;
template <>
inline constexpr cudaDataType_t type_of<bf16> = CUDA_R_16BF;
template <>
inline constexpr cudaDataType_t type_of<double> = CUDA_R_64F;

template <class T, class Create, class Destroy>
std::shared_ptr<std::remove_pointer_t<T>> owned(Create create, Destroy destroy) {
  T handle = nullptr;
  create(&handle);
  return {handle, destroy};
}

}  // namespace detail

/// One product c = alpha op_a(a) op_b(b) [+ c]: its shape, and the algorithm that is kept for it. Of the
/// algorithms those that split the sum over k are left out, so that equal inputs have equal bits in every
/// run.
class matmul_plan {
 public:
  /// What an algorithm is chosen for.
  struct shape {
    op op_a = op::none, op_b = op::none;                            ///< how a and b are taken
    cudaDataType_t a = CUDA_R_32F, b = CUDA_R_32F, c = CUDA_R_32F;  ///< kinds of the three matrices
    /// c is m x n, the sum has k terms; strides of the three.
    index_t m = 0, n = 0, k = 0, stride_a = 0, stride_b = 0, stride_c = 0;
    bool operator==(const shape&) const = default;
  };

  /// Chooses among what the library proposes, its first proposal by default, or takes `algorithm` of another
  /// plan, if it runs this shape: the same algorithm gives a column of c the same bits whatever n is.
  matmul_plan(cublasLtHandle_t handle, const shape& s, std::size_t workspace,
              const cublasLtMatmulAlgo_t* algorithm = nullptr)
      : shape_(s) {
    const auto& lt = cublaslt_library::get();
    using detail::check_lt;
    const bool exact = s.c == CUDA_R_64F;
    description_ = detail::owned<cublasLtMatmulDesc_t>(
        [&](cublasLtMatmulDesc_t* d) {
          check_lt(lt.MatmulDescCreate(d, exact ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                       exact ? CUDA_R_64F : CUDA_R_32F),
                   "cublasLtMatmulDescCreate");
        },
        lt.MatmulDescDestroy);
    const auto set = [&](cublasLtMatmulDescAttributes_t which, op o) {
      const cublasOperation_t value = o == op::transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
      check_lt(lt.MatmulDescSetAttribute(description_.get(), which, &value, sizeof value),
               "cublasLtMatmulDescSetAttribute");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, s.op_a);
    set(CUBLASLT_MATMUL_DESC_TRANSB, s.op_b);
    const auto layout = [&](cudaDataType_t type, index_t rows, index_t cols, index_t stride) {
      return detail::owned<cublasLtMatrixLayout_t>(
          [&](cublasLtMatrixLayout_t* l) {
            check_lt(lt.MatrixLayoutCreate(l, type, std::uint64_t(rows), std::uint64_t(cols), stride),
                     "cublasLtMatrixLayoutCreate");
          },
          lt.MatrixLayoutDestroy);
    };
    const bool ta = s.op_a == op::transpose, tb = s.op_b == op::transpose;
    a_ = layout(s.a, ta ? s.k : s.m, ta ? s.m : s.k, s.stride_a);
    b_ = layout(s.b, tb ? s.n : s.k, tb ? s.k : s.n, s.stride_b);
    c_ = layout(s.c, s.m, s.n, s.stride_c);

    cublasLtMatmulHeuristicResult_t found = {};
    if (algorithm) {
      check_lt(lt.MatmulAlgoCheck(handle, description_.get(), a_.get(), b_.get(), c_.get(), c_.get(),
                                  algorithm, &found),
               "cublasLtMatmulAlgoCheck");
      algorithm_ = *algorithm;
    } else {
      const auto preference = detail::owned<cublasLtMatmulPreference_t>(
          [&](cublasLtMatmulPreference_t* p) {
            check_lt(lt.MatmulPreferenceCreate(p), "cublasLtMatmulPreferenceCreate");
          },
          lt.MatmulPreferenceDestroy);
      const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
        check_lt(lt.MatmulPreferenceSetAttribute(preference.get(), which, &value, sizeof value),
                 "cublasLtMatmulPreferenceSetAttribute");
      };
      prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t(workspace));
      prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t(CUBLASLT_REDUCTION_SCHEME_NONE));
      // what every matrix of an arena has, and no more than that is promised
      const std::uint32_t alignment = 16;
      for (const auto which :
           {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        prefer(which, alignment);
      int count = 0;
      check_lt(lt.MatmulAlgoGetHeuristic(handle, description_.get(), a_.get(), b_.get(), c_.get(), c_.get(),
                                         preference.get(), 1, &found, &count),
               "cublasLtMatmulAlgoGetHeuristic");
      if (count == 0) detail::check_lt(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic");
      algorithm_ = found.algo;
    }
    workspace_ = found.workspaceSize;
    if (workspace_ > workspace)
      fail_device("cuda::cublaslt", "workspace",
                  "the algorithm needs " + std::to_string(workspace_) + " bytes, there are " +
                      std::to_string(workspace));
  }

  /// Enqueues the product.
  void run(cublasLtHandle_t handle, const void* a, const void* b, void* c, double alpha, bool add,
           void* workspace, cudaStream_t stream) const {
    const bool exact = shape_.c == CUDA_R_64F;
    const float alpha_f = float(alpha), beta_f = add ? 1 : 0;
    const double beta = double(beta_f);
    const void* const alpha_at = exact ? static_cast<const void*>(&alpha) : &alpha_f;
    const void* const beta_at = exact ? static_cast<const void*>(&beta) : &beta_f;
    detail::check_lt(cublaslt_library::get().Matmul(handle, description_.get(), alpha_at, a, a_.get(), b,
                                                    b_.get(), beta_at, c, c_.get(), c, c_.get(), &algorithm_,
                                                    workspace, workspace_, stream),
                     "cublasLtMatmul");
  }
  const shape& of() const { return shape_; }
  const cublasLtMatmulAlgo_t& algorithm() const { return algorithm_; }  ///< that is used
  std::size_t workspace() const { return workspace_; }
  /// One number of the algorithm's configuration, such as its id, its tile or its parts of k.
  int setting(cublasLtMatmulAlgoConfigAttributes_t which) const {
    int value = -1;
    std::size_t written = 0;
    detail::check_lt(cublaslt_library::get().MatmulAlgoConfigGetAttribute(&algorithm_, which, &value,
                                                                          sizeof value, &written),
                     "cublasLtMatmulAlgoConfigGetAttribute");
    return value;
  }

 private:
  shape shape_;
  std::shared_ptr<std::remove_pointer_t<cublasLtMatmulDesc_t>> description_;
  std::shared_ptr<std::remove_pointer_t<cublasLtMatrixLayout_t>> a_, b_, c_;
  cublasLtMatmulAlgo_t algorithm_ = {};
  std::size_t workspace_ = 0;
};

/// Matrix products of one stream by cuBLASLt: a handle, a workspace, and a plan for every shape met so far.
class cublaslt {
 public:
  explicit cublaslt(std::size_t workspace_bytes = std::size_t{32} << 20)
      : workspace_(index_t(workspace_bytes), "workspace of the matrix products") {
    handle_ = detail::owned<cublasLtHandle_t>(
        [](cublasLtHandle_t* h) { detail::check_lt(cublaslt_library::get().Create(h), "cublasLtCreate"); },
        cublaslt_library::get().Destroy);
  }

  cublasLtHandle_t handle() const { return handle_.get(); }  ///< of the library
  std::size_t workspace() const { return std::size_t(workspace_.size()); }

  /// The plan of a shape: made at its first use, then kept.
  const matmul_plan& plan(const matmul_plan::shape& s) {
    const auto at = std::find_if(plans_.begin(), plans_.end(), [&](const auto& p) { return p->of() == s; });
    if (at != plans_.end()) return **at;
    plans_.push_back(std::make_unique<matmul_plan>(handle(), s, workspace()));
    return *plans_.back();
  }

  /// Whether a matrix begins, and each of its columns, at a multiple of 16 bytes, as the plans promise.
  template <class T>
  static bool aligned(const matrix<T>& m) {
    return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.stride * index_t(sizeof(T)) % 16 == 0;
  }
  /// Enqueues c = alpha op_a(a) op_b(b) [+ c]; the matrices are aligned. Sizes are checked
  /// here: the library accepts wrong ones.
  template <class A, class B, class C>
  void gemm(op op_a, matrix<const A> a, op op_b, matrix<const B> b, double alpha, bool add, matrix<C> c,
            cudaStream_t stream) {
    const bool ta = op_a == op::transpose, tb = op_b == op::transpose;
    const index_t k = ta ? a.rows : a.cols;
    check_size("cuda::gemm", "rows of op(b)", tb ? b.cols : b.rows, k);
    check_size("cuda::gemm", "rows of op(a)", ta ? a.cols : a.rows, c.rows);
    check_size("cuda::gemm", "columns of op(b)", tb ? b.rows : b.cols, c.cols);
    check_at_least("cuda::gemm", "stride of a", a.stride, a.rows);
    check_at_least("cuda::gemm", "stride of b", b.stride, b.rows);
    check_at_least("cuda::gemm", "stride of c", c.stride, c.rows);
    check_at_least("cuda::gemm", "k", k, 1);
    if (c.rows == 0 || c.cols == 0) return;
    matmul_plan::shape s;
    s.op_a = op_a, s.op_b = op_b;
    s.a = detail::type_of<A>, s.b = detail::type_of<B>, s.c = detail::type_of<C>;
    s.m = c.rows, s.n = c.cols, s.k = k;
    s.stride_a = a.stride, s.stride_b = b.stride, s.stride_c = c.stride;
    const matmul_plan& p = plan(s);
    p.run(handle(), a.data, b.data, c.data, alpha, add, workspace_.data(), stream);
  }
  void* workspace_data() { return workspace_.data(); }  ///< memory that its products work in

 private:
  std::shared_ptr<std::remove_pointer_t<cublasLtHandle_t>> handle_;
  device_block<unsigned char> workspace_;
  std::vector<std::unique_ptr<matmul_plan>> plans_;
};

}  // namespace unroll::cuda
