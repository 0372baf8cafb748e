#pragma once

// A memory model whose losses at one theta on one text are known: what is the same in every draw is done
// once.

#include "memory_setup.hpp"

namespace program {

/// Copies share the record. Memories do not depend on earlier ones; graphs and what is sent back through them
/// are the model's own. Gradients agree with the model's up to the rounding of sums.
template <class T>
class recorded_model {
 public:
  using scalar = T;
  using input = segment;

  recorded_model(const memory_llama<T>& model, unroll::params<const T> theta,
                 const std::vector<segment>& text)
      : model_(&model), record_(std::make_shared<record>()) {
    using namespace unroll;
    const index_t n = index_t(text.size()), size = model.size().memory;
    record_->memories = buffer<T>((n - 1) * size);
    buffer<T> work(model.workspace(n - 1));
    std::vector<const T*> past;
    for (index_t t = 0; t < n && !interrupted; ++t) {
      record_->adjoints.emplace_back(t * size);
      std::vector<T*> dpast;
      for (index_t s = 0; s < t; ++s) dpast.push_back(record_->adjoints.back().data() + s * size);
      record_->losses.push_back(model.read_vjp(text[std::size_t(t)], t, theta, past, dpast, {}, work));
      if (t + 1 == n) break;
      model.write(text[std::size_t(t)], t, theta, {}, memory(t), {}, work);
      past.push_back(memory(t).data());
    }
  }
  /// Numbers that the record of a text takes.
  static double numbers(const memory_llama<T>& model, index_t segments) {
    return double(model.size().memory) * double(segments) * double(segments + 1) / 2;
  }

  unroll::memory_dims size() const { return model_->size(); }
  bool independent() const { return true; }
  bool reads_params() const { return false; }
  index_t scored(const segment& x) const { return x.scored(); }
  index_t workspace(index_t earlier, index_t batch) const { return model_->workspace(earlier, batch); }

  void write(std::span<const segment> xs, index_t s, unroll::params<const T> theta, std::span<const T* const>,
             unroll::view<T> m, unroll::view<T> tape, unroll::view<T> work) const {
    if (tape.empty())
      std::copy_n(memory(s).data(), m.size(), m.data());
    else
      model_->write(xs, s, theta, {}, m, tape, work);
  }
  void write_vjp(std::span<const segment> xs, index_t s, unroll::params<const T> theta,
                 std::span<const T* const>, unroll::view<const T> tape, unroll::view<const T> dm,
                 std::span<T* const>, unroll::dparams<T> dtheta, unroll::view<T> work) const {
    model_->write_vjp(xs, s, theta, {}, tape, dm, {}, dtheta, work);
  }
  void read(std::span<const segment> xs, index_t t, unroll::params<const T>, std::span<const T* const>,
            T* losses, unroll::view<T>) const {
    std::copy_n(record_->losses.begin() + t, xs.size(), losses);
  }
  void read_vjp(std::span<const segment> xs, index_t t, unroll::params<const T> theta,
                std::span<const T* const> past, std::span<T* const> dpast, T* losses, unroll::dparams<T>,
                unroll::view<T> work) const {
    const index_t size = model_->size().memory;
    for (index_t u = t; u < t + index_t(xs.size()); ++u) {
      const T* adjoint = record_->adjoints[std::size_t(u)].data();
      for (index_t s = 0; s < u; ++s)
        if (T* to = dpast[std::size_t(s)]) unroll::linalg::axpy(T(1), adjoint + s * size, to, size);
    }
    read(xs, t, theta, past, losses, work);
  }

 private:
  struct record {
    std::vector<T> losses;
    unroll::buffer<T> memories;
    std::vector<unroll::buffer<T>> adjoints;  // of J_t: those of m_0 .. m_{t-1}, one after another
  };
  unroll::view<T> memory(index_t s) const {
    const index_t size = model_->size().memory;
    return {record_->memories.data() + s * size, size};
  }

  const memory_llama<T>* model_;
  std::shared_ptr<record> record_;
};

}  // namespace program
