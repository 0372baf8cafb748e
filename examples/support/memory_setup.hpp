#pragma once

// The memory model on top of a Llama: its options, its parameters in files, its losses on a text.

#include <optional>
#include <unroll/io/lora_file.hpp>

#include "memory_common.hpp"

namespace program {

using unroll::llama::memory_llama;
using unroll::llama::memory_options;
using unroll::llama::segment;

constexpr const char* policy_help =
    "rematerialise (exact, one graph), keep_all, keep:G (exact, G graphs), window:S (incremental TBPTT, "
    "biased), reservoir:S (unbiased), reservoir:S:uncompensated (biased), proportional:B (unbiased; "
    "proportional:B:random_order, proportional:B:independent: drawn in other ways)";

/// Leaves out of a program's own list what recurrent encoders do not have.
inline void leave_out_unsupported(std::vector<unroll::policy>& policies, const memory_options& o) {
  using kind = unroll::policy::kind;
  if (o.recurrent)
    std::erase_if(policies, [](const unroll::policy& p) {
      return p.name == kind::reservoir || p.name == kind::proportional;
    });
}

struct memory_choice {
  index_t segment = 128, ratio = 8, rank = 8;
  double alpha = 0, b_scale = 0;
  std::string mask = "coverage", places = "coverage", adapters;
  bool separate = false, recurrent = false, recompute = false;

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
  }

  memory_options options() const {
    memory_options o;
    o.segment = segment;
    o.ratio = ratio;
    o.encoder.rank = o.head.rank = rank;
    o.encoder.alpha = o.head.alpha = alpha > 0 ? alpha : 4 * double(rank);
    o.mask = mask == "causal" ? unroll::llama::memory_mask::causal : unroll::llama::memory_mask::coverage;
    o.positions = places == "following" ? unroll::llama::memory_positions::following
                                        : unroll::llama::memory_positions::coverage;
    o.separate_tokens = separate;
    o.recurrent = recurrent;
    o.encoder_tape = o.decoder_tape =
        recompute ? unroll::llama::saved::inputs : unroll::llama::saved::activations;
    return o;
  }
  std::string identity() const {
    return text_of("segments of %td by %td, rank %td, alpha %.9g, %s mask, %s positions%s%s%s, adapters %s",
                   segment, ratio, rank, alpha, mask.c_str(), places.c_str(), separate ? ", separate" : "",
                   recurrent ? ", recurrent" : "", recompute ? ", recomputing" : "", adapters.c_str());
  }
};

inline json to_json(const memory_options& o) {
  return {{"segment", o.segment},
          {"ratio", o.ratio},
          {"lora_rank", o.encoder.rank},
          {"lora_alpha", o.encoder.alpha},
          {"mask", o.mask == unroll::llama::memory_mask::causal ? "causal" : "coverage"},
          {"memory_positions",
           o.positions == unroll::llama::memory_positions::following ? "following" : "coverage"},
          {"separate_tokens", o.separate_tokens},
          {"recurrent", o.recurrent}};
}

/// The Llama, its vocabulary, the memory model over it and the parameters of that.
template <class T>
struct memory_setup {
  unroll::llama::tokenizer words;
  memory_llama<T> model;
  parameters<T> theta;

  const unroll::llama::config& shape() const { return model.shape(); }
};

/// Of the frozen weights, for adapters to know what they belong to: as floats, and without W_Q and W_K, whose
/// rows lie in one of two orders.
template <class T>
std::string base_fingerprint(const memory_llama<T>& model) {
  std::uint64_t h = 0;
  for (const auto& b : model.stack().map().names().blocks()) {
    if (b.name.ends_with("q_proj.weight") || b.name.ends_with("k_proj.weight")) continue;
    const T* first = model.weights().data() + b.offset;
    const std::vector<float> numbers(first, first + b.size());
    h = h * 31 + fingerprint(numbers.data(), numbers.size());
  }
  return text_of("%016llx", static_cast<unsigned long long>(h));
}

namespace detail {

inline unroll::layout memory_tokens_layout(const unroll::llama::memory_map& map, index_t hidden) {
  unroll::layout l;
  l.add("memory_tokens", hidden, (map.head_offset() - map.memory_offset()) / hidden);
  return l;
}

}  // namespace detail

/// A folder of adapters: `encoder` and `head`, each as PEFT writes it, memory_tokens.safetensors,
/// memory.json.
template <class T>
void save_adapters(const std::filesystem::path& folder, const memory_llama<T>& model,
                   unroll::params<const T> theta, const std::string& base) {
  const auto& map = model.trainable();
  unroll::llama::save_lora<T>(folder / "encoder", model.shape(), map.encoder(), map.encoder_part(theta),
                              base);
  unroll::llama::save_lora<T>(folder / "head", model.shape(), map.head(), map.head_part(theta), base);
  const auto mem = map.memory_part(theta);
  unroll::save_safetensors(folder / "memory_tokens.safetensors",
                           detail::memory_tokens_layout(map, model.shape().hidden),
                           [&](const unroll::layout_block&) { return mem.data(); });
  json saved = to_json(model.options());
  saved["positions"] = positions_text(model.shape());
  saved["base"] = base_fingerprint(model);
  unroll::write_file(folder / "memory.json", saved.dump(1) + "\n");
}

/// The memory model that the options describe: with the parameters of --adapters, or fresh ones. Adapters
/// have the positions that they were trained with unless --positions says others, and no other base.
template <class T>
memory_setup<T> load_memory(model_options base, memory_choice choice, key k) {
  namespace fs = std::filesystem;
  const fs::path folder = choice.adapters;
  std::optional<std::string> trained_positions, trained_base;  // a folder may lack them
  if (!choice.adapters.empty()) {
    const json saved = json::parse(unroll::read_file(folder / "memory.json", "memory_llama"), nullptr, false);
    try {
      choice.segment = saved.at("segment").get<index_t>();
      choice.ratio = saved.at("ratio").get<index_t>();
      choice.mask = saved.at("mask").get<std::string>();
      choice.places = saved.at("memory_positions").get<std::string>();
      choice.separate = saved.at("separate_tokens").get<bool>();
      choice.recurrent = saved.at("recurrent").get<bool>();
      if (saved.contains("positions")) trained_positions = saved["positions"].get<std::string>();
      if (saved.contains("base")) trained_base = saved["base"].get<std::string>();
    } catch (const std::exception&) {
      fail("memory_llama", "\"" + (folder / "memory.json").string() + "\"",
           "does not hold the options of a memory model");
    }
    if (base.positions.empty()) base.positions = trained_positions.value_or("");
  }
  auto loaded = base.load<T>(fold(k, 0));
  const auto shape = loaded.model.shape;
  unroll::llama::adapter<T> encoder, head;
  memory_options o = choice.options();
  if (!choice.adapters.empty()) {
    if (const auto now = positions_text(shape); trained_positions && *trained_positions != now)
      std::fprintf(stderr, "memory_llama: the adapters were trained %s%s, now it is %s\n",
                   trained_positions->empty() ? "without --positions" : "with --positions ",
                   trained_positions->c_str(), now.c_str());
    encoder = unroll::llama::load_lora<T>(folder / "encoder", shape);
    head = unroll::llama::load_lora<T>(folder / "head", shape);
    o.encoder = encoder.map.options();
    o.head = head.map.options();
  }
  auto weights = std::make_shared<const parameters<T>>(std::move(loaded.model.weights));
  memory_llama<T> model(shape, std::move(weights), o);
  if (trained_base)
    if (const std::string now = base_fingerprint(model); now != *trained_base)
      fail("memory_llama", "adapters",
           "in \"" + choice.adapters + "\" belong to a base with fingerprint " + *trained_base + ", \"" +
               base.path + "\" has " + now);
  parameters<T> theta(model.names().size());
  if (choice.adapters.empty()) {
    unroll::llama::init_memory<T>(model, theta, fold(k, 1),
                                  {.mem = loaded.words.eos(), .b_scale = choice.b_scale});
  } else {
    const auto& map = model.trainable();
    const unroll::params<T> flat(theta);
    std::copy(encoder.theta.begin(), encoder.theta.end(), map.encoder_part(flat).begin());
    std::copy(head.theta.begin(), head.theta.end(), map.head_part(flat).begin());
    std::vector<unroll::safetensors> files;
    files.emplace_back(unroll::byte_source::open(folder / "memory_tokens.safetensors", "memory_llama"));
    const unroll::tensor_files tensors(std::move(files));
    const auto names = detail::memory_tokens_layout(map, shape.hidden);
    unroll::check_tensors(tensors, names, [](const std::string&) { return false; });
    unroll::read_tensors(tensors, names, map.memory_part(flat).data());
  }
  return {std::move(loaded.words), std::move(model), std::move(theta)};
}

/// Runs a memory model over texts without gradients; its memory is allocated once.
template <class T>
class text_reader {
 public:
  text_reader(const memory_llama<T>& model, index_t segments)
      : model_(&model),
        memories_((segments - 1) * model.size().memory),
        work_(model.workspace(segments - 1)) {}

  /// The losses of the segments, each the sum over its tokens. Stops at Ctrl-C; what is missing is left out.
  std::vector<double> losses(unroll::params<const T> theta, std::span<const segment> text) {
    std::vector<double> out;
    std::vector<const T*> past;
    for (index_t t = 0; t < index_t(text.size()) && !interrupted; ++t) {
      const segment& x = text[std::size_t(t)];
      out.push_back(double(model_->read(x, t, theta, past, work_)));
      if (t + 1 == index_t(text.size())) break;
      const unroll::view<T> m(memories_.data() + t * model_->size().memory, model_->size().memory);
      model_->write(x, t, theta, model_->independent() ? std::span<const T* const>{} : past, m, {}, work_);
      past.push_back(m.data());
    }
    return out;
  }

 private:
  const memory_llama<T>* model_;
  unroll::buffer<T> memories_, work_;
};

/// Calls f(worker, i) for i = 0 .. n-1 from `threads` threads; worker w has the items w, w + threads, ...
template <class F>
void in_parallel(unroll::worker_pool& pool, index_t n, F&& f) {
  auto job = [&](index_t worker) {
    for (index_t i = worker; i < n; i += pool.size()) f(worker, i);
  };
  pool.run(job);
}

}  // namespace program
