#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/io/file.hpp"

// What every target has: two functions that it defines, and libFuzzer's entry points on top of them. Include
// it in exactly one file of a program.

/// Well-formed inputs from which the search begins.
std::vector<std::string> seeds();

/// Reads bytes from outside. unroll::error may come out, and nothing else.
void parse(std::string_view bytes);

// Puts the seeds into the folder that UNROLL_FUZZ_SEEDS names, before libFuzzer reads it.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* folder = std::getenv("UNROLL_FUZZ_SEEDS");
  if (!folder) return 0;
  int n = 0;
  for (const std::string& s : seeds()) {
    parse(s);  // a seed that is refused is no seed
    unroll::write_file(std::string(folder) + "/seed" + std::to_string(n++), s);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    parse(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const unroll::error&) {
  }
  return 0;
}
