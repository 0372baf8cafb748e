#pragma once

// --device: where a Llama runs, and whether what it needs fits there.

#include <unistd.h>

#include <unroll/estimate/plan.hpp>
#include <unroll/io/llama_pieces.hpp>
#include <unroll/io/weight_hash.hpp>
#include <unroll/ranks/own_device.hpp>
#include <unroll/ranks/ranks.hpp>
#include <unroll/testing/simt/executor.hpp>
#include <unroll/train/held_out.hpp>

#if defined(UNROLL_PROGRAM_HAS_CUDNN)
#include <unroll/cuda/cudnn.hpp>
#include <unroll/exec/sdpa_executor.hpp>
#endif

#include "device_model.hpp"
#include "program.hpp"

namespace program {

/// Where: "host", "cuda", "cuda:1" or "simt".
struct device_choice {
  std::string where = "host";
  double most = 0;  ///< GB of its memory; 0: what is free

  void add(CLI::App* app) {
    CLI::Option* place =
        app->add_option("--device", where,
                        "host, or cuda or cuda:N: a CUDA device, in builds with UNROLL_CUDA; or simt: the "
                        "kernels of a device, run by the host, slowly, for tests")
            ->check([](const std::string& text) {
              const auto digits = text.starts_with("cuda:") ? std::string_view(text).substr(5) : "0";
              const bool number =
                  !digits.empty() && digits.size() < 4 &&
                  std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
              return text == "host" || text == "simt" || text == "cuda" ||
                             (text.starts_with("cuda:") && number)
                         ? std::string()
                         : "\"" + text + "\" is none of host, cuda, cuda:N, simt";
            })
            ->capture_default_str();
    app->add_option("--device-memory", most, "GB of the device to be used at most; 0: what is free")
        ->needs(place)
        ->check(not_negative)
        ->capture_default_str();
  }
  bool on_host() const { return where == "host"; }
  /// Throws unroll::error where this program has no such device.
  std::unique_ptr<device_llama> open(bool half) const {
    if (where == "simt") return simt_llama(half);
#if defined(UNROLL_PROGRAM_HAS_CUDA)
    if (where != "cuda") return cuda_llama(std::atoi(where.c_str() + 5), half);
    return cuda_llama(int(unroll::own_device("--device cuda", cuda_devices(), rank_here(), processes_here(),
                                             std::getenv("CUDA_VISIBLE_DEVICES") != nullptr)),
                      half);
#else
    unroll::fail(
        "--device", where,
        "needs a program that was built with CUDA, and this one was not: cmake -DUNROLL_CUDA=ON, where nvcc "
        "is installed, builds one (docs/cuda.md)");
#endif
  }
  /// Bytes that may be used of it.
  double bytes(const device_llama& device) const {
    return most > 0 ? std::min(most * 1e9, device.free_bytes()) : device.free_bytes();
  }
};

/// The model lies on a device, and is called through device_model.hpp.
struct on_device {
  using numbers = unroll::numbers<float>;
};

/// f(std::type_identity<E>) with an executor of the sizes that a device has in these numbers.
template <class F>
decltype(auto) with_device_sizes(bool half, F&& f) {
  using namespace unroll::testing;
#if defined(UNROLL_PROGRAM_HAS_CUDNN)  // whose workspace stands in that of attention
  using of_half =
      unroll::exec::sdpa_executor<simt::executor<unroll::numbers<unroll::bf16>>, unroll::cuda::cudnn>;
#else
  using of_half = simt::executor<unroll::numbers<unroll::bf16>>;
#endif
  return half ? f(std::type_identity<of_half>{})
              : f(std::type_identity<simt::executor<unroll::numbers<float>>>{});
}

/// Bytes that a device holds for a trained parameter: theta, with a cast of it where products take another
/// kind; gradients; moments of AdamW.
struct bytes_a_parameter {
  double theta = 4, gradients = 4, moments = 0;
  double all() const { return theta + gradients + moments; }
};
/// Of a gradient; of a training run, whose step has a sum and `documents` gradients of documents.
inline bytes_a_parameter bytes_of_gradient(bool half) { return {half ? 6.0 : 4.0, 4, 0}; }
inline bytes_a_parameter bytes_of_training(bool half, index_t documents = 1) {
  return {half ? 6.0 : 4.0, 4.0 * double(1 + documents), 8};
}
/// A plan of what lies on a device, with the parameters item by item.
struct device_plan : unroll::memory_plan {
  double theta_bytes = 0, gradient_bytes = 0, moment_bytes = 0;

  device_plan() = default;
  device_plan(const unroll::memory_plan& p, double parameters, const bytes_a_parameter& each)
      : memory_plan(p),
        theta_bytes(parameters * each.theta),
        gradient_bytes(parameters * each.gradients),
        moment_bytes(parameters * each.moments) {
    parameter_bytes = parameters * each.all();
  }
};
/// Bytes of memory of this machine.
inline double host_memory() { return double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGESIZE)); }

/// Throws unroll::error, in front of the work, where the items of a plan do not fit: with the first that does
/// not.
inline void check_fits(const std::string& device, double free, const device_plan& p) {
  const bool kept = p.host_bytes > 0;  // memories and adjoints are the host's
  if (const double most = host_memory(); p.host_bytes > most)
    unroll::fail("--memories-on-host", device,
                 text_of("needs %.4g GB of the host for memories and their adjoints, it has %.4g GB",
                         p.host_bytes / 1e9, most / 1e9));
  const std::pair<const char*, double> items[] = {
      {"the weights", p.weight_bytes},         {"trained parameters", p.theta_bytes},
      {"their gradients", p.gradient_bytes},   {"moments of the optimiser", p.moment_bytes},
      {"memories", kept ? 0 : p.memory_bytes}, {"adjoints of memories", kept ? 0 : p.adjoint_bytes},
      {"graphs of encoders", p.graph_bytes},   {"the graph of the decoder", p.decoder_graph_bytes},
      {"workspace", p.workspace_bytes}};
  double before = 0;
  for (const auto& [item, bytes] : items) {
    if (before + bytes > free)
      unroll::fail(
          "--device", device,
          text_of("has %.4g GB to use, %.4g GB are planned: %s of %.4g GB, behind %.4g GB, do not fit",
                  free / 1e9, p.place_bytes() / 1e9, item, bytes / 1e9, before / 1e9));
    before += bytes;
  }
}

/// What the plan says of the gradient of a text of so many tokens on a device.
inline device_plan plan_on_device(bool half, const unroll::llama::config& c,
                                  const unroll::llama::memory_options& o, index_t tokens,
                                  const unroll::policy& p, const bytes_a_parameter& each) {
  return with_device_sizes(half, [&]<class E>(std::type_identity<E>) {
    using costs_type = unroll::llama::memory_costs<E>;
    const costs_type costs(c, o);
    return device_plan(plan(costs, tokens, p, unroll::number_bytes_of<costs_type>()),
                       double(costs.size().params), each);
  });
}
inline device_plan plan_on_device(bool half, const unroll::llama::config& c,
                                  const unroll::llama::memory_options& o, index_t tokens,
                                  const unroll::policy& p) {
  return plan_on_device(half, c, o, tokens, p, bytes_of_gradient(half));
}
/// The same of a memory_reader of texts of so many segments, which has room for the model's vjps, too.
inline device_plan device_reading(bool half, const unroll::llama::config& c,
                                  const unroll::llama::memory_options& o, index_t segments) {
  return with_device_sizes(half, [&]<class E>(std::type_identity<E>) {
    const unroll::llama::memory_costs<E> costs(c, o);
    const auto bytes = unroll::number_bytes_of<unroll::llama::memory_costs<E>>();
    const index_t earlier = std::max<index_t>(1, segments) - 1;
    unroll::memory_plan p;
    p.weight_bytes = double(costs.weights()) * bytes.weights;
    p.memory_bytes = double(earlier) * double(costs.size().memory) * bytes.memory;
    p.workspace_bytes = double(costs.workspace(earlier)) * bytes.workspace;
    if (o.memories_on_host) {
      p.host_bytes = p.memory_bytes;
      p.workspace_bytes += double(costs.size().memory) * bytes.memory;
    }
    return device_plan(p, double(costs.size().params), {bytes_of_gradient(half).theta, 0, 0});
  });
}
/// The same of a training run whose step has `documents` gradients of documents, and of the reader beside it,
/// of held-out texts.
inline device_plan device_training(bool half, const unroll::llama::config& c,
                                   const unroll::llama::memory_options& o, index_t segments,
                                   const unroll::policy& policy, index_t documents) {
  device_plan p =
      plan_on_device(half, c, o, segments * o.segment, policy, bytes_of_training(half, documents));
  const device_plan held_out = device_reading(half, c, o, segments);
  p.workspace_bytes += held_out.memory_bytes - held_out.host_bytes + held_out.workspace_bytes;
  if (o.memories_on_host) {
    p.memory_bytes += held_out.memory_bytes;
    p.host_bytes += held_out.host_bytes;
  }
  return p;
}

/// The same of a session, whose cache has all positions.
inline device_plan device_session(bool half, const unroll::llama::config& c,
                                  unroll::llama::memory_options o) {
  o.memories_on_host = false;  // they are a cache, which is at the place
  device_plan p = plan_on_device(half, c, o, std::max<index_t>(1, o.segments(c)) * o.segment, {},
                                 {bytes_of_gradient(half).theta, 0, 0});
  p.adjoint_bytes = p.graph_bytes = p.decoder_graph_bytes = 0;
  p.memory_bytes = 2.0 * double(c.layers) * double(c.kv_width()) * double(c.positions()) * (half ? 2 : 4);
  return p;
}

/// What training all weights takes on a device.
inline device_plan device_pretraining(const unroll::llama::config& c,
                                      const unroll::llama::language_model_options& o) {
  return with_device_sizes(false, [&]<class E>(std::type_identity<E>) {
    const unroll::llama::transformer_sizes<E> stack(c);
    const index_t sequences = (o.sequences + o.shares - 1) / o.shares, tokens = sequences * o.length;
    unroll::llama::pass_size pass;
    pass.sequences = sequences;
    pass.length = o.length;
    pass.layers = c.layers;
    unroll::memory_plan p;
    p.decoder_graph_bytes = 4.0 * double(stack.tape_size(pass) + c.hidden * tokens);
    p.workspace_bytes = 4.0 * double(std::max(stack.workspace_size(pass, true),
                                              unroll::llama::lm_head<E>::workspace_size(c, tokens)));
    return device_plan(p, double(unroll::llama::weight_map(c).size()),
                       {4, 4.0 * double(o.shares), 8});  // a gradient each
  });
}

/// Theta and a gradient of the host as a memory model on a device uses them; there when they are first asked
/// for.
class brought_numbers {
 public:
  explicit brought_numbers(device_place e) : e_(std::move(e)) {}

  /// theta, brought there, where it stays until another one is.
  unroll::params<const float> theta(unroll::params<const float> host) {
    if (theta_.size() != host.size()) {
      cast_.reset();
      theta_ = e_.allocate<float, unroll::param_space>(host.size());
      cast_ = e_.keep_cast({theta_.data(), host.size()});
    }
    e_.upload(host.data(), host.size(), theta_.data());
    return {theta_.data(), host.size()};
  }
  /// A gradient of n numbers to add to, zeroed.
  unroll::dparams<float> zeroed(index_t n) {
    if (gradient_.size() != n) gradient_ = e_.allocate<float, unroll::param_cotangent_space>(n);
    e_.fill(unroll::matrix<float>(gradient_.data(), n, 1), 0);
    return gradient_;
  }
  void wait() const { e_.synchronise(); }  ///< until all that was called has happened
  /// ADDS it to numbers of the host, piece by piece.
  void add_to(unroll::dparams<float> host) const {
    const index_t most = std::min(index_t{1} << 20, host.size());
    std::vector<float> piece(static_cast<std::size_t>(most));
    for (index_t i = 0; i < host.size(); i += most) {
      const index_t n = std::min(most, host.size() - i);
      e_.download(gradient_.data() + i, n, piece.data());
      e_.synchronise();
      for (index_t k = 0; k < n; ++k) host[i + k] += piece[std::size_t(k)];
    }
  }

 private:
  device_place e_;
  device_place::block<float, unroll::param_space> theta_;
  device_place::block<float, unroll::param_cotangent_space> gradient_;
  std::shared_ptr<void> cast_;
};

/// A memory model on a device: what the commands ask of llama::memory_llama.
class memory_on_device {
 public:
  using scalar = float;
  using input = unroll::llama::segment;

  memory_on_device(std::shared_ptr<device_llama> llama, const unroll::llama::config& c,
                   const unroll::llama::memory_options& o, bool half)
      : llama_(std::move(llama)),
        half_(half),
        calls_(llama_->memory(o)),
        brought_(std::make_shared<brought_numbers>(executor())),
        sizes_(c, o) {}

  const unroll::llama::config& shape() const { return sizes_.shape(); }
  const unroll::llama::memory_options& options() const { return sizes_.options(); }
  index_t memory_tokens() const { return sizes_.memory_tokens(); }
  index_t segments() const { return sizes_.segments(); }
  bool independent() const { return !options().recurrent; }
  const unroll::layout& names() const { return sizes_.trainable().names(); }
  unroll::memory_dims size() const { return {names().size(), sizes_.memory(), sizes_.tape()}; }
  device_memory_model& calls() const { return *calls_; }
  device_place executor() const { return device_place(llama_->numbers()); }  ///< where theta is trained
  /// Of theta and gradients that are the host's.
  brought_numbers& brought() const { return *brought_; }
  device_llama& llama() const { return *llama_; }
  bool half() const { return half_; }

  /// The hash of the weights, which come to the host matrix by matrix.
  std::uint64_t weight_hash(unroll::llama::precision p) const {
    std::vector<float> numbers;
    return unroll::llama::weight_hash_by<float>(
        shape(),
        [&](const unroll::layout_block& b) {
          numbers.resize(std::size_t(b.size()));
          llama_->fetch(b.offset, b.size(), numbers.data());
          return static_cast<const float*>(numbers.data());
        },
        p);
  }

 private:
  std::shared_ptr<device_llama> llama_;
  bool half_;
  std::shared_ptr<device_memory_model> calls_;
  std::shared_ptr<brought_numbers> brought_;
  unroll::llama::memory_sizes<unroll::testing::simt::executor<unroll::numbers<float>>> sizes_;
};

/// One policy on a device as an estimator, whose theta and g lie there, or are the host's and brought there;
/// whole sequences only.
template <bool Random, unroll::place Where>
class device_estimator {
 public:
  using scalar = float;
  using input = unroll::llama::segment;
  using system_type = memory_on_device;
  static constexpr unroll::estimand estimated_gradient = unroll::estimand::frozen_theta;
  static constexpr bool random = Random, unbiased = false;
  static constexpr std::array<const char*, 0> references{};

  device_estimator(const memory_on_device& model, const unroll::policy& p, index_t segments,
                   bool capture = false)
      : model_(&model), gradient_(model.calls().gradient(p, segments, capture)) {}
  void reset(unroll::key k) { key_ = k; }
  void reset(unroll::key, unroll::state<const float>) {
    unroll::fail("device_estimator", "s0", "is of no memory model");
  }
  unroll::report advance(unroll::params<const float> theta, std::span<const input> xs,
                         unroll::dparams<float> g) {
    if constexpr (Where == unroll::place::device) {
      return gradient_->add(key_, theta, xs, g);
    } else {
      const auto at = model_->brought().theta(theta);
      const auto report = gradient_->add(key_, at, xs, model_->brought().zeroed(g.size()));
      model_->brought().add_to(g);
      return report;
    }
  }
  unroll::report finish(unroll::params<const float>, unroll::dparams<float>) { return {}; }
  const memory_on_device& system() const { return *model_; }
  unroll::replay_counts counts() const { return gradient_->counts(); }

 private:
  const memory_on_device* model_;
  std::shared_ptr<device_gradient> gradient_;
  unroll::key key_;
};
/// Whether a policy is random.
inline bool draws(const unroll::policy& p) {
  using kind = unroll::policy::kind;
  return p.name == kind::reservoir || p.name == kind::proportional || p.name == kind::roulette;
}
/// f(an estimator of the policy). capture: see device_memory_model.
template <unroll::place Where = unroll::place::host, class F>
decltype(auto) with_device_policy(const unroll::policy& p, const memory_on_device& model, index_t segments,
                                  F&& f, bool capture = false) {
  if (draws(p)) return f(device_estimator<true, Where>(model, p, segments, capture));
  return f(device_estimator<false, Where>(model, p, segments, capture));
}

/// Mean nll a token on stretches cut into segments, as training::mean_nll; theta lies on the device.
template <class More>
double mean_nll(const memory_on_device& model, unroll::params<const float> theta,
                std::span<const std::span<const token>> texts, index_t length, More&& more,
                const unroll::ranks& among) {
  std::vector<double> sums(texts.size()), tokens(sums);
  const index_t all = index_t(texts.size());
  for (index_t i = among.begin(all); i < among.end(all); ++i) {
    const auto text = unroll::llama::segments_of(texts[std::size_t(i)], length);
    const auto losses = model.calls().losses(theta, text, more);
    for (const double loss : losses) sums[std::size_t(i)] += loss;
    tokens[std::size_t(i)] = double(unroll::llama::scored(std::span(text).first(losses.size())));
  }
  return unroll::training::mean_of_dealt(std::move(sums), std::move(tokens), among);
}

/// As llama::reproduce.
inline void reproduce(device_text& session, std::span<const token> text, token begin, std::span<token> out,
                      index_t pieces) {
  session.reset();
  session.remember(text);
  token next = begin;
  for (token& t : out) {
    session.append(next);
    const auto logits = session.logits();
    t = next = unroll::llama::most_probable(pieces > 0 ? logits.part(0, pieces) : logits);
  }
}

}  // namespace program
