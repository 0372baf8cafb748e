#pragma once

// The executor of a CUDA device, and what runs on it: Llamas, memory models and the estimators over them. For
// nvcc, with the flags of docs/cuda.md, which the CMake target unroll::cuda has. Recurrent cells and the
// estimators over them run on the host alone and are not included here.

#include "unroll/cuda/check.hpp"
#include "unroll/cuda/context.hpp"
#include "unroll/cuda/cublaslt.hpp"
#include "unroll/cuda/handles.hpp"
#include "unroll/cuda/launch.hpp"
#include "unroll/cuda/machine.hpp"
#include "unroll/cuda/profile.hpp"
#include "unroll/cuda/ranges.hpp"
#include "unroll/cuda/stream.hpp"
#include "unroll/cuda/transfers.hpp"
#include "unroll/estimate/captured.hpp"
#include "unroll/estimate/plan.hpp"
#include "unroll/estimate/policy.hpp"
#include "unroll/llama/generate.hpp"
#include "unroll/llama/language_model.hpp"
#include "unroll/llama/score.hpp"
#include "unroll/memory/memory_llama/costs.hpp"
#include "unroll/memory/memory_llama/session.hpp"
#include "unroll/memory/memory_llama/start.hpp"
#include "unroll/memory/reader.hpp"
