#include "tests/cuda/model_case.hpp"
#include "tests/exec/torch_executor.hpp"

namespace model_test {

results in_double(std::size_t i) { return run(exec::host<numbers<double>>(), model_cases()[i]); }
results in_torch_bf16(std::size_t i) { return run(tests::torch_executor(), model_cases()[i]); }
results by_bodies_in_float(std::size_t i) {
  return run(testing::simt::executor<numbers<float>>(), model_cases()[i]);
}
results by_bodies_in_bf16(std::size_t i) {
  return run(testing::simt::executor<numbers<bf16>>(), model_cases()[i]);
}

}  // namespace model_test
