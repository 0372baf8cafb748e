#include "unroll/memory/bank.hpp"

#include <cmath>

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"

using namespace unroll;
using namespace memory_task;

namespace {

template <class K>
auto one(const K& k, index_t s) {
  return std::span(k.xs).subspan(std::size_t(s), 1);
}

}  // namespace

TEST_CASE("a bank writes memories, keeps graphs in its slots and counts") {
  const task<attention> k(make_attention(true), 4);
  memory_bank<attention> bank(k.model, {.segments = 4, .adjoints = 3, .graphs = 2});
  CHECK(bank.graphs().size() == 2);
  CHECK(bank.graphs().owner(0) == memory_bank<attention>::none);
  bank.write(k.model, one(k, 0), k.theta, 1);
  bank.write(k.model, one(k, 1), k.theta);
  CHECK(bank.graphs().owner(1) == 0);
  CHECK(bank.written() == 2);
  CHECK(bank.counts().live_graphs == 1);

  // a copy has its own memories
  const memory_bank<attention> kept(bank);
  memory_bank<attention> copy(kept);
  double loss = 0, again = 0;
  bank.read(k.model, one(k, 2), 2, k.theta, &loss);
  bank.memory(0)[0] += 1;
  bank.read(k.model, one(k, 2), 2, k.theta, &again);
  CHECK(again != loss);
  copy.read(k.model, one(k, 2), 2, k.theta, &again);
  CHECK(again == loss);
  bank.memory(0)[0] -= 1;

  const auto dpast = bank.null_dpast(2);
  CHECK(dpast.size() == 2);
  CHECK(dpast[0] == nullptr);
  dpast[0] = bank.adjoint(0).data();
  bank.read_vjp(k.model, one(k, 2), 2, k.theta, &again, {.dpast = dpast});
  CHECK(bank.adjoint(0)[0] != 0);
  CHECK(bank.adjoint(1)[0] == 0);
  CHECK(bank.null_dpast(2)[0] == nullptr);
  std::vector<double> g(std::size_t(k.theta.size()));
  bank.write_vjp(k.model, one(k, 0), k.theta, 1, bank.adjoint(0), {.dtheta = g});
  CHECK(bank.graphs().owner(1) == memory_bank<attention>::none);
  CHECK(g[0] != 0);

  const double before = bank.memory(1)[0];
  bank.rewrite(k.model, one(k, 1), 1, k.theta, 0);
  CHECK(bank.memory(1)[0] == before);
  CHECK(bank.graphs().owner(0) == 1);
  const replay_counts c = bank.counts();
  CHECK(c.writes == 2);
  CHECK(c.rewrites == 1);
  CHECK(c.write_vjps == 1);
  CHECK(c.reads == 3);
  CHECK(c.read_vjps == 1);
  CHECK(c.live_graphs == 1);

  bank.clear();
  CHECK(bank.written() == 0);
  CHECK(bank.graphs().owner(0) == memory_bank<attention>::none);
  CHECK(bank.adjoint(0)[0] == 0);
  CHECK(bank.counts().writes == 0);
}

TEST_CASE("a memory that is not finite does not count as written and frees its slot") {
  const task<linear> k(make_linear(), 3);
  memory_bank<linear> bank(k.model, {.segments = 3, .graphs = 1});
  const double wrong[2] = {std::nan(""), 0};
  example bad = k.xs[0];
  bad.x = wrong;
  bank.write(k.model, {&bad, 1}, k.theta, 0);
  CHECK_FALSE(bank.finite(0, 1));
  bank.keep_first(0);
  CHECK(bank.written() == 0);
  CHECK(bank.graphs().owner(0) == memory_bank<linear>::none);
  bank.write(k.model, one(k, 0), k.theta, 0);
  CHECK(bank.finite(0, 1));
  CHECK(bank.written() == 1);
}

TEST_CASE("answers that are put off say which segment is at fault when somebody looks") {
  const task<linear> k(make_linear(), 4);
  memory_bank<linear> bank(k.model, {.segments = 4});
  bank.put_off();
  const double wrong[2] = {std::nan(""), 0};
  example bad = k.xs[1];
  bad.x = wrong;
  bank.write(k.model, one(k, 0), k.theta);
  bank.write(k.model, {&bad, 1}, k.theta);
  bank.write(k.model, {&bad, 1}, k.theta);
  CHECK(bank.finite(0, 1));
  CHECK(bank.first_not_finite() == memory_bank<linear>::none);
  CHECK(bank.finite(0, 3));
  CHECK(bank.first_not_finite() == 2);  // memory 1 was written to be read by it
  CHECK(bank.first_not_finite() == memory_bank<linear>::none);
  for (int i = 0; i < 3; ++i) CHECK(bank.finite(0, 3));
  CHECK_THROWS_WITH(bank.finite(0, 3), Catch::Matchers::ContainsSubstring("room for 10"));
}

TEST_CASE("a write that throws leaves no graph in its slot") {
  struct throwing : linear {
    explicit throwing(linear f) : linear(std::move(f)) {}
    void write(std::span<const example> xs, index_t s, params<const double> theta,
               std::span<const double* const> past, view<double> m, view<double> tape,
               view<double> workspace) const {
      if (s == 1) fail("throwing", "s", "is 1");
      linear::write(xs, s, theta, past, m, tape, workspace);
    }
  };
  const task<throwing> k(throwing(make_linear()), 3);
  memory_bank<throwing> bank(k.model, {.segments = 3, .graphs = 1});
  bank.write(k.model, one(k, 0), k.theta, 0);
  CHECK(bank.graphs().owner(0) == 0);
  CHECK_THROWS_AS(bank.write(k.model, one(k, 1), k.theta, 0), error);
  CHECK(bank.written() == 1);
  CHECK(bank.graphs().owner(0) == memory_bank<throwing>::none);  // its tape may be half overwritten
}

TEST_CASE("a write sees the earlier memories only where the model's writes read them") {
  struct watching : attention {
    std::vector<std::size_t>* seen;
    watching(attention f, std::vector<std::size_t>& s) : attention(std::move(f)), seen(&s) {}
    void write(std::span<const example> xs, index_t s, params<const double> theta,
               std::span<const double* const> past, view<double> m, view<double> tape,
               view<double> workspace) const {
      seen->push_back(past.size());
      attention::write(xs, s, theta, past, m, tape, workspace);
    }
    void write_vjp(std::span<const example> xs, index_t s, params<const double> theta,
                   std::span<const double* const> past, write_graphs<numbers<double>> graphs,
                   memory_gradients<numbers<double>> to, view<double> workspace) const {
      seen->push_back(past.size());
      attention::write_vjp(xs, s, theta, past, graphs, to, workspace);
    }
  };
  for (const bool recurrent : {false, true}) {
    std::vector<std::size_t> seen;
    const task<watching> k(watching(make_attention(recurrent), seen), 3);
    memory_bank<watching> bank(k.model, {.segments = 3, .adjoints = 2, .graphs = 1});
    bank.write(k.model, one(k, 0), k.theta);
    bank.write(k.model, one(k, 1), k.theta, 0);
    std::vector<double> g(std::size_t(k.theta.size()));
    bank.write_vjp(k.model, one(k, 1), k.theta, 0, bank.adjoint(1),
                   {.dpast = bank.null_dpast(recurrent ? 1 : 0), .dtheta = g});
    CHECK(seen == (recurrent ? std::vector<std::size_t>{0, 1, 1} : std::vector<std::size_t>{0, 0, 0}));
  }
}

TEST_CASE("a bank remembers how many graphs were alive at once, not how many are") {
  const task<linear> k(make_linear(), 4);
  memory_bank<linear> bank(k.model, {.segments = 4, .adjoints = 1, .graphs = 3});
  std::vector<double> g(std::size_t(k.theta.size()));
  for (const index_t slot : {0, 1, 2}) bank.write(k.model, one(k, slot), k.theta, slot);
  for (const index_t slot : {0, 1})
    bank.write_vjp(k.model, one(k, slot), k.theta, slot, bank.adjoint(0), {.dtheta = g});
  bank.rewrite(k.model, one(k, 0), 0, k.theta, 0);
  CHECK(bank.counts().live_graphs == 3);
}

TEST_CASE("a bank holds what it says") {
  const task<linear> k(make_linear(), 3);
  const auto bytes = [&](index_t segments, index_t adjoints, index_t graphs) {
    return memory_bank<linear>(k.model, {.segments = segments, .adjoints = adjoints, .graphs = graphs})
        .bytes();
  };
  const auto d = k.model.size();
  const std::size_t one = std::size_t(d.memory) * sizeof(double);
  CHECK(bytes(9, 3, 1) - bytes(9, 2, 1) == one);
  CHECK(bytes(9, 2, 2) - bytes(9, 2, 1) == std::size_t(d.tape) * sizeof(double) + sizeof(index_t));
  CHECK(bytes(10, 2, 1) - bytes(9, 2, 1) == one + 2 * sizeof(double*));
}

TEST_CASE("a bank keeps the graphs of a batch together") {
  const task<linear> k(make_linear(), 6);
  const auto some = [&](std::size_t s, std::size_t n) { return std::span(k.xs).subspan(s, n); };
  memory_bank<linear> bank(k.model, {.segments = 6, .adjoints = 5, .graphs = 4, .batch = 3});
  bank.write(k.model, some(0, 3), k.theta, 1);
  CHECK(bank.written() == 3);
  for (index_t s = 0; s < 3; ++s) {
    CHECK(bank.graphs().owner(1 + s) == s);
    CHECK(bank.graphs().first_of_batch(1 + s) == 0);
  }
  CHECK(bank.graphs().owner(0) == memory_bank<linear>::none);
  std::vector<double> g(std::size_t(k.theta.size()));
  using Catch::Matchers::ContainsSubstring;
  CHECK_THROWS_WITH(bank.write_vjp(k.model, some(0, 2), k.theta, 1, bank.adjoint(0, 2), {.dtheta = g}),
                    ContainsSubstring("are 2 segments") && ContainsSubstring("is that of 3"));
  CHECK_THROWS_WITH(bank.write(k.model, some(0, 4), k.theta),
                    ContainsSubstring("are 4 segments") && ContainsSubstring("batches of 3"));
  double losses[4];
  CHECK_THROWS_AS(bank.read(k.model, some(0, 4), 0, k.theta, losses), error);
  CHECK_THROWS_AS(bank.read_vjp(k.model, some(0, 4), 0, k.theta, losses, {.dtheta = g}), error);
  bank.write_vjp(k.model, some(0, 3), k.theta, 1, bank.adjoint(0, 3), {.dtheta = g});
  CHECK(bank.graphs().owner(1) == memory_bank<linear>::none);

  // what takes the slot of one of them takes all
  bank.rewrite(k.model, some(0, 3), 0, k.theta, 0);
  bank.rewrite(k.model, some(1, 1), 1, k.theta, 2);
  CHECK(bank.graphs().owner(0) == memory_bank<linear>::none);
  CHECK(bank.graphs().owner(2) == 1);
  bank.rewrite(k.model, some(0, 2), 0, k.theta, 0);
  CHECK(bank.counts().live_graphs == 3);
  bank.keep_first(1);
  CHECK(bank.written() == 1);
  for (index_t slot = 0; slot < 4; ++slot) CHECK(bank.graphs().owner(slot) == memory_bank<linear>::none);
}
