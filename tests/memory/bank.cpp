#include "unroll/memory/bank.hpp"

#include <cmath>

#include "tests/support/catch.hpp"
#include "tests/support/memory_models.hpp"

using namespace unroll;
using namespace memory_task;

TEST_CASE("a bank writes memories, keeps graphs in its slots and counts") {
  const task<attention> k(make_attention(true), 4);
  memory_bank<attention> bank(k.model, 4, 3, 2);
  CHECK(bank.slots() == 2);
  CHECK(bank.owner(0) == memory_bank<attention>::none);
  CHECK(bank.write(k.model, k.xs[0], k.theta, 1));
  CHECK(bank.write(k.model, k.xs[1], k.theta));
  CHECK(bank.owner(1) == 0);
  CHECK(bank.written() == 2);
  CHECK(bank.counts().live_graphs == 1);

  // a copy has its own memories
  const memory_bank<attention> kept(bank);
  memory_bank<attention> copy(kept);
  const double loss = bank.read(k.model, k.xs[2], 2, k.theta);
  bank.memory(0)[0] += 1;
  CHECK(bank.read(k.model, k.xs[2], 2, k.theta) != loss);
  CHECK(copy.read(k.model, k.xs[2], 2, k.theta) == loss);
  bank.memory(0)[0] -= 1;

  const auto targets = bank.targets(2);
  CHECK(targets.size() == 2);
  CHECK(targets[0] == nullptr);
  targets[0] = bank.adjoint(0).data();
  bank.read_vjp(k.model, k.xs[2], 2, k.theta, targets, {});
  CHECK(bank.adjoint(0)[0] != 0);
  CHECK(bank.adjoint(1)[0] == 0);
  CHECK(bank.targets(2)[0] == nullptr);
  std::vector<double> g(std::size_t(k.theta.size()));
  bank.write_vjp(k.model, k.xs[0], k.theta, 1, bank.adjoint(0), {}, g);
  CHECK(bank.owner(1) == memory_bank<attention>::none);
  CHECK(g[0] != 0);

  const double before = bank.memory(1)[0];
  bank.rewrite(k.model, k.xs[1], 1, k.theta, 0);
  CHECK(bank.memory(1)[0] == before);
  CHECK(bank.owner(0) == 1);
  const replay_counts c = bank.counts();
  CHECK(c.writes == 2);
  CHECK(c.rewrites == 1);
  CHECK(c.write_vjps == 1);
  CHECK(c.reads == 3);
  CHECK(c.read_vjps == 1);
  CHECK(c.live_graphs == 1);

  bank.clear();
  CHECK(bank.written() == 0);
  CHECK(bank.owner(0) == memory_bank<attention>::none);
  CHECK(bank.adjoint(0)[0] == 0);
  CHECK(bank.counts().writes == 0);
}

TEST_CASE("a memory that is not finite does not count as written and frees its slot") {
  const task<linear> k(make_linear(), 3);
  memory_bank<linear> bank(k.model, 3, 0, 1);
  const double wrong[2] = {std::nan(""), 0};
  example bad = k.xs[0];
  bad.x = wrong;
  CHECK_FALSE(bank.write(k.model, bad, k.theta, 0));
  CHECK(bank.written() == 0);
  CHECK(bank.owner(0) == memory_bank<linear>::none);
  CHECK(bank.write(k.model, k.xs[0], k.theta, 0));
  CHECK(bank.written() == 1);
}

TEST_CASE("a write that throws leaves no graph in its slot") {
  struct throwing : linear {
    explicit throwing(linear f) : linear(std::move(f)) {}
    void write(const example& x, index_t s, params<const double> theta, std::span<const double* const> past,
               view<double> m, view<double> tape, view<double> work) const {
      if (s == 1) fail("throwing", "s", "is 1");
      linear::write(x, s, theta, past, m, tape, work);
    }
  };
  const task<throwing> k(throwing(make_linear()), 3);
  memory_bank<throwing> bank(k.model, 3, 0, 1);
  CHECK(bank.write(k.model, k.xs[0], k.theta, 0));
  CHECK(bank.owner(0) == 0);
  CHECK_THROWS_AS(bank.write(k.model, k.xs[1], k.theta, 0), error);
  CHECK(bank.written() == 1);
  CHECK(bank.owner(0) == memory_bank<throwing>::none);  // its tape may be half overwritten
}

TEST_CASE("a write sees the earlier memories only where the model's writes read them") {
  struct watching : attention {
    std::vector<std::size_t>* seen;
    watching(attention f, std::vector<std::size_t>& s) : attention(std::move(f)), seen(&s) {}
    void write(const example& x, index_t s, params<const double> theta, std::span<const double* const> past,
               view<double> m, view<double> tape, view<double> work) const {
      seen->push_back(past.size());
      attention::write(x, s, theta, past, m, tape, work);
    }
    void write_vjp(const example& x, index_t s, params<const double> theta,
                   std::span<const double* const> past, view<const double> tape, view<const double> dm,
                   std::span<double* const> dpast, dparams<double> g, view<double> work) const {
      seen->push_back(past.size());
      attention::write_vjp(x, s, theta, past, tape, dm, dpast, g, work);
    }
  };
  for (const bool recurrent : {false, true}) {
    std::vector<std::size_t> seen;
    const task<watching> k(watching(make_attention(recurrent), seen), 3);
    memory_bank<watching> bank(k.model, 3, 2, 1);
    bank.write(k.model, k.xs[0], k.theta);
    bank.write(k.model, k.xs[1], k.theta, 0);
    std::vector<double> g(std::size_t(k.theta.size()));
    bank.write_vjp(k.model, k.xs[1], k.theta, 0, bank.adjoint(1), bank.targets(recurrent ? 1 : 0), g);
    CHECK(seen == (recurrent ? std::vector<std::size_t>{0, 1, 1} : std::vector<std::size_t>{0, 0, 0}));
  }
}

TEST_CASE("a bank remembers how many graphs were alive at once, not how many are") {
  const task<linear> k(make_linear(), 4);
  memory_bank<linear> bank(k.model, 4, 1, 3);
  std::vector<double> g(std::size_t(k.theta.size()));
  for (const index_t slot : {0, 1, 2}) bank.write(k.model, k.xs[std::size_t(slot)], k.theta, slot);
  for (const index_t slot : {0, 1})
    bank.write_vjp(k.model, k.xs[std::size_t(slot)], k.theta, slot, bank.adjoint(0), {}, g);
  bank.rewrite(k.model, k.xs[0], 0, k.theta, 0);
  CHECK(bank.counts().live_graphs == 3);
}

TEST_CASE("a bank holds what it says") {
  const task<linear> k(make_linear(), 3);
  const auto bytes = [&](index_t segments, index_t adjoints, index_t graphs) {
    return memory_bank<linear>(k.model, segments, adjoints, graphs).bytes();
  };
  const auto d = k.model.size();
  const std::size_t one = std::size_t(d.memory) * sizeof(double);
  CHECK(bytes(9, 3, 1) - bytes(9, 2, 1) == one);
  CHECK(bytes(9, 2, 2) - bytes(9, 2, 1) == std::size_t(d.tape) * sizeof(double) + sizeof(index_t));
  CHECK(bytes(10, 2, 1) - bytes(9, 2, 1) == one + 2 * sizeof(double*));
}
