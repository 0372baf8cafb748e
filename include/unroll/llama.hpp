#pragma once

// unroll.hpp and Llamas, with memories and without; also with nothing but Eigen. What reads checkpoints,
// adapters and tokenizers from JSON needs nlohmann-json and is included by name: io/llama_checkpoint.hpp,
// io/lora_file.hpp, io/memory_file.hpp, io/sealed_folder.hpp, io/tokenizer_file.hpp and io/safetensors.hpp.

#include "unroll/data/documents.hpp"
#include "unroll/estimate/plan.hpp"
#include "unroll/io/tokenizer_bin.hpp"
#include "unroll/llama/added_texts.hpp"
#include "unroll/llama/cache.hpp"
#include "unroll/llama/config.hpp"
#include "unroll/llama/generate.hpp"
#include "unroll/llama/head.hpp"
#include "unroll/llama/language_model.hpp"
#include "unroll/llama/lora.hpp"
#include "unroll/llama/memory_costs.hpp"
#include "unroll/llama/memory_llama.hpp"
#include "unroll/llama/memory_map.hpp"
#include "unroll/llama/memory_options.hpp"
#include "unroll/llama/memory_session.hpp"
#include "unroll/llama/pass.hpp"
#include "unroll/llama/sampling.hpp"
#include "unroll/llama/score.hpp"
#include "unroll/llama/tokenizer.hpp"
#include "unroll/llama/transfer_head.hpp"
#include "unroll/llama/transformer.hpp"
#include "unroll/llama/vocabulary.hpp"
#include "unroll/llama/weights.hpp"
#include "unroll/unroll.hpp"
