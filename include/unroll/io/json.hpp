#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/io/messages.hpp"

namespace unroll {

namespace detail {

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

/// The members of an object of JSON from outside, by key and type. A member that is null is absent. Every key
/// is one of three: read (some call asked for it), harmless, or refused by refuse_unknown(), so that no
/// option is passed over. Holds a reference to the object.
class json_members {
 public:
  json_members(const nlohmann::json& object, std::string function, std::string name)
      : object_(object), function_(std::move(function)), name_(std::move(name)) {
    if (!object_.is_object()) fail(function_, name_, "is no JSON object");
  }
  json_members(nlohmann::json&&, std::string, std::string) = delete;

  /// The value, or null where the member is absent or null; marks it as read.
  const nlohmann::json* find(const char* key) const {
    read_.insert(key);
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }
  /// The member is there and null.
  bool null(const char* key) const {
    const auto at = object_.find(key);
    return at != object_.end() && at->is_null();
  }
  /// From 1 to 2^31; throws unroll::error where it is absent or another value.
  index_t integer(const char* key) const {
    const auto* v = find(key);
    if (!v) fail(function_, name_, "lacks " + detail::in_quotes(key));
    if (!v->is_number_unsigned() || v->get<std::uint64_t>() < 1 ||
        v->get<std::uint64_t>() > std::uint64_t{1} << 31)
      refuse(key, "a whole number from 1 to 2^31");
    return index_t(v->get<std::uint64_t>());
  }
  /// Or `otherwise` where it is absent.
  index_t integer(const char* key, index_t otherwise) const { return find(key) ? integer(key) : otherwise; }
  /// A number, or `otherwise` where it is absent.
  double number(const char* key, double otherwise) const {
    const auto* v = find(key);
    if (!v) return otherwise;
    if (!v->is_number()) refuse(key, "a number");
    return v->get<double>();
  }
  /// A truth value, or `otherwise` where it is absent.
  bool truth(const char* key, bool otherwise) const {
    const auto* v = find(key);
    if (!v) return otherwise;
    if (!v->is_boolean()) refuse(key, "true or false");
    return v->get<bool>();
  }
  /// A text, or `otherwise` where it is absent.
  std::string text(const char* key, const char* otherwise) const {
    const auto* v = find(key);
    if (!v) return otherwise;
    if (!v->is_string()) refuse(key, "a text");
    return v->get<std::string>();
  }

  /// Throws for the first key that no call has asked for and that is not among `harmless`; call it when
  /// everything has been read.
  void refuse_unknown(std::span<const harmless_key> harmless = {}) const {
    for (const auto& [key, value] : object_.items()) {
      const auto same = [&k = key](const harmless_key& h) { return k == h.key; };
      if (value.is_null() || read_.contains(key) || std::any_of(harmless.begin(), harmless.end(), same))
        continue;
      refuse(key, "no such key: it is neither implemented nor known to change nothing");
    }
  }
  /// Throws "function: file: "key" is value, expected what".
  [[noreturn]] void refuse(const std::string& key, const std::string& what) const {
    const auto at = object_.find(key);
    std::string value = at == object_.end() || at->is_null()
                            ? "absent"
                            : at->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (value.size() > 200) value = value.substr(0, 200) + "...";
    fail(function_, name_, detail::in_quotes(key) + " is " + value + ", expected " + what);
  }
  const std::string& function() const { return function_; }
  const std::string& name() const { return name_; }  ///< the file, as messages show it

 private:
  const nlohmann::json& object_;
  std::string function_, name_;
  mutable std::set<std::string> read_;  // keys that were asked for
};

}  // namespace unroll
