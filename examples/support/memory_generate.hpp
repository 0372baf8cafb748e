#pragma once

// memory_llama generate and autoencode: what the model writes with a full memory.

#include <unroll/diagnose/json_sink.hpp>

#include "memory_setup.hpp"

namespace program {

struct generate_command : command {
  model_options base;
  memory_choice memory;
  std::string prompt, text;
  index_t tokens = 256, skip = 0;
  double temperature = 1, top_p = 1;
  bool greedy = false;

  explicit generate_command(CLI::App& program)
      : command(program, "generate",
                "Continues a text of any length; whenever a segment is full it becomes a memory.",
                "  memory_llama generate --model base --adapters adapters --prompt \"Call me Ishmael.\" "
                "--tokens 500 "
                "--temperature 0.8 --top-p 0.9\n"
                "  memory_llama generate --model base --adapters adapters --text book.txt --greedy") {
    base.add(app, false);
    memory.add(app);
    memory.add_weights(app);
    CLI::Option* file = app->add_option("--text", text, "a text file to continue")->check(CLI::ExistingFile);
    app->add_option("--prompt", prompt, "the text itself")->excludes(file);
    app->add_option("--tokens", tokens, "at most so many")
        ->check(CLI::Range(0, 1'000'000'000))
        ->capture_default_str();
    CLI::Option* first = app->add_flag("--greedy", greedy, "always the most probable token");
    app->add_option("--temperature", temperature, "divides the logits; 0: greedy")
        ->check(not_negative)
        ->excludes(first)
        ->capture_default_str();
    app->add_option("--top-p", top_p, "the fewest most probable tokens that have this probability")
        ->check(CLI::Range(0.0, 1.0))
        ->check(positive)
        ->excludes(first)
        ->capture_default_str();
    add_seed("the same seed, the same text");
    add_outputs();
  }

  int run() {
    check_files(base.inputs({{"--text", text}, {"--adapters", memory.adapters}}));
    return with_weights(memory.weights, [&]<class X>(std::type_identity<X>) { return run_with<X>(); });
  }

 private:
  template <class X>
  int run_with() {
    using namespace unroll;
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const std::string given = text.empty() ? prompt : read_file(text, "memory_llama");
    std::vector<token> ids =
        setup.words.encode(given, setup.words.bos() >= 0, text.empty() ? "--prompt" : "\"" + text + "\"");
    if (ids.empty()) fail("memory_llama", "prompt", "is empty, and the vocabulary has no begin of a text");
    llama::memory_session<X> session(setup.model, setup.theta);
    llama::sampler sampler(setup.words.size(), {.temperature = greedy ? 0 : temperature, .top_p = top_p});
    session.append(ids);
    const std::size_t prompt_tokens = ids.size();
    const index_t before = session.memories();

    std::fwrite(given.data(), 1, given.size(), stdout);
    const double start = seconds_now();
    const auto done = llama::generate(session, sampler, tokens, setup.ends, fold(key{seed}, 2), [&](token t) {
      const std::string piece = setup.words.decode(std::span(&t, 1), setup.words.ends_stretch(ids.back()));
      ids.push_back(t);
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      flush_output();
      return !interrupted;
    });
    const char* reasons[] = {"tokens", "end of text", "no more positions", "interrupted"};
    const char* why = reasons[int(done.why)];
    const double seconds = seconds_now() - start, rate = seconds > 0 ? double(done.tokens) / seconds : 0;
    std::printf("\n");
    flush_output();
    std::fprintf(stderr,
                 "%td tokens, %.0f a second; %td memories of the prompt, %td in the end; ended by: %s\n",
                 done.tokens, rate, before, session.memories(), why);
    json d{{"command", "generate"},
           {"model", base.path},
           {"adapters", memory.adapters},
           {"weights", memory.weights},
           {"memory", to_json(setup.model.options())},
           {"prompt_tokens", prompt_tokens},
           {"temperature", sampler.how().temperature},
           {"top_p", top_p},
           {"seed", seed},
           {"tokens", done.tokens},
           {"memories", session.memories()},
           {"ended_by", why},
           {"tokens_per_second", rate},
           {"bytes", session.bytes()},
           {"ids", ids},
           {"text", setup.words.decode(ids)}};
    write_json(d);
    return interrupted ? 130 : 0;
  }
};

struct autoencode_command : command {
  model_options base;
  memory_choice memory;
  std::string text = UNROLL_DEFAULT_TEXT;
  index_t texts = 16;

  explicit autoencode_command(CLI::App& program)
      : command(program, "autoencode",
                "Encodes a segment and reproduces it from its memory alone: BLEU-4 and ROUGE-L over words.",
                "  memory_llama autoencode --model base --adapters adapters --text books/test --texts 32") {
    base.add(app, true);
    memory.add(app);
    memory.add_weights(app);
    app->add_option("--text", text, "a text file, or a folder of .txt files")
        ->check(CLI::ExistingPath)
        ->capture_default_str();
    app->add_option("--texts", texts, "segments, evenly spread over the documents")
        ->check(CLI::Range(1, 1'000'000))
        ->capture_default_str();
    add_seed("of fresh parameters");
    add_threads();
    add_outputs();
  }

  int run() {
    check_files(base.inputs({{"--text", text}, {"--adapters", memory.adapters}}));
    return with_weights(memory.weights, [&]<class X>(std::type_identity<X>) { return run_with<X>(); });
  }

 private:
  template <class X>
  int run_with() {
    using namespace unroll;
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const data::documents all(text, setup.words, {.bos = false, .threads = threads});
    check_documents(all, "text", "\"" + text + "\"", setup.model.options().segment + 1,
                    "they are left out (--segment)");
    const auto wanted = unroll::data::stretches(all, setup.model.options().segment, texts);
    const token begin = setup.words.bos() >= 0 ? setup.words.bos() : 0;
    std::vector<std::vector<token>> written(wanted.size());
    worker_pool pool(std::min(threads, index_t(wanted.size())));
    const progress line;
    std::vector<llama::memory_session<X>> sessions;
    for (index_t i = 0; i < pool.size(); ++i) sessions.emplace_back(setup.model, setup.theta);
    std::atomic<index_t> done{0};
    share_out(pool, index_t(wanted.size()), [&](index_t worker, index_t i) {
      if (interrupted) return;
      const auto ids = wanted[std::size_t(i)].first(std::size_t(setup.model.options().segment));
      std::vector<token> out(ids.size());
      llama::reproduce<X>(sessions[std::size_t(worker)], ids, begin, out, setup.words.size());
      written[std::size_t(i)] = std::move(out);
      if (worker == 0)
        line.show("reproduced " + std::to_string(done.load()) + " / " + std::to_string(wanted.size()));
      ++done;
    });
    line.clear();

    bleu4 words, tokens;
    double rouge = 0, same = 0, count = 0, compared = 0;
    json samples = json::array();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (written[i].empty()) continue;
      const auto ids = wanted[i].first(written[i].size());
      const std::string was = setup.words.decode(ids), is = setup.words.decode(written[i]);
      const auto reference = split_words(was), candidate = split_words(is);
      words.add(reference, candidate);
      tokens.add(ids, std::span<const token>(written[i]));
      rouge += rouge_l(reference, candidate);
      for (std::size_t k = 0; k < ids.size(); ++k) same += ids[k] == written[i][k];
      compared += double(ids.size());
      ++count;
      if (samples.size() < 3) samples.push_back({{"text", was}, {"reproduced", is}});
    }
    if (count == 0) return 130;
    std::printf(
        "%s\n%.0f segments of %td tokens, %td memory tokens each\n\nBLEU-4 %.4f (over tokens %.4f)\nROUGE-L "
        "%.4f\ntokens in their place %.4f\n\ntext:       %s\nreproduced: %s\n",
        describe(setup.shape()).c_str(), count, setup.model.options().segment, setup.model.memory_tokens(),
        words.value(), tokens.value(), rouge / count, same / compared,
        samples[0]["text"].get_ref<const std::string&>().c_str(),
        samples[0]["reproduced"].get_ref<const std::string&>().c_str());
    write_json({{"command", "autoencode"},
                {"model", base.path},
                {"adapters", memory.adapters},
                {"weights", memory.weights},
                {"weights", memory.weights},
                {"text", text},
                {"memory", to_json(setup.model.options())},
                {"segments", count},
                {"complete", !interrupted.load()},
                {"bleu4", words.value()},
                {"bleu4_tokens", tokens.value()},
                {"rouge_l", rouge / count},
                {"tokens_in_place", same / compared},
                {"samples", samples}});
    return interrupted ? 130 : 0;
  }
};

}  // namespace program
