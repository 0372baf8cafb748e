#pragma once

#include <vector>

#include "unroll/estimate/concept.hpp"
#include "unroll/sample/reservoir.hpp"
#include "unroll/system/memory_model.hpp"

// The reservoir over the segments of a memory model, written plainly, with a mistake to choose: what the
// exact tests of the replay policies must be able to tell from the real thing.
namespace mutants {

using unroll::index_t;

enum class replay_mistake {
  none,
  no_compensation,          ///< the factor is 1
  compensates_accumulated,  ///< the factor multiplies what was collected before, too
  drops_last_window,        ///< what is alive at the end is not sent back
  stale_memory              ///< reset() keeps the memories of the document before
};

/// For an independent model whose inputs come in one advance().
template <class M, class C>
class reservoir_replay final {
 public:
  using system_type = M;
  using scalar = double;
  using input = typename M::input;
  static constexpr unroll::estimand estimated_gradient = unroll::estimand::frozen_theta;
  static constexpr bool unbiased = false;
  static constexpr bool random = true;
  static constexpr std::array references{"li2024uio"};

  reservoir_replay(M model, index_t size, replay_mistake mistake, C chooser)
      : model_(std::move(model)), size_(size), mistake_(mistake), chooser_(std::move(chooser)) {}

  void reset(unroll::key k, unroll::state<const double> = {}) {
    chooser_.reset(k);
    if (mistake_ != replay_mistake::stale_memory) memories_.clear();
  }

  unroll::report advance(unroll::params<const double> theta, std::span<const input> xs,
                         unroll::dparams<double> g) {
    const auto d = model_.size();
    const auto n = std::size_t(d.memory);
    const unroll::reservoir sample(size_);
    const std::size_t old = memories_.size();  // memories of documents before: none
    std::vector<double> workspace(std::size_t(model_.workspace(index_t(old + xs.size()), 1)));
    std::vector<held> slots(static_cast<std::size_t>(size_));
    const auto send_back = [&](held& h) {
      if (h.s >= 0)
        model_.write_vjp(xs.subspan(std::size_t(h.s), 1), h.s, theta, {}, {.tape = h.tape, .dm = h.collected},
                         {.dtheta = g}, workspace);
      h.s = -1;
    };
    unroll::report r;
    for (index_t t = 0; t < index_t(xs.size()); ++t) {
      if (t > 0) {
        const index_t s = t - 1, slot = sample.slot(chooser_, s);
        std::vector<double> m(n), tape(std::size_t(d.tape));
        model_.write(xs.subspan(std::size_t(s), 1), s, theta, {}, m, tape, workspace);
        memories_.push_back(m);
        if (slot >= 0) {
          send_back(slots[std::size_t(slot)]);
          slots[std::size_t(slot)] = {s, tape, std::vector<double>(n)};
        }
      }
      std::vector<const double*> past;
      for (const auto& m : memories_) past.push_back(m.data());
      std::vector<std::vector<double>> dm(past.size(), std::vector<double>(n));
      std::vector<double*> dpast;
      for (auto& v : dm) dpast.push_back(v.data());
      double loss = 0;
      model_.read_vjp(xs.subspan(std::size_t(t), 1), index_t(past.size()), theta, past, &loss,
                      {.dpast = dpast, .dtheta = g}, workspace);
      r.loss += loss;
      const double factor = mistake_ == replay_mistake::no_compensation ? 1 : sample.weight(t);
      for (held& h : slots) {
        if (h.s < 0) continue;
        for (std::size_t i = 0; i < n; ++i) {
          const double sent = dm[old + std::size_t(h.s)][i];
          if (mistake_ == replay_mistake::compensates_accumulated)
            h.collected[i] = factor * (h.collected[i] + sent);
          else
            h.collected[i] += factor * sent;
        }
      }
    }
    if (mistake_ != replay_mistake::drops_last_window)
      for (held& h : slots) send_back(h);
    r.consumed = r.losses = std::int64_t(xs.size());
    return r;
  }

  unroll::report finish(unroll::params<const double>, unroll::dparams<double>) { return {}; }
  const M& system() const { return model_; }

 private:
  struct held {
    index_t s = -1;
    std::vector<double> tape, collected;
  };
  M model_;
  index_t size_;
  replay_mistake mistake_;
  C chooser_;
  std::vector<std::vector<double>> memories_;
};

}  // namespace mutants
