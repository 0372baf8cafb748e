// A Llama with memories (UIO-LLMs): planning, training, evaluation, generation, and what its gradients are
// worth.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "support/memory_autoencode.hpp"
#include "support/memory_bench.hpp"
#include "support/memory_eval.hpp"
#include "support/memory_generate.hpp"
#include "support/memory_gradient.hpp"
#include "support/memory_plan.hpp"
#include "support/memory_pretrain.hpp"
#include "support/memory_recall.hpp"
#include "support/memory_train.hpp"

int main(int argc, char** argv) {
  CLI::App app{
      "A Llama that reads long texts through memories: each segment of a text leaves a few keys and values\n"
      "behind, which the segments after it read. memory_llama COMMAND --help says more."};
  app.require_subcommand(0, 1);
  program::plan_command plan(app);
  program::pretrain_command pretrain(app);
  program::train_command train(app);
  program::eval_command eval(app);
  program::generate_command generate(app);
  program::autoencode_command autoencode(app);
  program::recall_command recall(app);
  program::gradient_command gradient(app);
  program::bench_command bench(app);
  return program::run<program::several_ranks>("memory_llama", app, argc, argv, [&] {
    if (app.get_subcommands().empty()) {
      std::fputs(app.help().c_str(), stdout);
      return 0;
    }
    if (train.asked()) return train.run();
    if (gradient.asked()) return gradient.run();
    program::check_one_process("memory_llama", app.get_subcommands().front()->get_name());
    if (plan.asked()) return plan.run();
    if (pretrain.asked()) return pretrain.run();
    if (eval.asked()) return eval.run();
    if (generate.asked()) return generate.run();
    if (autoencode.asked()) return autoencode.run();
    if (recall.asked()) return recall.run();
    return bench.run();
  });
}
