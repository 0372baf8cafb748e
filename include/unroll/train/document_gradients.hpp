#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "unroll/core/linalg.hpp"
#include "unroll/core/worker_pool.hpp"
#include "unroll/estimate/policy.hpp"
#include "unroll/ranks/ranks.hpp"

namespace unroll::training {

/// The gradients of several documents at once, by a policy chosen at run time or by copies of an estimator.
/// Each document has a gradient of its own; they are added in the order of the documents, so that the sum
/// does not depend on the number of threads, nor on that of the ranks to which the documents are dealt. The
/// sum goes from rank to rank and then to all: a rank sends and receives it twice, however many documents
/// there are. Memory of a rank: a gradient for each of its documents, one estimator a thread, all allocated
/// once.
template <class Model>
class document_gradients final {
  using T = typename Model::scalar;
  using input = typename Model::input;

 public:
  /// For up to `documents` documents of up to `segments` segments, on `threads` threads of each rank. Throws
  /// unroll::error on counts below 1, and where the policy does not fit the model.
  document_gradients(const Model& model, const policy& p, index_t segments, index_t documents,
                     index_t threads, ranks among = {})
      : document_gradients(model.size().params, documents, threads, among) {
    static_assert(require_memory_model<Model>());
    with_policy(p, model, segments, philox_chooser{}, [&](const auto& estimator) { copy(estimator); });
  }
  /// The same by copies of an estimator over `Model`, one a thread.
  template <gradient_estimator E>
  document_gradients(const E& estimator, index_t documents, index_t threads, ranks among = {})
      : document_gradients(estimator.system().size().params, documents, threads, among) {
    copy(estimator);
  }

  /// ADDS the gradient of the summed losses to g; document i has the key fold(k, i). What the report says is
  /// summed over the documents. All ranks call it, with the same arguments: each reads its share of the
  /// documents, and all get the sum. Throws unroll::error on more documents than there is room for, and on a
  /// g of another size than the parameters.
  report add(key k, params<const T> theta, std::span<const std::vector<input>> documents, dparams<T> g) {
    if (index_t(documents.size()) > documents_)
      fail("document_gradients::add", "documents",
           "are " + std::to_string(documents.size()) + ", there is room for " + std::to_string(documents_));
    check_size("document_gradients::add", "g", g.size(), params_);
    const index_t first = among_.begin(index_t(documents.size()));
    const index_t own = among_.end(index_t(documents.size())) - first;
    share_out(pool_, own, [&](index_t worker, index_t i) {
      const auto at = std::size_t(i);
      gradients_[at].zero();
      reports_[at] = run_(workers_.get(), worker, fold(k, std::uint64_t(first + i)), theta,
                          documents[std::size_t(first + i)], gradients_[at]);
    });
    among_.in_order(g, [&](dparams<T> sum, index_t begin) {
      for (index_t i = 0; i < own; ++i)
        linalg::axpy(T(1), gradients_[std::size_t(i)].data() + begin, sum.data(), sum.size());
    });
    report all;
    among_.visited_in_order(all, [&](report& sum) {
      for (index_t i = 0; i < own; ++i) sum += reports_[std::size_t(i)];
    });
    return all;
  }

 private:
  document_gradients(index_t parameters, index_t documents, index_t threads, ranks among)
      : among_(among),
        documents_(documents),
        params_(parameters),
        pool_(checked(threads, documents, among)),
        reports_(std::size_t(most(documents, among))) {
    for (std::size_t i = 0; i < reports_.size(); ++i) gradients_.emplace_back(params_);
  }
  template <class E>
  void copy(const E& estimator) {
    using estimators = std::vector<E>;
    workers_ = std::make_shared<estimators>(std::size_t(pool_.size()), estimator);
    run_ = [](void* workers, index_t worker, key k, params<const T> theta, std::span<const input> text,
              dparams<T> g) {
      auto& e = (*static_cast<estimators*>(workers))[std::size_t(worker)];
      e.reset(k);
      report r = e.advance(theta, text, g);
      if (r.code == status::ok) r += e.finish(theta, g);
      return r;
    };
  }
  static index_t most(index_t documents, const ranks& among) {  // that a rank has
    return (documents + among.size() - 1) / among.size();
  }
  static index_t checked(index_t threads, index_t documents, const ranks& among) {
    check_at_least("document_gradients", "threads", threads, 1);
    check_at_least("document_gradients", "documents", documents, 1);
    return std::min(threads, most(documents, among));
  }

  ranks among_;
  index_t documents_, params_;
  worker_pool pool_;
  std::vector<gradient<T>> gradients_;
  std::vector<report> reports_;
  std::shared_ptr<void> workers_;  // a vector of estimators, one a thread
  report (*run_)(void*, index_t, key, params<const T>, std::span<const input>, dparams<T>) = nullptr;
};

/// From an estimator.
template <gradient_estimator E>
document_gradients(const E&, index_t, index_t, ranks = {}) -> document_gradients<typename E::system_type>;

}  // namespace unroll::training
