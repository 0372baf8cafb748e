#pragma once

#include <cstdio>
#include <exception>
#include <string>

// What the programs of this folder that run on the host have in common.
namespace host_program {

inline int failures = 0;

/// Says so where something does not hold, and goes on.
inline void expect(bool holds, const std::string& what) {
  if (!holds) ++failures, std::printf("FAILED: %s\n", what.c_str());
}
/// What f throws; empty where it does not.
template <class F>
std::string thrown(F&& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}
/// The last line of the program of that name, and its exit status. well: what it says without a failure.
inline int end(const std::string& name, const std::string& well = "all pass") {
  std::printf("%s: %s\n", name.c_str(), failures == 0 ? well.c_str() : "failed");
  return failures == 0 ? 0 : 1;
}

}  // namespace host_program
