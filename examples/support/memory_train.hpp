#pragma once

// memory_llama train: adapters and memory tokens on documents, by any policy.

#include <functional>

#include "memory_setup.hpp"
#include "memory_training.hpp"

namespace program {

/// The gradients of several documents at once. Each has a gradient of its own; they are added in the order of
/// the documents, so that the sum does not depend on the number of threads.
template <class X>
class document_gradients {
  using T = parameter_of<X>;

 public:
  using model_type = memory_llama<X>;

  document_gradients(const model_type& model, const unroll::policy& p, index_t segments, index_t documents,
                     index_t threads)
      : pool_(std::min(threads, documents)), reports_(std::size_t(documents)) {
    for (index_t i = 0; i < documents; ++i) gradients_.emplace_back(model.size().params);
    unroll::with_policy(p, model, segments, unroll::philox_chooser{}, [&](auto estimator) {
      using estimator_type = decltype(estimator);
      // shared with the copies of one std::function, which must be copyable
      auto workers = std::make_shared<std::vector<estimator_type>>(std::size_t(pool_.size()), estimator);
      run_ = [workers](index_t worker, key k, unroll::params<const T> theta, std::span<const segment> text,
                       unroll::dparams<T> g) {
        auto& e = (*workers)[std::size_t(worker)];
        e.reset(k);
        unroll::report r = e.advance(theta, text, g);
        if (r.code == unroll::status::ok) r += e.finish(theta, g);
        return r;
      };
    });
  }

  /// ADDS the gradient of the summed losses to g; document i has the key fold(k, i).
  unroll::report add(key k, unroll::params<const T> theta, std::span<const std::vector<segment>> documents,
                     unroll::dparams<T> g) {
    in_parallel(pool_, index_t(documents.size()), [&](index_t worker, index_t i) {
      const auto at = std::size_t(i);
      gradients_[at].zero();
      reports_[at] = run_(worker, fold(k, std::uint64_t(i)), theta, documents[at], gradients_[at]);
    });
    unroll::report sum;
    for (std::size_t i = 0; i < documents.size(); ++i) {
      sum += reports_[i];
      unroll::linalg::axpy(T(1), gradients_[i].data(), g.data(), g.size());
    }
    return sum;
  }

 private:
  unroll::worker_pool pool_;
  std::vector<unroll::gradient<T>> gradients_;
  std::vector<unroll::report> reports_;
  std::function<unroll::report(index_t, key, unroll::params<const T>, std::span<const segment>,
                               unroll::dparams<T>)>
      run_;
};

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
                "  memory_llama train ... --checkpoint run.ckpt --resume   (the same options)") {
    base.add(app, true);
    memory.add(app);
    memory.add_weights(app);
    app->add_option("--b-scale", memory.b_scale,
                    "standard deviation of the second factor of fresh adapters; 0: begin at the frozen model")
        ->check(not_negative)
        ->capture_default_str();
    texts.add(app);
    app->add_option("--policy", policy, policy_help)->capture_default_str();
    const auto add = [&](const char* name, index_t& value, index_t least, const char* what) {
      app->add_option(name, value, what)->check(CLI::Range(least, index_t{1'000'000}))->capture_default_str();
    };
    add("--segments", segments, 2,
        "of a sample, a stretch of a document from a random place on; the first one reads no memory");
    add("--documents", documents, 1, "samples of a step, whose gradients are added up");
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
    add_seed("of fresh parameters, of the places of the text and of the policy's draws");
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
    return with_weights(memory.weights, [&]<class X>(std::type_identity<X>) { return run_with<X>(p); });
  }

 private:
  template <class X>
  int run_with(const unroll::policy& p) {
    using namespace unroll;
    using T = parameter_of<X>;
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const memory_llama<X>& model = setup.model;
    const memory_options& o = model.options();
    if (segments > model.segments())
      fail("memory_llama", "segments",
           "are " + std::to_string(segments) + ", the longest text has " + std::to_string(model.segments()) +
               " segments in " + std::to_string(setup.shape().positions()) +
               " positions; --positions linear:FACTOR stretches them");
    const token begin = setup.words.bos() >= 0 ? setup.words.bos() : 0;
    const corpus data = load_corpus(texts, setup.words, threads);
    // of a document of segment + 1 tokens the last target is that of the first segment, which reads no memory
    check_documents(data.train, "text", texts.text_name(), o.segment + (autoencode > 0 ? 0 : 2),
                    "none of their losses reads a memory (--segment)");
    check_documents(data.held_out, "held-out", texts.held_out_name(), segments * o.segment + 1,
                    "they are not scored (--segments times --segment)");
    prepare_folder(out);
    const auto weights = fingerprint(model.weights().data(), std::size_t(model.weights().size()));
    document_gradients<X> gradients(model, p, segments, documents, threads);
    data::windows places(data.train, documents, segments * o.segment, fold(key{seed}, 1));
    training_run<T> run(training, std::move(setup.theta), identity(setup.shape(), data, weights));
    places.seek(run.step());

    const auto planned = plan(llama::memory_costs<X>(setup.shape(), o), segments * o.segment, p);
    std::printf(
        "%s\n%td trainable parameters, %s: %td x %td tokens a sample, %td samples a step\n"
        "planned for a sample: %.3g operations, %.4g MB; %td documents of %lld tokens, %lld held out\n\n",
        describe(setup.shape()).c_str(), run.theta().size(), to_string(p).c_str(), segments, o.segment,
        documents, planned.operations(), planned.estimator_bytes() / 1e6, data.train.size(),
        static_cast<long long>(data.train.tokens()), static_cast<long long>(data.held_out.tokens()));
    run.print_head();
    const std::size_t length = std::size_t(segments * o.segment);
    std::vector<token> ids(std::size_t(documents) * length), targets(ids.size()), shifted(ids.size());
    std::vector<std::vector<segment>> samples(static_cast<std::size_t>(documents));
    double measured_bytes = 0;
    {
      const progress line;
      for (;;) {
        if (run.due()) {
          const double start = seconds_now();
          const double held_out = held_out_loss(model, run.theta(), data.held_out);
          if (interrupted) break;  // it is not complete: the resumed run reports
          line.clear();
          run.report(held_out, data.held_out_bytes_per_token, seconds_now() - start);
          run.save();
        }
        if (run.done() || interrupted) break;
        const double start = seconds_now();
        places.next(ids, targets);
        for (std::size_t i = 0; i < samples.size(); ++i) {
          const auto lane = std::span<const token>(ids).subspan(i * length, length);
          const auto behind = std::span<const token>(targets).subspan(i * length, length);
          const auto n = std::size_t(o.segment);
          const bool whole = n == 1 || behind[n - 2] >= 0;  // else the document ends within the segment
          if (whole && draw_uniform(fold(key{seed}, 2), run.step(), std::uint32_t(i)) < autoencode)
            samples[i] =
                llama::autoencoding_of(lane.first(n), begin, std::span(shifted).subspan(i * length, n));
          else
            samples[i] = llama::segments_of(lane, behind, o.segment);
        }
        auto& g = run.zeroed_gradient();
        const report r =
            gradients.add(fold(fold(key{seed}, 3), std::uint64_t(run.step())), run.theta(), samples, g);
        if (r.code != status::ok) run.not_finite();
        measured_bytes = std::max(measured_bytes, double(r.bytes));
        run.update(r.loss, double(r.losses), seconds_now() - start);
        line.show(run.progress_line());
      }
    }
    if (interrupted) run.save();
    if (!out.empty()) llama::save_memory<X>(out, model, run.theta(), base.path);
    json d{{"command", "train"},
           {"model", base.path},
           {"text", texts.text},
           {"held_out", texts.held_out},
           {"shape", to_json(setup.shape())},
           {"memory", to_json(o)},
           {"weights", memory.weights},
           {"parameters", run.theta().size()},
           {"policy", to_string(p)},
           {"segments", segments},
           {"documents", documents},
           {"steps", training.steps},
           {"rate", training.rate},
           {"seed", seed},
           {"bytes_planned", planned.estimator_bytes()},
           {"bytes_measured", measured_bytes},
           {"held_out_bytes_per_token", data.held_out_bytes_per_token},
           {"complete", run.done()}};
    d["course"] = run.history();
    write_json(d);
    if (!plot.empty() && !run.history().empty())
      draw_course(run.history(), "memory model, " + to_string(p), plot);
    return interrupted ? 130 : 0;
  }

  std::string identity(const unroll::llama::config& c, const corpus& data, std::uint64_t weights) const {
    return text_of(
               "train %s of %s, weights %016llx, texts %016llx %016llx, %s, %td x %td, autoencoding %.9g, "
               "held out "
               "%td, b scale %.9g, seed %llu; ",
               policy.c_str(), describe(c).c_str(), static_cast<unsigned long long>(weights),
               static_cast<unsigned long long>(fingerprint(data.train)),
               static_cast<unsigned long long>(fingerprint(data.held_out)), positions_text(c).c_str(),
               documents, segments, autoencode, held_out_texts, memory.b_scale,
               static_cast<unsigned long long>(seed)) +
           memory.identity();
  }

  /// Mean nll a token over stretches of `segments` segments, evenly spread over the held-out documents.
  template <class X>
  double held_out_loss(const memory_llama<X>& model, unroll::params<const parameter_of<X>> theta,
                       const unroll::data::documents& held_out) const {
    const auto texts_to_read =
        unroll::data::stretches(held_out, segments * model.options().segment, held_out_texts);
    std::vector<double> sums(texts_to_read.size()), tokens(sums);
    unroll::worker_pool pool(std::min(threads, index_t(sums.size())));
    std::vector<text_reader<X>> readers(static_cast<std::size_t>(pool.size()),
                                        text_reader<X>(model, segments));
    in_parallel(pool, index_t(sums.size()), [&](index_t worker, index_t i) {
      const auto text = unroll::llama::segments_of(texts_to_read[std::size_t(i)], model.options().segment);
      for (const double loss : readers[std::size_t(worker)].losses(theta, text)) sums[std::size_t(i)] += loss;
      tokens[std::size_t(i)] = double(unroll::llama::scored(text));
    });
    double sum = 0, n = 0;
    for (std::size_t i = 0; i < sums.size(); ++i) sum += sums[i], n += tokens[i];
    return sum / n;
  }
};

}  // namespace program
