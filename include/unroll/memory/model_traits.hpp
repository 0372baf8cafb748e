#pragma once

#include <concepts>

#include "unroll/exec/of.hpp"
#include "unroll/system/memory_model.hpp"

namespace unroll {

/// Whether the loss of a segment depends on theta other than through the memories: what the model's optional
/// member `bool reads_params() const` says, else true. Where it does not, the first segment is read without a
/// vjp, and read_vjp is given an empty dtheta.
template <class M>
bool reads_params(const M& model) {
  if constexpr (requires {
                  { model.reads_params() } -> std::same_as<bool>;
                })
    return model.reads_params();
  else
    return true;
}

/// Whether the memories that a model's calls are given by address (past, dpast) are in memory of the host
/// while all else is at the place of its executor: what its optional member `bool memories_on_host() const`
/// says, else false.
template <class M>
bool memories_on_host(const M& model) {
  if constexpr (requires {
                  { model.memories_on_host() } -> std::same_as<bool>;
                })
    return model.memories_on_host();
  else
    return false;
}

/// Where the numbers of a memory model lie: at the model's own executor(), or on the host.
template <class M>
auto executor_of(const M& model) {
  if constexpr (requires { model.executor(); })
    return model.executor();
  else
    return exec::host<numbers_of<M>>{};
}

}  // namespace unroll
