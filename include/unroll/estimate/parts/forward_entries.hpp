#pragma once

#include "unroll/estimate/diagonal_rtrl.hpp"
#include "unroll/estimate/eprop.hpp"
#include "unroll/estimate/forward_gradient.hpp"
#include "unroll/estimate/kernl.hpp"
#include "unroll/estimate/kf_rtrl.hpp"
#include "unroll/estimate/layerwise_rtrl.hpp"
#include "unroll/estimate/nobacktrack.hpp"
#include "unroll/estimate/ok_rtrl.hpp"
#include "unroll/estimate/parts/estimator_entry.hpp"
#include "unroll/estimate/preuoro.hpp"
#include "unroll/estimate/random_path.hpp"
#include "unroll/estimate/rflo.hpp"
#include "unroll/estimate/rtrl.hpp"
#include "unroll/estimate/sk_rtrl.hpp"
#include "unroll/estimate/snap.hpp"
#include "unroll/estimate/uoro.hpp"

// The entries of estimate/catalogue.hpp of estimators that carry how theta has moved the state forwards.
namespace unroll::detail {

struct rtrl_entry : estimator_entry {
  static constexpr std::string_view form = "rtrl";
  static constexpr claim gradient = claim::exact;
  static constexpr std::string_view what = "real-time recurrent learning: ds/dtheta is carried forwards";
  template <class F>
  static auto make(const F& f, const named_numbers&, index_t) {
    return rtrl(f);
  }
};

struct diagonal_rtrl_entry : estimator_entry {
  static constexpr std::string_view form = "diagonal_rtrl";
  static constexpr claim gradient = claim::exact;
  static constexpr std::string_view what = "the same, of one layer whose units do not listen to each other";
  template <class F>
  static auto make(const F& f, const named_numbers&, index_t) {
    return made_or_refused<has_diag_jacobian<F>>(f,
                                                 [&](const auto& system) { return diagonal_rtrl(system); });
  }
};

struct snap_entry : estimator_entry {
  static constexpr std::string_view form = "snap[:REACH]";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what = "like rtrl, with only what theta reaches within REACH steps (1)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<has_masks<F>>(
        f, [&](const auto& system) { return snap(system, {.reach = n.count(0, 1)}); });
  }
};

struct rflo_entry : estimator_entry {
  static constexpr std::string_view form = "rflo[:LEAK]";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "traces of a weight at its own unit, which lose LEAK (0.5) in a step: dt / tau of leaky";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<has_diag_jacobian<F>>(
        f, [&](const auto& system) { return rflo(system, {.leak = n.number(0, 0.5)}); });
  }
};

struct eprop_entry : estimator_entry {
  static constexpr std::string_view form = "eprop[:FILTER]";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "the same, decaying as the unit does; FILTER (0) of a readout that leaks, for losses of old states";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<has_diag_jacobian<F>>(
        f, [&](const auto& system) { return eprop(system, {.filter = n.number(0, 0)}); });
  }
};

struct kernl_entry : estimator_entry {
  static constexpr std::string_view form = "kernl[:RATE]";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "the same, decaying as a kernel says that is learned at RATE (0.01) from a second, noisy network";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<has_diag_jacobian<F>>(
        f, [&](const auto& system) { return kernl(system, {.rate = n.number(0, 0.01)}); });
  }
};

struct sk_rtrl_entry : estimator_entry {
  static constexpr std::string_view form = "sk_rtrl[:RANK]";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "the same and the RANK (4) largest directions of the rest, with a bound of what is left out";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<(has_jacobian<F> && has_factors<F> && has_diag_jacobian<F>)>(
        f, [&](const auto& system) { return sk_rtrl(system, {.rank = n.count(0, 4)}); });
  }
};

struct layerwise_rtrl_entry : estimator_entry {
  static constexpr std::string_view form = "layerwise_rtrl";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "diagonal_rtrl of every layer of a stack, without what the layers above remember";
  template <class F>
  static auto make(const F& f, const named_numbers&, index_t) {
    return made_or_refused<has_unit_layers<F>>(f, [&](const auto& system) { return layerwise_rtrl(system); });
  }
};

struct uoro_entry : estimator_entry {
  static constexpr std::string_view form = "uoro[:BLOCK]";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "ds/dtheta as one random pair of vectors, renewed every BLOCK steps (1)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return uoro(f, {.block = n.count(0, 1)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(0, 1); }
};

struct preuoro_entry : estimator_entry {
  static constexpr std::string_view form = "preuoro[:MEMORY[:RENEW]]";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "like uoro, its noise in front of the nonlinearity; with a MEMORY (0) shaped, whole every RENEW steps";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<(has_jvp<F> && has_factors<F>)>(f, [&](const auto& system) {
      return preuoro(system, {.memory = n.number(0, 0), .renew = n.size() > 1 ? n.count(1, 1) : 0});
    });
  }
};

struct nobacktrack_entry : estimator_entry {
  static constexpr std::string_view form = "nobacktrack";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what = "like uoro, with a scale for every unit";
  template <class F>
  static auto make(const F& f, const named_numbers&, index_t) {
    return nobacktrack(f);
  }
};

struct kf_rtrl_entry : estimator_entry {
  static constexpr std::string_view form = "kf_rtrl";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "ds/dtheta as one random Kronecker product for every weight matrix";
  template <class F>
  static auto make(const F& f, const named_numbers&, index_t) {
    return made_or_refused<(has_jacobian<F> && has_factors<F>)>(
        f, [&](const auto& system) { return kf_rtrl(system); });
  }
};

struct ok_rtrl_entry : estimator_entry {
  static constexpr std::string_view form = "ok_rtrl[:TERMS]";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "the same as a sum of TERMS products (4), drawn with the least variance";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<(has_jacobian<F> && has_factors<F>)>(
        f, [&](const auto& system) { return ok_rtrl(system, {.terms = n.count(0, 4)}); });
  }
};

struct random_path_entry : estimator_entry {
  static constexpr std::string_view form = "random_path[:P]";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "like rtrl, through each entry of the Jacobian with probability P (0.25)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<(has_jacobian<F> && has_factors<F>)>(
        f, [&](const auto& system) { return random_path(system, {.p = n.number(0, 0.25)}); });
  }
};

struct forward_gradient_entry : estimator_entry {
  static constexpr std::string_view form = "forward_gradient[:DIRECTIONS[:WINDOW]]";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "derivatives along DIRECTIONS (1) orthonormal directions a sequence, added up every WINDOW steps (10)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return forward_gradient(f, {.directions = n.count(0, 1), .window = n.count(1, 10)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(1, 10); }
};

}  // namespace unroll::detail
