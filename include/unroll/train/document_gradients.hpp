#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "unroll/core/linalg.hpp"
#include "unroll/core/worker_pool.hpp"
#include "unroll/estimate/policy.hpp"

namespace unroll::training {

/// The gradients of several documents at once, by a policy chosen at run time. Each document has a gradient
/// of its own; they are added in the order of the documents, so that the sum does not depend on the number of
/// threads. Memory: one gradient a document, one estimator a thread, all allocated once.
template <class Model>
class document_gradients final {
  static_assert(require_memory_model<Model>());
  using T = typename Model::scalar;
  using input = typename Model::input;

 public:
  /// For up to `documents` documents of up to `segments` segments. Throws unroll::error on counts below 1,
  /// and where the policy does not fit the model.
  document_gradients(const Model& model, const policy& p, index_t segments, index_t documents,
                     index_t threads)
      : pool_(checked(threads, documents)), reports_(std::size_t(documents)) {
    for (index_t i = 0; i < documents; ++i) gradients_.emplace_back(model.size().params);
    with_policy(p, model, segments, philox_chooser{}, [&](const auto& estimator) {
      using estimators = std::vector<std::remove_cvref_t<decltype(estimator)>>;
      workers_ = std::make_shared<estimators>(std::size_t(pool_.size()), estimator);
      run_ = [](void* workers, index_t worker, key k, params<const T> theta, std::span<const input> text,
                dparams<T> g) {
        auto& e = (*static_cast<estimators*>(workers))[std::size_t(worker)];
        e.reset(k);
        report r = e.advance(theta, text, g);
        if (r.code == status::ok) r += e.finish(theta, g);
        return r;
      };
    });
  }

  /// ADDS the gradient of the summed losses to g; document i has the key fold(k, i). What the report says is
  /// summed over the documents. Throws unroll::error on more documents than there is room for, and on a g of
  /// another size than the parameters.
  report add(key k, params<const T> theta, std::span<const std::vector<input>> documents, dparams<T> g) {
    if (documents.size() > gradients_.size())
      fail("document_gradients::add", "documents",
           "are " + std::to_string(documents.size()) + ", there is room for " +
               std::to_string(gradients_.size()));
    check_size("document_gradients::add", "g", g.size(), gradients_.front().size());
    share_out(pool_, index_t(documents.size()), [&](index_t worker, index_t i) {
      const auto at = std::size_t(i);
      gradients_[at].zero();
      reports_[at] =
          run_(workers_.get(), worker, fold(k, std::uint64_t(i)), theta, documents[at], gradients_[at]);
    });
    report sum;
    for (std::size_t i = 0; i < documents.size(); ++i) {
      sum += reports_[i];
      linalg::axpy(T(1), gradients_[i].data(), g.data(), g.size());
    }
    return sum;
  }

 private:
  static index_t checked(index_t threads, index_t documents) {
    check_at_least("document_gradients", "threads", threads, 1);
    check_at_least("document_gradients", "documents", documents, 1);
    return std::min(threads, documents);
  }

  worker_pool pool_;
  std::vector<gradient<T>> gradients_;
  std::vector<report> reports_;
  std::shared_ptr<void> workers_;  // a vector of the policy's estimators, one a thread
  report (*run_)(void*, index_t, key, params<const T>, std::span<const input>, dparams<T>) = nullptr;
};

}  // namespace unroll::training
