// expect: cells::stack takes cells that are a recurrent_cell or a diagonal_cell
#include "unroll/cells/gru.hpp"
#include "unroll/cells/stack.hpp"

#ifdef UNROLL_SHOULD_FAIL
struct own {
  using scalar = double;
  using input = unroll::cells::example<double>;
};
using layers = unroll::cells::stack<own>;
#else
using layers = unroll::cells::stack<unroll::cells::gru<double>>;
#endif

unroll::index_t count(const layers& l) { return l.layers(); }
