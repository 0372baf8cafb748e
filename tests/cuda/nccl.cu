// NCCL as far as one device goes: it is found, a communicator of one rank is made, and a sum over one rank is
// left alone. What it does between devices is unproven. Built where nccl.h is found.
#include <unroll/cuda/handles.hpp>
#include <unroll/cuda/nccl.hpp>

#include "check.hpp"

namespace {

using namespace unroll;
using device_test::row;

void found(device_test::report& to) {
  const int version = cuda::nccl_library::get().version();
  row r{"library, at least 2.7"};
  r.pass = version >= 20700;
  r.note = "NCCL " + std::to_string(version);
  to.add(r);
}

void one_rank(device_test::report& to) {
  cuda::stream_handle stream;
  cuda::nccl_ranks all(ranks(), stream.get());
  const std::vector<float> numbers(100'000, 1.5f);
  cuda::device_block<float> sum(index_t(numbers.size()));
  const std::size_t bytes = numbers.size() * sizeof(float);
  cudaMemcpy(sum.data(), numbers.data(), bytes, cudaMemcpyHostToDevice);
  index_t begun = 0;
  ranks(all).in_order(view<float>(sum.data(), sum.size()), [&](view<float>, index_t) { ++begun; });
  all.broadcast(0, sum.data(), bytes);
  cudaStreamSynchronize(stream.get());
  std::vector<float> back(numbers.size());
  cudaMemcpy(back.data(), sum.data(), bytes, cudaMemcpyDeviceToHost);
  row r{"a communicator of one rank"};
  r.pass = back == numbers && begun == 2 && all.size() == 1;
  to.add(r);
}

}  // namespace

int main(int argc, char** argv) {
  return device_test::run("nccl", argc, argv, {{"found", found}, {"one_rank", one_rank}});
}
