// Linked into every test program: a definition that is not inline fails here, at link time.
#include "unroll/llama.hpp"
