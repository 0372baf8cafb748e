// Asks the target's compiled part whether there is a cuDNN, and prints what it says.
#include <unroll/cuda/cudnn.hpp>

#include <cstdio>

int main() {
  const std::string missing = unroll::cuda::cudnn::missing();
  if (missing.empty())
    std::printf("cuDNN %d\n", unroll::cuda::cudnn::version());
  else
    std::printf("%s\n", missing.c_str());
  const unroll::exec::sdpa_shape shape{
      .heads = 32, .kv_heads = 32, .head_dim = 128, .queries = 1024, .keys = 4096};
  return unroll::cuda::cudnn::workspace_bound(shape) > 0 ? 0 : 1;
}
