#pragma once

// Everything on the CPU that needs nothing but Eigen. Left out, to be included by name: ad/bridge_*.hpp,
// xtensor/, io/npy.hpp and diagnose/json_sink.hpp, which need other libraries, and testing/.

#include "unroll/cells/example.hpp"
#include "unroll/core/block.hpp"
#include "unroll/core/config.hpp"
#include "unroll/core/error.hpp"
#include "unroll/core/layout.hpp"
#include "unroll/core/linalg.hpp"
#include "unroll/core/report.hpp"
#include "unroll/core/view.hpp"
#include "unroll/estimate/concept.hpp"
#include "unroll/rng/chooser.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/rng/key.hpp"
#include "unroll/rng/philox.hpp"
#include "unroll/system/concepts.hpp"
#include "unroll/system/edge.hpp"
#include "unroll/system/explain.hpp"
#include "unroll/system/window.hpp"
