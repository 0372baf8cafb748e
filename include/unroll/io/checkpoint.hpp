#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "unroll/core/block.hpp"
#include "unroll/io/file.hpp"
#include "unroll/io/hash.hpp"

namespace unroll {

/// The state of a training run: named blocks of float, double or int64, and named texts. Written and read
/// back bit by bit.
///
///     checkpoint c;                                  checkpoint c = load_checkpoint(path);
///     c.set("theta", theta);                         c.get("theta", theta);
///     c.save("adam", opt);                           c.load("adam", opt);
///     save_checkpoint(path, c);
///
/// File, little-endian: magic "UNROLLCP", u32 version, u32 entries, u64 length of the file; every entry u8
/// kind, u32 length of the name, u64 bytes of the value, name, value; u64 FNV-1a hash of all before. Loading
/// compares length and hash before anything is interpreted, and never allocates more than the file holds.
class checkpoint {
 public:
  static constexpr std::uint32_t version = 1;  ///< of the file's layout

  /// Stores numbers under a name, in place of what it had.
  template <class T, class Space>
  void set(const std::string& name, view<T, Space> values) {
    entry& e = entries_[name];
    e.kind = kind_of<std::remove_const_t<T>>();
    e.bytes.assign(reinterpret_cast<const char*>(values.data()), std::size_t(values.size()) * sizeof(T));
  }
  /// Stores numbers under a name, in place of what it had.
  template <class T, class Space>
  void set(const std::string& name, const block<T, Space>& values) {
    set(name, view<const T, Space>(values));
  }
  /// One integer.
  void set(const std::string& name, std::int64_t value) { set(name, view<const std::int64_t>(&value, 1)); }
  /// Stores a text under a name, in place of what it had.
  void set_text(const std::string& name, std::string value) { entries_[name] = {'t', std::move(value)}; }

  /// Fills `values`; throws unroll::error when the block is missing or differs in type or size.
  template <class T, class Space>
  void get(const std::string& name, view<T, Space> values) const {
    const std::string& bytes = bytes_of(name, values);
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  }
  /// The same into a block.
  template <class T, class Space>
  void get(const std::string& name, block<T, Space>& values) const {
    get(name, view<T, Space>(values));
  }
  /// Throws unroll::error when it is missing or no integer.
  std::int64_t get_integer(const std::string& name) const {
    std::int64_t value = 0;
    get(name, view<std::int64_t>(&value, 1));
    return value;
  }
  /// Throws unroll::error when it is missing or no text.
  const std::string& text(const std::string& name) const { return find(name, 't').bytes; }
  /// Whether there is an entry of that name.
  bool has(const std::string& name) const { return entries_.contains(name); }

  /// Everything `object` shows through visit() (core/visit.hpp), under "prefix.name".
  template <class Object>
  void save(const std::string& prefix, Object& object) {
    object.visit([&](std::string_view inner, auto shown) {
      const std::string name = std::string(prefix).append(".").append(inner);
      if constexpr (std::same_as<decltype(shown), std::string_view>)
        set_text(name, std::string(shown));
      else
        set(name, shown);
    });
  }
  /// Puts `object`, made with the same sizes and options, where the one that was saved stood. Throws
  /// unroll::error where it is another kind of object, or of another size; only reset() can follow then. The
  /// inputs that an estimator holds come back by hold_inputs() (estimate/concept.hpp).
  template <class Object>
  void load(const std::string& prefix, Object& object) const {
    if constexpr (requires { object.reset({}); }) object.reset({});
    each(prefix, object, [this](const std::string& name, auto shown) { this->get(name, shown); });
  }
  /// Throws what load() throws where names, kinds and sizes are not those of `object`, which stays as it is.
  template <class Object>
  void check(const std::string& prefix, Object& object) const {
    each(prefix, object, [this](const std::string& name, auto shown) { this->bytes_of(name, shown); });
  }

  /// The file's content.
  std::string to_bytes() const {
    std::string out = "UNROLLCP";
    put(out, version);
    put(out, std::uint32_t(entries_.size()));
    std::uint64_t length = header + sizeof(std::uint64_t);
    for (const auto& e : entries_) length += entry_header + e.first.size() + e.second.bytes.size();
    put(out, length);
    out.reserve(std::size_t(length));
    for (const auto& e : entries_) {
      out += e.second.kind;
      put(out, std::uint32_t(e.first.size()));
      put(out, std::uint64_t(e.second.bytes.size()));
      out += e.first;
      out += e.second.bytes;
    }
    put(out, fnv1a(out));
    return out;
  }

  /// The inverse; `name` stands for the file in messages. Throws unroll::error on anything that to_bytes did
  /// not write.
  static checkpoint from_bytes(std::string_view bytes, const std::string& name) {
    const auto refuse = [&](const std::string& why) { fail("load_checkpoint", name, why); };
    if (bytes.size() < header + sizeof(std::uint64_t))
      refuse("has " + std::to_string(bytes.size()) + " bytes, which is less than an empty checkpoint");
    if (bytes.substr(0, 8) != "UNROLLCP") refuse("is not a checkpoint");
    std::size_t at = 8;
    const auto found = take<std::uint32_t>(bytes, at);
    if (found != version)
      refuse("has version " + std::to_string(found) + ", expected " + std::to_string(version));
    const auto entries = take<std::uint32_t>(bytes, at);
    const auto length = take<std::uint64_t>(bytes, at);
    if (length != bytes.size())
      refuse("has " + std::to_string(bytes.size()) + " bytes, its header says " + std::to_string(length));
    const std::size_t end = bytes.size() - sizeof(std::uint64_t);
    std::size_t tail = end;
    if (take<std::uint64_t>(bytes, tail) != fnv1a(bytes.substr(0, end)))
      refuse("is damaged: its hash differs");
    checkpoint result;
    result.file_ = name;
    for (std::uint32_t i = 0; i < entries; ++i) {
      if (end - at < entry_header) refuse("ends inside entry " + std::to_string(i));
      entry e;
      e.kind = bytes[at++];
      const auto name_size = take<std::uint32_t>(bytes, at);
      const auto value_size = take<std::uint64_t>(bytes, at);
      if (name_size > end - at || value_size > end - at - name_size)
        refuse("ends inside entry " + std::to_string(i));
      const std::string key(bytes.substr(at, name_size));
      e.bytes = bytes.substr(at + name_size, std::size_t(value_size));
      at += name_size + std::size_t(value_size);
      if (std::string_view("tfdi").find(e.kind) == std::string_view::npos)
        refuse("entry \"" + key + "\" is of no known kind");
      if (!result.entries_.emplace(key, std::move(e)).second) refuse("entry \"" + key + "\" is there twice");
    }
    if (at != end) refuse("has bytes behind its last entry");
    return result;
  }

 private:
  static constexpr std::size_t header = 8 + 4 + 4 + 8, entry_header = 1 + 4 + 8;

  struct entry {
    char kind = 't';  // t text, f float, d double, i int64
    std::string bytes;
  };

  template <class T>
  static constexpr char kind_of() {
    static_assert(std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, std::int64_t>,
                  "a checkpoint holds blocks of float, double or std::int64_t");
    return std::same_as<T, float> ? 'f' : std::same_as<T, double> ? 'd' : 'i';
  }
  // The bytes of numbers of this kind, as many as there are in `like`.
  template <class T, class Space>
  const std::string& bytes_of(const std::string& name, view<T, Space> like) const {
    const entry& e = find(name, kind_of<T>());
    if (e.bytes.size() != std::size_t(like.size()) * sizeof(T))
      fail("checkpoint::get", place(name),
           "has " + std::to_string(e.bytes.size() / sizeof(T)) + " numbers, expected " +
               std::to_string(like.size()));
    return e.bytes;
  }
  // f(name, numbers) of all numbers that an object shows, whose texts are those here.
  template <class Object, class F>
  void each(const std::string& prefix, Object& object, F&& f) const {
    object.visit([&](std::string_view inner, auto shown) {
      const std::string name = std::string(prefix).append(".").append(inner);
      if constexpr (std::same_as<decltype(shown), std::string_view>) {
        if (const std::string& found = text(name); found != shown)
          fail("checkpoint::load", place(name),
               "is \"" + found + "\", expected \"" + std::string(shown) + "\"");
      } else {
        f(name, shown);
      }
    });
  }
  // An entry as messages show it, with the file that it was read from.
  std::string place(const std::string& name) const {
    return (file_.empty() ? "" : file_ + ", ") + "\"" + name + "\"";
  }
  const entry& find(const std::string& name, char kind) const {
    const auto at = entries_.find(name);
    if (at == entries_.end()) {
      std::string names;
      for (const auto& e : entries_) names += (names.empty() ? "" : ", ") + e.first;
      fail("checkpoint", place(name), "is none of " + names);
    }
    if (at->second.kind != kind)
      fail("checkpoint", place(name),
           std::string("is of kind ") + at->second.kind + ", expected " + kind +
               " (t text, f float, d double, i int64)");
    return at->second;
  }

  template <std::integral I>
  static void put(std::string& out, I value) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    out.append(raw, sizeof value);
  }
  template <std::integral I>
  static I take(std::string_view bytes, std::size_t& at) {
    I value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return value;
  }
  std::map<std::string, entry> entries_;
  std::string file_;
};

/// Replaces the file in one step: an interrupted save leaves the previous checkpoint.
inline void save_checkpoint(const std::filesystem::path& path, const checkpoint& c) {
  write_file(path, c.to_bytes(), "save_checkpoint");
}

/// Throws unroll::error that names the file when it is missing, cut, altered or of another version.
inline checkpoint load_checkpoint(const std::filesystem::path& path) {
  return checkpoint::from_bytes(read_file(path, "load_checkpoint"), detail::quoted_path(path));
}

}  // namespace unroll
