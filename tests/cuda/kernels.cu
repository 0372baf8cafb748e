// Every kernel body compiles for a device, all warnings being errors: what a device cannot call, the compiler
// only warns of, and drops.
#include "tests/cuda/operations.hpp"
#include "unroll/cuda/cudnn_stream.hpp"
#include "unroll/cuda/stream.hpp"

template <class E>
void every_operation(const E& e) {
  using namespace executor_test;
  movement(e), vectors(e), products(e), adapters(e), norms(e), rotations(e), activations(e), attention(e);
  losses(e), choices(e), random_numbers(e), optimisers(e);
}

void every_kernel() {
  every_operation(unroll::cuda::stream<unroll::numbers<unroll::bf16>>());
#if !defined(UNROLL_QUICK)
  every_operation(unroll::cuda::stream<unroll::numbers<float>>());
  every_operation(unroll::cuda::stream<unroll::numbers<float, unroll::bf16>>());
#endif
}

// What stands around a library's attention. The header of cuDNN's target needs no header of cuDNN.
static_assert(unroll::exec::executor<unroll::cuda::cudnn_stream<unroll::numbers<unroll::bf16>>>);
void around_a_library() {
  using namespace unroll::kernels;
  const auto launch = [](const auto& body) { unroll::cuda::launch(body); };
  launch(pack_keys_body{}), launch(add_packed_body{}), launch(add_columns_body{}), launch(transpose_body{});
  launch(begin_check_body{}), launch(check_finite_body<unroll::bf16>{}), launch(check_finite_body<float>{});
  launch(only_where_body<copy_body<unroll::bf16, unroll::bf16>>{});
}
