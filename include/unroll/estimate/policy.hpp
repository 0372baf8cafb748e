#pragma once

#include <array>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "unroll/estimate/incremental_tbptt.hpp"
#include "unroll/estimate/parts/catalogue_entries.hpp"
#include "unroll/estimate/proportional_replay.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/estimate/reservoir_tbptt.hpp"
#include "unroll/estimate/roulette_replay.hpp"

namespace unroll {

/// How the gradient of a memory model is computed, by name. The default is exact.
struct policy {
  /// Which estimator.
  enum class kind {
    rematerialise,  ///< exact, one live graph
    keep_all,       ///< exact, every graph kept: plain BPTT
    keep,           ///< exact, the last `size` graphs kept
    window,         ///< incremental TBPTT over `size` segments: biased
    reservoir,      ///< unbiased incremental TBPTT with `size` graphs; biased when not compensated
    proportional,   ///< unbiased, `size` segments replayed, drawn by `design`
    roulette        ///< unbiased where writes read too, about `size` replayed, by coins of `inclusion`
  };
  kind name = kind::rematerialise;                       ///< of the estimator
  index_t size = 0;                                      ///< 0 where the name has no number
  bool compensated = true;                               ///< only a reservoir may be without the factor
  sampling_design design = sampling_design::systematic;  ///< only proportional may have another
  index_t batch = 1;  ///< segments a call: more than one only without window and reservoir
  replay_inclusion inclusion = replay_inclusion::by_norm;  ///< only roulette may have another
  friend bool operator==(const policy&, const policy&) = default;
};

namespace detail {

// The policies by name: for each text form one struct here and its place in the list below, and programs,
// tests and documentation know it. `form` has the size as one capital letter; `written` is the policy of that
// form, without its size. make(model, policy, segments, choose) is the estimator for sequences of up to
// `segments` segments. What a policy costs is plan.hpp's to say.

// What most entries have in common.
struct policy_entry {
  static constexpr bool batches = true;       // takes several segments a call
  static constexpr bool independent = false;  // needs memories that do not depend on earlier ones
};

struct rematerialise_entry : policy_entry {
  static constexpr std::string_view form = "rematerialise";
  static constexpr claim gradient = claim::exact;
  static constexpr std::string_view what =
      "every encoder runs twice, for its memory and for its graph: one graph alive";
  static constexpr policy written{policy::kind::rematerialise};
  template <memory_model M, chooser C>
  static auto make(const M& model, const policy& p, index_t segments, const C&) {
    return rematerialise(model, {.segments = segments, .batch = p.batch});
  }
};

struct keep_all_entry : policy_entry {
  static constexpr std::string_view form = "keep_all";
  static constexpr claim gradient = claim::exact;
  static constexpr std::string_view what = "every graph is kept: back-propagation as it is written";
  static constexpr policy written{policy::kind::keep_all};
  template <memory_model M, chooser C>
  static auto make(const M& model, const policy& p, index_t segments, const C&) {
    return rematerialise(model, {.segments = segments, .keep = segments, .batch = p.batch});
  }
};

struct keep_entry : policy_entry {
  static constexpr std::string_view form = "keep:G";
  static constexpr claim gradient = claim::exact;
  static constexpr std::string_view what = "the last G graphs are kept, the other encoders run twice";
  static constexpr policy written{policy::kind::keep};
  template <memory_model M, chooser C>
  static auto make(const M& model, const policy& p, index_t segments, const C&) {
    return rematerialise(model, {.segments = segments, .keep = p.size, .batch = p.batch});
  }
};

struct window_entry : policy_entry {
  static constexpr std::string_view form = "window:S";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what = "incremental TBPTT: losses reach the last S encoders";
  static constexpr policy written{policy::kind::window};
  static constexpr bool batches = false;
  template <memory_model M, chooser C>
  static auto make(const M& model, const policy& p, index_t segments, const C&) {
    return incremental_tbptt(model, {.segments = segments, .window = p.size});
  }
};

struct reservoir_entry : policy_entry {
  static constexpr std::string_view form = "reservoir:S";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "incremental TBPTT over S encoders that are drawn as the text is read";
  static constexpr policy written{policy::kind::reservoir};
  static constexpr bool batches = false, independent = true;
  template <memory_model M, chooser C>
  static auto make(const M& model, const policy& p, index_t segments, const C& choose) {
    return reservoir_tbptt(model, {.segments = segments, .size = p.size}, choose);
  }
};

struct uncompensated_entry : policy_entry {
  static constexpr std::string_view form = "reservoir:S:uncompensated";
  static constexpr claim gradient = claim::biased;
  static constexpr std::string_view what =
      "a reservoir without the factor that makes it unbiased, as in published code";
  static constexpr policy written{policy::kind::reservoir, 0, false};
  static constexpr bool batches = false, independent = true;
  template <memory_model M, chooser C>
  static auto make(const M& model, const policy& p, index_t segments, const C& choose) {
    return uncompensated_reservoir<M, C>(model, {.segments = segments, .size = p.size}, choose);
  }
};

struct proportional_entry : policy_entry {
  static constexpr std::string_view form = "proportional:B";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what = "about B encoders run again, drawn by the size of their adjoints";
  static constexpr policy written{policy::kind::proportional};
  static constexpr bool independent = true;
  template <memory_model M, chooser C>
  static auto make(const M& model, const policy& p, index_t segments, const C& choose) {
    return proportional_replay(
        model, {.segments = segments, .budget = p.size, .design = p.design, .batch = p.batch}, choose);
  }
};

struct proportional_random_order_entry : proportional_entry {
  static constexpr std::string_view form = "proportional:B:random_order";
  static constexpr std::string_view what = "the same, segments drawn in random order";
  static constexpr policy written{policy::kind::proportional, 0, true, sampling_design::random_order};
};

struct proportional_independent_entry : proportional_entry {
  static constexpr std::string_view form = "proportional:B:independent";
  static constexpr std::string_view what = "the same, each segment by a coin of its own";
  static constexpr policy written{policy::kind::proportional, 0, true, sampling_design::independent};
};

struct roulette_entry : policy_entry {
  static constexpr std::string_view form = "roulette:B";
  static constexpr claim gradient = claim::unbiased;
  static constexpr std::string_view what =
      "up to B encoders run again on average, by coins that follow their adjoints, also where encoders read";
  static constexpr policy written{policy::kind::roulette};
  template <memory_model M, chooser C>
  static auto make(const M& model, const policy& p, index_t segments, const C& choose) {
    return roulette_replay(
        model, {.segments = segments, .budget = p.size, .inclusion = p.inclusion, .batch = p.batch}, choose);
  }
};

struct roulette_by_distance_entry : roulette_entry {
  static constexpr std::string_view form = "roulette:B:by_distance";
  static constexpr std::string_view what = "the same, by coins for losses that attend evenly";
  static constexpr policy written{.name = policy::kind::roulette, .inclusion = replay_inclusion::by_distance};
};

struct roulette_constant_entry : roulette_entry {
  static constexpr std::string_view form = "roulette:B:constant";
  static constexpr std::string_view what = "the same, by coins that are alike";
  static constexpr policy written{.name = policy::kind::roulette, .inclusion = replay_inclusion::constant};
};

}  // namespace detail

/// All policies.
using policy_catalogue =
    catalogue_entries<detail::rematerialise_entry, detail::keep_all_entry, detail::keep_entry,
                      detail::window_entry, detail::uncompensated_entry, detail::reservoir_entry,
                      detail::proportional_entry, detail::proportional_random_order_entry,
                      detail::proportional_independent_entry, detail::roulette_entry,
                      detail::roulette_by_distance_entry, detail::roulette_constant_entry>;

namespace detail {

// What is known of a form without its estimator.
struct policy_facts {
  catalogue_line line;
  policy written;
  bool batches, independent;
};
template <class... Entry>
constexpr std::array<policy_facts, sizeof...(Entry)> facts_of(catalogue_entries<Entry...>) {
  return {{{line_of<Entry>(), Entry::written, Entry::batches, Entry::independent}...}};
}
inline constexpr auto all_policy_facts = facts_of(policy_catalogue{});

// Whether p is of the form that is written so.
constexpr bool has_form(const policy& p, policy written) {
  written.size = p.size;
  written.batch = p.batch;
  return written == p;
}
[[noreturn]] inline void fail_without_form(const policy& p) {
  fail("policy", "name", "kind " + std::to_string(int(p.name)) + " has no form with these options");
}

// Throws unroll::error where nothing is called like that.
inline const policy_facts& facts_of(const policy& p) {
  for (const policy_facts& form : all_policy_facts)
    if (has_form(p, form.written)) return form;
  fail_without_form(p);
}

// visit(entry) for the entry of the policy; the same error.
template <class Visit>
decltype(auto) with_entry(const policy& p, Visit&& visit) {
  return policy_catalogue::find([&](auto entry) { return has_form(p, entry.written); }, visit,
                                [&] { fail_without_form(p); });
}

}  // namespace detail

/// "rematerialise", "keep:8", "reservoir:2:uncompensated" and so on, as the catalogue has it; with batches of
/// 16 segments "rematerialise/16", "keep:8/16".
inline std::string to_string(const policy& p) {
  std::string text;
  for (const char c : detail::facts_of(p).line.form)
    text += c >= 'A' && c <= 'Z' ? std::to_string(p.size) : std::string(1, c);
  return p.batch == 1 ? text : text + "/" + std::to_string(p.batch);
}

/// What the policy claims of its gradient.
inline claim claim_of(const policy& p) { return detail::facts_of(p).line.gradient; }
/// Whether the gradient has no bias.
inline bool is_unbiased(const policy& p) { return claim_of(p) != claim::biased; }
/// Whether it has neither bias nor variance.
inline bool is_exact(const policy& p) { return claim_of(p) == claim::exact; }
/// Whether the policy can take several segments a call: a window and a reservoir send graphs back as they go.
inline bool takes_batches(const policy& p) { return detail::facts_of(p).batches; }
/// Whether the policy needs memories that do not depend on earlier ones.
inline bool needs_independent(const policy& p) { return detail::facts_of(p).independent; }

/// The policy of which `text` is the to_string. Throws unroll::error, with a list of the forms, where there
/// is none.
inline policy parse_policy(std::string_view text) {
  const auto number = [](std::string_view digits) {
    index_t value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  };
  const auto slash = text.find('/'), colon = text.find(':');
  const index_t size = colon < slash ? number(text.substr(colon + 1)) : 0;
  const index_t batch = slash != text.npos ? number(text.substr(slash + 1)) : 1;
  for (const detail::policy_facts& form : detail::all_policy_facts) {
    policy found = form.written;
    found.size = size;
    found.batch = batch;
    const bool sized = form.line.options().most > 0;
    if (sized == (size > 0) && (batch == 1 || (batch > 1 && form.batches)) && to_string(found) == text)
      return found;
  }
  fail("parse_policy", "text",
       "\"" + std::string(text) + "\" is none of " + policy_catalogue::forms() +
           "; with whole numbers from 1, and but for windows and reservoirs with /N behind it, N segments a "
           "batch");
}

/// Calls visit(estimator) with the estimator that the policy names, over `model`, for sequences of up to
/// `segments` segments, and returns what it returns. `choose` is the randomness of those that draw. Throws
/// unroll::error where the policy needs an independent model and this one is not, and where it takes no
/// batches.
template <memory_model M, chooser C, class Visit>
decltype(auto) with_policy(const policy& p, const M& model, index_t segments, const C& choose,
                           Visit&& visit) {
  if (p.batch != 1 && !takes_batches(p))
    fail("with_policy", "policy", "is \"" + to_string(p) + "\", which takes segments one by one: /1");
  return detail::with_entry(
      p, [&](auto entry) -> decltype(auto) { return visit(entry.make(model, p, segments, choose)); });
}

}  // namespace unroll
