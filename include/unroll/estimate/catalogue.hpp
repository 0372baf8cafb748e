#pragma once

#include "unroll/core/named_numbers.hpp"
#include "unroll/estimate/adaptive_tbptt.hpp"
#include "unroll/estimate/artbp.hpp"
#include "unroll/estimate/bp_lambda.hpp"
#include "unroll/estimate/bptt.hpp"
#include "unroll/estimate/checkpointed_bptt.hpp"
#include "unroll/estimate/chunked_tbptt.hpp"
#include "unroll/estimate/control_variate.hpp"
#include "unroll/estimate/dni.hpp"
#include "unroll/estimate/es.hpp"
#include "unroll/estimate/es_single.hpp"
#include "unroll/estimate/gpes.hpp"
#include "unroll/estimate/nres.hpp"
#include "unroll/estimate/parts/forward_entries.hpp"
#include "unroll/estimate/pes.hpp"
#include "unroll/estimate/pes_a.hpp"
#include "unroll/estimate/tbptt.hpp"
#include "unroll/estimate/telescope.hpp"
#include "unroll/system/any_system.hpp"

namespace unroll {
namespace detail {

// The estimators over recurrent systems by name: for each of them one struct here, or in
// parts/forward_entries.hpp where an influence is carried forwards, and its place in the list below, and
// programs, tests and documentation know it. (Those over memory models: policy.hpp.)
//
// make(system, numbers, length) is the estimator for sequences of up to `length` steps; period(numbers,
// length) how many steps lie between two of its gradients, 1 where they are at no fixed steps. How many
// numbers there may be is checked against the form.

struct bptt_entry : estimator_entry {
  static constexpr std::string_view form = "bptt";
  static constexpr claim gradient = claim::exact;
  static constexpr std::string_view what = "back-propagation through all steps";
  template <class F>
  static auto make(const F& f, const named_numbers&, index_t length) {
    return bptt(f, {.max_steps = length});
  }
  static index_t period(const named_numbers&, index_t length) { return length; }
};

struct checkpointed_entry : estimator_entry {
  static constexpr std::string_view form = "checkpointed[:SLOTS]";
  static constexpr claim gradient = claim::exact;
  static constexpr std::string_view what =
      "the same, with SLOTS (8) states kept and the steps between them run again";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t length) {
    return checkpointed_bptt(f, {.slots = n.count(0, 8), .steps = length});
  }
  static index_t period(const named_numbers&, index_t length) { return length; }
};

struct tbptt_entry : estimator_entry {
  static constexpr std::string_view form = "tbptt[:K1]:K2";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what = "every K1 steps (1), back through the last K2 steps";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return tbptt(f, {.k1 = k1(n), .k2 = n.count(n.size() - 1, 1)});
  }
  static index_t period(const named_numbers& n, index_t) { return k1(n); }

 private:
  static index_t k1(const named_numbers& n) { return n.size() > 1 ? n.count(0, 1) : 1; }
};

struct adaptive_tbptt_entry : estimator_entry {
  static constexpr std::string_view form = "adaptive_tbptt[:TOLERANCE[:LONGEST]]";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "every loss back through as few steps, of LONGEST (64), as keep a certified relative bias of TOLERANCE "
      "(0.1)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return adaptive_tbptt(f, {.tolerance = n.number(0, 0.1), .longest = n.count(1, 64)});
  }
};

struct chunked_entry : estimator_entry {
  static constexpr std::string_view form = "chunked:K";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what = "every K steps, back through these K and no further";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return chunked_tbptt(f, {.window = n.count(0, 1)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(0, 1); }
};

struct dni_entry : estimator_entry {
  static constexpr std::string_view form = "dni:K[:RATE]";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "like chunked:K, with a guess of what later losses owe to its last state, learned at RATE (0.1)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return dni(f, {.window = n.count(0, 1), .rate = n.number(1, 0.1)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(0, 1); }
};

struct bp_lambda_entry : estimator_entry {
  static constexpr std::string_view form = "bp_lambda[:LAMBDA[:DISCOUNT[:RATE]]]";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "such a guess at every step, learned at RATE (0.1) with traces of LAMBDA (0.9), of losses discounted "
      "by DISCOUNT (1) a step";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return made_or_refused<has_jacobian<F>>(f, [&](const auto& system) {
      return bp_lambda(system,
                       {.lambda = n.number(0, 0.9), .discount = n.number(1, 1), .rate = n.number(2, 0.1)});
    });
  }
};

struct artbp_entry : estimator_entry {
  static constexpr std::string_view form = "artbp:L0[:ALPHA]";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "cut at random and reweighted, by the polynomial law of mean length L0 and power ALPHA (4)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return artbp(f, polynomial_truncation(n.number(0, 16), n.number(1, 4)));
  }
};

struct artbp_fixed_entry : estimator_entry {
  static constexpr std::string_view form = "artbp_fixed:L0";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what = "the same, cut after every step with probability 1 / L0";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return artbp(f, fixed_truncation(n.number(0, 16)));
  }
};

// Truncations to K, 2 K, 4 K .. steps, and what has the whole sequence behind them.
struct telescope_entry : estimator_entry {
  static constexpr std::string_view form = "telescope:K[:LEVELS]";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "chunked:K and the differences to windows twice as long, up to a level drawn of LEVELS (3) and the "
      "whole "
      "sequence";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t length) {
    return telescope(f, options(n, length, telescope_kind::roulette));
  }
  static index_t period(const named_numbers&, index_t length) { return length; }

 protected:
  static telescope_options options(const named_numbers& n, index_t length, telescope_kind kind) {
    telescope_options o{.kind = kind, .max_steps = length};
    const index_t levels = n.count(1, 3);
    if (levels > 30)
      fail("options", n.text(), "has " + std::to_string(levels) + " levels, must be at most 30");
    for (index_t level = 0, k = n.count(0, 1); level < levels; ++level, k *= 2)
      o.ladder.push_back({.k1 = k, .k2 = k});
    return o;
  }
};

struct telescope_single_entry : telescope_entry {
  static constexpr std::string_view form = "telescope_single:K[:LEVELS]";
  static constexpr std::string_view what = "the difference at that level alone";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t length) {
    return telescope(f, options(n, length, telescope_kind::single_sample));
  }
};

struct control_variate_entry : estimator_entry {
  static constexpr std::string_view form = "control_variate:K[:EVERY]";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what = "chunked:K, corrected by bptt in one sequence of EVERY (10)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t length) {
    return control_variate(chunked_tbptt(f, {.window = n.count(0, 1)}), bptt(f, {.max_steps = length}),
                           {.p = 1 / double(n.count(1, 10))});
  }
};

struct es_entry : estimator_entry {
  static constexpr std::string_view form = "es:SIGMA[:PAIRS]";
  static constexpr claim gradient = claim::smoothed;
  static constexpr std::string_view what =
      "evolution strategies: PAIRS (1) antithetic perturbations of standard deviation SIGMA a sequence";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return es(f, {.sigma = n.number(0, 0.1), .pairs = n.count(1, 1)});
  }
  static index_t period(const named_numbers&, index_t length) { return length; }
};

struct nres_entry : estimator_entry {
  static constexpr std::string_view form = "nres:SIGMA[:PAIRS[:WINDOW]]";
  static constexpr claim gradient = claim::smoothed;
  static constexpr std::string_view what = "the same, with a gradient every WINDOW steps (10)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return nres(f, {.sigma = n.number(0, 0.1), .pairs = n.count(1, 1), .window = n.count(2, 10)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(2, 10); }
};

struct es_single_entry : estimator_entry {
  static constexpr std::string_view form = "es_single:SIGMA[:PAIRS[:WINDOW]]";
  static constexpr claim gradient = claim::smoothed;
  static constexpr std::string_view what = "the same by its other name";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return es_single(f, {.sigma = n.number(0, 0.1), .pairs = n.count(1, 1), .window = n.count(2, 10)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(2, 10); }
};

struct pes_entry : estimator_entry {
  static constexpr std::string_view form = "pes:SIGMA[:PAIRS[:WINDOW]]";
  static constexpr claim gradient = claim::smoothed;
  static constexpr std::string_view what = "like nres, with new perturbations in every window";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return pes(f, {.sigma = n.number(0, 0.1), .pairs = n.count(1, 1), .window = n.count(2, 10)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(2, 10); }
};

struct gpes_entry : estimator_entry {
  static constexpr std::string_view form = "gpes:SIGMA[:PAIRS[:WINDOW[:REUSE]]]";
  static constexpr claim gradient = claim::smoothed;
  static constexpr std::string_view what = "the same, with new perturbations after every REUSE windows (2)";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return gpes(f, {.sigma = n.number(0, 0.1),
                    .pairs = n.count(1, 1),
                    .window = n.count(2, 10),
                    .reuse = n.count(3, 2)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(2, 10); }
};

struct pes_a_entry : estimator_entry {
  static constexpr std::string_view form = "pes_a:SIGMA[:PAIRS[:WINDOW]]";
  static constexpr claim gradient = claim::smoothed;
  static constexpr std::string_view what = "like pes, differentiating inside a window";
  template <class F>
  static auto make(const F& f, const named_numbers& n, index_t) {
    return pes_a(f, {.sigma = n.number(0, 0.1), .pairs = n.count(1, 1), .window = n.count(2, 10)});
  }
  static index_t period(const named_numbers& n, index_t) { return n.count(2, 10); }
};

}  // namespace detail

/// All estimators over recurrent systems; those of one claim beside each other.
using estimator_catalogue = catalogue_entries<
    detail::bptt_entry, detail::checkpointed_entry, detail::rtrl_entry, detail::diagonal_rtrl_entry,
    detail::tbptt_entry, detail::chunked_entry, detail::adaptive_tbptt_entry, detail::dni_entry,
    detail::bp_lambda_entry, detail::snap_entry, detail::rflo_entry, detail::eprop_entry, detail::kernl_entry,
    detail::sk_rtrl_entry, detail::layerwise_rtrl_entry, detail::artbp_entry, detail::artbp_fixed_entry,
    detail::uoro_entry, detail::preuoro_entry, detail::nobacktrack_entry, detail::kf_rtrl_entry,
    detail::ok_rtrl_entry, detail::random_path_entry, detail::forward_gradient_entry, detail::telescope_entry,
    detail::telescope_single_entry, detail::control_variate_entry, detail::es_entry, detail::nres_entry,
    detail::es_single_entry, detail::pes_entry, detail::gpes_entry, detail::pes_a_entry>;

namespace detail {

// visit(entry, numbers) for the entry that the text names. Throws unroll::error, with the names there are,
// where there is none, and on more or fewer numbers than its form has.
template <class Visit>
decltype(auto) with_entry(std::string_view text, Visit&& visit) {
  const named_numbers n(text);
  return estimator_catalogue::find(
      [&](auto entry) { return line_of(entry).name() == n.name(); },
      [&](auto entry) -> decltype(auto) {
        const auto [least, most] = line_of(entry).options();
        if (n.size() < least)
          fail("estimators", text,
               "needs " + std::to_string(least) + " number(s) behind the name, e.g. " + n.name() + ":10");
        if (n.size() > most)
          fail("options", text,
               "has " + std::to_string(n.size()) + " numbers, takes at most " + std::to_string(most));
        return visit(entry, n);
      },
      [&] { fail("estimators", "name", "\"" + n.name() + "\" is none of " + estimator_catalogue::forms()); });
}

}  // namespace detail

/// Calls visit(estimator) with the estimator over `system` that the text names ("tbptt:5:20"), for sequences
/// of up to `length` steps, and returns what it returns. Throws unroll::error on a text that is none of the
/// catalogue, naming those there are, and on options that the estimator refuses.
template <class F, class Visit>
decltype(auto) with_estimator(std::string_view text, const F& system, index_t length, Visit&& visit) {
  return detail::with_entry(text, [&](auto entry, const named_numbers& n) -> decltype(auto) {
    return visit(entry.make(system, n, length));
  });
}

/// Steps between two gradients of the estimator that the text names, over sequences of `length` steps; 1
/// where they come at no fixed steps. Throws unroll::error on a text that is none of the catalogue, and where
/// the number that is the period is no count from 1 on. Other options it does not look at: that the estimator
/// takes them, with_estimator finds out.
inline index_t gradient_period(std::string_view text, index_t length) {
  return detail::with_entry(text,
                            [&](auto entry, const named_numbers& n) { return entry.period(n, length); });
}

}  // namespace unroll
