// Scores, generates and differentiates texts with a Llama from files.
#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>

#include "support/llama_job.hpp"

using namespace unroll;

namespace {

using json = nlohmann::ordered_json;
using llama::token;

using program::on_device;

template <class X>
int score(const program::llama_options& o) {
  const program::llama_job<X> j(o, false);
  const auto& model = j.language.model;
  llama::text_score<program::parameter_of<X>> s;
  {
    const program::progress line;
    const auto watch = program::watch(line, "scored", j.ids.size() - 1);
    llama::score_options how{.window = o.window, .overlap = o.overlap, .threads = o.threads};
    if constexpr (std::same_as<X, on_device>) {
      if (o.streams) fail("llama", "--stream", "is of the host: a device reads a text in windows");
      how.threads = 1;
      s = j.device->score(j.ids, how, watch);
    } else if (o.streams) {
      const index_t keys = o.window == 0 ? model.shape.positions() : o.window;
      if (keys <= o.sinks)
        fail("llama", "--sinks",
             "are " + std::to_string(o.sinks) + ", must be less than the window of " + std::to_string(keys));
      s = llama::score_streaming<X>(llama::transformer<X>(model.shape), model.weights, j.ids,
                                    {.sinks = o.sinks, .window = keys - o.sinks, .chunk = o.chunk},
                                    j.adapters(), watch);
    } else {
      s = llama::score<X>(llama::transformer<X>(model.shape), model.weights, j.ids, how, j.adapters(), watch);
    }
  }
  const double mean = s.mean();
  std::printf("%zu tokens, %.6f nats a token, perplexity %.4f", s.nll.size(), mean, std::exp(mean));
  const bool complete = s.nll.size() + 1 == j.ids.size();
  if (complete && j.language.words.bos() >= 0)  // else the first token is not scored
    std::printf(", %.4f bits a byte", mean * double(s.nll.size()) / std::log(2.0) / double(j.text.size()));
  std::printf("\n");
  json d = program::llama_document("score", o, model.shape);
  d["window"] = o.window == 0 ? model.shape.positions() : o.window;
  d["overlap"] = o.overlap;
  if (o.streams) {
    d["sinks"] = o.sinks;
    d["chunk"] = o.chunk;
  }
  d["complete"] = complete;
  d["mean_nll"] = s.nll.empty() ? json() : json(mean);
  d["ids"] = j.ids;
  d["nll"] = s.nll;
  program::write_json(o.json_file, d);
  return program::interrupted ? 130 : 0;
}

template <class Text, class X>
int generate(const program::llama_options& o, const program::llama_job<X>& j, Text& g) {
  const auto& model = j.language.model;
  const llama::tokenizer& words = j.language.words;
  llama::sampler sampler(words.size(), o.draw.of(j.language.said));
  sampler.saw(j.ids);
  if (!g.room(index_t(j.ids.size())))
    fail("llama", "text",
         "has " + std::to_string(j.ids.size()) + " tokens with its begin, the model has " +
             std::to_string(model.shape.positions()) + " positions");
  g.append(j.ids);

  std::vector<token> ids = j.ids;
  std::fwrite(j.text.data(), 1, j.text.size(), stdout);
  const auto start = std::chrono::steady_clock::now();
  const auto done = llama::generate(g, sampler, o.tokens, j.language.ends, key{o.seed}, [&](token t) {
    const std::string piece = words.decode(std::span(&t, 1), words.ends_stretch(ids.back()));
    ids.push_back(t);
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    program::flush_output();
    return !program::interrupted;
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("\n");
  program::flush_output();
  const char* why[] = {"tokens", "end of text", "context is full", "interrupted"};
  const double rate = seconds > 0 ? double(done.tokens) / seconds : 0;
  std::fprintf(stderr, "%td tokens, %.0f a second, ended by: %s\n", done.tokens, rate, why[int(done.why)]);
  json d = program::llama_document("generate", o, model.shape);
  d["prompt"] = j.text;
  d["prompt_tokens"] = j.ids.size();
  program::write_drawing(d, sampler.how());
  d["seed"] = o.seed;
  d["tokens"] = done.tokens;
  d["ended_by"] = why[int(done.why)];
  d["tokens_per_second"] = rate;
  d["ids"] = ids;
  d["text"] = words.decode(ids);
  program::write_json(o.json_file, d);
  return program::interrupted ? 130 : 0;
}

template <class X>
int generate(const program::llama_options& o) {
  const program::llama_job<X> j(o, true);
  if constexpr (std::same_as<X, on_device>) {
    const auto g = j.device->text();
    return generate(o, j, *g);
  } else {
    const llama::transformer<X> stack(j.language.model.shape);
    const index_t room = std::min(stack.shape().positions(), index_t(j.ids.size()) + o.tokens);
    llama::generator<X> g(stack, j.language.model.weights, llama::key_value_cache<X>(stack.shape(), room),
                          j.adapters());
    return generate(o, j, g);
  }
}

template <class X>
int differentiate(const program::llama_options& o) {
  using T = program::parameter_of<X>;
  const program::llama_job<X> j(o, false);
  const auto& model = j.language.model;
  if (j.tuned.dora)
    fail("llama", "adapter",
         "\"" + o.adapter + "\" is one of DoRA, whose own gradient is not computed: --merge it");
  const llama::weight_map map(model.shape);
  gradient<T> g(map.size()), dtuned(j.tuned.map.size());
  llama::text_mean mean;
  {
    const program::progress line;
    const auto watch = program::watch(line, "differentiated", j.ids.size() - 1);
    llama::score_options how{.window = o.window, .overlap = o.overlap, .threads = o.threads};
    if constexpr (std::same_as<X, on_device>) {
      how.threads = 1;
      mean = j.device->score_gradient(j.ids, g, how, watch);
    } else {
      mean = llama::score_gradient<T>(model.shape, model.weights, j.ids, g, how, watch, {}, j.adapters(),
                                      dtuned);
    }
  }
  json norms = json::object();
  double squares = 0;
  const auto add = [&](const layout& names, dparams<T> of) {
    for (const layout_block& b : names.blocks()) {
      double sum = 0;
      for (const T x : of.part(b.offset, b.size())) sum += double(x) * double(x);
      norms[b.name] = std::sqrt(sum);
      squares += sum;
      std::printf("%-50s %14.8g\n", b.name.c_str(), std::sqrt(sum));
    }
  };
  add(map.names(), g);
  add(j.tuned.map.names(), dtuned);
  std::printf("%-50s %14.8g\n%td tokens, %.6f nats a token\n", "all", std::sqrt(squares), mean.tokens,
              mean.nll);
  json d = program::llama_document("gradient", o, model.shape);
  d["complete"] = mean.tokens + 1 == index_t(j.ids.size());
  d["tokens"] = mean.tokens;
  d["mean_nll"] = mean.nll;
  d["norm"] = std::sqrt(squares);
  d["tensors"] = norms;
  program::write_json(o.json_file, d);
  return program::interrupted ? 130 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  program::llama_options o;
  CLI::App app{
      "Scores, generates and differentiates texts with a Llama from files.\n\n"
      "examples:\n"
      "  llama score --model stories260K.bin --tokenizer tok512.bin --text story.txt --json score.json\n"
      "  llama generate --model stories260K-hf --greedy --tokens 100\n"
      "  llama generate --model stories260K-hf --prompt \"Once upon a time\" --temperature 0.8 --top-p 0.9 "
      "--seed 7\n"
      "  llama gradient --model stories260K-hf --prompt \"Lily saw a big, red ball.\" --double --json "
      "norms.json"};
  app.require_subcommand(0, 1);
  const auto command = [&](const char* name, const char* what) {
    CLI::App* sub = app.add_subcommand(name, what);
    o.add(sub);
    return sub;
  };
  CLI::App* scoring = command(
      "score",
      "-log p of every token of a text, in nats, behind the token that begins texts.\n"
      "A text longer than the context is cut into windows, each read for itself; --stream reads it in one "
      "go.\n"
      "--json: ids[0] begins the text, nll[i] is that of ids[i + 1].");
  o.add_windows(scoring);
  o.add_streaming(scoring);
  CLI::App* generation =
      command("generate",
              "continues a text, or begins one, token by token. It ends at the ids that "
              "eos_token_id names in\ngeneration_config.json, else in config.json, else at "
              "the end of the vocabulary; and where another text would begin.");
  o.add_sampling(generation);
  o.add_windows(command(
      "gradient",
      "l2 norms of the gradient of the mean -log p of a text, by tensor; tied matrices are one.\nWith "
      "--adapter, of the weights and of the adapter's A and B, or with --merge of the merged weights"));

  return program::run("llama", app, argc, argv, [&] {
    if (app.get_subcommands().empty()) {
      std::fputs(app.help().c_str(), stdout);
      return 0;
    }
    const CLI::App* chosen = app.get_subcommands().front();
    o.has_prompt = chosen->count("--prompt") > 0;
    program::check_outputs(
        "llama", {{"--json", o.json_file}},
        program::inputs_of(o.model, o.tokenizer, {{"--text", o.text}, {"--adapter", o.adapter}}));
    const bool half = o.weights == "bf16";
    using program::bf16_weights;
    if (!o.device.on_host()) {
      if (o.doubles) fail("llama", "--double", "is of the host: a device computes in float or bfloat16");
      return chosen == scoring      ? score<on_device>(o)
             : chosen == generation ? generate<on_device>(o)
                                    : differentiate<on_device>(o);
    }
    if (chosen == scoring)
      return o.doubles ? score<double>(o) : half ? score<bf16_weights>(o) : score<float>(o);
    if (chosen == generation)
      return o.doubles ? generate<double>(o) : half ? generate<bf16_weights>(o) : generate<float>(o);
    if (half) fail("llama", "weights", "are bf16, whose gradient is not computed: frozen weights only");
    return o.doubles ? differentiate<double>(o) : differentiate<float>(o);
  });
}
