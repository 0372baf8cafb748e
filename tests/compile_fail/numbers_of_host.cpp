// Activations of a kind that the host's executor lacks, and weights of another kind than the executor's.
// mistake: -DKINDS
// expect: exec::host has numbers<float>, numbers<double> and numbers<float, bf16>
// mistake: -DPLACES
// expect: the weights of a memory_llama are of the kind and at the place of its executor
#include "unroll/memory/memory_llama/model.hpp"

using namespace unroll;

#if defined(KINDS)
unroll::llama::transformer<numbers<bf16>> stack{llama::config()};
#elif defined(PLACES)
llama::memory_llama<numbers<float, bf16>> model(llama::config(), std::make_shared<const parameters<float>>(),
                                                llama::memory_options());
#else
llama::transformer<numbers<float, bf16>> stack{llama::config()};
llama::memory_llama<numbers<float, bf16>> model(llama::config(), std::make_shared<const parameters<bf16>>(),
                                                llama::memory_options());
#endif
