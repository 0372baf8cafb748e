#include "unroll/exec/range.hpp"

#include <string>

#include "tests/support/catch.hpp"
#include "tests/support/memory_task.hpp"
#include "unroll/estimate/rematerialise.hpp"

using namespace unroll;

namespace {

/// The host's executor, which writes down what it is named.
struct naming {
  using numbers = unroll::numbers<double>;
  template <class U, class Space = plain_space>
  using block = exec::host<numbers>::block<U, Space>;

  template <class U, class Space = plain_space>
  block<U, Space> allocate(index_t n) const {
    return host.allocate<U, Space>(n);
  }
  void fill(matrix<double> x, double value) const { host.fill(x, value); }
  void copy(matrix<const double> x, matrix<double> y) const { host.copy(x, y); }
  void axpy(double alpha, const double* x, double* y, index_t n) const { host.axpy(alpha, x, y, n); }
  void scale(double alpha, double* x, index_t n) const { host.scale(alpha, x, n); }
  void norm(const double* x, index_t n, double* out) const { host.norm(x, n, out); }
  void all_finite(const double* x, index_t n, int power, double* out) const {
    host.all_finite(x, n, power, out);
  }
  void download(const double* here, index_t n, double* to) const { host.download(here, n, to); }
  void synchronise() const {}
  void begin_range(std::string_view name, index_t first, index_t n) const {
    *said += "(" + std::string(name);
    if (n > 0) *said += " " + std::to_string(first) + "+" + std::to_string(n);
  }
  void end_range() const { *said += ")"; }

  exec::host<numbers> host;
  std::shared_ptr<std::string> said = std::make_shared<std::string>();
};

struct named_model : memory_task::linear {
  using memory_task::linear::linear;
  explicit named_model(const memory_task::linear& model) : memory_task::linear(model) {}
  naming executor() const { return e; }
  naming e;
};

}  // namespace

TEST_CASE("policies and calls with their segments are named, one inside the other") {
  memory_task::task<named_model> k(named_model(memory_task::make_linear()), 5);
  const std::vector<double> plain = memory_task::run(
      rematerialise<memory_task::linear>(k.model, {.segments = 5, .batch = 2}), k.theta, k.xs);
  const auto g =
      memory_task::run(rematerialise<named_model>(k.model, {.segments = 5, .batch = 2}), k.theta, k.xs);
  CHECK(g == plain);
  CHECK(*k.model.e.said ==
        "(rematerialise(read_vjp 0+1)(write 0+2)(read_vjp 1+2)(write 2+2)(read_vjp 3+2))"
        "(rematerialise(rewrite 2+2)(write_vjp 2+2)(rewrite 0+2)(write_vjp 0+2))");
}

TEST_CASE("a range ends with its scope, once, and is nothing for executors that name nothing") {
  const naming e;
  {
    exec::range outer(e, "outer");
    const exec::range copy(outer);
    exec::range moved(std::move(outer));
    CHECK(*e.said == "(outer");
    moved = exec::range(e, "second");
    CHECK(*e.said == "(outer(second)");
  }
  CHECK(*e.said == "(outer(second))");
  static_assert(std::is_empty_v<exec::range<exec::host<numbers<double>>>>);
}
