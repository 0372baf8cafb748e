#pragma once

#include <type_traits>

#include "unroll/core/bf16.hpp"

namespace unroll {

/// The type of each kind of number in a memory model. `numbers<float>` and `numbers<double>` have one type
/// for all kinds. `numbers<bf16>` stores weights, activations and memories in bfloat16; theta, its gradient
/// and moments, adjoints of memories, losses, softmax and sums are float. `numbers<float, bf16>` differs from
/// numbers<float> in the frozen weights only.
template <class Activation, class Weight = Activation>
struct numbers {
  using weight = Weight;          ///< frozen weights
  using activation = Activation;  ///< activations, tapes and their adjoints inside a call
  using memory = Activation;      ///< memories, keys and values
  using parameter = std::conditional_t<std::is_same_v<Activation, bf16>, float,
                                       Activation>;  ///< theta, its gradient, moments
  using adjoint = parameter;                         ///< adjoints of memories
  using accumulator = parameter;                     ///< losses, norms, statistics of a softmax
};

}  // namespace unroll
