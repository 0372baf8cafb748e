#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <map>
#include <tuple>

#include "unroll/core/bf16.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/io/file_kind.hpp"
#include "unroll/io/half.hpp"
#include "unroll/io/json.hpp"
#include "unroll/io/messages.hpp"

namespace unroll {

namespace detail {

/// Reads out.size() numbers from byte `at` on, each stored as `Stored` and turned by `one`.
template <class Stored, class T, class Convert>
void read_numbers(const byte_source& bytes, std::uint64_t at, view<T> out, Convert one) {
  if constexpr (std::same_as<Stored, T>) {
    bytes.read(at, out.data(), sizeof(T) * std::size_t(out.size()));
  } else {
    std::array<Stored, 4096> piece;
    const index_t most = index_t(piece.size());
    for (index_t i = 0; i < out.size(); i += most) {
      const index_t n = std::min(most, out.size() - i);
      bytes.read(at + sizeof(Stored) * std::uint64_t(i), piece.data(), sizeof(Stored) * std::size_t(n));
      for (index_t k = 0; k < n; ++k) out[i + k] = one(piece[std::size_t(k)]);
    }
  }
}

}  // namespace detail

/// The tensors of one .safetensors file, as its header describes them: u64 length, that many bytes of JSON,
/// the raw row-major little-endian tensors. The constructor refuses, with unroll::error that names file,
/// tensor and both values, whatever the format does not allow: a header that is longer than the file, an
/// unknown dtype, bytes that do not fit a shape, tensors that overlap, leave a hole or end elsewhere than the
/// file. Tensors are read one by one; nothing is allocated that the file's size does not allow.
class safetensors {
 public:
  /// One tensor of the header.
  struct tensor {
    std::string dtype;  ///< as the file writes it: "F32", "BF16", ...
    std::vector<index_t> shape;
    index_t size = 0;         ///< numbers
    std::uint64_t first = 0;  ///< byte in the file
    std::uint64_t last = 0;   ///< one behind its last byte
  };

  explicit safetensors(byte_source bytes) : bytes_(std::move(bytes)) {
    if (bytes_.size() < 8)
      bytes_.refuse("has " + std::to_string(bytes_.size()) + " bytes, no safetensors file has less than 8");
    refuse_other_kinds(bytes_, "a safetensors file");
    std::uint64_t length = 0;
    bytes_.read(0, &length, sizeof length);
    if (length > bytes_.size() - 8)
      bytes_.refuse("has " + std::to_string(bytes_.size()) + " bytes, its header alone says " +
                    std::to_string(length));
    if (length > most_header)
      bytes_.refuse("has a header of " + std::to_string(length) + " bytes, at most " +
                    std::to_string(most_header) + " expected");
    const auto header = parse_json(bytes_.read(8, length), bytes_.function(), bytes_.name(), 3);
    if (!header.is_object()) bytes_.refuse("has a header that is no JSON object");
    for (const auto& [name, entry] : header.items())
      if (name == "__metadata__")
        read_metadata(entry);
      else
        tensors_.emplace(name, read_entry(name, entry, 8 + length));
    check_cover(8 + length);
  }

  const std::string& name() const { return bytes_.name(); }  ///< the file, as messages show it
  const std::map<std::string, tensor>& tensors() const { return tensors_; }  ///< by name
  /// The texts of __metadata__.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const byte_source& source() const { return bytes_; }  ///< the bytes of the file

  /// Throws unroll::error, with the file and the name, where there is none.
  const tensor& at(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) bytes_.refuse("lacks tensor " + detail::in_quotes(name));
    return found->second;
  }

  /// Numbers [first, first + out.size()) of a tensor in row-major order: F32, F16 and BF16 become float or
  /// double without rounding, bf16 by rounding to nearest. Nan and infinity, also those that rounding makes,
  /// are refused with their position unless allowed.
  template <class T>
  void read(const std::string& name, index_t first, view<T> out, bool allow_non_finite = false) const {
    static_assert(std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bf16>,
                  "tensors become float, double or bf16");
    const tensor& t = at(name);
    if (first < 0 || first > t.size || out.size() > t.size - first)
      refuse(name, "has " + std::to_string(t.size) + " numbers, " + std::to_string(out.size()) + " from " +
                       std::to_string(first) + " on are needed");
    const auto from = [&](std::uint64_t item) { return t.first + item * std::uint64_t(first); };
    if (t.dtype == "F32")
      detail::read_numbers<float>(bytes_, from(4), out, [](float x) { return T(x); });
    else if (t.dtype == "F16")
      detail::read_numbers<std::uint16_t>(bytes_, from(2), out, [](auto h) { return T(from_f16(h)); });
    else if (t.dtype == "BF16")
      detail::read_numbers<bf16>(bytes_, from(2), out, [](bf16 x) { return T(float(x)); });
    else
      refuse(name, "has dtype " + t.dtype + ", expected F32, F16 or BF16");
    if (allow_non_finite) return;
    const index_t bad = detail::first_non_finite(view<const T>(out));
    if (bad < out.size())
      refuse(name, "is " + std::to_string(out[bad]) + " at " + detail::position_text(t.shape, first + bad));
  }

  /// Throws "function: file: tensor "name" message".
  [[noreturn]] void refuse(const std::string& name, const std::string& message) const {
    bytes_.refuse("tensor " + detail::in_quotes(name) + " " + message);
  }

 private:
  static constexpr std::uint64_t most_header = 100'000'000;  // as the format's own library

  void read_metadata(const nlohmann::json& entry) {
    if (!entry.is_object()) bytes_.refuse("has a __metadata__ that is no object of texts");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string())
        bytes_.refuse("has a __metadata__ whose " + detail::in_quotes(key) + " is no text");
      metadata_.emplace(key, value.get<std::string>());
    }
  }

  static std::uint64_t bytes_of(const std::string& dtype) {
    constexpr std::array<std::pair<const char*, std::uint64_t>, 14> known{{{"BOOL", 1},
                                                                           {"U8", 1},
                                                                           {"I8", 1},
                                                                           {"F8_E5M2", 1},
                                                                           {"F8_E4M3", 1},
                                                                           {"I16", 2},
                                                                           {"U16", 2},
                                                                           {"F16", 2},
                                                                           {"BF16", 2},
                                                                           {"I32", 4},
                                                                           {"U32", 4},
                                                                           {"F32", 4},
                                                                           {"F64", 8},
                                                                           {"I64", 8}}};
    for (const auto& k : known)
      if (dtype == k.first) return k.second;
    return dtype == "U64" ? 8 : 0;
  }

  tensor read_entry(const std::string& name, const nlohmann::json& entry, std::uint64_t data) const {
    if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") || !entry.contains("shape") ||
        !entry.contains("data_offsets"))
      refuse(name, "is described by other members than dtype, shape and data_offsets");
    const auto &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
    tensor t;
    if (!dtype.is_string()) refuse(name, "has a dtype that is no text");
    t.dtype = dtype.get<std::string>();
    const std::uint64_t item = bytes_of(t.dtype);
    if (item == 0) refuse(name, "has the unknown dtype " + detail::in_quotes(t.dtype));
    if (!shape.is_array() || shape.size() > 8) refuse(name, "has a shape that is no list of up to 8 numbers");
    // the bound holds for the product without the zeros, so that no stride can overflow
    std::uint64_t bound = 1, numbers = 1;
    for (const auto& n : shape) {
      if (!n.is_number_unsigned()) refuse(name, "has a shape that is no list of up to 8 numbers");
      const auto extent = n.get<std::uint64_t>();
      if (extent > (std::uint64_t{1} << 48) / bound) refuse(name, "has a shape of more than 2^48 numbers");
      bound *= std::max<std::uint64_t>(extent, 1);
      numbers *= extent;
      t.shape.push_back(index_t(extent));
    }
    t.size = index_t(numbers);
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned())
      refuse(name, "has data_offsets that are not two numbers");
    const auto first = offsets[0].get<std::uint64_t>(), last = offsets[1].get<std::uint64_t>();
    const std::string range = "[" + std::to_string(first) + ", " + std::to_string(last) + ")";
    if (first > last || last > bytes_.size() - data)
      refuse(name,
             "lies at bytes " + range + " of the data, which has " + std::to_string(bytes_.size() - data));
    if (last - first != numbers * item)
      refuse(name, "lies at bytes " + range + ", which are " + std::to_string(last - first) + "; its shape " +
                       detail::shape_text(t.shape) + " of " + t.dtype + " needs " +
                       std::to_string(numbers * item));
    t.first = data + first;
    t.last = data + last;
    return t;
  }

  // Every byte of the data belongs to exactly one tensor.
  void check_cover(std::uint64_t data) const {
    std::vector<const std::pair<const std::string, tensor>*> order;
    for (const auto& t : tensors_) order.push_back(&t);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
      return std::tie(a->second.first, a->second.last, a->first) <
             std::tie(b->second.first, b->second.last, b->first);
    });
    std::uint64_t end = data;
    for (const auto* t : order) {
      if (t->second.first != end)
        refuse(t->first, "begins at byte " + std::to_string(t->second.first - data) +
                             " of the data, the tensor before it ends at " + std::to_string(end - data));
      end = t->second.last;
    }
    if (end != bytes_.size())
      bytes_.refuse("has " + std::to_string(bytes_.size() - data) + " bytes of data, its tensors end at " +
                    std::to_string(end - data));
  }

  byte_source bytes_;
  std::map<std::string, tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Throws where only torch's file of that name is there and no safetensors.
inline void refuse_torch_file(const std::filesystem::path& folder, const char* name,
                              std::string_view function) {
  std::error_code code;
  if (std::filesystem::exists(folder / name, code))
    detail::fail_file(function, folder / name,
                      "is a file of torch, which is not read; save it as safetensors");
}

/// The tensors of several files as one set: those of a single file, or those of the shards that a
/// model.safetensors.index.json lists. Refuses a tensor that two files hold.
class tensor_files {
 public:
  explicit tensor_files(std::vector<safetensors> files) : files_(std::move(files)) {
    for (std::size_t i = 0; i < files_.size(); ++i)
      for (const auto& t : files_[i].tensors())
        if (const auto added = holder_.emplace(t.first, i); !added.second)
          files_[i].refuse(t.first, "is also in " + files_[added.first->second].name());
  }

  /// `folder`/model.safetensors, or the shards where only an index is there. The index and the shards must
  /// name the same tensors.
  static tensor_files open(const std::filesystem::path& folder, std::string_view function) {
    const auto single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
    std::vector<safetensors> files;
    std::error_code code;
    const bool whole = std::filesystem::exists(single, code);
    if (whole || !std::filesystem::exists(index, code)) {
      if (!whole) refuse_torch_file(folder, "pytorch_model.bin", function);
      files.emplace_back(byte_source::open(single, function));
      return tensor_files(std::move(files));
    }
    const auto source = byte_source::open(index, function);
    const auto listed = parse_index(source);
    std::map<std::string, std::vector<std::string>> shards;
    for (const auto& [tensor, file] : listed) shards[file].push_back(tensor);
    for (const auto& [file, tensors] : shards) {
      files.emplace_back(byte_source::open(folder / file, function));
      for (const auto& tensor : tensors) files.back().at(tensor);
      for (const auto& t : files.back().tensors()) {
        const auto at = listed.find(t.first);
        if (at == listed.end() || at->second != file)
          files.back().refuse(t.first, "is not listed for this file in " + source.name());
      }
    }
    return tensor_files(std::move(files));
  }

  /// The "weight_map" of an index: tensor to file. Files are plain names beside the index.
  static std::map<std::string, std::string> parse_index(const byte_source& source) {
    const auto index = parse_json(source.read(0, source.size()), source.function(), source.name(), 8);
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object() ||
        index["weight_map"].empty())
      source.refuse("has no \"weight_map\" of tensors to files");
    std::map<std::string, std::string> out;
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      if (!file.is_string()) source.refuse("names no file for tensor " + detail::in_quotes(tensor));
      const auto name = file.get<std::string>();
      if (name.empty() || name.find_first_of("/\\:") != std::string::npos ||
          name.find('\0') != std::string::npos || name == "." || name == "..")
        source.refuse("puts tensor " + detail::in_quotes(tensor) + " into " + detail::in_quotes(name) +
                      ", which is no file beside it");
      out.emplace(tensor, name);
    }
    return out;
  }

  /// Whether one of the files has it.
  bool has(const std::string& name) const { return holder_.contains(name); }
  const std::map<std::string, std::size_t>& names() const { return holder_; }
  /// The file that holds a tensor; throws unroll::error where none does.
  const safetensors& holding(const std::string& name) const {
    const auto at = holder_.find(name);
    if (at == holder_.end())
      files_.front().source().refuse((files_.size() > 1 ? "and its shards lack tensor " : "lacks tensor ") +
                                     detail::in_quotes(name));
    return files_[at->second];
  }
  const safetensors& front() const { return files_.front(); }  ///< the first file

 private:
  std::vector<safetensors> files_;  // at least one
  std::map<std::string, std::size_t> holder_;
};

/// The shape that block `b` of a Llama or of an adapter has in the files: [out, in], or [size] of a norm
/// gain, a bias (whose last name begins so) or a magnitude of DoRA.
inline std::vector<index_t> file_shape(const layout_block& b) {
  for (const char* end : {"norm.weight", ".lora_magnitude_vector"})
    if (b.name.ends_with(end)) return {b.rows};
  if (b.name.compare(b.name.rfind('.') + 1, 4, "bias") == 0) return {b.rows};
  return {b.cols, b.rows};
}

/// Throws unless the files hold every block of `names`, in its shape, and besides them only tensors of which
/// `extra(name)` is true.
template <class Extra>
void check_tensors(const tensor_files& files, const layout& names, Extra&& extra) {
  std::set<std::string> expected;
  for (const layout_block& b : names.blocks()) {
    const safetensors& file = files.holding(b.name);
    const auto& found = file.at(b.name).shape;
    if (const auto shape = file_shape(b); found != shape)
      file.refuse(b.name, "has shape " + detail::shape_text(found) + ", the config needs " +
                              detail::shape_text(shape));
    expected.insert(b.name);
  }
  for (const auto& t : files.names())
    if (!expected.contains(t.first) && !extra(t.first))
      files.holding(t.first).refuse(t.first, "is none of the model that the config describes");
}

/// Reads every block of `names`, checked before, to its place in `flat`, names.size() numbers.
template <class T>
void read_tensors(const tensor_files& files, const layout& names, T* flat, bool allow_non_finite = false) {
  for (const layout_block& b : names.blocks())
    files.holding(b.name).read(b.name, 0, view<T>(flat + b.offset, b.size()), allow_non_finite);
}

namespace detail {

// Gives the bytes of a file of F32 tensors to put(bytes, count). `where` is the file, for messages.
template <class Put, class At>
void write_safetensors(Put&& put, const std::string& where, const layout& names, At&& at,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  for (const layout_block& b : names.blocks())
    header[b.name] = {{"dtype", "F32"},
                      {"shape", file_shape(b)},
                      {"data_offsets", {4 * b.offset, 4 * (b.offset + b.size())}}};
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  put(&length, sizeof length);
  put(text.data(), text.size());
  for (const layout_block& b : names.blocks()) {
    const auto* x = at(b);
    if constexpr (std::is_same_v<decltype(x), const float*>) {
      put(x, sizeof(float) * std::size_t(b.size()));
    } else {
      constexpr index_t most = 4096;
      std::array<float, std::size_t(most)> piece;
      for (index_t i = 0; i < b.size(); i += most) {
        const index_t n = std::min(most, b.size() - i);
        for (index_t k = 0; k < n; ++k) {
          if (const double value = double(x[i + k]);
              std::isfinite(value) && std::abs(value) > double(std::numeric_limits<float>::max()))
            fail("save_safetensors", where,
                 "tensor " + in_quotes(b.name) + " is " + std::to_string(x[i + k]) + " at " +
                     position_text(file_shape(b), i + k) + ", beyond the floats");
          piece[std::size_t(k)] = float(x[i + k]);
        }
        put(piece.data(), sizeof(float) * std::size_t(n));
      }
    }
  }
}

}  // namespace detail

/// Writes the blocks of `names` as F32 tensors, in one step: the file is never half written. `at(block)`
/// returns a pointer to its numbers. Throws where a double is beyond the floats.
template <class At>
void save_safetensors(const std::filesystem::path& path, const layout& names, At&& at,
                      const std::map<std::string, std::string>& metadata = {{"format", "pt"}}) {
  file_writer file(path, "save_safetensors");
  detail::write_safetensors([&](const void* bytes, std::size_t n) { file.append(bytes, n); },
                            detail::quoted_path(path), names, at, metadata);
  file.commit();
}

/// The bytes that save_safetensors writes; `where` stands for the file in messages.
template <class At>
std::string safetensors_bytes(const layout& names, At&& at,
                              const std::map<std::string, std::string>& metadata = {{"format", "pt"}},
                              const std::string& where = "tensors") {
  std::string out;
  detail::write_safetensors(
      [&](const void* bytes, std::size_t n) { out.append(static_cast<const char*>(bytes), n); }, where, names,
      at, metadata);
  return out;
}

}  // namespace unroll
