#pragma once

// A Llama on a device, and a memory model over it, as host code calls them: tokens and losses are the host's,
// theta and gradients lie on the device where it says so. Programs are compiled for the host; what runs on a
// device is device_model_on.hpp, compiled once for each kind of device, by its compiler.

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <unroll/estimate/policy.hpp>
#include <unroll/exec/executor.hpp>
#include <unroll/llama/score.hpp>
#include <unroll/memory/memory_llama/options.hpp>
#include <unroll/memory/replay_counts.hpp>
#include <vector>

namespace program {

using unroll::index_t;
using unroll::llama::token;

/// Asked with what is done whether to go on.
using go_on = std::function<bool(index_t)>;

/// Floats that lie on a device, and what a training run does with them there: the operations of
/// exec/executor.hpp of the same names. Pointers are those of the device unless they are called host.
class device_numbers {
 public:
  virtual ~device_numbers() = default;
  virtual std::shared_ptr<float> allocate(index_t n) const = 0;  ///< n zeros
  virtual void upload(const float* host, index_t n, float* here) const = 0;
  virtual void download(const float* here, index_t n, float* host) const = 0;
  virtual void synchronise() const = 0;
  virtual void fill(float* x, index_t n, double value) const = 0;
  virtual void axpy(double alpha, const float* x, float* y, index_t n) const = 0;
  virtual void scale(double alpha, float* x, index_t n) const = 0;
  virtual void clamp(double most, float* x, index_t n) const = 0;
  virtual void clip(double most, float* g, index_t n, float* norm) const = 0;
  virtual void all_finite(const float* x, index_t n, int power, float* out) const = 0;
  virtual void adamw(const unroll::exec::adamw_step& how, const unroll::exec::optimised<float>& on, float* m,
                     float* v) const = 0;
  /// They are theta while what it returns lives: their adapters are cast once whenever they have changed.
  virtual std::shared_ptr<void> keep_cast(unroll::params<const float> theta) const = 0;
};

/// A device as training::run and training::document_gradients see it: an executor of these operations alone.
class device_place {
 public:
  using numbers = unroll::numbers<float>;
  static constexpr unroll::place where = unroll::place::device;
  /// Owns n floats of the device.
  template <std::same_as<float> U, class Space = unroll::plain_space>
  class block {
   public:
    using unroll_space = Space;
    block() = default;
    block(std::shared_ptr<float> data, index_t n) : data_(std::move(data)), size_(n) {}
    block(const block&) = delete;
    block& operator=(const block&) = delete;
    block(block&&) noexcept = default;
    block& operator=(block&&) noexcept = default;
    ~block() = default;

    float* data() { return data_.get(); }
    const float* data() const { return data_.get(); }
    index_t size() const { return size_; }
    operator unroll::view<float, Space>() { return {data(), size_}; }
    operator unroll::view<const float, Space>() const { return {data(), size_}; }

   private:
    std::shared_ptr<float> data_;
    index_t size_ = 0;
  };

  explicit device_place(std::shared_ptr<device_numbers> of) : of_(std::move(of)) {}

  template <class U, class Space = unroll::plain_space>
  block<U, Space> allocate(index_t n) const {
    return {of_->allocate(n), n};
  }
  void upload(const float* host, index_t n, float* here) const { of_->upload(host, n, here); }
  void download(const float* here, index_t n, float* host) const { of_->download(here, n, host); }
  void synchronise() const { of_->synchronise(); }
  /// x without spaces between its columns.
  void fill(unroll::matrix<float> x, double value) const { of_->fill(x.data, x.rows * x.cols, value); }
  void axpy(double alpha, const float* x, float* y, index_t n) const { of_->axpy(alpha, x, y, n); }
  void scale(double alpha, float* x, index_t n) const { of_->scale(alpha, x, n); }
  void clamp(double most, float* x, index_t n) const { of_->clamp(most, x, n); }
  void clip(double most, float* g, index_t n, float* norm) const { of_->clip(most, g, n, norm); }
  void all_finite(const float* x, index_t n, int power, float* out) const {
    of_->all_finite(x, n, power, out);
  }
  void adamw(const unroll::exec::adamw_step& how, const unroll::exec::optimised<float>& on, float* m,
             float* v) const {
    of_->adamw(how, on, m, v);
  }
  std::shared_ptr<void> keep_cast(unroll::params<const float> theta) const { return of_->keep_cast(theta); }

 private:
  std::shared_ptr<device_numbers> of_;
};

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
  /// ADDS that of the summed losses to g; theta and g lie on the device.
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
  /// theta lies on the device.
  virtual std::vector<double> losses(unroll::params<const float> theta,
                                     std::span<const unroll::llama::segment> text, const go_on& more) = 0;
  /// theta: of the host. `batch`: segments that are encoded together.
  virtual std::unique_ptr<device_text> text(unroll::params<const float> theta, index_t batch) = 0;
};

/// All weights of a Llama, as floats on the device, on batches of sequences; g lies there, too.
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
  virtual std::string name() const = 0;                         ///< of the device
  virtual std::shared_ptr<device_numbers> numbers() const = 0;  ///< its memory, for theta and gradients
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
