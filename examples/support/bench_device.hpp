#pragma once

// memory_llama bench on a device: reading, decoding and exact training against the length of the text, and
// every policy; seconds of the clock, bytes of the device.

#include "bench_report.hpp"

namespace program {

/// What is measured.
struct device_bench_sizes {
  index_t batch = 1;     ///< segments of a call
  index_t decoded = 8;   ///< tokens
  index_t repeats = 3;   ///< the fastest counts
  bool capture = false;  ///< the gradients of policies that draw nothing, see device_memory_model
};

class device_bench {
 public:
  device_bench(const memory_setup<on_device>& setup, const device_bench_sizes& sizes, std::uint64_t seed)
      : setup_(&setup), sizes_(sizes), seed_(seed) {}

  std::vector<token> random_text(index_t n) const {
    std::vector<token> ids;
    for (index_t i = 0; i < n; ++i)
      ids.push_back(token(unroll::draw_index(unroll::fold(key{seed_}, 9), i, setup_->shape().vocabulary)));
    return ids;
  }
  /// One gradient. An estimator has made one of two batches before: what allocates and chooses at the first
  /// call has.
  unroll::row gradient(const unroll::policy& p, index_t segments) const {
    using namespace unroll;
    const index_t length = options().segment;
    const auto ids = random_text(segments * length + 1);
    const auto text = llama::segments_of(ids, length);
    const auto planned =
        plan_on_device(setup_->model.half(), setup_->shape(), options(), segments * length, p);
    auto& at = setup_->model.brought();
    const index_t n = setup_->theta.size();
    const auto theta = at.theta(setup_->theta);
    const auto one = setup_->model.calls().gradient(p, segments, sizes_.capture && !draws(p));
    double seconds = std::numeric_limits<double>::infinity();
    report r;
    one->add(key{seed_}, theta, std::span(text).first(std::size_t(std::min(segments, 2 * p.batch))),
             at.zeroed(n));
    for (index_t i = 0; i < sizes_.repeats && !interrupted; ++i) {
      const auto g = at.zeroed(n);
      const double start = seconds_now();
      r = one->add(key{seed_}, theta, text, g);
      at.wait();
      seconds = std::min(seconds, seconds_now() - start);
    }
    return row_of("gradient, " + to_string(p), segments * length, seconds, planned.operations(),
                  double(r.bytes), planned.estimator_bytes());
  }
  /// All of a text, and a few tokens behind it.
  std::vector<unroll::row> reading(index_t segments) const {
    using namespace unroll;
    const index_t length = options().segment, n = segments * length;
    const auto ids = random_text(n + 1 + sizes_.decoded);
    const std::span<const token> all(ids);
    const auto text = setup_->model.calls().text(setup_->theta, sizes_.batch);
    double reading = std::numeric_limits<double>::infinity(), decoding = reading;
    for (index_t i = 0; i <= sizes_.repeats && !interrupted; ++i) {
      text->reset();
      double start = seconds_now();
      text->append(all.first(std::size_t(n)));
      const double read = seconds_now() - start;
      index_t decoded = 0;
      if (text->room(1 + sizes_.decoded)) {
        text->append(ids[std::size_t(n)]);  // writes the memory of the last segment
        start = seconds_now();
        for (; decoded < sizes_.decoded; ++decoded) text->append(ids[std::size_t(n + 1 + decoded)]);
      }
      if (i == 0 && sizes_.repeats > 1) continue;  // warms up
      reading = std::min(reading, read);
      if (decoded > 0) decoding = std::min(decoding, (seconds_now() - start) / double(decoded));
    }
    const double operations = with_device_sizes(setup_->model.half(), [&]<class E>(std::type_identity<E>) {
      const llama::memory_costs<E> costs(setup_->shape(), options());
      // logits of the last token alone
      double sum = costs.read(segments - 1, length) - double(length - 1) * 2 *
                                                          double(setup_->shape().hidden) *
                                                          double(setup_->shape().vocabulary);
      for (index_t s = 0; s + 1 < segments; ++s) sum += costs.write(s);
      return sum;
    });
    const double bytes = double(text->bytes()),
                 planned = device_session(setup_->model.half(), setup_->shape(), options()).estimator_bytes();
    std::vector<row> rows{row_of("reading", n, reading, operations, bytes, planned)};
    if (std::isfinite(decoding)) rows.push_back(row_of("a token behind it", n, decoding, 0, bytes, planned));
    return rows;
  }

 private:
  const memory_options& options() const { return setup_->model.options(); }
  static unroll::row row_of(const std::string& method, index_t tokens, double seconds, double operations,
                            double bytes, double planned) {
    unroll::row r;
    r.add("method", method).add("tokens", tokens).add("seconds", seconds).add("TFLOP", operations / 1e12);
    r.add("TFLOP_per_s", operations / 1e12 / seconds).add("GB", bytes / 1e9).add("GB_planned", planned / 1e9);
    return r;
  }

  const memory_setup<on_device>* setup_;
  device_bench_sizes sizes_;
  std::uint64_t seed_;
};

}  // namespace program
