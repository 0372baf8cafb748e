#pragma once

// memory_llama generate: what the model writes with a full memory.

#include <unroll/diagnose/json_sink.hpp>

#include "memory_setup.hpp"

namespace program {

struct generate_command : reading_command<generate_command> {
  std::string prompt;
  index_t tokens = 256, skip = 0;
  drawing draw;

  explicit generate_command(CLI::App& program)
      : reading_command(
            program, "generate",
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
    add_count(app, "--tokens", tokens, 0, 1'000'000'000, "at most so many");
    draw.add(app);
    add_seed("the same seed, the same text");
    add_outputs();
  }

  template <class X>
  int run_with() {
    using namespace unroll;
    memory.needs = [](bool half, const llama::config& c, const memory_options& o) {
      return device_session(half, c, o);
    };
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const std::string given = text.empty() ? prompt : read_file(text, "memory_llama");
    std::vector<token> ids =
        setup.words.encode(given, setup.words.bos() >= 0, text.empty() ? "--prompt" : "\"" + text + "\"");
    if (ids.empty()) fail("memory_llama", "prompt", "is empty, and the vocabulary has no begin of a text");
    const auto own = session_of(setup);
    auto& session = *own;
    llama::sampler sampler(setup.words.size(), draw.of(setup.said));
    sampler.saw(ids);
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
           {"adapter", base.adapter},
           {"adapters", memory.adapters},
           {"weights", memory.weights},
           {"device", base.device.where},
           {"memory", to_json(setup.model.options())},
           {"prompt_tokens", prompt_tokens},
           {"seed", seed},
           {"tokens", done.tokens},
           {"memories", session.memories()},
           {"ended_by", why},
           {"tokens_per_second", rate},
           {"bytes", session.bytes()},
           {"ids", ids},
           {"text", setup.words.decode(ids)}};
    write_drawing(d, sampler.how());
    write_json(d);
    return interrupted ? 130 : 0;
  }
};

}  // namespace program
