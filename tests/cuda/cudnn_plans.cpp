// cuda::cudnn without a device: cuDNN makes its plans for an H100 (h100.json, the second argument), with a
// double of the driver (cuda_driver_double.cpp, the first), to the end, its own compiler included. That a
// plan exists says nothing about what it computes.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include "tests/cuda/host_program.hpp"
#include "unroll/cuda/check.hpp"
#include "unroll/cuda/cudnn.hpp"

using namespace unroll;
using exec::sdpa_shape;
using host_program::expect;
using host_program::thrown;

namespace {

sdpa_shape shape_of(index_t heads, index_t kv_heads, index_t head_dim, index_t queries, index_t keys,
                    bool vjp) {
  sdpa_shape s{.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim, .queries = queries, .keys = keys};
  s.q_stride = (heads + 2 * kv_heads) * head_dim;  // a slice of queries, keys and values
  s.kv_stride = s.kv_width(), s.out_stride = s.query_width();
  s.vjp = vjp, s.dout_stride = vjp ? s.query_width() : 0;
  return s;
}

/// What stands behind "name: ... val=" in a line of cuDNN's log; null: another line.
const char* value_of(const std::string& line, const char* name) {
  const auto at = line.find(std::string(" ") + name + ": "), value = line.find("val=");
  return at == line.npos || value == line.npos ? nullptr : line.c_str() + value + 4;
}

/// Of a forward call and a vjp whose numbers all differ, cuDNN has the tensors that
/// testing::simt::sdpa_double reads: batch, heads, tokens, head_dim, and from one to the next.
void layouts(const std::string& h100, const char* log) {
  cuda::cudnn plans(h100, 90);
  sdpa_shape s{.heads = 4, .kv_heads = 2, .head_dim = 16, .queries = 24, .keys = 128};
  s.q_stride = 128, s.kv_stride = 48, s.out_stride = 72;
  expect(plans.refuses(s).empty(), plans.refuses(s));
  s.vjp = true, s.dout_stride = 80;
  expect(plans.refuses(s).empty(), plans.refuses(s));
  std::map<std::string, std::set<std::string>> given;  // by number
  std::ifstream file(log);
  std::string type, dims, strides;
  for (std::string line; std::getline(file, line);) {
    if (const char* x = value_of(line, "type")) type = x;
    if (const char* x = value_of(line, "dimA")) dims = x;
    if (const char* x = value_of(line, "strideA")) strides = x;
    if (const char* x = value_of(line, "uid")) given[x].insert(type + dims + strides);
  }
  const char *const half = "CUDNN_DATA_BFLOAT16 (9);", *const single = "CUDNN_DATA_FLOAT (0);",
                    *const integer = "CUDNN_DATA_INT32 (4);";
  const struct {
    const char *name, *number, *type, *layout;
  } wanted[] = {{"q", "1;", half, "[1,4,24,16];[3072,16,128,1];"},
                {"k", "2;", half, "[1,2,128,16];[6144,16,48,1];"},
                {"v", "3;", half, "[1,2,128,16];[6144,16,48,1];"},
                {"n", "4;", integer, "[1,1,1,1];[1,1,1,1];"},
                {"m", "5;", integer, "[1,1,1,1];[1,1,1,1];"},
                {"out", "6;", half, "[1,4,24,16];[1728,16,72,1];"},
                {"log_sum", "7;", single, "[1,4,24,1];[96,24,1,1];"},
                {"dout", "8;", half, "[1,4,24,16];[1920,16,80,1];"},
                {"dq", "9;", half, "[1,4,24,16];[1536,16,64,1];"},
                {"dk", "10;", half, "[1,2,128,16];[4096,16,32,1];"},
                {"dv", "11;", half, "[1,2,128,16];[4096,16,32,1];"}};
  for (const auto& w : wanted) {
    std::string all;
    for (const std::string& x : given[w.number]) all += " " + x;
    const auto has = [&](const std::string& layout) { return given[w.number].count(w.type + layout) > 0; };
    // keys are logged as the matrix product takes them; numbers of the frontend's own tensors follow ours
    expect(has(w.layout) || (w.number[0] == '2' && has("[1,2,16,128];[6144,16,1,48];")),
           std::string(w.name) + ":" + all);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) {  // UNROLL_CUDNN names something else
    const std::string said = thrown([] { cuda::cudnn::missing(); });
    std::printf("%s\n", said.c_str());
    return said.empty() ? 1 : 0;
  }
  if (argc != 3 && argc != 4) return 2;
  if (argc == 4) {  // read when cuDNN is loaded
    std::remove(argv[3]);
    setenv("CUDNN_LOGLEVEL_DBG", "3", 1);
    setenv("CUDNN_LOGDEST_DBG", argv[3], 1);
  }
  if (const std::string missing = cuda::cudnn::missing(); !missing.empty()) {
    std::printf("skipped: %s\n", missing.c_str());
    return 77;
  }
  if (!dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL)) return std::printf("FAILED: %s\n", dlerror()), 1;
  std::ifstream file(argv[2]);
  const std::string h100((std::istreambuf_iterator<char>(file)), {});
  const int version = cuda::cudnn::version();
  std::printf("cudnn_plans: cuDNN %d.%d.%d\n", version / 10000, version / 100 % 100, version % 100);

  if (argc == 4) {
    layouts(h100, argv[3]);
    return host_program::end("cudnn_plans", "all tensors lie as they must");
  }
  cuda::cudnn plans(h100, 90);
  const struct {
    const char* name;
    index_t heads, kv_heads, head_dim, queries, keys;
    bool vjp;
  } wanted[] = {
      {"Llama-2-7B, 1024 tokens, forward", 32, 32, 128, 1024, 1024, false},
      {"the same behind 3104 memories, forward", 32, 32, 128, 1024, 4608, false},
      {"the same, vjp", 32, 32, 128, 1024, 4608, true},
      {"heads of 64 that share keys, 1000 tokens, vjp", 32, 8, 64, 1000, 1024, true},
  };
  for (const auto& w : wanted) {
    const sdpa_shape s = shape_of(w.heads, w.kv_heads, w.head_dim, w.queries, w.keys, w.vjp);
    const auto begin = std::chrono::steady_clock::now();
    const std::string why = plans.refuses(s);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    expect(why.empty(), std::string(w.name) + ": " + why);
    if (!why.empty()) continue;
    std::printf("%-50s %-36s %9lld bytes of workspace, at most %9lld; %.1f s\n", w.name,
                plans.plan(s).c_str(), static_cast<long long>(plans.workspace(s)),
                static_cast<long long>(cuda::cudnn::workspace_bound(s)), seconds);
    expect(plans.workspace(s) <= cuda::cudnn::workspace_bound(s), "workspace");
  }
  const sdpa_shape small = shape_of(2, 2, 64, 64, 128, true);
  cuda::cudnn faster(h100, 90, {.deterministic = false});
  expect(plans.refuses(small).empty() && faster.refuses(small).empty(), "a small vjp");

  sdpa_shape odd = small;
  odd.q_stride += 4;
  expect(plans.refuses(odd).find("alignment") != std::string::npos,
         "a stride of 4 numbers more: " + plans.refuses(odd));
  expect(thrown([&] { plans.workspace(odd); }).find("alignment") != std::string::npos, "its workspace");
  expect(thrown([&] { plans.vjp(small, {}, nullptr); }).find("makes plans alone") != std::string::npos,
         "a run without a device");
  expect(thrown([] { cuda::cudnn none("{}", 90); }).find("device properties") != std::string::npos,
         "properties of nothing");
  return host_program::end("cudnn_plans");
}
