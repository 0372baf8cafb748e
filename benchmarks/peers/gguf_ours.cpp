// One side of gguf_compare.py and of gguf_load.py: this library on a GGUF file.
//   usage: gguf_ours values FILE            float32 of every tensor, in the order of their names
//          gguf_ours ids FILE <TEXT         int32 ids of a text
//          gguf_ours logits FILE <IDS       float32 logits behind every int32 id
//          gguf_ours greedy FILE N <IDS     N more int32 ids, each the most probable
//          gguf_ours first FILE TYPE <IDS   one more, and the seconds of the processor until the weights
//          (TYPE:
//                                           float, bf16) and vocabulary were there, and until the id was
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <iterator>

#include "unroll/llama.hpp"

using namespace unroll;

namespace {

template <class Numbers>
void put(const Numbers& all) {
  std::cout.write(reinterpret_cast<const char*>(all.data()),
                  std::streamsize(std::size_t(all.size()) * sizeof(*all.data())));
}
std::string input() { return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()}; }
std::vector<llama::token> input_ids() {
  const std::string bytes = input();
  std::vector<llama::token> ids(bytes.size() / sizeof(llama::token));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(llama::token));
  return ids;
}

void values(const std::string& path) {
  const gguf file = gguf::open(path, "gguf_ours");
  std::vector<float> numbers;
  for (const auto& [name, t] : file.tensors()) {
    numbers.resize(std::size_t(t.size));
    file.read(name, 0, view<float>(numbers), true);
    put(numbers);
  }
}

void continued(const std::string& path, int more) {
  const auto model = llama::load_gguf<float>(gguf_files::open(path, "gguf_ours"));
  const llama::transformer<float> stack(model.shape);
  const auto ids = input_ids();
  const index_t room = index_t(ids.size()) + std::max(more, 0);
  llama::generator<float> g(stack, model.weights, llama::key_value_cache<float>(model.shape, room));
  if (more < 0) {
    for (const llama::token id : ids) {
      g.append(id);
      put(g.logits());
    }
    return;
  }
  std::vector<llama::token> out;
  g.append(ids);
  for (int i = 0; i < more; ++i) {
    const auto logits = g.logits();
    out.push_back(llama::token(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    g.append(out.back());
  }
  put(out);
}

template <class T>
void first(const std::string& path) {
  const auto seconds = [] { return double(std::clock()) / CLOCKS_PER_SEC; };
  const auto ids = input_ids();
  const gguf_files files = gguf_files::open(path, "gguf_ours");
  const auto words = llama::parse_tokenizer_gguf(files.front());
  const auto model = llama::load_gguf<T>(files);
  using X = numbers<float, T>;
  const llama::transformer<X> stack(model.shape);
  llama::generator<X> g(stack, model.weights, llama::key_value_cache<X>(model.shape, 512));
  const double loaded = seconds();
  g.append(ids);
  const auto logits = g.logits();
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  std::cout << best << " " << loaded << " " << seconds() << " " << words.size() << "\n";
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "values" && argc == 3)
    values(argv[2]);
  else if (what == "ids" && argc == 3)
    put(llama::parse_tokenizer_gguf(gguf::open(argv[2], "gguf_ours")).encode(input()));
  else if (what == "logits" && argc == 3)
    continued(argv[2], -1);
  else if (what == "greedy" && argc == 4)
    continued(argv[2], std::atoi(argv[3]));
  else if (what == "first" && argc == 4 && argv[3] == std::string("float"))
    first<float>(argv[2]);
  else if (what == "first" && argc == 4 && argv[3] == std::string("bf16"))
    first<bf16>(argv[2]);
  else
    return 2;
  return std::cout.flush() ? 0 : 1;
} catch (const error& e) {
  std::cerr << e.what() << "\n";
  return 1;
}
