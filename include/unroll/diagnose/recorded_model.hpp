#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll {

/// A memory model with a record of its memories, losses and adjoints at one theta on one text. Many gradients
/// of that text can be drawn, and what is the same in every draw is computed once: write without a graph,
/// read and read_vjp answer from the record. Graphs and their vjps are still the model's own.
///
/// Writes must not read earlier memories, reads not the parameters. Gradients agree with the model's up to
/// the rounding of sums. On the host, with numbers of one kind. The record takes numbers(model, segments)
/// numbers, and copies share it. Throws unroll::error when asked for a segment that it lacks.
template <class Model>
class recorded_model final {
  static_assert(require_memory_model<Model>());

 public:
  using scalar = typename Model::scalar;
  using input = typename Model::input;
  using numbers_type = unroll::numbers<scalar>;  ///< the kinds of its numbers

  /// Reads the text once, forward and back. more(t) is asked before segment t whether to go on; a record that
  /// was ended early is of no use. The model must outlive this. Throws unroll::error on a model whose writes
  /// read earlier memories or whose reads have parameters.
  template <class More>
  recorded_model(const Model& model, params<const scalar> theta, std::span<const input> text, More&& more)
      : model_(&model), record_(std::make_shared<record>()) {
    if (!model.independent()) fail("recorded_model", "model", "writes that read earlier memories");
    if (reads_params_of(model)) fail("recorded_model", "model", "reads with parameters");
    const index_t n = index_t(text.size()), size = model.size().memory;
    check_at_least("recorded_model", "text", n, 1);
    record_->memories = buffer<scalar>((n - 1) * size);
    record_->losses.resize(text.size());
    buffer<scalar> workspace(model.workspace(n - 1, 1));
    std::vector<const scalar*> past;
    for (index_t t = 0; t < n && more(t); ++t) {
      const auto x = text.subspan(std::size_t(t), 1);
      record_->adjoints.emplace_back(t * size);
      std::vector<scalar*> dpast;
      for (index_t s = 0; s < t; ++s) dpast.push_back(record_->adjoints.back().data() + s * size);
      model.read_vjp(x, t, theta, past, &record_->losses[std::size_t(t)], {.dpast = dpast}, workspace);
      if (t + 1 == n) break;
      model.write(x, t, theta, {}, memory(t), {}, workspace);
      past.push_back(memory(t).data());
    }
  }
  recorded_model(const Model& model, params<const scalar> theta, std::span<const input> text)
      : recorded_model(model, theta, text, [](index_t) { return true; }) {}

  /// Numbers that the record of a text takes; a double, since it grows with the square of the segments.
  static double numbers(const Model& model, index_t segments) {
    return double(model.size().memory) * double(segments) * double(segments + 1) / 2;
  }

  memory_dims size() const { return model_->size(); }
  bool independent() const { return true; }
  bool reads_params() const { return false; }
  index_t scored(const input& x) const {
    if constexpr (requires { model_->scored(x); })
      return model_->scored(x);
    else
      return 1;
  }
  index_t workspace(index_t earlier, index_t batch) const { return model_->workspace(earlier, batch); }

  void write(std::span<const input> xs, index_t s, params<const scalar> theta, std::span<const scalar* const>,
             view<scalar> m, view<scalar> tape, view<scalar> workspace) const {
    if (!tape.empty()) return model_->write(xs, s, theta, {}, m, tape, workspace);
    // the last segment of a text writes nothing that is read
    check_inside("recorded_model::write", s, xs.size(),
                 std::min(record_->adjoints.size(), record_->losses.size() - 1));
    std::copy_n(memory(s).data(), m.size(), m.data());
  }
  void write_vjp(std::span<const input> xs, index_t s, params<const scalar> theta,
                 std::span<const scalar* const>, write_graphs<numbers_type> graphs,
                 memory_gradients<numbers_type> to, view<scalar> workspace) const {
    model_->write_vjp(xs, s, theta, {}, graphs, {.dtheta = to.dtheta}, workspace);
  }
  void read(std::span<const input> xs, index_t t, params<const scalar>, std::span<const scalar* const>,
            scalar* losses, view<scalar>) const {
    check_inside("recorded_model::read", t, xs.size(), record_->adjoints.size());
    std::copy_n(record_->losses.begin() + t, xs.size(), losses);
  }
  void read_vjp(std::span<const input> xs, index_t t, params<const scalar> theta,
                std::span<const scalar* const> past, scalar* losses, memory_gradients<numbers_type> to,
                view<scalar> workspace) const {
    check_inside("recorded_model::read_vjp", t, xs.size(), record_->adjoints.size());
    const index_t size = model_->size().memory;
    for (index_t u = t; u < t + index_t(xs.size()); ++u) {
      const scalar* adjoint = record_->adjoints[std::size_t(u)].data();
      for (index_t s = 0; s < u; ++s)
        if (scalar* dm = to.dpast[std::size_t(s)]) linalg::axpy(scalar(1), adjoint + s * size, dm, size);
    }
    read(xs, t, theta, past, losses, workspace);
  }

 private:
  struct record {
    std::vector<scalar> losses;
    buffer<scalar> memories;
    std::vector<buffer<scalar>> adjoints;  // of J_t: those of m_0 .. m_{t-1}, one after another
  };
  static bool reads_params_of(const Model& model) {
    if constexpr (requires { model.reads_params(); })
      return model.reads_params();
    else
      return true;
  }
  // Of the record, the first `known` segments are there.
  static void check_inside(const char* function, index_t first, std::size_t count, std::size_t known) {
    if (first < 0 || std::size_t(first) > known || count > known - std::size_t(first))
      fail(function, "segments",
           "are " + std::to_string(count) + " from " + std::to_string(first) + " on, the record has " +
               std::to_string(known));
  }
  view<scalar> memory(index_t s) const {
    const index_t size = model_->size().memory;
    return {record_->memories.data() + s * size, size};
  }

  const Model* model_;
  std::shared_ptr<record> record_;
};

}  // namespace unroll
