#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "unroll/core/error.hpp"

// What the catalogues of estimators (catalogue.hpp, policy.hpp) are made of: a list of types, one an
// estimator, each with
//
//   static constexpr std::string_view form   how it is written: the name, then its options, with a colon in
//                                            front of each; those that may be left out in brackets
//   static constexpr claim gradient          what its gradient is
//   static constexpr std::string_view what   the same estimator in half a line
namespace unroll {

/// What an estimator claims of its gradient.
enum class claim {
  exact,     ///< neither bias nor variance
  biased,    ///< not even right on average
  unbiased,  ///< right on average
  smoothed   ///< unbiased for a smoothed loss
};

/// As help texts and tables name it.
constexpr std::string_view name_of(claim c) {
  switch (c) {
    case claim::exact:
      return "exact";
    case claim::biased:
      return "biased";
    case claim::unbiased:
      return "unbiased";
    case claim::smoothed:
      break;
  }
  return "unbiased for a smoothed loss";
}

/// One line of a catalogue.
struct catalogue_line {
  std::string_view form;  ///< "tbptt[:K1]:K2"
  claim gradient;         ///< what it claims
  std::string_view what;  ///< in half a line

  /// What is in front of the options.
  constexpr std::string_view name() const { return form.substr(0, form.find_first_of(":[")); }
  /// How many options there may be.
  struct range {
    std::size_t least = 0, most = 0;  ///< both included
  };
  /// Those that are not in brackets must be there.
  constexpr range options() const {
    range n;
    int depth = 0;
    for (const char c : form) {
      depth += (c == '[') - (c == ']');
      n.most += c == ':';
      n.least += c == ':' && depth == 0;
    }
    return n;
  }
};

/// That of an entry.
template <class Entry>
constexpr catalogue_line line_of(Entry = {}) {
  return {Entry::form, Entry::gradient, Entry::what};
}

/// A list of entries.
template <class... Entry>
struct catalogue_entries {
  /// All of them as text, in order.
  static constexpr catalogue_line lines[sizeof...(Entry)] = {line_of<Entry>()...};

  /// All forms, and behind those of one claim what it is: "bptt, rtrl: exact; tbptt[:K1]:K2: biased".
  static std::string forms() {
    std::string text;
    const catalogue_line* before = nullptr;
    for (const catalogue_line& line : lines) {
      if (before && before->gradient != line.gradient) text.append(": ").append(name_of(before->gradient));
      if (before) text.append(before->gradient == line.gradient ? ", " : "; ");
      text.append(line.form);
      before = &line;
    }
    return text.append(": ").append(name_of(before->gradient));
  }

  /// Calls v(entry) for every entry.
  template <class V>
  static void for_each(V&& v) {
    (v(Entry{}), ...);
  }

  /// visit(entry) for the first entry with is_it(entry), and what it returns, of one type for all entries;
  /// none() does not return.
  template <class Is, class Visit, class None>
  static decltype(auto) find(Is&& is_it, Visit&& visit, None&& none) {
    return find_among<Entry...>(is_it, visit, none);
  }

 private:
  template <class First, class... Rest, class Is, class Visit, class None>
  static decltype(auto) find_among(Is& is_it, Visit& visit, None& none) {
    if constexpr (sizeof...(Rest) > 0) {
      if (!is_it(First{})) return find_among<Rest...>(is_it, visit, none);
    } else {
      if (!is_it(First{})) none();
    }
    return visit(First{});
  }
};

}  // namespace unroll
