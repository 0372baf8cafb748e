#pragma once

#include "unroll/cuda/cudnn.hpp"
#include "unroll/cuda/stream.hpp"
#include "unroll/exec/sdpa_executor.hpp"

namespace unroll::cuda {

/// cuda::stream whose attention runs through cuDNN where that is found and can do it, see
/// exec/sdpa_executor.hpp; link unroll::cudnn. Workspaces of attention hold cuDNN's too.
template <class N>
class cudnn_stream final : public exec::sdpa_executor<stream<N>, cudnn> {
  using base = exec::sdpa_executor<stream<N>, cudnn>;

 public:
  /// Of device `index`; see stream.
  explicit cudnn_stream(int index = 0, stream_options how = {}, cudnn_options library = {})
      : cudnn_stream(stream<N>(index, how), library) {}
  /// In the caller's stream; see stream.
  explicit cudnn_stream(cudaStream_t of_caller, int index = 0, stream_options how = {},
                        cudnn_options library = {})
      : cudnn_stream(stream<N>(of_caller, index, how), library) {}

 private:
  cudnn_stream(stream<N> device, cudnn_options library) : cudnn_stream(device, library, cudnn::missing()) {}
  cudnn_stream(stream<N> device, cudnn_options library, const std::string& missing)
      : base(device, missing.empty() ? std::make_shared<cudnn>(device.native(), library) : nullptr, missing) {
  }
};

}  // namespace unroll::cuda
