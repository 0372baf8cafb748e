#pragma once

#include <cstddef>
#include <string>
#include <vector>

// What model.cu compares with, computed on the host by model_host.cpp, which nvcc does not compile.
namespace model_test {

struct result {
  std::string name;
  std::vector<double> numbers;
};
using results = std::vector<result>;

/// Of case i of model_cases(): in double, by exec::host; rounded operation by operation as PyTorch's bfloat16
/// is; by the kernel bodies of a device.
results in_double(std::size_t i);
results in_torch_bf16(std::size_t i);
results by_bodies_in_float(std::size_t i);
results by_bodies_in_bf16(std::size_t i);

}  // namespace model_test
