#pragma once

// The memory model on top of a Llama: its options, its parameters in files, its losses on a text.

#include <optional>
#include <unroll/io/memory_file.hpp>

#include "model_options.hpp"
#include "text_options.hpp"

namespace program {

using unroll::params;
using unroll::llama::memory_llama;
using unroll::llama::memory_options;
using unroll::llama::segment;
using unroll::llama::to_json;

/// The numbers of theta.
template <class Model>
struct theta_of {
  using type = float;
};
template <class X>
struct theta_of<memory_llama<X>> {
  using type = typename memory_llama<X>::P;
};
template <class Model>
using parameter_of_model = typename theta_of<Model>::type;

/// Leaves out of a program's own list what recurrent encoders do not have.
inline void leave_out_unsupported(std::vector<unroll::policy>& policies, const memory_options& o) {
  if (o.recurrent) std::erase_if(policies, unroll::needs_independent);
}

struct memory_choice {
  index_t segment = 128, ratio = 8, rank = 8;
  double alpha = 0, b_scale = 0;
  std::string mask = "coverage", places = "coverage", adapters, weights = "float";
  bool separate = false, recurrent = false, recompute = false, other_base = false, on_host = false;
  bool capture = false;
  /// What the command needs of a device, asked before anything is there.
  std::function<device_plan(bool half, const unroll::llama::config&, const memory_options&)> needs;

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

  /// For the commands whose memories may be too many for a device.
  void add_on_host(CLI::App* app) {
    app->add_flag("--memories-on-host", on_host,
                  "memories and their adjoints stay in memory of the host and come to the --device layer by "
                  "layer: for texts whose memories do not fit there; the same bits");
  }
  /// For the commands that compute the gradient of one text after another.
  void add_capture(CLI::App* app) {
    app->add_flag(
        "--capture", capture,
        "the operations of a gradient are recorded and, on a --device that has them, made as a graph, for "
        "policies that do the same in every text; the same bits");
  }
  /// Refuses what is for a device alone.
  void check_host() const {
    if (capture)
      fail("memory_llama", "--capture", "needs --device cuda or simt: the host records no operations");
    if (on_host)
      fail("memory_llama", "--memories-on-host",
           "needs --device cuda or simt: with --device host they are there");
  }
  memory_options options() const {
    memory_options o;
    o.memories_on_host = on_host;
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
  unroll::llama::generation_defaults said;
  memory_llama<X> model;
  parameters<parameter_of<X>> theta;

  const unroll::llama::config& shape() const { return model.shape(); }
};

template <>
struct memory_setup<on_device> {
  unroll::llama::tokenizer words;
  std::vector<token> ends;
  unroll::llama::generation_defaults said;
  memory_on_device model;
  parameters<float> theta;  ///< on the host

  const unroll::llama::config& shape() const { return model.shape(); }
};

/// The folder of --adapters, where there is one, and what it says of positions and options.
class saved_adapters {
 public:
  saved_adapters(const model_options& base, const memory_choice& choice) : base_(&base), choice_(&choice) {
    if (choice.adapters.empty()) return;
    folder_.emplace(choice.adapters);
    folder_->set_positions(trained_);
  }
  /// Positions that the adapters were trained with, unless --positions says others.
  void set_positions(unroll::llama::config& c) const {
    if (folder_ && base_->positions.empty()) folder_->set_positions(c);
  }
  memory_options options(const unroll::llama::config& shape) const {
    memory_options o = choice_->options();
    if (!folder_) return o;
    const memory_options asked = o;
    o = folder_->options(shape);
    o.encoder_tape = o.decoder_tape = asked.encoder_tape;
    o.memories_on_host = asked.memories_on_host;
    return o;
  }
  /// Refuses another base unless --other-base allows it; `hash`: of its weights.
  template <class Hash>
  void check_base(const unroll::llama::config& shape, Hash&& hash) const {
    if (!folder_) return;
    if (const auto then = positions_text(trained_), now = positions_text(shape); then != now)
      std::fprintf(stderr, "memory_llama: the adapters were trained %s%s, now it is %s\n",
                   then.empty() ? "without --positions" : "with --positions ", then.c_str(), now.c_str());
    if (const auto other = folder_->other_base(shape, hash); !other.empty()) {
      const std::string message = "of \"" + choice_->adapters + "\" were trained on another base than \"" +
                                  base_->path + "\": " + other;
      if (!choice_->other_base)
        fail("memory_llama", "adapters", message + "; --other-base takes it all the same");
      std::fprintf(stderr, "memory_llama: adapters %s\n", message.c_str());
    }
  }
  /// theta: that of the folder, else new(theta) begins it.
  template <class T, class New>
  parameters<T> theta(const unroll::llama::config& shape, index_t size, New&& begin) const {
    if (folder_) return folder_->read<T>(shape);
    parameters<T> theta(size);
    begin(theta);
    return theta;
  }

 private:
  const model_options* base_;
  const memory_choice* choice_;
  std::optional<unroll::llama::memory_folder> folder_;
  unroll::llama::config trained_;
};

/// The memory model that the options describe: with the parameters of --adapters, or new ones. Adapters
/// have the positions that they were trained with unless --positions says others, and no other base unless
/// --other-base allows it.
template <class X>
memory_setup<X> load_memory(const model_options& base, const memory_choice& choice, key k) {
  using W = weight_of<X>;
  using T = parameter_of<X>;
  choice.check_host();
  const saved_adapters saved(base, choice);
  auto loaded = base.load<W>(fold(k, 0));
  saved.set_positions(loaded.model.shape);
  const auto shape = loaded.model.shape;
  const memory_options o = saved.options(shape);
  saved.check_base(shape, [&](unroll::llama::precision p) {
    return unroll::llama::weight_hash<W>(shape, loaded.model.weights, p);
  });
  auto weights = std::make_shared<const parameters<W>>(std::move(loaded.model.weights));
  memory_llama<X> model(shape, std::move(weights), o);
  auto theta = saved.theta<T>(shape, model.names().size(), [&](parameters<T>& begin) {
    unroll::llama::init_memory<X>(model, begin, fold(k, 1),
                                  {.mem = loaded.words.eos(), .b_scale = choice.b_scale});
  });
  return {std::move(loaded.words), std::move(loaded.ends), std::move(loaded.said), std::move(model),
          std::move(theta)};
}
/// The same with the weights on the device that the options name; `choice.needs` is checked in front of them.
template <>
inline memory_setup<on_device> load_memory<on_device>(const model_options& base, const memory_choice& choice,
                                                      key k) {
  const bool half = choice.weights == "bf16";
  const saved_adapters saved(base, choice);
  std::shared_ptr<device_llama> device = base.device.open(half);
  memory_options o;
  auto loaded = base.load_on(*device, half, fold(k, 0), [&](unroll::llama::config& c) {
    saved.set_positions(c);
    o = saved.options(c);
    check_fits(base.device.where, base.device.bytes(*device), choice.needs(half, c, o));
  });
  std::fprintf(stderr, "memory_llama: on %s\n", device->name().c_str());
  const auto& shape = loaded.model.shape;
  memory_on_device model(device, shape, o, half);
  saved.check_base(shape, [&](unroll::llama::precision p) { return model.weight_hash(p); });
  const unroll::llama::memory_map map(shape, o);
  auto theta = saved.theta<float>(shape, map.size(), [&](parameters<float>& begin) {
    const token mem = loaded.words.eos();
    std::vector<float> row(std::size_t(shape.hidden));
    if (mem >= 0)
      device->fetch(unroll::llama::weight_map(shape).embedding() + mem * shape.hidden, shape.hidden,
                    row.data());
    // init_memory looks at the column of `mem` alone: here it is the first
    unroll::llama::init_memory(map, unroll::matrix<const float>(row.data(), shape.hidden, 1),
                               params<float>(begin), fold(k, 1),
                               {.mem = mem >= 0 ? 0 : -1, .b_scale = choice.b_scale});
  });
  return {std::move(loaded.words), std::move(loaded.ends), std::move(loaded.said), std::move(model),
          std::move(theta)};
}

/// A text that is read and continued.
template <class X>
std::unique_ptr<unroll::llama::memory_session<X>> session_of(const memory_setup<X>& setup) {
  return std::make_unique<unroll::llama::memory_session<X>>(setup.model, setup.theta);
}
inline std::unique_ptr<device_text> session_of(const memory_setup<on_device>& setup) {
  return setup.model.calls().text(setup.theta, 1);
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
    return with_weights(base.device, memory.weights, [&]<class X>(std::type_identity<X>) {
      return static_cast<Command*>(this)->template run_with<X>();
    });
  }
};

}  // namespace program
