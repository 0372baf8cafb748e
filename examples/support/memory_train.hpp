#pragma once

// memory_llama train: adapters and memory tokens on documents, by any policy.

#include <unroll/train/document_gradients.hpp>
#include <unroll/train/held_out.hpp>
#include <unroll/train/samples.hpp>

#include "memory_setup.hpp"
#include "memory_training.hpp"

namespace program {

struct train_command : command {
  model_options base;
  memory_choice memory;
  text_options texts;
  training_options training;
  std::string policy = "rematerialise", out;
  index_t segments = 8, documents = 4, held_out_texts = 8;
  double autoencode = 0;

  explicit train_command(CLI::App& program)
      : command(program, "train", "Trains the memory model on top of a frozen Llama.",
                "  memory_llama train --model base --text books/train --held-out books/valid --segment 128 "
                "--ratio 8 --segments 16 --documents 8 --policy rematerialise --checkpoint run.ckpt --out "
                "adapters\n"
                "  memory_llama train ... --checkpoint run.ckpt --resume   (the same options)\n"
                "  mpirun -n 4 memory_llama train ... --threads 2   (the same bits, built with UNROLL_MPI)") {
    base.add(app, true);
    memory.add(app);
    memory.add_on_host(app);
    memory.add_capture(app);
    memory.add_weights(app);
    app->add_option("--b-scale", memory.b_scale,
                    "standard deviation of the second factor of new adapters; 0: begin at the frozen model")
        ->check(not_negative)
        ->capture_default_str();
    texts.add(app);
    app->add_option("--policy", policy, unroll::policy_catalogue::forms())->capture_default_str();
    const auto add = [&](const char* name, index_t& value, index_t least, const char* what) {
      app->add_option(name, value, what)->check(CLI::Range(least, index_t{1'000'000}))->capture_default_str();
    };
    add("--segments", segments, 2,
        "of a sample, a stretch of a document from a random place on; the first one reads no memory");
    add("--documents", documents, 1, "samples of a step, whose gradients are added up");
    add("--accumulate", training.accumulate, 1,
        "gradients, of --documents samples each, that are added up for a step");
    add("--held-out-texts", held_out_texts, 1,
        "stretches of the held-out text, evenly spread, that are scored");
    app->add_option("--autoencode", autoencode,
                    "share of the samples that reproduce one segment from its memory instead; documents "
                    "shorter than a segment are not")
        ->check(CLI::Range(0.0, 1.0))
        ->check(not_negative)
        ->capture_default_str();
    training.rate = 5e-4;
    training.add(app);
    app->add_option("--out", out, "folder for the adapters, in PEFT's files, and the memory tokens")
        ->check(not_empty);
    add_seed("of new parameters, of the places of the text and of the policy's draws");
    add_threads();
    add_outputs("the course of the run");
  }

  int run() {
    const unroll::policy p = unroll::parse_policy(policy);
    named_files outputs{{"--checkpoint", training.checkpoint}, {"--out", out}};
    if (!out.empty())
      for (const char* name : {"encoder", "head", "memory_tokens.safetensors", "memory.json"})
        outputs.emplace_back("--out", out + "/" + name);
    check_files(
        base.inputs(
            {{"--text", texts.text}, {"--held-out", texts.held_out}, {"--adapters", memory.adapters}}),
        outputs);
    check_checkpoint("memory_llama", training.checkpoint, training.resume);
    memory.needs = [this, p](bool half, const unroll::llama::config& c, const memory_options& o) {
      return device_training(
          half, c, o, segments, p,
          unroll::training::document_gradients<memory_on_device>::gradients(documents, 1, world.size()));
    };
    return with_weights(base.device, memory.weights,
                        [&]<class X>(std::type_identity<X>) { return run_with<X>(p); });
  }

 private:
  template <class X>
  int run_with(const unroll::policy& p) {
    using namespace unroll;
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const auto& model = setup.model;
    const memory_options& o = model.options();
    check_segments(setup, segments);
    const token begin = setup.words.bos() >= 0 ? setup.words.bos() : 0;
    const corpus data = load_corpus(texts, setup.words, threads);
    // of a document of segment + 1 tokens the last target is that of the first segment, which reads no memory
    check_documents(data.train, "text", texts.text_name(), o.segment + (autoencode > 0 ? 0 : 2),
                    "none of their losses reads a memory (--segment)");
    check_documents(data.held_out, "held-out", texts.held_out_name(), segments * o.segment + 1,
                    "they are not scored (--segments times --segment)");
    if (world.first()) prepare_folder(out);
    auto gradients = gradients_of<X>(model, p);
    training::samples samples(data.train,
                              {.documents = documents,
                               .segments = segments,
                               .segment = o.segment,
                               .autoencode = autoencode,
                               .begin = begin},
                              key{seed});
    const auto held_out = data::stretches(data.held_out, segments * o.segment, held_out_texts);
    const double bytes = bytes_per_token(data.held_out, setup.words);
    run_of<X> run(training, std::move(setup.theta), identity(setup.shape(), data, fingerprint_of(model)),
                  place_of(model));
    [[maybe_unused]] const auto cast = cast_of(run);
    run.check_ranks();
    samples.seek(run->position());

    const memory_plan planned = plan_of<X>(setup.shape(), o, p);
    std::printf(
        "%s\n%td trainable parameters, %s: %td x %td tokens a sample, %td samples a step%s\n"
        "planned for a sample: %.3g operations, %.4g MB; %td documents of %lld tokens, %lld held out\n\n",
        describe(setup.shape()).c_str(), run->theta().size(), to_string(p).c_str(), segments, o.segment,
        documents, world.size() > 1 ? text_of(" of %td processes", world.size()).c_str() : "",
        planned.operations(), planned.estimator_bytes() / 1e6, data.train.size(),
        static_cast<long long>(data.train.tokens()), static_cast<long long>(data.held_out.tokens()));
    run.print_head();
    double measured_bytes = 0;
    {
      const progress line;
      for (;;) {
        if (run->due()) {
          const double start = seconds_now();
          const double nll = mean_nll_of(model, run->theta(), held_out);
          if (stop_asked()) break;  // it is not complete: the resumed run reports
          line.clear();
          run.report(nll, bytes, seconds_now() - start);
          run.check_ranks();
          run.save();
        }
        if (run->done() || stop_asked()) break;
        const double start = seconds_now();
        const key draws = fold(fold(key{seed}, 3), std::uint64_t(run->position()));
        auto& g = run->gradient_sum();
        const report r = gradients.add(draws, run->theta(), samples.next(), g);
        if (r.code != status::ok) run.not_finite();
        measured_bytes = std::max(measured_bytes, double(r.bytes));
        run.update(r.loss, double(r.losses), seconds_now() - start);
        line.show(run.progress_line());
      }
    }
    if (interrupted) run.save();
    if (!out.empty() && world.first()) save(model, run.theta_on_host());
    json d{{"command", "train"},
           {"model", base.path},
           {"adapter", base.adapter},
           {"text", texts.text},
           {"held_out", texts.held_out},
           {"shape", to_json(setup.shape())},
           {"memory", to_json(o)},
           {"weights", memory.weights},
           {"device", base.device.where},
           {"parameters", run->theta().size()},
           {"policy", to_string(p)},
           {"segments", segments},
           {"documents", documents},
           {"accumulate", training.accumulate},
           {"steps", training.steps},
           {"rate", training.rate},
           {"seed", seed},
           {"ranks", world.size()},
           {"bytes_planned", planned.estimator_bytes()},
           {"bytes_measured", measured_bytes},
           {"held_out_bytes_per_token", bytes},
           {"complete", run->done() && !run->due()}};  // due: interrupted in the last scoring
    d["course"] = training::to_json(run->course());
    write_json(d);
    if (world.first()) draw_course(run->course(), "memory model, " + to_string(p), plot);
    return interrupted ? 130 : 0;
  }

  // What a run asks of its model, on the host and on a device.
  template <class X>
  using run_of = training_run<std::conditional_t<std::same_as<X, on_device>, device_place, parameter_of<X>>>;
  template <class Model>
  static auto place_of(const Model& model) {
    if constexpr (std::same_as<Model, memory_on_device>)
      return model.executor();
    else
      return unroll::exec::of<parameter_of_model<Model>>{};
  }
  // Adapters are cast once a step, where products want it, as long as it lives.
  template <class Run>
  static std::shared_ptr<void> cast_of(Run& run) {
    if constexpr (std::same_as<Run, run_of<on_device>>)
      return run->executor().keep_cast(run->theta());
    else
      return nullptr;
  }
  template <class X, class Model>
  auto gradients_of(const Model& model, const unroll::policy& p) const {
    if constexpr (std::same_as<X, on_device>)
      return with_device_policy<unroll::place::device>(
          p, model, segments,
          [&](const auto& one) {
            return unroll::training::document_gradients<Model>(one, documents, 1, world);
          },
          memory.capture);
    else
      return unroll::training::document_gradients<Model>(model, p, segments, documents, threads, world);
  }
  template <class X>
  unroll::memory_plan plan_of(const unroll::llama::config& c, const memory_options& o,
                              const unroll::policy& p) const {
    if constexpr (std::same_as<X, on_device>)
      return plan_on_device(memory.weights == "bf16", c, o, segments * o.segment, p);
    else
      return plan(unroll::llama::memory_costs<X>(c, o), segments * o.segment, p);
  }
  template <class Model>
  double mean_nll_of(const Model& model, params<const parameter_of_model<Model>> theta,
                     const std::vector<unroll::training::stretch>& held_out) const {
    const auto more = [](index_t) { return !interrupted.load(); };
    if constexpr (std::same_as<Model, memory_on_device>)
      return mean_nll(model, theta, held_out, model.options().segment, more, world);
    else
      return unroll::training::mean_nll(model, theta, held_out, model.options().segment, threads, more,
                                        world);
  }
  template <class Model>
  static std::uint64_t fingerprint_of(const Model& model) {
    if constexpr (std::same_as<Model, memory_on_device>)
      return model.weight_hash(unroll::llama::precision::f32);
    else
      return fingerprint(model.weights().data(), std::size_t(model.weights().size()));
  }
  template <class Model>
  void save(const Model& model, params<const parameter_of_model<Model>> theta) const {
    if constexpr (std::same_as<Model, memory_on_device>)
      unroll::llama::save_memory<float>(
          out, model.shape(), model.options(), theta,
          [&](unroll::llama::precision p) { return model.weight_hash(p); }, base.path);
    else
      unroll::llama::save_memory(out, model, theta, base.path);
  }

  std::string identity(const unroll::llama::config& c, const corpus& data, std::uint64_t weights) const {
    return text_of(
               "train %s of %s, weights %016llx, texts %016llx %016llx, %s, %td x %td, autoencoding %.9g, "
               "held out "
               "%td, b scale %.9g, seed %llu; ",
               policy.c_str(), describe(c).c_str(), static_cast<unsigned long long>(weights),
               static_cast<unsigned long long>(unroll::data::hash_of(data.train)),
               static_cast<unsigned long long>(unroll::data::hash_of(data.held_out)),
               positions_text(c).c_str(), documents, segments, autoencode, held_out_texts, memory.b_scale,
               static_cast<unsigned long long>(seed)) +
           memory.identity() +
           (base.device.on_host()         ? ""
            : base.device.where == "simt" ? ", simt"
                                          : ", cuda");
  }
};

}  // namespace program
