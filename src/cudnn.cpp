// The target unroll::cudnn: cuDNN's attention by its frontend (nvidia-cudnn-frontend, compiled with 1.32), in
// a file of its own because those headers take half a minute to compile.
#include "unroll/cuda/cudnn.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING  // by the handle below, so that nothing is linked
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include "unroll/cuda/check.hpp"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace unroll::cuda {

namespace {

namespace fe = cudnn_frontend;
using exec::sdpa_call;
using exec::sdpa_shape;
using exec::sdpa_vjp_call;

constexpr int oldest = 90600;  // bottom-right masks of any size

std::string version_text(std::size_t v) {
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}

/// Loads the library once; what is wrong with it, or empty.
const std::string& loaded() {
  static const std::string wrong = [] {
    const char* const named = std::getenv("UNROLL_CUDNN");
    const bool by_name = named && *named;
    const std::string file = by_name ? named : "libcudnn.so.9";
    const std::string needed = "; cuDNN 9.6 or later is needed" +
                               std::string(by_name ? "" : ", the variable UNROLL_CUDNN may name its file");
    void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) return "cuDNN was not found: " + std::string(dlerror()) + needed;
    if (!dlsym(handle, "cudnnGetVersion") || !dlsym(handle, "cudnnBackendFinalize"))
      return file + " is not cuDNN" + needed;
    fe::cudnn_dlhandle = handle;
    const std::size_t version = fe::detail::get_backend_version();
    if (version < oldest) return file + " is cuDNN " + version_text(version) + needed;
    return std::string();
  }();
  return wrong;
}

index_t up(index_t n, index_t to) { return (n + to - 1) / to * to; }

/// Throws with what cuDNN says of a status, which for a driver that is too old is little: the version helps.
void check(cudnnStatus_t status, const char* call) {
  if (status != CUDNN_STATUS_SUCCESS)
    fail_device("cuda::cudnn", call,
                fe::detail::get_error_string(status) + std::string(", by cuDNN ") +
                    version_text(fe::detail::get_backend_version()));
}

/// What the frontend takes for an address.
void* at(const void* p) { return const_cast<void*>(p); }

enum tensor : std::int64_t { q = 1, k, v, n, m, out, log_sum, dout, dq, dk, dv };

}  // namespace

struct cudnn::state {
  struct shape_plan {
    sdpa_shape shape;
    fe::graph::Graph graph;
    std::string refusal;
    index_t workspace = 0;
  };

  cudnn_options how;
  device of = {};                  // without make_current: plans alone
  cudnnHandle_t handle = nullptr;  // null: plans alone
  std::shared_ptr<fe::DeviceProperties> properties;
  std::vector<std::unique_ptr<shape_plan>> plans;

  ~state() {  // with the handle's device the thread's, if it can be
    if (!handle) return;
    int before = of.index;
    of.get_current(&before);
    if (before != of.index) of.make_current(of.index);
    fe::detail::destroy_handle(handle);
    if (before != of.index) of.make_current(before);
  }

  shape_plan& plan(const sdpa_shape& s) {
    if (of.make_current && of.make_current(of.index) != cudaSuccess)
      fail_device("cuda::cudnn", "cudaSetDevice", "refuses device " + std::to_string(of.index));
    for (const auto& p : plans)
      if (p->shape == s) return *p;
    plans.push_back(std::make_unique<shape_plan>());
    shape_plan& p = *plans.back();
    p.shape = s;
    try {
      p.refusal = made(p);
    } catch (const std::exception& e) {  // the frontend's, of a library or a symbol that it does not find
      p.refusal = e.what();
    }
    if (!p.refusal.empty())
      p.refusal = "cuDNN " + version_text(fe::detail::get_backend_version()) + ": " + p.refusal;
    return p;
  }
  shape_plan& runnable(const sdpa_shape& s) {
    shape_plan& p = plan(s);
    if (!p.refusal.empty()) fail_device("cuda::cudnn", "attention", p.refusal);
    return p;
  }
  void run(const sdpa_shape& s, std::unordered_map<std::int64_t, void*> at, void* workspace) {
    shape_plan& p = runnable(s);
    if (!handle) fail_device("cuda::cudnn", "attention", "is refused: this object makes plans alone");
    auto e = p.graph.execute(handle, at, workspace);
    if (e.is_bad()) fail_device("cuda::cudnn", "execute", e.get_message());
  }

 private:
  /// The graph of a shape and its plan; what is wrong, or empty.
  std::string made(shape_plan& p) {
    using fe::DataType_t;
    const sdpa_shape& s = p.shape;
    fe::graph::Graph& g = p.graph;
    g.set_io_data_type(DataType_t::BFLOAT16)
        .set_intermediate_data_type(DataType_t::FLOAT)
        .set_compute_data_type(DataType_t::FLOAT)
        .set_sm_version(of.capability);
    if (properties) g.set_device_properties(properties);
    // batch x heads x tokens x head_dim, a token's heads side by side
    const auto shaped = [&](fe::graph::Tensor_attributes& t, index_t heads, index_t tokens, index_t stride) {
      t.set_dim({1, heads, tokens, s.head_dim}).set_stride({tokens * stride, s.head_dim, stride, 1});
    };
    const auto operand = [&](tensor id, index_t heads, index_t tokens, index_t stride) {
      fe::graph::Tensor_attributes t;
      shaped(t, heads, tokens, stride);
      return g.tensor(t.set_uid(id));
    };
    const auto count = [&](tensor id) {
      return g.tensor(fe::graph::Tensor_attributes()
                          .set_uid(id)
                          .set_dim({1, 1, 1, 1})
                          .set_stride({1, 1, 1, 1})
                          .set_data_type(DataType_t::INT32));
    };
    const auto as_log_sum = [&](fe::graph::Tensor_attributes& t) {
      t.set_uid(log_sum)
          .set_dim({1, s.heads, s.queries, 1})
          .set_stride({s.heads * s.queries, s.queries, 1, 1})
          .set_data_type(DataType_t::FLOAT);
    };
    // the padding mask always: without it some versions leave NaN behind tails (cudnn-frontend issues 160,
    // 1072)
    const auto masked = [&](auto attributes) {
      attributes.set_attn_scale(1 / std::sqrt(float(s.head_dim)))
          .set_padding_mask(true)
          .set_seq_len_q(count(n))
          .set_seq_len_kv(count(m))
          .set_diagonal_alignment(fe::DiagonalAlignment_t::BOTTOM_RIGHT)
          .set_diagonal_band_right_bound(0);
      return attributes;
    };
    const auto at_q = operand(q, s.heads, s.queries, s.q_stride);
    const auto at_k = operand(k, s.kv_heads, s.keys, s.kv_stride);
    const auto at_v = operand(v, s.kv_heads, s.keys, s.kv_stride);
    // sums of no order begin with a memset that the frontend asks a libcudart for; throws where it finds none
    if (s.vjp && !how.deterministic)
      fe::detail::get_cuda_symbol(fe::detail::CudaLibrary::CUDART, "cudaMemsetAsync");
    if (s.vjp) {
      const auto at_out = operand(out, s.heads, s.queries, s.out_stride);
      const auto at_dout = operand(dout, s.heads, s.queries, s.dout_stride);
      fe::graph::Tensor_attributes stats;
      as_log_sum(stats);
      const auto [of_q, of_k, of_v] = g.sdpa_backward(
          at_q, at_k, at_v, at_out, at_dout, g.tensor(stats),
          masked(fe::graph::SDPA_backward_attributes().set_deterministic_algorithm(how.deterministic)));
      shaped(of_q->set_output(true).set_uid(dq), s.heads, s.queries, s.query_width());
      shaped(of_k->set_output(true).set_uid(dk), s.kv_heads, s.keys, s.kv_width());
      shaped(of_v->set_output(true).set_uid(dv), s.kv_heads, s.keys, s.kv_width());
    } else {
      const auto [to, stats] =
          g.sdpa(at_q, at_k, at_v, masked(fe::graph::SDPA_attributes().set_generate_stats(true)));
      shaped(to->set_output(true).set_uid(out), s.heads, s.queries, s.out_stride);
      as_log_sum(stats->set_output(true));
    }
    std::int64_t bytes = 0;
    auto e = g.validate();
    if (e.is_good()) e = g.build_operation_graph(handle);
    if (e.is_good()) e = g.create_execution_plans({fe::HeurMode_t::A});
    if (e.is_good()) e = g.check_support();
    if (e.is_good()) e = g.build_plans();
    if (e.is_good()) e = g.get_workspace_size(bytes);
    if (e.is_bad()) return e.get_message();
    p.workspace = bytes;
    if (bytes > workspace_bound(s))
      return "the plan takes " + std::to_string(bytes) + " bytes of workspace, there are " +
             std::to_string(workspace_bound(s));
    return {};
  }
};

std::string cudnn::missing() {
  const char* const named = std::getenv("UNROLL_CUDNN");
  if (named && *named && !loaded().empty())
    fail_device("cuda::cudnn", "UNROLL_CUDNN names " + std::string(named), loaded());
  return loaded();
}

int cudnn::version() {
  if (!missing().empty()) fail_device("cuda::cudnn", "version", missing());
  return int(fe::detail::get_backend_version());
}

index_t cudnn::workspace_bound(const sdpa_shape& s) {
  constexpr index_t some = 4096;
  if (!s.vjp) return some;
  const index_t queries = up(s.queries, 64), keys = up(s.keys, 128), of_pairs = s.heads * queries * keys * 2;
  const index_t of_dq = s.heads * queries * s.head_dim * 4;  // of the order that is not fixed
  const index_t of_heads = s.kv_heads < s.heads ? 4 * s.heads * keys * s.head_dim : 0;
  return std::max(of_pairs, of_dq) + of_heads + s.heads * queries * 4 + some;
}

cudnn::cudnn(cudaStream_t stream, device of, cudnn_options how) : state_(std::make_unique<state>()) {
  if (!missing().empty()) fail_device("cuda::cudnn", "dlopen", missing());
  state_->how = how, state_->of = of;
  check(fe::detail::create_handle(&state_->handle), "cudnnCreate");
  check(fe::detail::set_stream(state_->handle, stream), "cudnnSetStream");
}

cudnn::cudnn(std::string_view device_properties, int capability, cudnn_options how)
    : state_(std::make_unique<state>()) {
  if (!missing().empty()) fail_device("cuda::cudnn", "dlopen", missing());
  state_->how = how, state_->of.capability = capability;
  state_->properties = std::make_shared<fe::DeviceProperties>();
  auto e = state_->properties->deserialize({device_properties.begin(), device_properties.end()});
  if (e.is_bad()) fail_device("cuda::cudnn", "device properties", e.get_message());
}

cudnn::~cudnn() = default;

const std::string& cudnn::refuses(const sdpa_shape& s) { return state_->plan(s).refusal; }

index_t cudnn::workspace(const sdpa_shape& s) { return state_->runnable(s).workspace; }

std::string cudnn::plan(const sdpa_shape& s) {
  std::string name;
  if (auto e = state_->runnable(s).graph.get_plan_name(name); e.is_bad())
    fail_device("cuda::cudnn", "plan", e.get_message());
  return name;
}

void cudnn::forward(const sdpa_shape& s, const sdpa_call& c, void* workspace) {
  state_->run(s,
              {{q, at(c.q)},
               {k, at(c.k)},
               {v, at(c.v)},
               {n, at(c.n)},
               {m, at(c.m)},
               {out, c.out},
               {log_sum, c.log_sum}},
              workspace);
}

void cudnn::vjp(const sdpa_shape& s, const sdpa_vjp_call& c, void* workspace) {
  state_->run(s,
              {{q, at(c.q)},
               {k, at(c.k)},
               {v, at(c.v)},
               {out, at(c.out)},
               {dout, at(c.dout)},
               {n, at(c.n)},
               {m, at(c.m)},
               {log_sum, at(c.log_sum)},
               {dq, c.dq},
               {dk, c.dk},
               {dv, c.dv}},
              workspace);
}

}  // namespace unroll::cuda
