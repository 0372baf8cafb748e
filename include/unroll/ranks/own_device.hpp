#pragma once

#include <string>

#include "unroll/core/error.hpp"
#include "unroll/core/view.hpp"

namespace unroll {

/// Which of the `visible` devices is that of process `rank` among the `processes` of one machine: its own, or
/// the only one where `chosen` says that somebody has chosen it for the process (as by CUDA_VISIBLE_DEVICES).
/// Throws unroll::error, in the name of `function`, where two processes would take the same.
inline index_t own_device(std::string_view function, index_t visible, index_t rank, index_t processes,
                          bool chosen) {
  check_at_least(function, "devices", visible, 1);
  if (visible >= processes) return rank;
  if (visible == 1 && chosen) return 0;
  fail(function, "devices",
       "are " + std::to_string(visible) + ", on this machine " + std::to_string(processes) +
           " processes want one each: start fewer, or give each its own by CUDA_VISIBLE_DEVICES");
}

}  // namespace unroll
