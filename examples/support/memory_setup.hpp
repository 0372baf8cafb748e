#pragma once

// The memory model on top of a Llama: its options, its parameters in files, its losses on a text.

#include <optional>
#include <unroll/io/memory_file.hpp>

#include "model_options.hpp"
#include "text_options.hpp"

namespace program {

using unroll::llama::memory_llama;
using unroll::llama::memory_options;
using unroll::llama::segment;
using unroll::llama::to_json;

/// Leaves out of a program's own list what recurrent encoders do not have.
inline void leave_out_unsupported(std::vector<unroll::policy>& policies, const memory_options& o) {
  if (o.recurrent) std::erase_if(policies, unroll::needs_independent);
}

struct memory_choice {
  index_t segment = 128, ratio = 8, rank = 8;
  double alpha = 0, b_scale = 0;
  std::string mask = "coverage", places = "coverage", adapters, weights = "float";
  bool separate = false, recurrent = false, recompute = false, other_base = false;

  /// `own_scale`: the program has another default for b_scale; `saved`: adapters may come from a folder.
  void add(CLI::App* app, bool saved = true) {
    const auto add = [&](const char* name, index_t& value, const char* what) {
      app->add_option(name, value, what)->check(CLI::Range(1, 1'000'000))->capture_default_str();
    };
    add("--segment", segment, "tokens of a segment");
    add("--ratio", ratio, "tokens that one memory token stands for; divides the segment");
    add("--lora-rank", rank, "of the adapters of encoder and transfer head");
    app->add_option("--lora-alpha", alpha, "adapters are scaled by alpha / rank; 0: four times the rank")
        ->check(not_negative)
        ->capture_default_str();
    app->add_option("--mask", mask, "what a memory token sees: coverage (its span and before) or causal")
        ->check(CLI::IsMember({"coverage", "causal"}))
        ->capture_default_str();
    app->add_option("--memory-positions", places,
                    "where it stands: coverage (behind its span) or following (behind the segment)")
        ->check(CLI::IsMember({"coverage", "following"}))
        ->capture_default_str();
    app->add_flag("--separate-tokens", separate, "a learned vector for each memory token instead of one");
    app->add_flag("--recurrent", recurrent, "the encoder also sees the earlier memories");
    app->add_flag("--recompute", recompute,
                  "graphs hold the inputs of layers only; the rest is computed again");
    if (!saved) return;
    app->add_option(
           "--adapters", adapters,
           "folder that train wrote; its options replace those above, --recompute apart, and its positions "
           "hold where --positions is not given")
        ->check(CLI::ExistingDirectory);
    app->add_flag(
        "--other-base", other_base,
        "take adapters that were trained on other weights, or on the same in another precision; says "
        "how the model differs");
  }

  memory_options options() const {
    memory_options o;
    o.segment = segment;
    o.ratio = ratio;
    o.encoder.rank = o.transfer_head.rank = rank;
    o.encoder.alpha = o.transfer_head.alpha = alpha > 0 ? alpha : 4 * double(rank);
    o.mask = mask == "causal" ? unroll::llama::memory_mask::causal : unroll::llama::memory_mask::coverage;
    o.positions = places == "following" ? unroll::llama::memory_positions::following
                                        : unroll::llama::memory_positions::coverage;
    o.separate_tokens = separate;
    o.recurrent = recurrent;
    o.encoder_tape = o.decoder_tape =
        recompute ? unroll::llama::saved::inputs : unroll::llama::saved::activations;
    return o;
  }
  /// For the commands that have bfloat16 weights too.
  void add_weights(CLI::App* app) { program::add_weights(app, weights); }
  std::string identity() const {
    return text_of("segments of %td by %td, rank %td, alpha %.9g, %s mask, %s positions%s%s%s, adapters %s%s",
                   segment, ratio, rank, alpha, mask.c_str(), places.c_str(), separate ? ", separate" : "",
                   recurrent ? ", recurrent" : "", recompute ? ", recomputing" : "", adapters.c_str(),
                   weights == "float" ? "" : (", weights " + weights).c_str());
  }
};

/// The Llama, its vocabulary, the memory model over it and the parameters of that.
template <class X>
struct memory_setup {
  unroll::llama::tokenizer words;
  std::vector<token> ends;  ///< each ends a text
  memory_llama<X> model;
  parameters<parameter_of<X>> theta;

  const unroll::llama::config& shape() const { return model.shape(); }
};

/// The memory model that the options describe: with the parameters of --adapters, or new ones. Adapters
/// have the positions that they were trained with unless --positions says others, and no other base unless
/// --other-base allows it.
template <class X>
memory_setup<X> load_memory(model_options base, const memory_choice& choice, key k) {
  using W = weight_of<X>;
  using T = parameter_of<X>;
  std::optional<unroll::llama::memory_folder> saved;
  if (!choice.adapters.empty()) saved.emplace(choice.adapters);
  unroll::llama::config trained;
  if (saved) saved->set_positions(trained);
  auto loaded = base.load<W>(fold(k, 0));
  if (saved && base.positions.empty()) saved->set_positions(loaded.model.shape);
  const auto shape = loaded.model.shape;
  memory_options o = choice.options();
  if (saved) {
    const auto graphs = o.encoder_tape;
    o = saved->options(shape);
    o.encoder_tape = o.decoder_tape = graphs;
    if (const auto then = positions_text(trained), now = positions_text(shape); then != now)
      std::fprintf(stderr, "memory_llama: the adapters were trained %s%s, now it is %s\n",
                   then.empty() ? "without --positions" : "with --positions ", then.c_str(), now.c_str());
    if (const auto other = saved->other_base<W>(shape, loaded.model.weights); !other.empty()) {
      const std::string message =
          "of \"" + choice.adapters + "\" were trained on another base than \"" + base.path + "\": " + other;
      if (!choice.other_base)
        fail("memory_llama", "adapters", message + "; --other-base takes it all the same");
      std::fprintf(stderr, "memory_llama: adapters %s\n", message.c_str());
    }
  }
  auto weights = std::make_shared<const parameters<W>>(std::move(loaded.model.weights));
  memory_llama<X> model(shape, std::move(weights), o);
  if (saved) {
    auto theta = saved->read<T>(shape);
    return {std::move(loaded.words), std::move(loaded.ends), std::move(model), std::move(theta)};
  }
  parameters<T> theta(model.names().size());
  unroll::llama::init_memory<X>(model, theta, fold(k, 1),
                                {.mem = loaded.words.eos(), .b_scale = choice.b_scale});
  return {std::move(loaded.words), std::move(loaded.ends), std::move(model), std::move(theta)};
}

/// Throws unroll::error where the model has no positions for a text of so many segments.
template <class X>
void check_segments(const memory_setup<X>& setup, index_t segments) {
  if (segments > setup.model.segments())
    fail("memory_llama", "segments",
         "are " + std::to_string(segments) + ", the longest text has " +
             std::to_string(setup.model.segments()) + " segments in " +
             std::to_string(setup.shape().positions()) +
             " positions; --positions linear:FACTOR stretches them");
}

/// A command that reads a text with a memory model, whose weights are float or bfloat16: `Command` has
/// run_with<X>() for the numbers X.
template <class Command>
struct reading_command : command {
  model_options base;
  memory_choice memory;
  std::string text;

  using command::command;

  int run() {
    check_files(base.inputs({{"--text", text}, {"--adapters", memory.adapters}}));
    return with_weights(memory.weights, [&]<class X>(std::type_identity<X>) {
      return static_cast<Command*>(this)->template run_with<X>();
    });
  }
};

}  // namespace program
