#pragma once

// A Llama on a device, and a memory model over it, as host code calls them: theta, gradients, tokens and
// losses are the host's. Programs are compiled for the host; what runs on a device is device_model_on.hpp,
// compiled once for each kind of device, by its compiler.

#include <functional>
#include <memory>
#include <string>
#include <unroll/estimate/policy.hpp>
#include <unroll/llama/score.hpp>
#include <unroll/memory/memory_llama/options.hpp>
#include <unroll/memory/replay_counts.hpp>
#include <vector>

namespace program {

using unroll::index_t;
using unroll::llama::token;

/// Asked with what is done whether to go on.
using go_on = std::function<bool(index_t)>;

/// How the plain Llama reads a text whose segments are scored.
struct plain_reading {
  index_t length = 1;    ///< tokens of a segment
  index_t segments = 1;  ///< of the text
  index_t memories = 0;  ///< memory tokens of a segment
  index_t sinks = 4;     ///< first tokens that stay
  index_t chunk = 16;    ///< tokens that a streaming cache takes at once
};

/// A text in the making: what llama::generate asks of a generator, and what llama::reproduce asks of a
/// memory_session.
class device_text {
 public:
  virtual ~device_text() = default;
  virtual void append(std::span<const token> ids) = 0;
  void append(token id) { append(std::span(&id, 1)); }
  virtual unroll::view<const float> logits() const = 0;  ///< of the token behind the last, on the host
  virtual bool room(index_t n = 1) const = 0;
  virtual index_t consumed() const = 0;
  virtual void reset() = 0;
  virtual void remember(std::span<const token> segment) = 0;  ///< a whole segment, of memory models alone
  virtual index_t memories() const = 0;
  virtual std::size_t bytes() const = 0;
};

/// Gradients of texts by one policy.
class device_gradient {
 public:
  virtual ~device_gradient() = default;
  /// ADDS that of the summed losses to g.
  virtual unroll::report add(unroll::key k, unroll::params<const float> theta,
                             std::span<const unroll::llama::segment> text, unroll::dparams<float> g) = 0;
  virtual unroll::replay_counts counts() const = 0;
};

/// A memory model over the Llama of a device. Outlives what it gives out.
class device_memory_model {
 public:
  virtual ~device_memory_model() = default;
  /// `capture`: its calls are recorded, and made as graphs where the device has such.
  virtual std::unique_ptr<device_gradient> gradient(const unroll::policy& p, index_t segments,
                                                    bool capture = false) = 0;
  virtual std::vector<double> losses(unroll::params<const float> theta,
                                     std::span<const unroll::llama::segment> text, const go_on& more) = 0;
  /// `batch`: segments that are encoded together.
  virtual std::unique_ptr<device_text> text(unroll::params<const float> theta, index_t batch) = 0;
};

/// All weights of a Llama, as numbers float of the host, on batches of sequences.
class device_network {
 public:
  virtual ~device_network() = default;
  virtual double gradient(unroll::params<const float> w, std::span<const token> ids,
                          std::span<const token> targets, unroll::dparams<float> g) = 0;  ///< ADDS to g
  virtual double mean_nll(unroll::params<const float> w, std::span<const std::span<const token>> texts) = 0;
};

/// A Llama on a device: begin(), then its weights by put() or draw(). Outlives what it gives out.
class device_llama {
 public:
  virtual ~device_llama() = default;
  virtual std::string name() const = 0;  ///< of the device
  virtual double free_bytes() const = 0;
  virtual void begin(const unroll::llama::config& c) = 0;  ///< makes room for the weights
  /// The weights from `first` on; of the other kind they are cast.
  virtual void put(index_t first, unroll::params<const float> w) = 0;
  virtual void put(index_t first, unroll::params<const unroll::bf16> w) = 0;
  virtual void draw(unroll::key k) = 0;  ///< as llama::init_weights
  /// n weights from `first` on, brought to the host; exact, whatever they are held in.
  virtual void fetch(index_t first, index_t n, float* to) const = 0;
  virtual unroll::llama::text_score<float> score(std::span<const token> ids,
                                                 const unroll::llama::score_options& o,
                                                 const go_on& more) = 0;
  /// WRITES the gradient of all weights to g.
  virtual unroll::llama::text_mean score_gradient(std::span<const token> ids, unroll::dparams<float> g,
                                                  const unroll::llama::score_options& o,
                                                  const go_on& more) = 0;
  /// The summed nll of each segment by `method`: window, alone, sinks or full.
  virtual std::vector<double> plain_losses(const std::string& method, std::span<const token> ids,
                                           const plain_reading& how, const go_on& more) = 0;
  virtual std::unique_ptr<device_text> text() = 0;
  virtual std::unique_ptr<device_memory_model> memory(const unroll::llama::memory_options& o) = 0;
  /// Of its shape; its own weights are not used.
  virtual std::unique_ptr<device_network> network(const unroll::llama::config& c,
                                                  const unroll::llama::language_model_options& o) = 0;
};

/// The kernels of a device, run by the host. `half`: weights, activations and memories in bfloat16, else all
/// in float.
std::unique_ptr<device_llama> simt_llama(bool half);
/// CUDA device `index`.
std::unique_ptr<device_llama> cuda_llama(int index, bool half);
/// CUDA devices that this process sees.
int cuda_devices();

}  // namespace program
