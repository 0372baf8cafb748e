#pragma once

#include <cstdio>
#include <map>

#include "unroll/io/gguf.hpp"

namespace unroll {

/// The parts of one model in GGUF as one: a single file, or those of NAME-00001-of-0000N.gguf, each of which
/// says split.no (from 0) and split.count, u16. The keys of the model are those of the first part; of a later
/// part only these two and its own general.alignment count, and what else it says changes nothing, as in
/// llama.cpp (llama-cpp-python 0.3.36: no key of a later part changes its logits). Tensors are in any part,
/// none in two; split.tensors.count, i32, counts them all. A part that does not say its alignment and has
/// bytes to spare, as if its data began where the alignment of the first part puts them, is refused.
class gguf_files {
 public:
  /// Throws unroll::error where the parts are not those that the first one announces.
  explicit gguf_files(std::vector<gguf> parts) : parts_(std::move(parts)) {
    const std::uint16_t count = part_count(front());
    if (parts_.size() != count)
      front().source().refuse("is one of " + std::to_string(count) + " parts, of which " +
                              std::to_string(parts_.size()) + " are given");
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const gguf& g = parts_[i];
      if (const auto no = g.get<std::uint16_t>("split.no", 0); no != i)
        g.refuse_key("split.no", std::to_string(no), std::to_string(i));
      if (part_count(g) != count)
        g.refuse_key("split.count", std::to_string(part_count(g)), std::to_string(count));
      check_alignment(g);
      for (const auto& t : g.tensors())
        if (const auto added = holder_.emplace(t.first, i); !added.second)
          g.refuse(t.first, "is also in " + parts_[added.first->second].source().name());
    }
    const std::string total = "split.tensors.count";
    if (front().has(total) && front().get<std::int32_t>(total) != std::int64_t(holder_.size()))
      front().refuse_key(total, std::to_string(front().get<std::int32_t>(total)),
                         "the " + std::to_string(holder_.size()) + " tensors that there are");
  }

  /// The file and, where it is the first of several, those beside it that its name and split.count say.
  static gguf_files open(const std::filesystem::path& path, std::string_view function) {
    std::vector<gguf> parts;
    parts.push_back(gguf::open(path, function));
    const std::uint16_t count = part_count(parts[0]);
    if (count > 1) {
      const std::string name = path.filename().string(), ending = part_ending(1, count);
      if (!name.ends_with(ending))
        parts[0].source().refuse("is one of " + std::to_string(count) +
                                 " parts, the first of which is named ..." + ending);
      const std::string stem = name.substr(0, name.size() - ending.size());
      for (unsigned i = 2; i <= count; ++i)
        parts.push_back(gguf::open(path.parent_path() / (stem + part_ending(i, count)), function));
    }
    return gguf_files(std::move(parts));
  }

  const gguf& front() const { return parts_.front(); }                         ///< the part that has the keys
  const std::map<std::string, std::size_t>& names() const { return holder_; }  ///< of all tensors, to parts
  bool has(const std::string& tensor) const { return holder_.contains(tensor); }  ///< whether a part holds it
  /// The part that holds a tensor; throws unroll::error where none does.
  const gguf& holding(const std::string& tensor) const {
    const auto at = holder_.find(tensor);
    if (at == holder_.end()) front().source().refuse("lacks tensor " + detail::in_quotes(tensor));
    return parts_[at->second];
  }

 private:
  // The package gguf 0.19.0 aligns all parts alike and says so in the first one alone: by the default of 32,
  // which other programs write and all read, the numbers of such a part are those of other places.
  void check_alignment(const gguf& part) const {
    const std::string key = "general.alignment";
    constexpr std::uint32_t usual = gguf::usual_alignment;
    const auto first = front().get<std::uint32_t>(key, usual);
    if (part.has(key) || part.tensors().empty() || part.data_start(first) == part.data_start(usual)) return;
    if (const auto left = part.bytes_behind(); left >= usual)
      part.refuse_key(key, "absent",
                      std::to_string(first) + ", as in the first part: by " + std::to_string(usual) + " " +
                          std::to_string(left) + " bytes are left over");
  }
  static std::uint16_t part_count(const gguf& g) {
    const auto count = g.get<std::uint16_t>("split.count", 0);  // 0 or 1: not split
    return count == 0 ? std::uint16_t{1} : count;
  }
  static std::string part_ending(unsigned part, unsigned count) {
    char text[40];
    std::snprintf(text, sizeof text, "-%05u-of-%05u.gguf", part, count);
    return text;
  }

  std::vector<gguf> parts_;  // at least one
  std::map<std::string, std::size_t> holder_;
};

}  // namespace unroll
