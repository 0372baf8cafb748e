#pragma once

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

#include "unroll/core/error.hpp"
#include "unroll/text/token.hpp"

namespace unroll {

/// Items [first, first + count) of a sequence; the first `repeated` of them are also in the piece before.
struct piece {
  index_t first = 0, count = 0, repeated = 0;  ///< the first item, how many, how many of them once more
};

/// How n items are cut: into pieces of `length`, each beginning with the last `overlap` items of the one
/// before, as many as cover all; the last may be shorter. An overlap of length - 1 puts a piece at every
/// place.
class segmenter {
 public:
  /// Throws unroll::error unless 0 <= overlap < length.
  segmenter(index_t items, index_t length, index_t overlap = 0, const char* function = "segmenter")
      : items_(items) {
    check_at_least(function, "length", length, 1);
    check_at_least(function, "overlap", overlap, 0);
    if (overlap >= length)
      fail(function, "overlap",
           "is " + std::to_string(overlap) + ", must be less than the length of " + std::to_string(length));
    length_ = std::max<index_t>(std::min(length, items), 1);
    overlap_ = std::min(overlap, length_ - 1);
  }

  index_t items() const { return items_; }  ///< that are cut
  /// Items of the longest piece; 1 where there are no items.
  index_t length() const { return length_; }
  /// Pieces.
  index_t size() const { return items_ < 1 ? 0 : 1 + (items_ - length_ + stride() - 1) / stride(); }
  piece operator[](index_t i) const {
    const index_t first = i * stride();
    return {first, std::min(length_, items_ - first), i == 0 ? 0 : overlap_};
  }
  /// Items in the first i pieces.
  index_t covered(index_t i) const { return i == 0 ? 0 : std::min(items_, (i - 1) * stride() + length_); }

 private:
  index_t stride() const { return length_ - overlap_; }
  index_t items_, length_, overlap_;
};

/// `for (auto xs : segments(inputs, 10))` walks through the inputs in spans of 10; the last may be shorter.
/// The inputs must outlive it.
template <class X>
class segments {
 public:
  segments(std::span<X> all, index_t length) : all_(all), cut_(index_t(all.size()), length, 0, "segments") {}
  /// A container that would be gone before the walk begins; spans and other borrowed ranges are welcome.
  template <class R>
  requires(!std::is_lvalue_reference_v<R> && !std::ranges::enable_borrowed_range<std::remove_cvref_t<R>>)  //
      segments(R&& all, index_t length)
  = delete;

  /// Walks through the segments.
  class iterator {
   public:
    iterator(const segments* owner, index_t at) : owner_(owner), at_(at) {}
    std::span<X> operator*() const {
      const piece p = owner_->cut_[at_];
      return owner_->all_.subspan(std::size_t(p.first), std::size_t(p.count));
    }
    iterator& operator++() {
      ++at_;
      return *this;
    }
    bool operator!=(const iterator& other) const { return at_ != other.at_; }
    bool operator==(const iterator& other) const { return at_ == other.at_; }

   private:
    const segments* owner_;
    index_t at_;
  };

  iterator begin() const { return {this, 0}; }
  iterator end() const { return {this, cut_.size()}; }

 private:
  std::span<X> all_;
  segmenter cut_;
};

namespace llama {

/// A piece of text, the input of the memory model. A view: the tokens must live until the estimator has
/// finished. targets[i], the token behind tokens[i], is scored unless it is -1; no targets: nothing is
/// scored. The last target of a segment is the first token of the next one, so no token of a text goes
/// unscored.
struct segment {
  std::span<const token> tokens;  ///< what is read
  /// Those behind them; -1: not scored; empty: none is.
  std::span<const token> targets = {};

  /// Number of tokens whose loss is counted.
  index_t scored() const {
    return index_t(std::count_if(targets.begin(), targets.end(), [](token t) { return t >= 0; }));
  }
};

/// Of all segments of a text.
inline index_t scored(std::span<const segment> text) {
  index_t n = 0;
  for (const segment& x : text) n += x.scored();
  return n;
}

/// Cuts tokens and the target of each into segments of `length`; the last may be shorter.
inline std::vector<segment> segments_of(std::span<const token> tokens, std::span<const token> targets,
                                        index_t length) {
  check_size("segments_of", "targets", index_t(targets.size()), index_t(tokens.size()));
  const segmenter cut(index_t(tokens.size()), length, 0, "segments_of");
  std::vector<segment> out;
  for (index_t i = 0; i < cut.size(); ++i) {
    const auto first = std::size_t(cut[i].first), count = std::size_t(cut[i].count);
    out.push_back({tokens.subspan(first, count), targets.subspan(first, count)});
  }
  return out;
}

/// Cuts a text of N tokens into segments of `length`, each with its targets: together they read the first
/// N - 1 tokens and score the last N - 1. What is left over is a shorter last one, which can be read but not
/// written. A text of fewer than two tokens has no segment.
inline std::vector<segment> segments_of(std::span<const token> text, index_t length) {
  if (text.empty()) return segments_of(text, text, length);
  return segments_of(text.first(text.size() - 1), text.subspan(1), length);
}

/// Auto-encoding as two segments: the first is written and not scored; the second, `begin` and then all of
/// `text` but its last token, has the text itself as its targets, which only the memory of the first can
/// tell. `shifted` is the memory of the second, as long as the text.
inline std::vector<segment> autoencoding_of(std::span<const token> text, token begin,
                                            std::span<token> shifted) {
  check_size("autoencoding_of", "shifted", index_t(shifted.size()), index_t(text.size()));
  check_at_least("autoencoding_of", "text", index_t(text.size()), 1);
  shifted[0] = begin;
  std::copy(text.begin(), text.end() - 1, shifted.begin() + 1);
  return {{text}, {shifted, text}};
}

}  // namespace llama

}  // namespace unroll
