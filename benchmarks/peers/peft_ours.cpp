// One side of peft_compare.py and of save_compare.py: this library.
//   usage: peft_ours logits MODEL ADAPTER merge|beside <IDS >LOGITS     ADAPTER - : none
//          peft_ours train MODEL ADAPTER KIND <IDS                     KIND: uniform, one_by_one, biased
//          peft_ours save MODEL FOLDER -                               by save_llama
// IDS is a JSON list, LOGITS one of lists, computed in double. `train` takes ten steps of Adam on new
// adapters, prints the loss before and after, and saves them.
#include <iostream>

#include "unroll/io/base_adapter.hpp"
#include "unroll/llama.hpp"

using namespace unroll;
using namespace unroll::llama;

namespace {

nlohmann::json logits(const pretrained<double>& base, adapters<double> a, const std::vector<token>& ids) {
  using E = transformer<double>::executor_type;
  const transformer<double> stack(base.shape);
  const index_t n = index_t(ids.size());
  const config& c = base.shape;
  buffer<double> x(c.hidden * n), out(c.vocabulary * n);
  const auto p = stack.pass_over(0, n);
  buffer<double> workspace(std::max(stack.workspace_size(p, false), lm_head<E>::workspace_size(c, n)));
  const matrix<double> columns(x.data(), c.hidden, n);
  embed(stack.executor(), stack.map(), base.weights.data(), ids, columns);
  stack.forward(base.weights.data(), a, p, columns, view<double>{}, workspace);
  const lm_head<E> head{stack.executor(), stack.map(), base.weights.data(), workspace};
  head.logits(columns, matrix<double>(out.data(), c.vocabulary, n));
  nlohmann::json answer = nlohmann::json::array();
  for (index_t j = 0; j < n; ++j)
    answer.push_back(std::vector<double>(out.data() + j * c.vocabulary, out.data() + (j + 1) * c.vocabulary));
  return answer;
}

void train(const pretrained<double>& base, const std::string& kind, const std::vector<token>& ids,
           const std::filesystem::path& folder) {
  lora_options o;
  o.rank = 4;
  o.alpha = 8;
  o.adapted = {true, false, true, true, false, true, false};
  if (kind == "one_by_one")
    o.modules = {{0, layer_matrix::q, 2, 2}, {0, layer_matrix::up, 6, 1}, {1, layer_matrix::q, 4, 0.5}};
  o.bias = kind == "biased";
  const lora_map map(base.shape, o);
  parameters<double> theta(map.size());
  init_lora<double>(map, theta, key{1});
  gradient<double> g(base.weights.size()), dtheta(map.size());
  adam<double> optimiser(map.size(), {.rate = 0.02});
  text_mean mean;
  for (int update = 0; update <= 10; ++update) {
    mean = score_gradient<double>(base.shape, base.weights, ids, g, {}, unroll::llama::detail::go_on{}, {},
                                  {&map, theta.data()}, dtheta);
    if (update == 0 || update == 10) std::printf("%.6f\n", mean.nll);
    if (update < 10 && optimiser.step(theta, dtheta) != status::ok)
      fail("peft_ours", "step", "is not finite");
  }
  save_lora<double>(folder, base.shape, map, theta);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 5) return 2;
  if (argv[1] == std::string("save")) {
    const auto model = load_llama<float>(argv[2]);
    save_llama<float>(argv[3], model.shape, model.weights, {.bos = 1, .eos = {2}});
    return 0;
  }
  const auto ids = nlohmann::json::parse(std::cin).get<std::vector<token>>();
  auto base = load_llama<double>(argv[2]);
  if (argv[1] == std::string("train")) {
    train(base, argv[4], ids, argv[3]);
    return 0;
  }
  adapter<double> tuned;
  if (argv[3] != std::string("-")) tuned = load_adapter<double, double>(argv[3], base.shape, base.weights);
  if (argv[4] == std::string("merge")) {
    merge_adapter<double, double>(base.shape, tuned.map, tuned.theta, base.weights);
    tuned = {};
  }
  std::cout << logits(base, {tuned.map.size() > 0 ? &tuned.map : nullptr, tuned.theta.data()}, ids).dump()
            << "\n";
} catch (const error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
