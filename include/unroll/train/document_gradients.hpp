#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "unroll/core/worker_pool.hpp"
#include "unroll/estimate/policy.hpp"
#include "unroll/exec/of.hpp"
#include "unroll/train/staged_ranks.hpp"

namespace unroll::training {

namespace detail {

// Where the numbers of a model lie: at its executor, or on the host.
template <class Model, class T>
struct place_of {
  using type = exec::of<T>;
  static type of(const Model&) { return {}; }
};
template <class Model, class T>
requires requires(const Model& model) { model.executor(); }
struct place_of<Model, T> {
  using type = std::remove_cvref_t<decltype(std::declval<const Model&>().executor())>;
  static type of(const Model& model) { return model.executor(); }
};

}  // namespace detail

/// The gradients of several documents at once, by a policy chosen at run time or by copies of an estimator.
/// Each document has a gradient of its own; they are added in the order of the documents, so that the sum
/// does not depend on the number of threads, nor on that of the ranks to which the documents are dealt. The
/// sum goes from rank to rank and then to all: a rank sends and receives it twice, however many documents
/// there are. Memory of a rank, all allocated once: an estimator a thread, and gradients(documents, threads,
/// ranks) gradients.
///
/// Theta, gradients and their sums lie where the model's numbers do: at its executor(), if it has one, else
/// on the host. Elsewhere than on the host there is one thread. Between ranks the sum goes through memory of
/// the host, unless `at_place` moves it from place to place (cuda/nccl.hpp); the bits are the same.
template <class Model>
class document_gradients final {
  using T = typename Model::scalar;
  using input = typename Model::input;
  using place_type = detail::place_of<Model, T>;
  using E = typename place_type::type;
  using gradient_type = typename E::template block<T, param_cotangent_space>;

 public:
  /// For up to `documents` documents of up to `segments` segments, on `threads` threads of each rank.
  /// at_place: the same ranks as `among`, whose bytes lie at the model's place; or nothing. Throws
  /// unroll::error on counts below 1, on threads that the place does not have, and where the policy does not
  /// fit the model.
  document_gradients(const Model& model, const policy& p, index_t segments, index_t documents,
                     index_t threads, ranks among = {}, ranks at_place = {})
      : document_gradients(place_type::of(model), model.size().params, documents, threads, among, at_place) {
    static_assert(require_memory_model<Model>());
    with_policy(p, model, segments, philox_chooser{}, [&](const auto& estimator) { copy(estimator); });
  }
  /// The same by copies of an estimator over `Model`, one a thread.
  template <gradient_estimator Estimator>
  document_gradients(const Estimator& estimator, index_t documents, index_t threads, ranks among = {},
                     ranks at_place = {})
      : document_gradients(place_type::of(estimator.system()), estimator.system().size().params, documents,
                           threads, among, at_place) {
    copy(estimator);
  }

  /// How many gradients a rank holds: one for each of its documents, but a process alone with one thread adds
  /// each to the sum at once.
  static constexpr index_t gradients(index_t documents, index_t threads, index_t ranks) {
    return threads == 1 && ranks == 1 ? 1 : (documents + ranks - 1) / ranks;
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
    const index_t own = among_.end(index_t(documents.size())) - first, room = index_t(gradients_.size());
    index_t done = 0;
    do {  // once, but where there is room for one gradient alone
      const index_t n = std::min(room, own - done);
      share_out(pool_, n, [&](index_t worker, index_t i) {
        gradient_type& to = gradients_[std::size_t(i)];
        const index_t document = first + done + i;
        executor_.fill(matrix<T>(to.data(), params_, 1), 0);
        reports_[std::size_t(done + i)] = run_(workers_.get(), worker, fold(k, std::uint64_t(document)),
                                               theta, documents[std::size_t(document)], to);
      });
      const auto add_own = [&](dparams<T> sum, index_t begin) {
        for (index_t i = 0; i < n; ++i)
          executor_.axpy(1, gradients_[std::size_t(i)].data() + begin, sum.data(), sum.size());
      };
      if (among_.size() == 1)
        add_own(g, 0);
      else
        sums().in_order(g, add_own);
      done += n;
    } while (done < own);
    report all;
    among_.visited_in_order(all, [&](report& sum) {
      for (index_t i = 0; i < own; ++i) sum += reports_[std::size_t(i)];
    });
    return all;
  }

 private:
  document_gradients(E e, index_t parameters, index_t documents, index_t threads, ranks among, ranks at_place)
      : executor_(std::move(e)),
        among_(among),
        at_place_(at_place),
        staged_(executor_, among),
        documents_(documents),
        params_(parameters),
        pool_(checked(threads, documents, among)),
        reports_(std::size_t(most(documents, among))) {
    if (at_place.size() != 1) check_size("document_gradients", "at_place", at_place.size(), among.size());
    for (index_t i = gradients(documents, pool_.size(), among.size()); i > 0; --i)
      gradients_.push_back(executor_.template allocate<T, param_cotangent_space>(params_));
  }
  template <class Estimator>
  void copy(const Estimator& estimator) {
    using estimators = std::vector<Estimator>;
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
    if (E::where != place::host && threads > 1)
      fail("document_gradients", "threads",
           "are " + std::to_string(threads) + ", must be 1 on an executor whose place is not the host");
    return std::min(threads, most(documents, among));
  }
  // The ranks whose bytes lie where the gradients do.
  ranks sums() {
    if (at_place_.size() > 1) return at_place_;
    if constexpr (E::where == place::host)
      return among_;
    else
      return ranks(staged_);
  }

  E executor_;
  ranks among_, at_place_;
  staged_ranks<E> staged_;
  index_t documents_, params_;
  worker_pool pool_;
  std::vector<gradient_type> gradients_;
  std::vector<report> reports_;
  std::shared_ptr<void> workers_;  // a vector of estimators, one a thread
  report (*run_)(void*, index_t, key, params<const T>, std::span<const input>, dparams<T>) = nullptr;
};

/// From an estimator.
template <gradient_estimator E>
document_gradients(const E&, index_t, index_t, ranks = {}, ranks = {})
    -> document_gradients<typename E::system_type>;

}  // namespace unroll::training
