#pragma once

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/error.hpp"

namespace unroll {

namespace detail {

/// A name that stands in a file, quoted for a message: cut when it is long, control characters replaced.
inline std::string in_quotes(std::string_view name) {
  std::string out = "\"";
  for (const char c : name.substr(0, 200)) out += static_cast<unsigned char>(c) < 32 ? '?' : c;
  return out + (name.size() > 200 ? "...\"" : "\"");
}

// Sees the text before any value is built: nesting has a limit, and no object names a member twice.
class json_check {
 public:
  using json = nlohmann::json;

  json_check(std::size_t depth, const std::string& function, const std::string& name)
      : depth_(depth), function_(function), name_(name) {}

  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(json::number_integer_t) { return true; }
  bool number_unsigned(json::number_unsigned_t) { return true; }
  bool number_float(json::number_float_t, const json::string_t&) { return true; }
  bool string(json::string_t&) { return true; }
  bool binary(json::binary_t&) { return true; }
  bool start_object(std::size_t) { return enter(); }
  bool end_object() { return leave(); }
  bool start_array(std::size_t) { return enter(); }
  bool end_array() { return leave(); }
  bool key(json::string_t& k) {
    if (!names_.back().insert(k).second) fail(function_, name_, "names " + in_quotes(k) + " twice");
    return true;
  }
  bool parse_error(std::size_t at, const std::string&, const json::exception&) {
    fail(function_, name_, "is damaged JSON at byte " + std::to_string(at));
  }

 private:
  bool enter() {
    if (names_.size() == depth_)
      fail(function_, name_, "has JSON nested deeper than " + std::to_string(depth_) + " levels");
    names_.emplace_back();
    return true;
  }
  bool leave() {
    names_.pop_back();
    return true;
  }

  std::size_t depth_;
  const std::string &function_, &name_;
  std::vector<std::set<std::string>> names_;
};

}  // namespace detail

/// The value that a text from outside describes. Throws unroll::error "function: name: ..." when it is no
/// JSON, is nested deeper than `depth`, or when an object names a member twice, which nlohmann::json would
/// let pass. Needs nlohmann-json, which is why this header is not part of unroll.hpp.
inline nlohmann::json parse_json(std::string_view text, const std::string& function, const std::string& name,
                                 std::size_t depth = 16) {
  detail::json_check check(depth, function, name);
  nlohmann::json::sax_parse(text, &check);
  return nlohmann::json::parse(text, nullptr, false);
}

}  // namespace unroll
