#pragma once

#include <cstdint>

#include "unroll/core/visit.hpp"

namespace unroll {

/// What the replay of a sequence of segments has cost since it began.
struct replay_counts {
  std::int64_t writes = 0;      ///< memories written for the first time
  std::int64_t rewrites = 0;    ///< memories written again, to have their graph
  std::int64_t write_vjps = 0;  ///< graphs that were sent back through
  std::int64_t reads = 0;       ///< losses evaluated, with their vjp or without
  std::int64_t read_vjps = 0;   ///< those with their vjp
  index_t live_graphs = 0;      ///< most graphs of writes that were alive at once

  std::int64_t steps() const { return writes + rewrites + reads; }  ///< calls forwards
  std::int64_t vjps() const { return write_vjps + read_vjps; }      ///< calls backwards

  template <class V>
  void visit(V&& v) {
    visit_integer(v, "writes", writes);
    visit_integer(v, "rewrites", rewrites);
    visit_integer(v, "write_vjps", write_vjps);
    visit_integer(v, "reads", reads);
    visit_integer(v, "read_vjps", read_vjps);
    visit_integer(v, "live_graphs", live_graphs);
  }
};

}  // namespace unroll
