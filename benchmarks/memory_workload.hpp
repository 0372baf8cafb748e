#pragma once

#include <vector>

#include "unroll/estimate/plan.hpp"
#include "unroll/llama.hpp"
#include "unroll/unroll.hpp"

// What benchmarks/memory_batches.cpp and benchmarks/peers/memory_ours.cpp time: the exact gradient of a Llama
// with memories over a text, by rematerialise.
namespace bench {

using namespace unroll;

struct memory_shape {
  index_t hidden = 64, layers = 3, segments = 16, length = 32, ratio = 8, vocabulary = 256;

  llama::config config() const {
    llama::config c;
    c.hidden = hidden;
    c.intermediate_size = hidden * 8 / 3 / 4 * 4;
    c.layers = layers;
    c.heads = c.kv_heads = hidden < 128 ? 4 : 8;
    c.head_dim = hidden / c.heads;
    c.vocabulary = vocabulary;
    c.context = segments * length;
    return c;
  }
  llama::memory_options options() const {
    llama::memory_options o;
    o.segment = length;
    o.ratio = ratio;
    o.encoder.rank = o.transfer_head.rank = 8;
    o.encoder.alpha = o.transfer_head.alpha = 16;
    return o;
  }
  index_t weights() const { return llama::weight_map(config()).size(); }
  index_t trainable() const { return llama::memory_map(config(), options()).size(); }
  memory_plan planned(index_t batch) const {
    return plan(llama::memory_costs<float>(config(), options()), segments * length, {.batch = batch});
  }
};

/// The model and a text whose token i is 31 (i^2 + 7 i) mod the vocabulary.
class memory_workload {
 public:
  using model_type = llama::memory_llama<float>;

  memory_workload(const memory_shape& shape, params<const float> weights, params<const float> theta)
      : shape_(shape), model_(shape.config(), frozen(weights), shape.options()), theta_(theta.size()) {
    std::copy(theta.begin(), theta.end(), theta_.begin());
    for (index_t i = 0; i < shape.segments * shape.length + 1; ++i)
      ids_.push_back(llama::token(31 * (i * i + 7 * i) % shape.vocabulary));
    text_ = llama::segments_of(ids_, shape.length);
  }
  memory_workload(const memory_workload&) = delete;  // text_ points into ids_

  const model_type& model() const { return model_; }
  rematerialise<model_type> estimator(index_t batch) const {
    return rematerialise(model_, {.segments = shape_.segments, .batch = batch});
  }
  /// WRITES g.
  report loss_gradient(rematerialise<model_type>& e, gradient<float>& g) const {
    g.zero();
    e.reset({});
    report r = e.advance(theta_, text_, g);
    r += e.finish(theta_, g);
    return r;
  }

 private:
  static std::shared_ptr<const parameters<float>> frozen(params<const float> weights) {
    const auto own = std::make_shared<parameters<float>>(weights.size());
    std::copy(weights.begin(), weights.end(), own->begin());
    return own;
  }

  memory_shape shape_;
  model_type model_;
  parameters<float> theta_;
  std::vector<llama::token> ids_;
  std::vector<llama::segment> text_;
};

}  // namespace bench
