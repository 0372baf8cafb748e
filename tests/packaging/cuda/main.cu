// Runs two operations on the first device, and where there is none prints what it was told.
#include <unroll/cuda.hpp>

#include <cstdio>

int main() try {
  using E = unroll::cuda::stream<unroll::numbers<float>>;
  const E e;
  const float x[] = {1, 2, 3};
  auto at = e.allocate<float>(3), sum = e.allocate<float>(1);
  e.upload(x, 3, at.data());
  e.axpy(2, at.data(), at.data(), 3);
  e.sum(at.data(), 3, sum.data());
  return unroll::exec::value(e, sum.data()) == 18 ? 0 : 1;
} catch (const unroll::cuda::device_error& none) {
  std::printf("%s\n", none.what());
  return unroll::cuda::device_count() == 0 ? 0 : 1;
} catch (const unroll::error& none) {  // a driver without devices
  std::printf("%s\n", none.what());
  return unroll::cuda::device_count() == 0 ? 0 : 1;
}
