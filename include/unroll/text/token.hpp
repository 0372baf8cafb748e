#pragma once

#include <cstdint>

#include "unroll/core/config.hpp"

namespace unroll::llama {

/// The id of a piece of text, an index into a vocabulary.
using token = std::int32_t;

}  // namespace unroll::llama
