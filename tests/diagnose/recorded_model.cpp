#include "unroll/diagnose/recorded_model.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/memory_task.hpp"
#include "unroll/estimate/policy.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using memory_task::attention;
using memory_task::example;

static_assert(memory_model<recorded_model<attention>>);

TEST_CASE("every policy has the gradient of the model over its record, losses and all, draw by draw") {
  const memory_task::task<attention> x(memory_task::make_attention(), 6);
  const recorded_model<attention> record(x.model, x.theta, x.xs);
  for (const char* name : {"rematerialise", "rematerialise/3", "window:2", "reservoir:2", "proportional:2"}) {
    INFO(name);
    report of_model, of_record;
    std::vector<double> g, recorded;
    const auto run = [&](const auto& model, std::vector<double>& out, report& r) {
      with_policy(parse_policy(name), model, 6, philox_chooser{},
                  [&](const auto& e) { out = memory_task::run(e, x.theta, x.xs, &r, nullptr, key{9}); });
    };
    run(x.model, g, of_model);
    run(record, recorded, of_record);
    CHECK(memory_task::relative_error(recorded, g) < 1e-13);
    CHECK(of_record.loss == of_model.loss);
    CHECK(of_record.losses == of_model.losses);
  }
}

TEST_CASE("models whose writes read or whose reads have parameters cannot be recorded") {
  const memory_task::task<attention> recurrent(memory_task::make_attention(true), 3);
  CHECK_THROWS_AS(recorded_model<attention>(recurrent.model, recurrent.theta, recurrent.xs), unroll::error);
  const memory_task::task<memory_task::linear> linear(memory_task::make_linear(), 3);
  CHECK_THROWS_AS(recorded_model<memory_task::linear>(linear.model, linear.theta, linear.xs), unroll::error);
}

TEST_CASE("a record that ends before the text is refused by each call that asks for more") {
  const memory_task::task<attention> x(memory_task::make_attention(), 6);
  const std::span<const example> all(x.xs);
  const recorded_model<attention> four(x.model, x.theta, all.first(4));
  const recorded_model<attention> stopped(x.model, x.theta, all, [](index_t t) { return t < 4; });
  const index_t size = x.model.size().memory;
  std::vector<double> m(std::size_t(6 * size)), losses(6), work(std::size_t(x.model.workspace(6, 6))),
      adjoints(std::size_t(6 * size));
  std::vector<const double*> past;
  std::vector<double*> dpast;
  for (index_t s = 0; s < 6; ++s)
    past.push_back(m.data() + s * size), dpast.push_back(adjoints.data() + s * size);
  const auto ask = [&](const recorded_model<attention>& record, index_t at, std::size_t n) {
    record.read(all.subspan(std::size_t(at), n), at, x.theta, past, losses.data(), work);
  };
  const auto send = [&](const recorded_model<attention>& record, index_t at, std::size_t n) {
    gradient<double> g(x.theta.size());
    record.read_vjp(all.subspan(std::size_t(at), n), at, x.theta, past, losses.data(),
                    {.dpast = dpast, .dtheta = g}, work);
  };
  const auto write = [&](const recorded_model<attention>& record, index_t at, std::size_t n) {
    record.write(all.subspan(std::size_t(at), n), at, x.theta, {}, view<double>(m.data(), index_t(n) * size),
                 {}, work);
  };
  for (const auto* record : {&four, &stopped}) {
    CHECK_NOTHROW(ask(*record, 2, 2));
    CHECK_NOTHROW(send(*record, 2, 2));
    CHECK_THROWS_WITH(ask(*record, 3, 2),
                      ContainsSubstring("recorded_model::read: segments: are 2 from 3 on, the record has 4"));
    CHECK_THROWS_WITH(ask(*record, 5, 1), ContainsSubstring("are 1 from 5 on"));
    CHECK_THROWS_WITH(
        send(*record, 3, 2),
        ContainsSubstring("recorded_model::read_vjp: segments: are 2 from 3 on, the record has 4"));
  }
  CHECK_NOTHROW(write(four, 1, 2));
  CHECK_THROWS_WITH(write(four, 2, 2),
                    ContainsSubstring("recorded_model::write: segments: are 2 from 2 on, the record has 3"));
  CHECK_NOTHROW(write(stopped, 3, 1));
  CHECK_THROWS_WITH(write(stopped, 3, 2), ContainsSubstring("are 2 from 3 on, the record has 4"));
}
