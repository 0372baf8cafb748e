#pragma once

#include <vector>

#include "unroll/cells/attention_memory.hpp"
#include "unroll/cells/linear_memory.hpp"
#include "unroll/core/block.hpp"
#include "unroll/core/report.hpp"
#include "unroll/memory/bank.hpp"
#include "unroll/testing/oracle.hpp"

// Small memory models with random segments, parameters and their exact gradient.
namespace memory_task {

using unroll::index_t;
using example = unroll::cells::example<double>;
using linear = unroll::cells::linear_memory<double>;
using attention = unroll::cells::attention_memory<double>;

inline linear make_linear(bool recurrent = false) {
  return linear({.in = 2, .memory = 3, .out = 2, .recurrent = recurrent});
}
inline attention make_attention(bool recurrent = false) {
  return attention({.size = 2, .recurrent = recurrent});
}

/// Segments of two numbers and a target of two, and theta.
template <class M>
struct task {
  M model;
  std::vector<double> numbers;
  std::vector<example> xs;
  unroll::parameters<double> theta;

  task(M made, index_t segments, std::uint64_t seed = 3)
      : model(std::move(made)), numbers(std::size_t(4 * segments)), theta(model.size().params) {
    unroll::draw_normals(unroll::key{seed}, 0, unroll::view<double>(numbers));
    for (index_t t = 0; t < segments; ++t)
      xs.push_back({.x = numbers.data() + 4 * t, .target = numbers.data() + 4 * t + 2});
    model.init(theta, unroll::key{seed + 1});
  }
  task(const task&) = delete;
  task& operator=(const task&) = delete;

  std::vector<double> differences() const {
    return unroll::testing::difference_gradient(model, unroll::params<const double>(theta), xs);
  }
};

/// One pass of an estimator.
template <class E>
std::vector<double> run(E e, unroll::params<const double> theta, std::span<const example> xs,
                        unroll::report* total = nullptr, unroll::replay_counts* counts = nullptr,
                        unroll::key k = {}) {
  std::vector<double> g(std::size_t(theta.size()));
  e.reset(k);
  unroll::report r = e.advance(theta, xs, unroll::dparams<double>(g));
  r += e.finish(theta, unroll::dparams<double>(g));
  if (total) *total = r;
  if (counts) *counts = e.counts();
  return g;
}

/// || a - b || / || b ||
template <class A, class B>
double relative_error(const A& a, const B& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < std::size_t(b.size()); ++i) {
    const double x = a[decltype(a.size())(i)], y = b[decltype(b.size())(i)];
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  return std::sqrt(difference / norm);
}

}  // namespace memory_task
