#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "unroll/core/worker_pool.hpp"
#include "unroll/io/file.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/text/segments.hpp"
#include "unroll/text/tokenizer.hpp"

namespace unroll::data {

/// One text, as ids.
struct document {
  std::string name;               ///< of its file
  std::vector<llama::token> ids;  ///< of the whole text
};

struct documents_options {
  bool bos = true;      ///< every document that is not empty begins with the begin of a text
  index_t threads = 1;  ///< that encode; the result does not depend on them
};

/// Tokenized texts, each a document of its own: nothing that is drawn from them reaches over an end.
class documents {
 public:
  documents() = default;

  /// Every .txt file of a folder (not of its folders) in the order of their names' bytes, or one file.
  /// Files may hold any bytes; an empty file is a document without ids. Throws unroll::error when there is
  /// no such file, one cannot be read, or the tokenizer refuses a text.
  documents(const std::filesystem::path& path, const llama::tokenizer& tokenizer,
            const documents_options& options = {}) {
    check_at_least("documents", "threads", options.threads, 1);
    std::vector<std::string> names{path.filename().string()};
    const bool is_folder = std::filesystem::is_directory(path);
    if (is_folder) {
      names.clear();
      for (const auto& entry : std::filesystem::directory_iterator(path))
        if (entry.path().extension() == ".txt" && entry.is_regular_file())
          names.push_back(entry.path().filename().string());
      std::sort(names.begin(), names.end());
      if (names.empty()) unroll::detail::fail_file("documents", path, "has no .txt file");
    }
    all_.resize(names.size());
    worker_pool pool(std::min(options.threads, index_t(names.size())));
    std::atomic<std::size_t> next{0};
    auto work = [&](index_t) {
      for (std::size_t i = next++; i < names.size(); i = next++) {
        const std::filesystem::path file = is_folder ? path / names[i] : path;
        const std::string text = read_file(file, "documents");
        all_[i].name = names[i];
        if (!text.empty())
          all_[i].ids = tokenizer.encode(text, options.bos, unroll::detail::quoted_path(file));
      }
    };
    pool.run(work);
  }

  /// One more document. Its ids are not checked: no vocabulary is known here.
  void add(std::string name, std::vector<llama::token> ids) {
    all_.push_back({std::move(name), std::move(ids)});
  }

  index_t size() const { return index_t(all_.size()); }
  const document& operator[](index_t i) const { return all_[std::size_t(i)]; }
  auto begin() const { return all_.begin(); }
  auto end() const { return all_.end(); }
  /// Ids of all documents.
  std::int64_t tokens() const {
    std::int64_t n = 0;
    for (const auto& d : all_) n += std::int64_t(d.ids.size());
    return n;
  }

  /// Documents of fewer than `ids` ids.
  index_t shorter_than(index_t ids) const {
    return std::count_if(begin(), end(), [ids](const document& d) { return index_t(d.ids.size()) < ids; });
  }

  /// The documents in random order, another one for every epoch (Fisher and Yates).
  std::vector<index_t> order(key k, std::int64_t epoch) const {
    std::vector<index_t> order(all_.size());
    for (index_t i = 0; i < size(); ++i) {
      const index_t j = draw_index(fold(k, std::uint64_t(epoch)), i, i + 1);
      order[std::size_t(i)] = order[std::size_t(j)];
      order[std::size_t(j)] = i;
    }
    return order;
  }

 private:
  std::vector<document> all_;
};

/// Up to `most` stretches of `length` ids and the one behind, evenly spread over the documents; none reaches
/// over an end.
template <class Documents>
std::vector<std::span<const llama::token>> stretches(const Documents& all, index_t length, index_t most) {
  std::vector<std::span<const llama::token>> whole, chosen;
  for (const auto& d : all) {
    const segmenter cut(index_t(d.ids.size()) - 1, length, 0, "stretches");
    for (index_t i = 0; i < cut.size(); ++i)
      if (cut[i].count == length) whole.emplace_back(d.ids.data() + cut[i].first, std::size_t(length) + 1);
  }
  const auto wanted = std::min(whole.size(), std::size_t(most));
  for (std::size_t i = 0; i < wanted; ++i) chosen.push_back(whole[i * whole.size() / wanted]);
  return chosen;
}

/// Batches of windows for models without memory: every lane of every batch begins at a random place, each
/// place of each document equally likely. Batch n is a function of the key and n, so position() is all that a
/// resumed run needs.
class windows {
 public:
  /// `all` must outlive this. Documents of fewer than two ids are left out, see documents::shorter_than().
  /// Throws unroll::error when no document has two ids.
  windows(const documents& all, index_t lanes, index_t length, key k)
      : all_(&all), lanes_(lanes), length_(length), key_(k) {
    check_at_least("windows", "lanes", lanes, 1);
    check_at_least("windows", "length", length, 1);
    std::int64_t places = 0;
    for (const auto& d : all) {
      const auto targets = std::int64_t(d.ids.size()) - 1;
      places += segmenter(targets, length, length - 1).size();
      end_.push_back(places);
    }
    if (places == 0)
      fail("windows", "documents", "have none with two ids, a window needs an id and the next");
    if (places > std::int64_t{1} << 32)
      fail("windows", "documents", "have more than 2^32 places for a window");
  }

  windows(const documents&&, index_t, index_t, key) = delete;

  /// Fills `ids` with lanes x length ids, lane after lane, and `targets` with the id behind each. A document
  /// of fewer than length + 1 ids is one window, filled up with id 0 and target -1. Throws unroll::error on
  /// spans of another size.
  void next(std::span<llama::token> ids, std::span<llama::token> targets) {
    check_size("windows::next", "ids", index_t(ids.size()), lanes_ * length_);
    check_size("windows::next", "targets", index_t(targets.size()), lanes_ * length_);
    for (index_t l = 0; l < lanes_; ++l) {
      const std::int64_t place = draw_index(key_, position_, end_.back(), std::uint32_t(l));
      const auto at = std::size_t(std::upper_bound(end_.begin(), end_.end(), place) - end_.begin());
      const auto& from = (*all_)[index_t(at)].ids;
      const auto start = std::size_t(place - (at == 0 ? 0 : end_[at - 1]));  // a piece at every place
      for (std::size_t i = 0; i < std::size_t(length_); ++i) {
        const std::size_t j = std::size_t(l * length_) + i;
        const bool inside = start + i + 1 < from.size();
        ids[j] = start + i < from.size() ? from[start + i] : 0;
        targets[j] = inside ? from[start + i + 1] : -1;
      }
    }
    ++position_;
  }

  /// Batches taken so far.
  std::int64_t position() const { return position_; }
  void seek(std::int64_t position) { position_ = position; }  ///< goes on at that draw

 private:
  const documents* all_;
  index_t lanes_, length_;
  key key_;
  std::vector<std::int64_t> end_;  // of the places of each document
  std::int64_t position_ = 0;
};

/// A piece of a document, for models that read documents from begin to end.
struct document_segment {
  std::int64_t epoch = 0;             ///< how often all documents were read before
  index_t document = 0;               ///< its number
  index_t at = 0;                     ///< of the segment's first id in the document
  std::span<const llama::token> ids;  ///< of the segment
  bool first = false, last = false;   ///< of the document
};

/// Whole documents, segment after segment, the documents in an order that is new in every epoch; without end.
/// The last segment of a document may be shorter; documents without ids are passed over.
class document_stream {
 public:
  /// `all` must outlive this. Throws unroll::error when no document has ids.
  document_stream(const documents& all, index_t length, key k) : all_(&all), length_(length), key_(k) {
    check_at_least("document_stream", "length", length, 1);
    for (index_t d = 0; d < all.size(); ++d) per_epoch_ += segments(d);
    if (per_epoch_ == 0) fail("document_stream", "documents", "have no ids");
    seek(0);
  }

  document_stream(const documents&&, index_t, key) = delete;

  document_segment next() {
    const auto d = order_[document_];
    const piece p = cut(d)[segment_];
    document_segment s{
        epoch_, d, p.first, {(*all_)[d].ids.data() + p.first, std::size_t(p.count)}, segment_ == 0};
    s.last = ++segment_ == segments(d);
    ++position_;
    settle();
    return s;
  }

  /// Segments of document d.
  index_t segments(index_t d) const { return cut(d).size(); }
  index_t segments_per_epoch() const { return per_epoch_; }  ///< of all documents together
  /// Segments taken so far.
  std::int64_t position() const { return position_; }
  /// Continues where a stream with the same documents, length and key has taken `position` segments.
  void seek(std::int64_t position) {
    check_at_least("document_stream::seek", "position", position, 0);
    position_ = position;
    epoch_ = position / per_epoch_;
    order_ = all_->order(key_, epoch_);
    document_ = 0;
    segment_ = position % per_epoch_;
    settle();
  }

 private:
  segmenter cut(index_t d) const { return {index_t((*all_)[d].ids.size()), length_}; }
  /// Moves on to the document that has segment_, the number counted from the begin of document_.
  void settle() {
    while (segment_ >= segments(order_[document_])) {
      segment_ -= segments(order_[document_]);
      if (++document_ < order_.size()) continue;
      document_ = 0;
      order_ = all_->order(key_, ++epoch_);
    }
  }

  const documents* all_;
  index_t length_;
  key key_;
  index_t per_epoch_ = 0;
  std::int64_t position_ = 0, epoch_ = 0;
  std::vector<index_t> order_;
  std::size_t document_ = 0;  // in order_
  index_t segment_ = 0;
};

}  // namespace unroll::data
