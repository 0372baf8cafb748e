// A float system put into an any_system of doubles.
// expect: no (matching function|matching constructor|viable)|conversion from .* requested
#include "unroll/system/any_system.hpp"

template <class T>
struct cell {
  using scalar = T;
  using input = int;
  unroll::dims size() const { return {1, 1, 0, 0, 1}; }
  void step(int, const unroll::edge<T>&) const {}
};

#ifdef UNROLL_SHOULD_FAIL
unroll::any_system<double, int> system_of_doubles = cell<float>();
#else
unroll::any_system<double, int> system_of_doubles = cell<double>();
#endif
