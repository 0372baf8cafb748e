#pragma once

// The calls of device_model.hpp on an executor: compiled where that is compiled, by nvcc for a CUDA device.

#include <optional>
#include <unroll/estimate/captured.hpp>
#include <unroll/exec/kept_cast.hpp>
#include <unroll/memory/memory_llama/session.hpp>
#include <unroll/memory/reader.hpp>
#include <unroll/train/held_out.hpp>

#include "plain_losses.hpp"

namespace program {

/// Floats at the place of an executor.
template <class E>
class numbers_on final : public device_numbers {
 public:
  explicit numbers_on(const E& e) : e_(e) {}
  std::shared_ptr<float> allocate(index_t n) const override {
    auto owner = std::make_shared<typename E::template block<float>>(e_.template allocate<float>(n));
    return {owner, owner->data()};
  }
  void upload(const float* host, index_t n, float* here) const override { e_.upload(host, n, here); }
  void download(const float* here, index_t n, float* host) const override { e_.download(here, n, host); }
  void synchronise() const override { e_.synchronise(); }
  void fill(float* x, index_t n, double value) const override {
    e_.fill(unroll::matrix<float>(x, n, 1), value);
  }
  void axpy(double alpha, const float* x, float* y, index_t n) const override { e_.axpy(alpha, x, y, n); }
  void scale(double alpha, float* x, index_t n) const override { e_.scale(alpha, x, n); }
  void clamp(double most, float* x, index_t n) const override { e_.clamp(most, x, n); }
  void clip(double most, float* g, index_t n, float* norm) const override { e_.clip(most, g, n, norm); }
  void all_finite(const float* x, index_t n, int power, float* out) const override {
    e_.all_finite(x, n, power, out);
  }
  void adamw(const unroll::exec::adamw_step& how, const unroll::exec::optimised<float>& on, float* m,
             float* v) const override {
    e_.adamw(how, on, m, v);
  }
  std::shared_ptr<void> keep_cast(unroll::params<const float> theta) const override {
    return std::make_shared<unroll::exec::kept_cast<E>>(e_, theta);
  }

 private:
  E e_;
};

/// Theta of the host at the place of an executor; its adapters are cast once.
template <class E>
class placed_theta {
 public:
  placed_theta(const E& e, unroll::params<const float> host)
      : here_(e.template allocate<float, unroll::param_space>(host.size())), cast_(e, view()) {
    e.upload(host.data(), host.size(), here_.data());
  }
  unroll::params<const float> view() const { return {here_.data(), here_.size()}; }

 private:
  typename E::template block<float, unroll::param_space> here_;
  unroll::exec::kept_cast<E> cast_;
};

template <class E, class Text>
class text_on final : public device_text {
 public:
  template <class... Rest>
  explicit text_on(std::unique_ptr<placed_theta<E>> theta, Rest&&... rest)
      : theta_(std::move(theta)), text_(std::forward<Rest>(rest)...) {}
  using device_text::append;
  void append(std::span<const token> ids) override { text_.append(ids); }
  unroll::view<const float> logits() const override { return text_.logits(); }
  bool room(index_t n) const override { return text_.room(n); }
  index_t consumed() const override { return text_.consumed(); }
  void reset() override { text_.reset(); }
  void remember(std::span<const token> segment) override {
    if constexpr (requires { text_.remember(segment); })
      text_.remember(segment);
    else
      unroll::fail("program::text_on", "remember", "is of memory models alone");
  }
  index_t memories() const override {
    if constexpr (requires { text_.memories(); })
      return text_.memories();
    else
      return 0;
  }
  std::size_t bytes() const override { return text_.bytes(); }

 private:
  std::unique_ptr<placed_theta<E>> theta_;  // what a session looks at
  Text text_;
};

template <class Estimator>
class gradient_on final : public device_gradient {
 public:
  explicit gradient_on(Estimator estimator) : estimator_(std::move(estimator)) {}
  unroll::report add(unroll::key k, unroll::params<const float> theta,
                     std::span<const unroll::llama::segment> text, unroll::dparams<float> g) override {
    estimator_.reset(k);
    unroll::report r = estimator_.advance(theta, text, g);
    if (r.code == unroll::status::ok) r += estimator_.finish(theta, g);
    return r;
  }
  unroll::replay_counts counts() const override { return estimator_.counts(); }

 private:
  Estimator estimator_;
};

template <class E>
class memory_on final : public device_memory_model {
 public:
  explicit memory_on(unroll::llama::memory_llama<E> model) : model_(std::move(model)) {}
  std::unique_ptr<device_gradient> gradient(const unroll::policy& p, index_t segments,
                                            bool capture) override {
    std::unique_ptr<device_gradient> out;
    const auto make = [&](auto estimator) {
      out = std::make_unique<gradient_on<decltype(estimator)>>(std::move(estimator));
    };
    unroll::with_policy(p, model_, segments, unroll::philox_chooser{}, [&](auto estimator) {
      if (!capture)
        make(std::move(estimator));
      else if constexpr (requires { estimator.put_off_looks(); })
        make(unroll::captured(std::move(estimator)));
      else
        unroll::fail("memory_llama", "--capture",
                     "is of policies whose operations are the same in every text: rematerialise, keep_all, "
                     "keep and window; --policy is \"" +
                         to_string(p) + "\"");
    });
    return out;
  }
  std::vector<double> losses(unroll::params<const float> theta, std::span<const unroll::llama::segment> text,
                             const go_on& more) override {
    if (index_t(text.size()) > room_) {
      room_ = index_t(text.size());
      reader_.reset();
      reader_.emplace(model_, room_);
    }
    return reader_->losses(theta, text, more);
  }
  std::unique_ptr<device_text> text(unroll::params<const float> theta, index_t batch) override {
    auto own = std::make_unique<placed_theta<E>>(model_.executor(), theta);
    const auto at = own->view();
    return std::make_unique<text_on<E, unroll::llama::memory_session<E>>>(std::move(own), model_, at, batch);
  }

 private:
  unroll::llama::memory_llama<E> model_;
  std::optional<unroll::memory_reader<unroll::llama::memory_llama<E>>> reader_;
  index_t room_ = 0;
};

template <class E>
class network_on final : public device_network {
  using W = typename E::numbers::weight;

 public:
  network_on(const E& e, const unroll::llama::config& c, const unroll::llama::language_model_options& o)
      : e_(e), model_(c, o, e) {
    if constexpr (!std::same_as<W, float>)
      cast_ = e.template allocate<W, unroll::param_space>(model_.stack().map().size());
  }
  double gradient(unroll::params<const float> w, std::span<const token> ids, std::span<const token> targets,
                  unroll::dparams<float> g) override {
    return double(model_.gradient(weights(w), ids, targets, g));
  }
  double mean_nll(unroll::params<const float> w, std::span<const std::span<const token>> texts) override {
    return unroll::training::mean_nll(model_, weights(w), texts);
  }

 private:
  unroll::params<const W> weights(unroll::params<const float> w) {
    if constexpr (std::same_as<W, float>) {
      return w;
    } else {
      e_.copy(unroll::matrix<const float>(w.data(), w.size(), 1),
              unroll::matrix<W>(cast_.data(), cast_.size(), 1));
      return {cast_.data(), cast_.size()};
    }
  }

  E e_;
  unroll::llama::language_model<E> model_;
  typename E::template block<W, unroll::param_space> cast_;
};

/// Device: what the executor does not know: its name and what is free of its memory.
template <class E, class Device>
class llama_on final : public device_llama {
  using W = typename E::numbers::weight;
  using model_type = unroll::llama::memory_llama<E>;

 public:
  llama_on(E e, Device device) : e_(std::move(e)), device_(std::move(device)) {}

  std::string name() const override { return device_.name(); }
  std::shared_ptr<device_numbers> numbers() const override { return std::make_shared<numbers_on<E>>(e_); }
  double free_bytes() const override { return device_.free_bytes(); }
  void begin(const unroll::llama::config& c) override {
    stack_.emplace(c, e_);
    weights_ = std::make_shared<typename model_type::weights_type>(
        e_.template allocate<W, unroll::param_space>(stack_->map().size()));
  }
  void put(index_t first, unroll::params<const float> w) override { put_as(first, w); }
  void put(index_t first, unroll::params<const unroll::bf16> w) override { put_as(first, w); }
  void draw(unroll::key k) override {
    const auto& map = stack_->map();
    const double residual = 1 / std::sqrt(2.0 * double(map.shape().layers));
    std::int64_t n = 0;
    for (const unroll::layout_block& b : map.names().blocks()) {
      const std::int64_t step = n++;
      const unroll::matrix<W> to(weights_->data() + b.offset, b.size(), 1);
      if (b.cols == 1) {
        e_.fill(to, 1);
        continue;
      }
      const bool to_residual =
          b.name.find("o_proj") != std::string::npos || b.name.find("down_proj") != std::string::npos;
      auto drawn = e_.template allocate<float>(b.size());
      e_.normals(k, step, drawn.data(), b.size());
      e_.scale(0.02 * (to_residual ? residual : 1), drawn.data(), b.size());
      e_.copy(unroll::matrix<const float>(drawn.data(), b.size(), 1), to);
      e_.synchronise();
    }
  }
  void fetch(index_t first, index_t n, float* to) const override {
    if constexpr (std::same_as<W, float>) {
      e_.download(weights_->data() + first, n, to);
      e_.synchronise();
    } else {
      std::vector<W> piece(static_cast<std::size_t>(n));
      e_.download(weights_->data() + first, n, piece.data());
      e_.synchronise();
      for (index_t i = 0; i < n; ++i) to[i] = float(piece[std::size_t(i)]);
    }
  }
  unroll::llama::text_score<float> score(std::span<const token> ids, const unroll::llama::score_options& o,
                                         const go_on& more) override {
    return unroll::llama::score<E>(*stack_, weights(), ids, o, {}, more);
  }
  unroll::llama::text_mean score_gradient(std::span<const token> ids, unroll::dparams<float> g,
                                          const unroll::llama::score_options& o, const go_on& more) override {
    auto here = e_.template allocate<float, unroll::param_cotangent_space>(g.size());
    const auto mean = unroll::llama::score_gradient<E>(stack_->shape(), weights(), ids, here, o, more, e_);
    e_.download(here.data(), g.size(), g.data());
    e_.synchronise();
    return mean;
  }
  std::vector<double> plain_losses(const std::string& method, std::span<const token> ids,
                                   const plain_reading& how, const go_on& more) override {
    return program::plain_losses<E>(method, *stack_, weights(), ids, how, more);
  }
  std::unique_ptr<device_text> text() override {
    return std::make_unique<text_on<E, unroll::llama::generator<E>>>(nullptr, *stack_, weights());
  }
  std::unique_ptr<device_memory_model> memory(const unroll::llama::memory_options& o) override {
    return std::make_unique<memory_on<E>>(model_type(stack_->shape(), weights_, o, e_));
  }
  std::unique_ptr<device_network> network(const unroll::llama::config& c,
                                          const unroll::llama::language_model_options& o) override {
    return std::make_unique<network_on<E>>(e_, c, o);
  }

 private:
  unroll::params<const W> weights() const { return {weights_->data(), weights_->size()}; }
  template <class U>
  void put_as(index_t first, unroll::params<const U> w) {
    if constexpr (std::same_as<U, W>) {
      e_.upload(w.data(), w.size(), weights_->data() + first);
    } else {
      std::vector<W> cast;
      cast.reserve(std::size_t(w.size()));
      for (const U x : w) cast.push_back(W(float(x)));
      e_.upload(cast.data(), w.size(), weights_->data() + first);
    }
  }

  E e_;
  Device device_;
  std::optional<unroll::llama::transformer<E>> stack_;
  std::shared_ptr<typename model_type::weights_type> weights_;
};

}  // namespace program
