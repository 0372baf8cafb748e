#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unroll/core/bf16.hpp"
#include "unroll/core/view.hpp"
#include "unroll/io/file_kind.hpp"
#include "unroll/io/gguf_unpack.hpp"
#include "unroll/io/messages.hpp"

namespace unroll {

/// Whether the bytes begin as those of a GGUF file.
inline bool is_gguf(const byte_source& bytes) { return bytes.size() >= 4 && bytes.read(0, 4) == "GGUF"; }

/// What a key of a GGUF file holds, by the numbers of the files.
enum class gguf_type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

/// The keys and tensors of one GGUF file of version 2 or 3, little-endian:
///
///   "GGUF", u32 version, u64 tensors, u64 keys; text: u64 length, bytes
///   a key:    text name, u32 type, value (array: u32 type of elements, u64 count, elements)
///   a tensor: text name, u32 number of extents, u64 extents, the fastest first, u32 kind, u64 offset
///   the data, from the next multiple of general.alignment (32) on; offsets count from there
///
/// The constructor refuses, with unroll::error that names file, key or tensor and both values: counts and
/// lengths beyond the file, names that come twice, arrays of arrays, an alignment that is no power of two,
/// kinds that gguf_blocks lacks, rows that are no whole blocks, tensors that leave the file or overlap. Order
/// of the data and gaps are free, as for the package gguf 0.19.0; llama.cpp wants neither. Values and tensors
/// are read one by one, and nothing is allocated that the file's size does not allow.
class gguf {
 public:
  /// One key: `count` elements of `type` from byte `first` on.
  struct value {
    gguf_type type{};                    ///< of each element
    bool is_array = false;               ///< otherwise one value
    std::uint64_t count = 1, first = 0;  ///< elements, and the byte where they begin
  };
  /// One tensor.
  struct tensor {
    std::uint32_t kind = 0;      ///< as gguf_blocks names them
    std::vector<index_t> shape;  ///< the slowest extent first, as everywhere else: [out, in]
    index_t size = 0;            ///< numbers
    std::uint64_t first = 0;     ///< byte in the file
    std::uint64_t bytes = 0;     ///< of its blocks
  };

  explicit gguf(byte_source bytes) : bytes_(std::move(bytes)) {
    if (bytes_.size() < 24)
      bytes_.refuse("has " + std::to_string(bytes_.size()) + " bytes, no GGUF file has less than 24");
    refuse_other_kinds(bytes_, "a GGUF file");
    if (!is_gguf(bytes_)) bytes_.refuse("does not begin with \"GGUF\"");
    at_ = 4;
    const auto version = next<std::uint32_t>();
    if (version == 2u << 24 || version == 3u << 24)
      bytes_.refuse("is a big-endian GGUF file, which is not read");
    if (version != 2 && version != 3)
      bytes_.refuse("is a GGUF file of version " + std::to_string(version) + ", expected 2 or 3");
    const auto tensors = next<std::uint64_t>(), keys = next<std::uint64_t>();
    check_count("tensors", tensors, 32);
    check_count("keys", keys, 13);
    for (std::uint64_t i = 0; i < keys; ++i) read_key();
    const auto alignment = get<std::uint32_t>("general.alignment", usual_alignment);
    if (!std::has_single_bit(alignment))
      refuse_key("general.alignment", std::to_string(alignment), "a power of two");
    for (std::uint64_t i = 0; i < tensors; ++i) read_tensor(alignment);
    const std::uint64_t data = data_start(alignment);
    for (auto& [name, t] : tensors_) t.first += data, check_place(name, t, data);
    check_apart();
  }

  /// The file, mapped into memory.
  static gguf open(const std::filesystem::path& path, std::string_view function) {
    return gguf(byte_source::map(path, function));
  }

  const byte_source& source() const { return bytes_; }                       ///< the bytes of the file
  const std::map<std::string, value>& keys() const { return keys_; }         ///< by name
  const std::map<std::string, tensor>& tensors() const { return tensors_; }  ///< by name

  bool has(const std::string& key) const { return keys_.contains(key); }  ///< whether the file has it

  static constexpr std::uint32_t usual_alignment = 32;  ///< where general.alignment is absent
  /// The next multiple of `alignment` behind the keys and the list of tensors.
  std::uint64_t data_start(std::uint32_t alignment) const {
    return (at_ + alignment - 1) / alignment * alignment;
  }
  /// Bytes behind the last number of any tensor.
  std::uint64_t bytes_behind() const {
    std::uint64_t end = at_;
    for (const auto& named : tensors_) end = std::max(end, named.second.first + named.second.bytes);
    return bytes_.size() - std::min(end, bytes_.size());
  }

  /// The value of a key whose type is that of T: an integer of 16, 32 or 64 bits, float, double, bool or
  /// std::string. Throws unroll::error where the file lacks it or has another type.
  template <class T>
  T get(const std::string& key) const {
    const value& v = find(key);
    check_type(key, v, type_of<T>(), false);
    std::uint64_t at = v.first;
    return read_value<T>(key, at);
  }
  /// The same; `otherwise` where the file has no such key.
  template <class T>
  T get(const std::string& key, T otherwise) const {
    return has(key) ? get<T>(key) : otherwise;
  }
  /// The elements of an array of such values.
  template <class T>
  std::vector<T> list(const std::string& key) const {
    const value& v = find(key);
    check_type(key, v, type_of<T>(), true);
    std::vector<T> out;
    out.reserve(std::size_t(v.count));  // the constructor has seen them
    for (std::uint64_t i = 0, at = v.first; i < v.count; ++i) out.push_back(read_value<T>(key, at));
    return out;
  }

  /// Throws unroll::error, with the file and the name, where there is none.
  const tensor& at(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) bytes_.refuse("lacks tensor " + detail::in_quotes(name));
    return found->second;
  }

  /// Numbers [first, first + out.size()) of a tensor in row-major order, whole blocks, dequantised to float,
  /// which double holds without rounding and bf16 rounds to nearest. Nan and infinity, also those that
  /// rounding makes, are refused with their position unless allowed.
  template <class T>
  void read(const std::string& name, index_t first, view<T> out, bool allow_non_finite = false) const {
    const tensor& t = at(name);
    if (first < 0 || first > t.size || out.size() > t.size - first)
      refuse(name, "has " + std::to_string(t.size) + " numbers, " + std::to_string(out.size()) + " from " +
                       std::to_string(first) + " on are needed");
    gguf_blocks::with_kind(t.kind, [&]<class Kind>(Kind) {
      if (first % Kind::values != 0 || out.size() % Kind::values != 0)
        refuse(name, "has blocks of " + std::to_string(Kind::values) + " numbers, " +
                         std::to_string(out.size()) + " from " + std::to_string(first) + " on are needed");
      const index_t bad = unpack<Kind>(t.first + std::uint64_t(first / Kind::values * Kind::bytes), out);
      if (bad < out.size() && !allow_non_finite)
        refuse(name, "is " + std::to_string(out[bad]) + " at " + detail::position_text(t.shape, first + bad));
    });
  }

  /// Throws for the first key that begins with `prefix` and goes on as none of `known` and `harmless` does: a
  /// key that nobody reads may change what is computed.
  template <std::size_t K, std::size_t H>
  void refuse_unknown(std::string_view prefix, const std::string_view (&known)[K],
                      const harmless_key (&harmless)[H]) const {
    for (const auto& named : keys_) {
      const std::string& key = named.first;
      if (!key.starts_with(prefix)) continue;
      const std::string_view rest = std::string_view(key).substr(prefix.size());
      const bool passes =
          std::find(known, known + K, rest) != known + K ||
          std::any_of(harmless, harmless + H, [&](const harmless_key& h) { return rest == h.key; });
      if (!passes) bytes_.refuse("has key " + detail::in_quotes(key) + ", which is not implemented");
    }
  }
  /// Throws "function: file: tensor "name" message".
  [[noreturn]] void refuse(const std::string& name, const std::string& message) const {
    bytes_.refuse("tensor " + detail::in_quotes(name) + " " + message);
  }
  /// Throws "function: file: "key" is `found`, expected `expected`".
  [[noreturn]] void refuse_key(const std::string& key, const std::string& found,
                               const std::string& expected) const {
    bytes_.refuse(detail::in_quotes(key) + " is " + found + ", expected " + expected);
  }

 private:
  struct type_facts {
    const char* name;
    std::uint64_t bytes;  // at least
  };
  static type_facts facts(gguf_type t) {
    static constexpr std::array<type_facts, 13> all{{{"u8", 1},
                                                     {"i8", 1},
                                                     {"u16", 2},
                                                     {"i16", 2},
                                                     {"u32", 4},
                                                     {"i32", 4},
                                                     {"f32", 4},
                                                     {"bool", 1},
                                                     {"string", 8},
                                                     {"array", 12},
                                                     {"u64", 8},
                                                     {"i64", 8},
                                                     {"f64", 8}}};
    return all[std::size_t(t)];
  }
  static std::string type_text(const value& v) {
    return (v.is_array ? "an array of " : "of type ") + std::string(facts(v.type).name);
  }
  template <class T>
  static constexpr gguf_type type_of() {
    if constexpr (std::same_as<T, std::uint16_t>)
      return gguf_type::u16;
    else if constexpr (std::same_as<T, std::int16_t>)
      return gguf_type::i16;
    else if constexpr (std::same_as<T, std::uint32_t>)
      return gguf_type::u32;
    else if constexpr (std::same_as<T, std::int32_t>)
      return gguf_type::i32;
    else if constexpr (std::same_as<T, std::uint64_t>)
      return gguf_type::u64;
    else if constexpr (std::same_as<T, std::int64_t>)
      return gguf_type::i64;
    else if constexpr (std::same_as<T, float>)
      return gguf_type::f32;
    else if constexpr (std::same_as<T, double>)
      return gguf_type::f64;
    else if constexpr (std::same_as<T, bool>)
      return gguf_type::boolean;
    else {
      static_assert(std::same_as<T, std::string>, "no type of a GGUF key");
      return gguf_type::text;
    }
  }

  template <class N>
  N number_at(std::uint64_t at) const {
    std::array<unsigned char, sizeof(N)> copy;
    N n;
    std::memcpy(&n, bytes_.bytes(at, copy.data(), sizeof n), sizeof n);
    return n;
  }
  // What stands at at_, which moves behind it.
  template <class N>
  N next() {
    const N n = number_at<N>(at_);
    at_ += sizeof n;
    return n;
  }
  // The length of a text of the file, whose bytes at_ stands behind then.
  std::uint64_t skip_text(const char* what) {
    const auto length = next<std::uint64_t>();
    if (length > bytes_.size() - at_)
      bytes_.refuse(std::string("has ") + what + " of " + std::to_string(length) + " bytes at byte " +
                    std::to_string(at_) + " of " + std::to_string(bytes_.size()));
    at_ += length;
    return length;
  }
  std::string next_text(const char* what) {
    const std::uint64_t length = skip_text(what);
    return bytes_.read(at_ - length, length);
  }
  gguf_type next_type(const std::string& key) {
    const auto type = next<std::uint32_t>();
    if (type > std::uint32_t(gguf_type::f64))
      bytes_.refuse("has " + detail::in_quotes(key) + " of the unknown type " + std::to_string(type));
    return gguf_type(type);
  }
  void check_count(const std::string& what, std::uint64_t count, std::uint64_t least_bytes) const {
    if (count > (bytes_.size() - at_) / least_bytes)
      bytes_.refuse("says that it has " + std::to_string(count) + " " + what + ", which no file of " +
                    std::to_string(bytes_.size()) + " bytes holds");
  }

  void read_key() {
    const std::string key = next_text("a name");
    value v;
    v.type = next_type(key);
    if (v.type == gguf_type::array) {
      v.is_array = true;
      v.type = next_type(key);
      if (v.type == gguf_type::array)
        bytes_.refuse("has " + detail::in_quotes(key) + ", an array of arrays, which is not read");
      v.count = next<std::uint64_t>();
      check_count("elements in " + detail::in_quotes(key), v.count, facts(v.type).bytes);
    }
    v.first = at_;
    if (v.type == gguf_type::text) {
      for (std::uint64_t i = 0; i < v.count; ++i) skip_text("a text");
    } else {
      check_count("elements in " + detail::in_quotes(key), v.count, facts(v.type).bytes);
      at_ += v.count * facts(v.type).bytes;
    }
    if (!keys_.emplace(key, v).second) bytes_.refuse("names key " + detail::in_quotes(key) + " twice");
  }

  void read_tensor(std::uint32_t alignment) {
    const std::string name = next_text("a name");
    tensor t;
    const auto extents = next<std::uint32_t>();
    if (extents < 1 || extents > 4)
      refuse(name, "has " + std::to_string(extents) + " extents, expected 1 to 4");
    t.size = 1;
    for (std::uint32_t k = 0; k < extents; ++k) {
      const auto extent = next<std::uint64_t>();
      if (extent < 1 || extent > (std::uint64_t{1} << 48) / std::uint64_t(t.size))
        refuse(name, "has extent " + std::to_string(extent) + ", a tensor has 1 to 2^48 numbers");
      t.shape.insert(t.shape.begin(), index_t(extent));
      t.size *= index_t(extent);
    }
    t.kind = next<std::uint32_t>();
    t.first = next<std::uint64_t>();
    const bool known = gguf_blocks::with_kind(t.kind, [&]<class Kind>(Kind) {
      if (t.shape.back() % Kind::values != 0)
        refuse(name, "has rows of " + std::to_string(t.shape.back()) + " numbers, " + Kind::name +
                         " has blocks of " + std::to_string(Kind::values));
      t.bytes = std::uint64_t(t.size / Kind::values * Kind::bytes);
    });
    if (!known)
      refuse(name, "is of kind " + gguf_blocks::unread_kind(t.kind) +
                       ", expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K");
    if (t.first % alignment != 0)
      refuse(name, "has offset " + std::to_string(t.first) + ", no multiple of the alignment " +
                       std::to_string(alignment));
    if (!tensors_.emplace(name, t).second) refuse(name, "comes twice");
  }

  void check_place(const std::string& name, const tensor& t, std::uint64_t data) const {
    const std::uint64_t size = bytes_.size();
    if (t.first < data || t.first > size || t.bytes > size - t.first)
      refuse(name, "of shape " + detail::shape_text(t.shape) + " has " + std::to_string(t.bytes) +
                       " bytes from offset " + std::to_string(t.first - data) + " on, the data has " +
                       std::to_string(size - std::min(size, data)));
  }

  void check_apart() const {
    std::vector<const std::pair<const std::string, tensor>*> order;
    for (const auto& t : tensors_) order.push_back(&t);
    std::sort(order.begin(), order.end(),
              [](const auto* a, const auto* b) { return a->second.first < b->second.first; });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const auto &before = *order[i - 1], &t = *order[i];
      if (t.second.first - before.second.first < before.second.bytes)
        refuse(t.first, "begins at byte " + std::to_string(t.second.first) + ", inside tensor " +
                            detail::in_quotes(before.first) + " of bytes " +
                            std::to_string(before.second.first) + " to " +
                            std::to_string(before.second.first + before.second.bytes));
    }
  }

  const value& find(const std::string& key) const {
    const auto found = keys_.find(key);
    if (found == keys_.end()) bytes_.refuse("lacks key " + detail::in_quotes(key));
    return found->second;
  }
  void check_type(const std::string& key, const value& v, gguf_type type, bool is_array) const {
    if (v.type != type || v.is_array != is_array) refuse_key(key, type_text(v), type_text({type, is_array}));
  }
  // What stands at `at`, which moves behind it; the constructor has seen that it is there.
  template <class T>
  T read_value(const std::string& key, std::uint64_t& at) const {
    if constexpr (std::same_as<T, std::string>) {
      const auto length = number_at<std::uint64_t>(at);
      at += sizeof length + length;
      return bytes_.read(at - length, length);
    } else if constexpr (std::same_as<T, bool>) {
      const auto b = number_at<unsigned char>(at++);
      if (b > 1) refuse_key(key, std::to_string(b), "0 or 1");
      return b == 1;
    } else {
      const T n = number_at<T>(at);
      at += sizeof n;
      return n;
    }
  }

  // Returns where the first number stands that is not finite; out.size(): there is none.
  template <class Kind, class T>
  index_t unpack(std::uint64_t at, view<T> out) const {
    constexpr index_t most = 4096 / Kind::values, bytes = Kind::bytes, values = Kind::values;
    std::array<unsigned char, std::size_t(most * bytes)> packed;
    index_t bad = out.size();
    const index_t blocks = out.size() / values;
    for (index_t i = 0; i < blocks; i += most) {
      const index_t n = std::min(most, blocks - i);
      const auto* from = bytes_.bytes(at + std::uint64_t(i * bytes), packed.data(), std::size_t(n * bytes));
      const view<T> piece(out.data() + i * values, n * values);
      if (!gguf_blocks::unpack<Kind>(from, n, piece.data()) && bad == out.size())
        bad = i * values + detail::first_non_finite(view<const T>(piece));
    }
    return bad;
  }

  byte_source bytes_;
  std::uint64_t at_ = 0;
  std::map<std::string, value> keys_;
  std::map<std::string, tensor> tensors_;
};

}  // namespace unroll
