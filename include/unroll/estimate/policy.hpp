#pragma once

#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "unroll/estimate/incremental_tbptt.hpp"
#include "unroll/estimate/proportional_replay.hpp"
#include "unroll/estimate/rematerialise.hpp"
#include "unroll/estimate/reservoir_tbptt.hpp"

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
    proportional    ///< unbiased, `size` segments replayed, drawn by `design`
  };
  kind name = kind::rematerialise;                       ///< of the estimator
  index_t size = 0;                                      ///< 0 where the name has no number
  bool compensated = true;                               ///< only a reservoir may be without the factor
  sampling_design design = sampling_design::systematic;  ///< only proportional may have another
  index_t batch = 1;  ///< segments a call: more than one only without window and reservoir
  friend bool operator==(const policy&, const policy&) = default;
};

/// "rematerialise", "keep_all", "keep:8", "window:4", "reservoir:2", "reservoir:2:uncompensated",
/// "proportional:4", "proportional:4:random_order" or "proportional:4:independent"; with batches of 16
/// segments "rematerialise/16", "keep_all/16", "keep:8/16", "proportional:4/16" and so on.
inline std::string to_string(const policy& p) {
  const std::string size = ":" + std::to_string(p.size);
  if (p.batch != 1) {
    policy single = p;
    single.batch = 1;
    return to_string(single) + "/" + std::to_string(p.batch);
  }
  switch (p.name) {
    case policy::kind::keep_all:
      return "keep_all";
    case policy::kind::keep:
      return "keep" + size;
    case policy::kind::window:
      return "window" + size;
    case policy::kind::reservoir:
      return "reservoir" + size + (p.compensated ? "" : ":uncompensated");
    case policy::kind::proportional:
      return "proportional" + size +
             (p.design == sampling_design::random_order  ? ":random_order"
              : p.design == sampling_design::independent ? ":independent"
                                                         : "");
    case policy::kind::rematerialise:
      break;
  }
  return "rematerialise";
}

/// Whether the policy can take several segments a call: a window and a reservoir send graphs back as they go.
inline bool takes_batches(policy::kind name) {
  return name != policy::kind::window && name != policy::kind::reservoir;
}

/// The policy that to_string writes like that. Throws unroll::error that lists the names there are.
inline policy parse_policy(std::string_view text) {
  policy p;
  index_t batch = 1;
  const auto slash = text.find('/');
  if (slash != text.npos) std::from_chars(text.data() + slash + 1, text.data() + text.size(), batch);
  const auto colon = text.find(':');
  index_t size = 0;
  if (colon != text.npos) std::from_chars(text.data() + colon + 1, text.data() + text.size(), size);
  using enum sampling_design;
  for (int name = 0; size >= 0 && name < 6; ++name)
    for (const bool compensated : {true, false})
      for (const sampling_design design : {systematic, random_order, independent}) {
        p = {policy::kind(name), size, compensated, design, batch};
        const bool sized = p.name != policy::kind::rematerialise && p.name != policy::kind::keep_all;
        if (sized == (size > 0) && (batch == 1 || (batch > 1 && takes_batches(p.name))) &&
            to_string(p) == text)
          return p;
      }
  fail("parse_policy", "text",
       "\"" + std::string(text) +
           "\" is none of rematerialise, keep_all, keep:G, window:S, reservoir:S, reservoir:S:uncompensated, "
           "proportional:B, proportional:B:random_order, proportional:B:independent with whole numbers from "
           "1, nor one of these but window and reservoir with /N behind it, N segments a batch");
}

/// Calls visit(estimator) with the estimator that the policy names, over `model`, for sequences of up to
/// `segments` segments, and returns what it returns. `choose` is the randomness of those that draw. Throws
/// unroll::error where the policy needs an independent model and this one is not, and where it takes no
/// batches.
template <memory_model M, chooser C, class Visit>
decltype(auto) with_policy(const policy& p, const M& model, index_t segments, const C& choose,
                           Visit&& visit) {
  if (p.batch != 1 && !takes_batches(p.name))
    fail("with_policy", "policy", "is \"" + to_string(p) + "\", which takes segments one by one: /1");
  switch (p.name) {
    case policy::kind::window:
      return visit(incremental_tbptt(model, {.segments = segments, .window = p.size}));
    case policy::kind::reservoir:
      if (!p.compensated)
        return visit(uncompensated_reservoir(model, {.segments = segments, .size = p.size}, choose));
      return visit(reservoir_tbptt(model, {.segments = segments, .size = p.size}, choose));
    case policy::kind::proportional:
      return visit(proportional_replay(
          model, {.segments = segments, .budget = p.size, .design = p.design, .batch = p.batch}, choose));
    case policy::kind::keep_all:
      return visit(rematerialise(model, {.segments = segments, .keep = segments, .batch = p.batch}));
    case policy::kind::keep:
      return visit(rematerialise(model, {.segments = segments, .keep = p.size, .batch = p.batch}));
    case policy::kind::rematerialise:
      break;
  }
  return visit(rematerialise(model, {.segments = segments, .batch = p.batch}));
}

}  // namespace unroll
