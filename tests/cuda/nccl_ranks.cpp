// cuda::nccl_ranks over a double of NCCL (nccl_double.cpp, its first argument), on the host: three ranks,
// each a thread, add gradients in the order of the documents with the bits of one. What NCCL itself does
// between devices is unproven.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/support/thread_ranks.hpp"
#include "unroll/cuda/nccl.hpp"

using namespace unroll;

namespace {

constexpr index_t numbers = 150'000, documents = 7;  // three slices

float item(index_t i, index_t j) {
  return std::ldexp(1.0f + float(i) / 7 + float(j % 11) / 13, int(i % 5) * 9);
}

int failures = 0;
void expect(const std::vector<std::string>& said, const std::string& wanted, const char* what) {
  for (const std::string& text : said)
    if (wanted.empty() ? !text.empty() : text.find(wanted) == text.npos)
      ++failures, std::printf("FAILED: %s: \"%s\"\n", what, text.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto missing = [](const char* file) {
    setenv("UNROLL_NCCL", file, 1);
    return thread_ranks::run(1, [](const ranks& host) { cuda::nccl_ranks devices(host, nullptr); });
  };
  expect(missing("/there/is/no/libnccl.so"), "cuda::nccl: dlopen /there/is/no/libnccl.so: ", "no such file");
  expect(missing("libdl.so.2"), "cuda::nccl: dlsym in libdl.so.2: has no ncclGetVersion", "another library");
  setenv("UNROLL_NCCL", argv[1], 1);
  std::vector<float> expected(numbers, 0.25f);
  for (index_t i = 0; i < documents; ++i)
    for (index_t j = 0; j < numbers; ++j) expected[std::size_t(j)] += item(i, j);
  for (const index_t size : {1, 2, 3})
    expect(thread_ranks::run(size,
                             [&](const ranks& host) {
                               cuda::nccl_ranks devices(host, nullptr);
                               const ranks all(devices);
                               if (all.rank() != host.rank() || all.size() != size)
                                 fail("test", "rank", "is another");
                               std::vector<float> sum(numbers, 0.25f);
                               all.in_order(view<float>(sum), [&](view<float> part, index_t begin) {
                                 for (index_t i = all.begin(documents); i < all.end(documents); ++i)
                                   for (index_t j = 0; j < part.size(); ++j) part[j] += item(i, begin + j);
                               });
                               if (sum != expected) fail("test", "sum", "has other bits");
                             }),
           "", "sums in order");
  expect(thread_ranks::run(2,
                           [](const ranks& host) {
                             cuda::nccl_ranks devices(host, nullptr);
                             char byte = 0;
                             devices.send(7, &byte, 1);
                           }),
         "cuda::nccl: ncclSend: refused by the double", "a rank that there is not");
  std::printf("%s\n", failures == 0 ? "nccl_ranks: all pass" : "nccl_ranks: failed");
  return failures == 0 ? 0 : 1;
}
