// A walk through the inputs of a task that is gone before the first step.
// expect: deleted
#include "unroll/data/delay.hpp"
#include "unroll/text/segments.hpp"

double sum() {
  using namespace unroll;
  double all = 0;
#ifdef UNROLL_SHOULD_FAIL
  for (const auto xs : segments(data::delay<double>({}, key{1}).inputs(), 10)) all += *xs.front().x;
#else
  const auto task = data::delay<double>({}, key{1});
  for (const auto xs : segments(task.inputs(), 10)) all += *xs.front().x;
#endif
  return all;
}
