#pragma once

// memory_llama autoencode: how much of a segment its memory alone gives back.

#include <unroll/diagnose/json_sink.hpp>

#include "default_text.hpp"
#include "memory_setup.hpp"

namespace program {

struct autoencode_command : reading_command<autoencode_command> {
  index_t texts = 16;

  explicit autoencode_command(CLI::App& program)
      : reading_command(
            program, "autoencode",
            "Encodes a segment and reproduces it from its memory alone: BLEU-4 and ROUGE-L over words.",
            "  memory_llama autoencode --model base --adapters adapters --text books/test --texts 32") {
    text = default_text();
    base.add(app, true);
    memory.add(app);
    memory.add_weights(app);
    app->add_option("--text", text, "a text file, or a folder of .txt files")
        ->check(CLI::ExistingPath)
        ->capture_default_str();
    add_count(app, "--texts", texts, 1, 1'000'000, "segments, evenly spread over the documents");
    add_seed("of new parameters");
    add_threads();
    add_outputs();
  }

  template <class X>
  int run_with() {
    using namespace unroll;
    memory.needs = [](bool half, const llama::config& c, const memory_options& o) {
      return device_session(half, c, o);
    };
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const data::documents all(text, setup.words, {.bos = false, .threads = threads});
    check_documents(all, "text", "\"" + text + "\"", setup.model.options().segment + 1,
                    "they are left out (--segment)");
    const auto wanted = unroll::data::stretches(all, setup.model.options().segment, texts);
    const token begin = setup.words.bos() >= 0 ? setup.words.bos() : 0;
    std::vector<std::vector<token>> written(wanted.size());
    worker_pool pool(base.device.on_host() ? std::min(threads, index_t(wanted.size())) : 1);
    const progress line;
    std::vector<decltype(session_of(setup))> sessions;
    for (index_t i = 0; i < pool.size(); ++i) sessions.push_back(session_of(setup));
    std::atomic<index_t> done{0};
    share_out(pool, index_t(wanted.size()), [&](index_t worker, index_t i) {
      if (interrupted) return;
      const auto ids = wanted[std::size_t(i)].first(std::size_t(setup.model.options().segment));
      std::vector<token> out(ids.size());
      reproduce(*sessions[std::size_t(worker)], ids, begin, out, setup.words.size());
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
                {"adapter", base.adapter},
                {"adapters", memory.adapters},
                {"weights", memory.weights},
                {"device", base.device.where},
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
