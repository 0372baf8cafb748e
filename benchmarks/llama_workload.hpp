#pragma once

#include <string>
#include <unroll/llama/cache.hpp>
#include <unroll/llama/language_model.hpp>
#include <vector>

// What benchmarks/llama.cpp and benchmarks/peers/llama_ours.cpp time: a Llama of a known shape over a text of
// its context length.
namespace bench {

using namespace unroll;

/// The shapes of docs/performance.md: 24 and 68 million weights with the embedding, which is the output too.
inline llama::config llama_shape(const std::string& name) {
  llama::config c{
      .hidden = 288, .intermediate_size = 768, .layers = 6, .heads = 6, .kv_heads = 6, .head_dim = 48};
  c.vocabulary = 32000;
  c.context = 256;
  c.pairs = llama::rope_pairs::neighbours;
  if (name == "mid") {
    c.hidden = 512;
    c.intermediate_size = 1376;
    c.layers = c.heads = c.kv_heads = 8;
    c.head_dim = 64;
    c.context = 512;
  } else if (name != "stories15M") {
    fail("llama_shape", "name", "\"" + name + "\" is none of stories15M, mid");
  }
  return c;
}

/// Every call works on the same ids; weights are the caller's to fill. X: see transformer.
template <class X>
class llama_workload {
  using executor = exec::of<X>;
  using W = typename executor::numbers::weight;
  using T = typename executor::numbers::activation;

 public:
  static constexpr index_t decoded = 64;  ///< tokens of decode

  llama_workload(const std::string& shape, index_t sequences, index_t threads)
      : c_(llama_shape(shape)),
        model_(c_, {.sequences = sequences, .length = c_.context, .shares = threads, .threads = threads}),
        cache_(c_, decoded),
        weights_(model_.stack().map().size()),
        gradient_(std::same_as<W, T> ? weights_.size() : 0),  // bfloat16 weights are frozen
        logits_(c_.vocabulary * c_.context * sequences),
        x_(c_.hidden * c_.context * sequences),
        work_(std::max(model_.stack().workspace_size(whole(sequences), false),
                       llama::lm_head<executor>::workspace_size(c_, sequences * c_.context))) {
    for (index_t i = 0; i < c_.context; ++i) positions_.push_back(i);
    for (index_t i = 0; i < sequences * c_.context; ++i) {
      ids_.push_back(llama::token(i * 7919 % c_.vocabulary));
      targets_.push_back(llama::token((i + 1) * 7919 % c_.vocabulary));
    }
  }

  const llama::config& shape() const { return c_; }
  const llama::weight_map& map() const { return model_.stack().map(); }
  index_t tokens() const { return index_t(ids_.size()); }
  parameters<W>& weights() { return weights_; }
  const gradient<T>& grad() const { return gradient_; }
  /// Of the last call of forward (all tokens), prefill or decode (the last one).
  view<const T> logits() const { return {logits_.data(), filled_}; }

  /// Logits of all tokens.
  void forward() {
    const matrix<T> x = run(tokens() / c_.context);
    head(x);
  }
  /// Logits of the last token.
  void prefill() {
    const matrix<T> x = run(1);
    head(columns_of(x, x.cols - 1, 1));
  }
  /// `decoded` tokens one by one, each over the keys of those before it.
  void decode() {
    cache_.clear();
    for (std::size_t i = 0; i < std::size_t(decoded); ++i) {
      const llama::pass<T> p{.length = 1,
                             .layers = c_.layers,
                             .positions = std::span(positions_).subspan(i, 1),
                             .before = cache_.before()};
      const matrix<T> x(x_.data(), c_.hidden, 1);
      llama::embed(executor{}, map(), weights_.data(), std::span(ids_).subspan(i, 1), x);
      model_.stack().forward(weights_.data(), {}, p, x, {}, work_, cache_.hook());
      cache_.extend(1);
      head(x);
    }
  }
  /// The gradient of the sum of -log p of all tokens.
  T loss_gradient() {
    gradient_.zero();
    return model_.gradient(weights_, ids_, targets_, gradient_);
  }

  /// Flops that the mathematics needs (causal attention: half of the square), of so many tokens and logits.
  double flops(index_t tokens, index_t scored) const {
    const double d = double(c_.hidden), q = double(c_.query_width()), kv = double(c_.kv_width());
    const double weights =
        double(c_.layers) * (2 * d * q + 2 * d * kv + 3 * d * double(c_.intermediate_size));
    const double attention = double(c_.layers) * 2 * q * double(tokens) / 2;
    return 2 * (double(tokens) * (weights + attention) + double(scored) * d * double(c_.vocabulary));
  }

 private:
  llama::pass<T> whole(index_t sequences) const {
    return {.sequences = sequences, .length = c_.context, .layers = c_.layers, .positions = positions_};
  }
  matrix<T> run(index_t sequences) {
    const matrix<T> x(x_.data(), c_.hidden, sequences * c_.context);
    llama::embed(executor{}, map(), weights_.data(), std::span(ids_).first(std::size_t(x.cols)), x);
    model_.stack().forward(weights_.data(), {}, whole(sequences), x, {}, work_);
    return x;
  }
  void head(matrix<const T> x) {
    filled_ = c_.vocabulary * x.cols;
    const llama::lm_head<executor> head{model_.stack().executor(), map(), weights_.data(), view<T>(work_)};
    head.logits(x, matrix<T>(logits_.data(), c_.vocabulary, x.cols));
  }

  llama::config c_;
  std::vector<index_t> positions_;
  std::vector<llama::token> ids_, targets_;
  llama::language_model<X> model_;
  llama::key_value_cache<X> cache_;
  parameters<W> weights_;
  gradient<T> gradient_;
  buffer<T> logits_, x_, work_;
  index_t filled_ = 0;
};

}  // namespace bench
