#include "unroll/estimate/parts/run_groups.hpp"

#include <cmath>

#include "tests/support/catch.hpp"
#include "unroll/core/block.hpp"

namespace {

using namespace unroll;

// Its loss is the input; a negative input cannot be used.
struct echo {
  using scalar = double;
  using input = double;
  dims size() const { return {.params = 1, .state = 2, .lanes = 2}; }
  bool finite(double x) const { return x >= 0; }
  index_t scored(double x) const { return x == 0 ? 0 : 2; }
  void step(double x, const edge<double>& e) const {
    for (index_t i = 0; i < 2; ++i) e.next[i] = e.s[i] + x;
    *e.loss = 2 * x;
  }
};

// Notes how the inputs were grouped. An input of 13 is a step that is not finite.
struct notes {
  std::vector<double> taken;
  std::vector<std::vector<double>> groups;
  index_t run = 0;
  bool awaits = false;

  void push(double x) { taken.push_back(x); }
  index_t pending() const { return index_t(taken.size()) - run; }
  std::int64_t end() const { return std::int64_t(taken.size()); }
  void drop(index_t n) { taken.resize(taken.size() - std::size_t(n)); }
  void check_held() const {
    if (awaits) fail("notes", "call", "awaits inputs");
  }
  index_t forward(const echo&, params<const double>, report& r) {
    const std::vector<double> group(taken.begin() + run, taken.end());
    r.steps += pending();
    for (std::size_t i = 0; i < group.size(); ++i)
      if (group[i] == 13) return index_t(i);
    groups.push_back(group);
    run = index_t(taken.size());
    return -1;
  }
};

const std::vector<double> theta{1};

// Groups of three.
report advance(notes& memory, const std::vector<double>& xs, std::vector<index_t>* done = nullptr) {
  return run_groups(
      echo{}, params<const double>(theta), std::span<const double>(xs), memory,
      [&] { return memory.pending() == 3; },
      [&](report& r) {
        ++r.vjps;
        if (done) done->push_back(index_t(memory.groups.size()));
      });
}

}  // namespace

TEST_CASE("groups are the same however the inputs arrive, and each is announced when it has been run") {
  const std::vector<std::vector<double>> expected{{1, 2, 3}, {4, 5, 6}};
  notes at_once;
  std::vector<index_t> done;
  const report r = advance(at_once, {1, 2, 3, 4, 5, 6, 7}, &done);
  CHECK(at_once.groups == expected);
  CHECK(done == std::vector<index_t>{1, 2});
  CHECK((r.consumed == 7 && r.steps == 6 && r.vjps == 2 && r.code == status::ok && r.at == -1));
  CHECK(at_once.pending() == 1);

  notes one_by_one;
  for (const double x : {1, 2, 3, 4, 5, 6, 7}) CHECK(advance(one_by_one, {x}).consumed == 1);
  CHECK(one_by_one.groups == expected);
  CHECK(run_rest(echo{}, params<const double>(theta), one_by_one).steps == 1);
  CHECK(one_by_one.groups.back() == std::vector<double>{7});
  CHECK(run_rest(echo{}, params<const double>(theta), one_by_one).steps == 0);
}

TEST_CASE("a step that is not finite ends the call in front of it") {
  notes memory;
  const report r = advance(memory, {1, 2, 3, 4, 13, 6, 7});
  CHECK((r.code == status::non_finite && r.at == 4 && r.consumed == 4));
  CHECK(memory.taken == std::vector<double>{1, 2, 3, 4});
  CHECK(memory.groups.size() == 1);
  CHECK(advance(memory, {5, 6}).consumed == 2);  // as if the others had never been offered
  CHECK(memory.groups.back() == std::vector<double>{4, 5, 6});
}

TEST_CASE("inputs of earlier calls stay where their group is not finite") {
  notes memory;
  CHECK(advance(memory, {13, 2}).consumed == 2);  // not run yet
  const report r = advance(memory, {3, 4});
  CHECK((r.code == status::non_finite && r.at == 0 && r.consumed == 0));
  CHECK(memory.taken == std::vector<double>{13, 2});
}

TEST_CASE("a later group of the same call is this call's alone") {
  notes memory;
  advance(memory, {1});
  const report r = advance(memory, {2, 3, 13, 5, 6});
  CHECK((r.code == status::non_finite && r.at == 3 && r.consumed == 2));
  CHECK(memory.taken == std::vector<double>{1, 2, 3});
}

TEST_CASE("an input that cannot be used ends the call, and a theta that is not finite lets nothing in") {
  notes memory;
  const report r = advance(memory, {1, 2, 3, 4, -1, 6});
  CHECK((r.code == status::non_finite && r.at == 4 && r.consumed == 4));
  CHECK(memory.pending() == 1);

  const std::vector<double> bad{std::nan("")};
  const std::vector<double> xs{5, 6};
  const report none = run_groups(
      echo{}, params<const double>(bad), std::span<const double>(xs), memory, [] { return true; },
      [](report&) {});
  CHECK((none.code == status::non_finite && none.at == 4 && none.consumed == 0 && none.steps == 0));
  const report rest = run_rest(echo{}, params<const double>(bad), memory);
  CHECK((rest.code == status::non_finite && rest.at == 4 && rest.steps == 0));
  CHECK(memory.pending() == 1);
}

TEST_CASE("the rest of a sequence stays as it is where a step is not finite") {
  notes memory;
  CHECK(advance(memory, {1, 2, 3, 4, 13}).code == status::ok);
  const report r = run_rest(echo{}, params<const double>(theta), memory);
  CHECK((r.code == status::non_finite && r.at == 4));
  CHECK(memory.taken == std::vector<double>{1, 2, 3, 4, 13});
}

TEST_CASE("nothing is run while a resume waits for inputs") {
  notes memory;
  memory.awaits = true;
  CHECK_THROWS_AS(advance(memory, {1}), error);
  CHECK_THROWS_AS(run_rest(echo{}, params<const double>(theta), memory), error);
}

TEST_CASE("a window's losses are entered where every state and loss is finite") {
  std::vector<double> states(2 * 4), loss(3), workspace(4);
  const auto run = [&](const std::vector<double>& xs, double start, report& r) {
    states[0] = states[1] = start;
    const window<double> w{params<const double>(theta), 3, states.data(), nullptr, loss.data(), workspace, 0};
    return run_window(echo{}, std::span<const double>(xs), w, r);
  };
  report r;
  CHECK(run({1, 0, 3}, 0, r) == -1);
  CHECK((r.steps == 3 && r.loss == 8 && r.losses == 4));  // the second step has no loss
  const double most = std::numeric_limits<double>::max();
  CHECK(run({1, .75 * most, 3}, 0, r) == 1);  // the loss overflows
  CHECK(run({0, 0, most}, most, r) == 2);     // so do state and loss
  CHECK(run({0, 0, 0}, std::nan(""), r) == 0);
  CHECK((r.steps == 12 && r.loss == 8 && r.losses == 4));
}
