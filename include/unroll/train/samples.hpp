#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "unroll/rng/draw.hpp"
#include "unroll/text/documents.hpp"

namespace unroll::training {

/// What a step of a memory model's training reads: `documents` samples, each a stretch of `segments` segments
/// of `segment` tokens from a random place of a document on.
struct samples_options {
  index_t documents = 1;   ///< samples of a step
  index_t segments = 2;    ///< of a sample
  index_t segment = 1;     ///< tokens of a segment
  double autoencode = 0;   ///< share of the samples that reproduce one segment from its memory instead
  llama::token begin = 0;  ///< in front of a text that is reproduced
};

/// The samples of step after step, each a function of the key and the step: step() is all that a resumed run
/// needs.
class samples final {
 public:
  /// `all` must outlive this. Throws unroll::error on counts below 1, a share outside [0, 1], and as
  /// data::windows does.
  samples(const data::documents& all, const samples_options& o, key k)
      : options_(o), key_(fold(k, 2)), places_(all, o.documents, checked(o), fold(k, 1)) {
    const auto n = std::size_t(o.documents * o.segments * o.segment);
    ids_.resize(n);
    targets_.resize(n);
    shifted_.resize(n);
    samples_.resize(std::size_t(o.documents));
  }
  samples(const data::documents&&, const samples_options&, key) = delete;

  /// Those of the next step; they hold until the next call. A document of fewer tokens than a sample is
  /// filled up with tokens that are not scored; one that ends within its first segment is not reproduced.
  std::span<const std::vector<llama::segment>> next() {
    const std::int64_t step = places_.position();
    places_.next({ids_.data(), ids_.size()}, {targets_.data(), targets_.size()});
    const auto length = std::size_t(options_.segments * options_.segment), n = std::size_t(options_.segment);
    for (std::size_t i = 0; i < samples_.size(); ++i) {
      const auto ids = std::span<const llama::token>(ids_.data() + i * length, length);
      const auto targets = std::span<const llama::token>(targets_.data() + i * length, length);
      const bool whole = n == 1 || targets[n - 2] >= 0;
      if (whole && draw_uniform(key_, step, std::uint32_t(i)) < options_.autoencode)
        samples_[i] =
            llama::autoencoding_of(ids.first(n), options_.begin, std::span(shifted_.data() + i * length, n));
      else
        samples_[i] = llama::segments_of(ids, targets, options_.segment);
    }
    return {samples_.data(), samples_.size()};
  }

  /// Steps taken so far.
  std::int64_t step() const { return places_.position(); }
  /// Goes on where samples of the same documents, options and key have taken `step` steps.
  void seek(std::int64_t step) { places_.seek(step); }

 private:
  static index_t checked(const samples_options& o) {
    check_at_least("samples", "documents", o.documents, 1);
    check_at_least("samples", "segments", o.segments, 1);
    check_at_least("samples", "segment", o.segment, 1);
    if (!(o.autoencode >= 0 && o.autoencode <= 1))
      fail("samples", "autoencode", "is " + std::to_string(o.autoencode) + ", must be in [0, 1]");
    return o.segments * o.segment;
  }

  samples_options options_;
  key key_;
  data::windows places_;
  std::vector<llama::token> ids_, targets_, shifted_;
  std::vector<std::vector<llama::segment>> samples_;
};

}  // namespace unroll::training
