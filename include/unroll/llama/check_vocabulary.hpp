#pragma once

#include <string>

#include "unroll/llama/config.hpp"
#include "unroll/text/tokenizer.hpp"

namespace unroll::llama {

/// Throws unroll::error unless the model has an embedding for each piece, and fewer than twice as many: rows
/// that only fill the matrix up to a round number are fewer than the pieces; more tell of another vocabulary.
inline void check_vocabulary(const tokenizer& t, const config& c, const std::string& name = "tokenizer") {
  if (t.size() > c.vocabulary || c.vocabulary >= 2 * t.size())
    fail("check_vocabulary", name,
         "has " + std::to_string(t.size()) + " pieces, the model has a vocabulary of " +
             std::to_string(c.vocabulary));
}

}  // namespace unroll::llama
