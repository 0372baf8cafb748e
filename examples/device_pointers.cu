// A memory model in a program that has its own stream and its own memory on a CUDA device: weights and theta
// lie there already, memories and losses go where it wants them, kernels of its own stand in front and behind
// in the same stream, and nothing waits until it does so itself.
#include <cmath>
#include <cstdio>
#include <unroll/cuda.hpp>

using namespace unroll;
using E = cuda::stream<numbers<bf16>>;
using model_type = llama::memory_llama<E>;

/// Weights as a program of another library may have left them.
__global__ void draw_weights(bf16* w, index_t n) {
  const index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) w[i] = bf16(0.02f * (float((i * 2654435761u >> 7) % 2048) / 1024 - 1));
}
/// What becomes of the losses: their mean a token.
__global__ void mean_of(const float* losses, int n, float tokens, float* mean) {
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += losses[i];
  *mean = sum / tokens;
}
/// n numbers on the device.
template <class U>
U* numbers_on_device(index_t n) {
  void* memory = nullptr;
  cuda::check(cudaMalloc(&memory, std::size_t(n) * sizeof(U)), "device_pointers", "cudaMalloc");
  return static_cast<U*>(memory);
}

int main() try {
  cuda::use_device(0);
  cudaStream_t mine = nullptr;
  cuda::check(cudaStreamCreateWithFlags(&mine, cudaStreamNonBlocking), "device_pointers", "cudaStreamCreate");
  const E e(mine);  // its operations are enqueued in our stream

  llama::config c{
      .hidden = 128, .intermediate_size = 256, .layers = 2, .heads = 2, .kv_heads = 2, .head_dim = 64};
  c.vocabulary = 256;
  c.context = 512;
  llama::memory_options o;
  o.segment = 64;
  o.ratio = 8;
  o.encoder.rank = o.transfer_head.rank = 8;
  constexpr index_t segments = 4, tokens = 64;

  // our memory
  const llama::weight_map map(c);
  bf16* const weights = numbers_on_device<bf16>(map.size());
  draw_weights<<<unsigned(map.size() / 256 + 1), 256, 0, mine>>>(weights, map.size());
  for (const layout_block& b : map.names().blocks())
    if (b.cols == 1) e.fill(matrix<bf16>(weights + b.offset, b.rows, 1), 1);  // gains of norms
  const model_type model(
      c,
      std::make_shared<const model_type::weights_type>(model_type::weights_type::borrow(weights, map.size())),
      o, e);
  const memory_dims d = model.size();
  const index_t workspace_size = model.workspace(segments - 1);
  float *const theta = numbers_on_device<float>(d.params), *const losses = numbers_on_device<float>(segments),
               *const mean = numbers_on_device<float>(1);
  bf16 *const memories = numbers_on_device<bf16>((segments - 1) * d.memory), *const workspace =
                                                                                 numbers_on_device<bf16>(
                                                                                     workspace_size);
  e.normals(key{1}, 0, theta, d.params);
  e.scale(0.02, theta, d.params);

  // from here on everything is enqueued: segment after segment is read behind the memories of the earlier
  // ones, and written
  std::vector<llama::token> text;
  for (index_t i = 0; i <= segments * tokens; ++i) text.push_back(llama::token(i * 37 % c.vocabulary));
  const std::vector<llama::segment> xs = llama::segments_of(text, tokens);
  std::vector<const bf16*> past;
  for (index_t t = 0; t < segments; ++t) {
    const auto x = std::span(xs).subspan(std::size_t(t), 1);
    model.read(x, t, {theta, d.params}, past, losses + t, {workspace, workspace_size});
    if (t + 1 == segments) break;
    model.write(x, t, {theta, d.params}, {}, {memories + t * d.memory, d.memory}, {},
                {workspace, workspace_size});
    past.push_back(memories + t * d.memory);
  }
  mean_of<<<1, 1, 0, mine>>>(losses, int(segments), float(segments * tokens), mean);

  // the only wait is ours
  float nll = 0;
  cuda::check(cudaMemcpyAsync(&nll, mean, sizeof nll, cudaMemcpyDeviceToHost, mine), "device_pointers",
              "cudaMemcpyAsync");
  cuda::check(cudaStreamSynchronize(mine), "device_pointers", "cudaStreamSynchronize");
  std::printf("%.4f nats a token, of a uniform guess %.4f\n", nll, std::log(256.0));
  for (void* p : {static_cast<void*>(weights), static_cast<void*>(theta), static_cast<void*>(losses),
                  static_cast<void*>(mean), static_cast<void*>(memories), static_cast<void*>(workspace)})
    cudaFree(p);
  return std::abs(nll - std::log(256.0)) < 0.5 ? 0 : 1;
} catch (const std::exception& problem) {
  std::printf("%s\n", problem.what());
  return cuda::device_count() == 0 ? 77 : 1;
}
