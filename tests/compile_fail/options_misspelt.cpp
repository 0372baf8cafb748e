// An option that does not exist, named with a designated initialiser.
// expect: windw
#include "unroll/estimate/tbptt.hpp"

#ifdef UNROLL_SHOULD_FAIL
unroll::tbptt_options options{.windw = 3};
#else
unroll::tbptt_options options{};
#endif
