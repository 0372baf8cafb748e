#pragma once

// memory_llama pretrain: a plain Llama, all weights, next-token loss.

#include <unroll/train/held_out.hpp>

#include "device.hpp"
#include "memory_training.hpp"

namespace program {

struct pretrain_command : command {
  using T = float;
  model_options model;
  text_options texts;
  training_options training;
  std::string out;
  std::vector<std::pair<std::string, std::string>> vocabulary;  // of --out, file by file
  index_t length = 256, batch = 8, accumulate = 1, shares = 2, held_out_windows = 64;

  explicit pretrain_command(CLI::App& program)
      : command(program, "pretrain",
                "Trains a plain Llama, new or from a checkpoint, on a text or a folder of books.",
                "  memory_llama pretrain --text books/train --held-out books/valid --hidden 384 --layers 8 "
                "--heads 6 --kv-heads 2 --length 512 --steps 20000 --checkpoint base.ckpt --out base\n"
                "  memory_llama pretrain --model stories260K-hf --text books/train --held-out books/valid "
                "--rate 5e-4 --out adapted\n"
                "  memory_llama pretrain ... --checkpoint base.ckpt --resume   (the same options)\n") {
    model.add(app, true);
    texts.add(app);
    const auto add = [&](const char* name, index_t& value, const char* what) {
      app->add_option(name, value, what)->check(CLI::Range(1, 1'000'000))->capture_default_str();
    };
    add("--length", length, "tokens of a sequence");
    add("--batch", batch, "sequences of a step, divided by --accumulate into those computed together");
    add("--accumulate", accumulate, "gradients that are added up for a step");
    add("--shares", shares, "parts of a batch with a gradient of their own, each for one thread");
    add("--held-out-windows", held_out_windows,
        "sequences of the held-out text, evenly spread, that are scored");
    training.add(app);
    app->add_option("--out", out, "folder for the model: config.json, model.safetensors and the vocabulary")
        ->check(not_empty);
    add_seed("of the new weights and of the places of the text");
    add_threads();
    add_outputs("the course of the run");
  }

  int run() {
    using namespace unroll;
    named_files outputs{{"--checkpoint", training.checkpoint}, {"--out", out}};
    if (!out.empty()) {
      vocabulary = tokenizer_files(model);
      for (const char* name : {"config.json", "model.safetensors"})
        outputs.emplace_back("--out", out + "/" + name);
      for (const auto& file : vocabulary) outputs.emplace_back("--out", out + "/" + file.first);
    }
    check_files(model.inputs({{"--text", texts.text}, {"--held-out", texts.held_out}}), outputs);
    check_checkpoint("memory_llama", training.checkpoint, training.resume);
    check_model_folder();
    if (batch % accumulate != 0)
      fail("memory_llama", "accumulate",
           "is " + std::to_string(accumulate) + ", does not divide the batch of " + std::to_string(batch));
    auto base = model.load<T>(fold(key{seed}, 0));
    if (!out.empty() && base.model.shape.beyond == llama::position_policy::ntk)
      fail("memory_llama", "positions",
           "are " + positions_text(base.model.shape) +
               ", which the config.json of --out cannot say; linear:FACTOR it can");
    prepare_folder(out);
    const corpus data = load_corpus(texts, base.words, threads);
    check_documents(data.train, "text", texts.text_name(), 2, "nothing is learned from them");
    check_documents(data.held_out, "held-out", texts.held_out_name(), length + 1,
                    "they are not scored (--length)");
    const index_t together = batch / accumulate;
    const llama::language_model_options how{.sequences = together,
                                            .length = length,
                                            .shares = std::min(shares, together),
                                            .threads = model.device.on_host() ? threads : 1};
    if (model.device.on_host()) {
      llama::language_model<T> network(base.model.shape, how);
      return train<T>(base, data, network, {}, [&](const auto& theta, const auto& of) {
        return training::mean_nll(network, theta, of);
      });
    }
    const auto device = model.device.open(false);
    check_fits(model.device.where, model.device.bytes(*device), device_pretraining(base.model.shape, how));
    const auto network = device->network(base.model.shape, how);
    std::fprintf(stderr, "memory_llama: on %s\n", device->name().c_str());
    return train<device_place>(
        base, data, *network, device_place(device->numbers()),
        [&](const auto& theta, const auto& of) { return network->mean_nll(theta, of); });
  }

 private:
  /// With theta at the place of e; network.gradient(theta, ids, targets, g) adds to g, mean_nll(theta, texts)
  /// scores.
  template <class X, class Network, class MeanNll>
  int train(language<T>& base, const corpus& data, Network& network, unroll::exec::of<X> e,
            MeanNll&& mean_nll) {
    using namespace unroll;
    const index_t together = batch / accumulate;
    data::windows places(data.train, together, length, fold(key{seed}, 1));
    training_run<X> run(training, std::move(base.model.weights), identity(base.model.shape, data),
                        std::move(e));
    places.seek(run->step() * accumulate);
    const auto held_out = data::stretches(data.held_out, length, held_out_windows);
    const double bytes_a_token = bytes_per_token(data.held_out, base.words);

    std::printf(
        "%s: %td weights\n%td documents of %lld tokens, %lld held out, %.2f bytes a token; %td x %td "
        "tokens a step\n\n",
        describe(base.model.shape).c_str(), run->theta().size(), data.train.size(),
        static_cast<long long>(data.train.tokens()), static_cast<long long>(data.held_out.tokens()),
        bytes_a_token, batch, length);
    run.print_head();
    std::vector<token> ids(std::size_t(together * length)), targets(ids.size());
    {
      const progress line;
      for (;;) {
        if (run->due()) {
          const double start = seconds_now();
          const double nll = mean_nll(run->theta(), held_out);
          line.clear();
          run.report(nll, bytes_a_token, seconds_now() - start);
          run.save();
        }
        if (run->done() || interrupted) break;
        const double start = seconds_now();
        double loss = 0;
        index_t scored = 0;
        auto& g = run->gradient_sum();
        for (index_t i = 0; i < accumulate; ++i) {
          places.next(ids, targets);
          loss += double(network.gradient(run->theta(), ids, targets, g));
          scored += std::count_if(targets.begin(), targets.end(), [](token t) { return t >= 0; });
        }
        run.update(loss, double(scored), seconds_now() - start);
        line.show(run.progress_line());
      }
    }
    if (interrupted) run.save();
    if (!out.empty()) {
      const std::filesystem::path folder = out;
      for (const auto& file : vocabulary)
        std::filesystem::remove(folder / file.first);  // not beside other weights
      llama::save_llama<T>(folder, base.model.shape, run.theta_on_host(), text_ids(base));
      for (const auto& [name, bytes] : vocabulary) write_file(folder / name, bytes);
    }
    json d{{"command", "pretrain"},
           {"model", model.path},
           {"text", texts.text},
           {"held_out", texts.held_out},
           {"shape", to_json(base.model.shape)},
           {"weights", run->theta().size()},
           {"device", model.device.where},
           {"length", length},
           {"batch", batch},
           {"steps", training.steps},
           {"rate", training.rate},
           {"seed", seed},
           {"held_out_bytes_per_token", bytes_a_token},
           {"complete", run->done()}};
    d["course"] = training::to_json(run->course());
    write_json(d);
    draw_course(run->course(), "pretraining, " + describe(base.model.shape), plot);
    return interrupted ? 130 : 0;
  }

  /// What would be taken for a part of the model when --out is read.
  void check_model_folder() const {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(out, none)) {
      const std::string name = entry.path().filename().string(), kind = entry.path().extension().string();
      const bool ours = std::any_of(vocabulary.begin(), vocabulary.end(),
                                    [&](const auto& file) { return file.first == name; });
      if (name == "model.safetensors" || ours) continue;
      if (kind == ".safetensors" || kind == ".model" || kind == ".bin" || name.ends_with(".index.json") ||
          name == "tokenizer.json" || name == "tokenizer_config.json" || name == "generation_config.json")
        fail("memory_llama", "--out",
             "\"" + entry.path().string() + "\" lies there and would be taken for a part of the model");
    }
  }
  std::string identity(const unroll::llama::config& c, const corpus& data) const {
    return text_of("pretrain %s, %s, texts %016llx %016llx, %td x %td by %td in %td, held out %td, seed %llu",
                   (model.adapter.empty() ? model.path : model.path + " with " + model.adapter).c_str(),
                   describe(c).c_str(), static_cast<unsigned long long>(unroll::data::hash_of(data.train)),
                   static_cast<unsigned long long>(unroll::data::hash_of(data.held_out)), batch, length,
                   accumulate, shares, held_out_windows, static_cast<unsigned long long>(seed)) +
           (model.device.on_host()         ? ""
            : model.device.where == "simt" ? ", simt"
                                           : ", cuda");
  }
};

}  // namespace program
