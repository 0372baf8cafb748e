#pragma once

#include <algorithm>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/error.hpp"

namespace unroll::detail {

/// Says of a regular expression of Python's `re` what std::regex would understand otherwise or not at all;
/// empty where both match the same names (printable ASCII, no line breaks). What is left is: characters,
/// escaped punctuation, `.`, \d \w \s \D \W \S \b \B, sets of these and of ranges, ( ), (?: ), (?= ), (?! ),
/// |, ^, $, and * + ? {m} {m,} {m,n} with or without a ? behind them; with repetitions written out, 2000
/// characters and 20 looks ahead at most, none of them inside another, so that no pattern takes long.
class pattern_check {
 public:
  static std::string refusal(std::string_view pattern) { return pattern_check(pattern).run(); }
  /// Characters of a pattern that is not refused, repetitions written out.
  static std::size_t size(std::string_view pattern) {
    pattern_check check(pattern);
    check.run();
    return check.size_;
  }

 private:
  explicit pattern_check(std::string_view p) : p_(p) {}

  static bool digit(char c) { return c >= '0' && c <= '9'; }
  static bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
  static bool among(char c, std::string_view list) { return list.find(c) != std::string_view::npos; }
  bool at(std::string_view what) const { return p_.substr(i_).starts_with(what); }

  std::string run() {
    if (p_.size() > 2000) return "a pattern of more than 2000 characters";
    for (const char c : p_)
      if (c < 32 || c > 126) return "a character that is not printable ASCII";
    while (i_ < p_.size() && refused_.empty()) {
      take();
      if (refused_.empty() && size_ > most) return "repetitions of more than 2000 characters";
      if (refused_.empty() && aheads_ > 20) return "more than 20 looks ahead";
    }
    if (refused_.empty() && !groups_.empty()) refused_ = "a ( without its )";
    return refused_;
  }
  void refuse(std::string_view what) {
    refused_ = "\"" + std::string(what) + "\" at character " + std::to_string(i_ + 1);
  }

  void take() {
    switch (const char c = p_[i_]) {
      case '\\':
        return escape();
      case '[':
        return set();
      case '(':
        return open();
      case ')':
        if (groups_.empty()) return refuse(")");
        atom_ = !groups_.back().ahead;
        last_ = size_ - groups_.back().size;
        last_aheads_ = aheads_ - groups_.back().aheads;
        groups_.pop_back();
        ++i_;
        return;
      case '|':
      case '^':
      case '$':
        atom_ = false;
        ++i_;
        return;
      case '*':
      case '+':
      case '?':
        if (!atom_) return refuse(p_.substr(i_, 1));
        ++i_;
        return behind_quantifier();
      case '{':
        return count();
      case '}':
      case ']':
        return refuse(std::string_view(&c, 1));
      default:
        one_more();
        ++i_;
    }
  }
  // A character or a set, which can be repeated.
  void one_more() {
    atom_ = true;
    ++size_;
    last_ = 1;
    last_aheads_ = 0;
  }
  void escape() {
    if (i_ + 1 == p_.size()) return refuse("\\");
    const char c = p_[i_ + 1];
    if ((letter(c) && !among(c, "dDwWsSbB")) || digit(c)) return refuse(p_.substr(i_, 2));
    one_more();
    atom_ = c != 'b' && c != 'B';
    i_ += 2;
  }
  void open() {
    bool ahead = false;
    if (at("(?")) {
      ahead = at("(?=") || at("(?!");
      if (!ahead && !at("(?:")) return refuse(p_.substr(i_, at("(?P") || at("(?<") ? 4 : 3));
      for (const group& g : groups_)
        if (ahead && g.ahead) return refuse(p_.substr(i_, 3));
      i_ += 2;
    }
    groups_.push_back({ahead, size_, aheads_});
    ++size_;
    aheads_ += ahead;
    atom_ = false;
    ++i_;
  }
  void set() {
    const std::size_t first = i_;
    const auto refuse_set = [&] {
      const std::string_view text = p_.substr(first, i_ + 1 - first);
      i_ = first;
      refuse(text);
    };
    i_ += at("[^") ? std::size_t{2} : std::size_t{1};
    const std::size_t begin = i_;
    for (; i_ < p_.size() && (p_[i_] != ']' || i_ == begin); ++i_) {
      const char c = p_[i_];
      if (c == '[' || c == ']') return refuse_set();
      if (c == '\\') {
        const char next = i_ + 1 < p_.size() ? p_[i_ + 1] : 'x';
        if ((letter(next) && !among(next, "dDwWsS")) || digit(next)) return refuse_set();
        ++i_;
      } else if (c == '-' && i_ > begin && !at("-]")) {  // a range of plain characters
        const char low = p_[i_ - 1], high = i_ + 1 < p_.size() ? p_[i_ + 1] : ' ';
        const bool plain =
            (digit(low) && digit(high)) || (letter(low) && letter(high) && (low >= 'a') == (high >= 'a'));
        if (!plain || low > high || (i_ - begin >= 2 && among(p_[i_ - 2], "\\-"))) return refuse_set();
      }
    }
    if (i_ >= p_.size()) return refuse_set();
    ++i_;
    one_more();
  }
  void count() {
    std::size_t end = i_ + 1;
    std::vector<std::string> numbers(1);
    for (; end < p_.size() && p_[end] != '}'; ++end)
      if (p_[end] == ',')
        numbers.emplace_back();
      else if (digit(p_[end]))
        numbers.back() += p_[end];
      else
        return refuse("{");
    const auto bad = [](const std::string& n) { return n.empty() || n.size() > 3; };
    if (!atom_ || end == p_.size() || numbers.size() > 2 || bad(numbers[0])) return refuse("{");
    if (numbers.size() == 2 && !numbers[1].empty() &&
        (bad(numbers[1]) || std::stoi(numbers[0]) > std::stoi(numbers[1])))
      return refuse("{");
    const std::string& largest = numbers.back().empty() ? numbers[0] : numbers.back();
    const auto more = std::size_t(std::max(1, std::stoi(largest)) - 1);
    size_ += more * last_;
    aheads_ += more * last_aheads_;
    i_ = end + 1;
    behind_quantifier();
  }
  // A ? makes it lazy; another sign would be Python's possessive quantifier or an error.
  void behind_quantifier() {
    if (at("?")) ++i_;
    atom_ = false;
  }

  std::string_view p_;
  std::size_t i_ = 0;
  bool atom_ = false;  // something that can be repeated stands in front
  struct group {
    bool ahead;                // (?= or (?!
    std::size_t size, aheads;  // in front of it
  };
  std::vector<group> groups_;  // open
  static constexpr std::size_t most = 2000;
  std::size_t size_ = 0, aheads_ = 0;       // characters and looks ahead, repetitions written out
  std::size_t last_ = 0, last_aheads_ = 0;  // of what stands in front
  std::string refused_;
};

/// Whether Python's re.fullmatch(pattern, name) finds a match. The pattern is one that pattern_check lets
/// pass; throws std::regex_error where it is too large. libstdc++ takes time polynomial in both lengths.
class module_pattern {
 public:
  explicit module_pattern(const std::string& pattern) : regex_(pattern, flags()) {}
  bool matches(const std::string& name) const { return std::regex_match(name, regex_); }

 private:
  static std::regex::flag_type flags() {
#ifdef __GLIBCXX__
    return std::regex::ECMAScript | std::regex_constants::__polynomial;
#else
    return std::regex::ECMAScript;
#endif
  }
  std::regex regex_;
};

}  // namespace unroll::detail
