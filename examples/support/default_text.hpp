#pragma once

#include <string>

namespace program {

/// The text that programs read where they are given none, examples/texts/the_lamp_on_orrel.txt: where the
/// build says that it is, else beside this file as the compiler was told of it.
inline std::string default_text() {
#ifdef UNROLL_DEFAULT_TEXT
  return UNROLL_DEFAULT_TEXT;
#else
  const std::string here = __FILE__;  // .../examples/support/default_text.hpp
  return here.substr(0, here.find_last_of("/\\") + 1) + "../texts/the_lamp_on_orrel.txt";
#endif
}

}  // namespace program
