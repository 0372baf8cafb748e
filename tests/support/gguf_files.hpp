#pragma once

#include <cstdint>
#include <string>
#include <vector>

// GGUF files, made in memory, well formed or not.
namespace made {

template <class N>
std::string bytes_of(N n) {
  return std::string(reinterpret_cast<const char*>(&n), sizeof n);
}
inline std::string text_of(const std::string& text) { return bytes_of(std::uint64_t(text.size())) + text; }

/// Keys and tensors in the order in which they are added; every member may be changed before bytes().
struct gguf_file {
  struct tensor {
    std::string name;
    std::vector<std::uint64_t> extents;  // the fastest first
    std::uint32_t kind;
    std::string data;
    std::uint64_t offset;
  };
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;
  std::vector<std::pair<std::string, std::string>> keys;  // type and value as bytes
  std::vector<tensor> tensors;
  std::uint64_t data_bytes = 0;

  gguf_file& key(const std::string& name, const std::string& type_and_value) {
    keys.emplace_back(name, type_and_value);
    return *this;
  }
  gguf_file& u32(const std::string& name, std::uint32_t n) {
    return key(name, bytes_of(std::uint32_t{4}) + bytes_of(n));
  }
  gguf_file& f32(const std::string& name, float x) {
    return key(name, bytes_of(std::uint32_t{6}) + bytes_of(x));
  }
  gguf_file& truth(const std::string& name, bool b) {
    return key(name, bytes_of(std::uint32_t{7}) + std::string(1, char(b)));
  }
  gguf_file& text(const std::string& name, const std::string& t) {
    return key(name, bytes_of(std::uint32_t{8}) + text_of(t));
  }
  /// An array of `count` elements whose bytes are given.
  gguf_file& array(const std::string& name, std::uint32_t type, std::uint64_t count,
                   const std::string& elements) {
    return key(name, bytes_of(std::uint32_t{9}) + bytes_of(type) + bytes_of(count) + elements);
  }
  gguf_file& texts(const std::string& name, const std::vector<std::string>& all) {
    std::string elements;
    for (const auto& t : all) elements += text_of(t);
    return array(name, 8, all.size(), elements);
  }
  gguf_file& add(const std::string& name, const std::vector<std::uint64_t>& extents, std::uint32_t kind,
                 const std::string& data) {
    tensors.push_back({name, extents, kind, data, data_bytes});
    data_bytes += (data.size() + alignment - 1) / alignment * alignment;
    return *this;
  }
  gguf_file& add(const std::string& name, const std::vector<std::uint64_t>& extents,
                 const std::vector<float>& numbers) {
    return add(name, extents, 0,
               std::string(reinterpret_cast<const char*>(numbers.data()), 4 * numbers.size()));
  }

  /// Replaces the value of a key, or removes it where `type_and_value` is empty.
  gguf_file with(const std::string& name, const std::string& type_and_value) const {
    gguf_file out = *this;
    std::erase_if(out.keys, [&](const auto& k) { return k.first == name; });
    if (!type_and_value.empty()) out.key(name, type_and_value);
    return out;
  }

  std::string bytes() const {
    std::string out = "GGUF" + bytes_of(version) + bytes_of(std::uint64_t(tensors.size())) +
                      bytes_of(std::uint64_t(keys.size()));
    for (const auto& [name, value] : keys) out += text_of(name) + value;
    for (const tensor& t : tensors) {
      out += text_of(t.name) + bytes_of(std::uint32_t(t.extents.size()));
      for (const auto n : t.extents) out += bytes_of(n);
      out += bytes_of(t.kind) + bytes_of(t.offset);
    }
    const auto pad = [&] { out.resize((out.size() + alignment - 1) / alignment * alignment, '\7'); };
    if (tensors.empty()) return out;
    pad();
    const std::size_t data = out.size();
    for (const tensor& t : tensors) {
      if (t.offset < 4096 && out.size() < data + t.offset) out.resize(data + t.offset, '\7');
      out += t.data;
    }
    pad();
    return out;
  }
};

inline std::string u32_value(std::uint32_t n) { return bytes_of(std::uint32_t{4}) + bytes_of(n); }
inline std::string f32_value(float x) { return bytes_of(std::uint32_t{6}) + bytes_of(x); }
inline std::string text_value(const std::string& t) { return bytes_of(std::uint32_t{8}) + text_of(t); }

}  // namespace made
