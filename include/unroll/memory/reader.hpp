#pragma once

#include <span>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/memory/kept_vectors.hpp"
#include "unroll/memory/model_traits.hpp"

namespace unroll {

/// Runs a memory model over texts without gradients: no graph, nothing sent back. Its memory is allocated
/// once.
template <class M>
class memory_reader final {
  static_assert(require_memory_model<M>());
  using N = numbers_of<M>;
  using executor_type = decltype(executor_of(std::declval<const M&>()));

 public:
  /// For texts of up to `segments` segments. The model must outlive this.
  memory_reader(const M& model, index_t segments)
      : model_(&model),
        executor_(executor_of(model)),
        size_(model.size().memory),
        segments_((check_at_least("memory_reader", "segments", segments, 1), segments)),
        memories_(executor_, segments - 1, size_, 1, memories_on_host(model)),
        workspace_(executor_.template allocate<typename N::activation>(model.workspace(segments - 1, 1))),
        loss_(executor_.template allocate<typename N::accumulator>(1)) {
    past_.reserve(std::size_t(segments));
  }
  memory_reader(const M&&, index_t) = delete;

  /// The loss of each segment, as the model's read gives it. more(t) is asked before segment t whether to go
  /// on; what was not read is left out. Throws unroll::error on more segments than there is room for.
  template <class More>
  std::vector<double> losses(params<const typename M::scalar> theta, std::span<const typename M::input> text,
                             More&& more) {
    using memory_type = typename N::memory;
    const index_t n = index_t(text.size());
    if (n > segments_)
      fail("memory_reader::losses", "text",
           "has " + std::to_string(n) + " segments, there is room for " + std::to_string(segments_));
    std::vector<double> out;
    past_.clear();
    for (index_t t = 0; t < n && more(t); ++t) {
      const auto x = text.subspan(std::size_t(t), 1);
      model_->read(x, t, theta, past_, loss_.data(), workspace_);
      out.push_back(double(exec::value(executor_, loss_.data())));
      if (t + 1 == n) break;
      memories_.write(memories_.at(t), 1, [&](view<memory_type> m) {
        model_->write(x, t, theta, model_->independent() ? std::span<const memory_type* const>{} : past_, m,
                      {}, workspace_);
      });
      past_.push_back(memories_.at(t));
    }
    return out;
  }
  /// All of them.
  std::vector<double> losses(params<const typename M::scalar> theta,
                             std::span<const typename M::input> text) {
    return losses(theta, text, [](index_t) { return true; });
  }

 private:
  template <class U>
  using block_at = typename executor_type::template block<U>;

  const M* model_;
  executor_type executor_;
  index_t size_, segments_;
  kept_vectors<executor_type, typename N::memory> memories_;
  block_at<typename N::activation> workspace_;
  block_at<typename N::accumulator> loss_;
  std::vector<const typename N::memory*> past_;
};

}  // namespace unroll
