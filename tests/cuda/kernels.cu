// Every kernel body compiles for a device, all warnings being errors: what a device cannot call, the compiler
// only warns of, and drops.
#include "tests/cuda/operations.hpp"
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
