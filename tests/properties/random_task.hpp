#pragma once

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "unroll/cells/example.hpp"
#include "unroll/rng/draw.hpp"

// Random data for a built-in cell: parameters and a sequence of examples, with the memory they look at.
namespace support {

enum class feed { dense, tokens };

template <class Cell>
struct random_task {
  using T = typename Cell::scalar;
  using example = unroll::cells::example<T>;

  Cell cell;
  std::vector<T> theta;
  std::vector<example> xs;
  example bad;  ///< holds a NaN

  random_task(const Cell& c, unroll::index_t steps, unroll::key k, feed kind = feed::dense, double size = 0.5)
      : cell(c), memory_(std::make_shared<memory>()) {
    const auto& o = c.options();
    const unroll::index_t in = o.in * o.lanes, out = (o.out == 0 ? o.hidden : o.out) * o.lanes;
    theta = normals(c.size().params, k, 0, size);
    memory_->x = normals(steps * in, k, 1, 1);
    memory_->target = normals(steps * out, k, 2, 0.5);
    memory_->nan.assign(std::size_t(std::max(in, out)), std::numeric_limits<T>::quiet_NaN());
    for (unroll::index_t i = 0; i < steps * o.lanes; ++i) {
      memory_->token.push_back(std::int32_t(unroll::draw_index(k, i, o.in > 0 ? o.in : 1)));
      memory_->label.push_back(std::int32_t(unroll::draw_index(k, i, o.out > 0 ? o.out : o.hidden, 1)));
    }
    for (unroll::index_t t = 0; t < steps; ++t) {
      example e;
      if (o.in > 0 && kind == feed::dense) e.x = memory_->x.data() + t * in;
      if (o.in > 0 && kind == feed::tokens) e.token = memory_->token.data() + t * o.lanes;
      if (o.loss == unroll::loss_kind::squared_error)
        e.target = memory_->target.data() + t * out;
      else
        e.label = memory_->label.data() + t * o.lanes;
      xs.push_back(e);
    }
    bad = xs[0];
    if (o.loss == unroll::loss_kind::squared_error)
      bad.target = memory_->nan.data();
    else if (bad.x)
      bad.x = memory_->nan.data();
  }

  /// Keeps the data of xs and bad alive.
  std::shared_ptr<void> owner() const { return memory_; }

 private:
  static std::vector<T> normals(unroll::index_t n, unroll::key k, std::int64_t draw, double size) {
    std::vector<T> v(static_cast<std::size_t>(n));
    unroll::draw_normals(k, draw, unroll::view<T>(v));
    for (T& x : v) x = T(size * double(x));
    return v;
  }
  struct memory {
    std::vector<T> x, target, nan;
    std::vector<std::int32_t> token, label;
  };
  std::shared_ptr<memory> memory_;
};

}  // namespace support
