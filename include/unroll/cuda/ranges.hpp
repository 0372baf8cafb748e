#pragma once

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define UNROLL_HAS_NVTX 1
#else
#define UNROLL_HAS_NVTX 0
#endif

#include <string>
#include <string_view>

#include "unroll/core/config.hpp"

namespace unroll::cuda::detail {

/// A range of the calling thread in the toolkit's profilers (NVTX 3, headers alone) while it lives, unless
/// `shown` is false: then it costs the question.
class named_range {
 public:
  /// name(): of the range, asked only where it is shown.
  template <class Name>
  named_range(bool shown, Name&& name) : shown_(shown) {
    if (shown_) begin(name());
  }
  named_range(const named_range&) = delete;
  named_range& operator=(const named_range&) = delete;
  ~named_range() {
    if (shown_) end();
  }

  /// Whether the toolkit has NVTX's headers; without them nothing is shown.
  static constexpr bool available = UNROLL_HAS_NVTX != 0;
#if UNROLL_HAS_NVTX
  static void begin(const std::string& name) { nvtxRangePushA(name.c_str()); }
  static void end() { nvtxRangePop(); }
#else
  static void begin(const std::string&) {}
  static void end() {}
#endif

 private:
  bool shown_;
};

/// "write 3 .. 6" for n = 4 segments from 3 on.
inline std::string segments_text(std::string_view name, index_t first, index_t n) {
  std::string text(name);
  text.append(" ").append(std::to_string(first));
  if (n > 1) text.append(" .. ").append(std::to_string(first + n - 1));
  return text;
}

}  // namespace unroll::cuda::detail

#undef UNROLL_HAS_NVTX
