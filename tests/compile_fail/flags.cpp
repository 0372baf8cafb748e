// Flags under which the library would not compile, or would be wrong.
// mistake: -std=c++17
// expect: unroll needs C\+\+20: compile with -std=c\+\+20
// mistake: -fno-exceptions
// expect: unroll reports errors by exceptions: compile without -fno-exceptions
// mistake: -U__SIZEOF_PTRDIFF_T__ -D__SIZEOF_PTRDIFF_T__=4
// expect: unroll needs a 64-bit target
// mistake: -U__BYTE_ORDER__ -D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__
// expect: unroll needs a little-endian target
// mistake: -ffast-math
// expect: compile without -ffast-math
// mistake: -Ofast
// expect: compile without .*-Ofast
// mistake: -D__ASSOCIATIVE_MATH__
// expect: compile without .*-fassociative-math
// mistake: -ffinite-math-only
// expect: compile without -ffinite-math-only
#include "unroll/core/linalg.hpp"
