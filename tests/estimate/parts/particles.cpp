#include "unroll/estimate/parts/particles.hpp"

#include "tests/support/catch.hpp"

namespace {

using namespace unroll;

// s' = s + x, loss = theta_0 x + theta_1 t + s; an input of 13 diverges where theta_0 > 1.
struct linear {
  using scalar = double;
  using input = double;
  dims size() const { return {.params = 2, .state = 1}; }
  bool finite(double x) const { return x >= 0; }
  void step(double x, const edge<double>& e) const {
    e.next[0] = x == 13 && e.theta[0] > 1 ? std::numeric_limits<double>::infinity() : e.s[0] + x;
    *e.loss = e.theta[0] * x + e.theta[1] * double(e.t) + e.s[0];
  }
};

const std::vector<double> theta{1, -.5};

struct task {
  linear f;
  particles<linear> all;
  std::vector<std::int64_t> begun, done;

  explicit task(index_t pairs = 2) : all(f, "name", pairs, .25) {
    all.reset(f, {});
    const std::vector<double> z{1, 2, -3, 4};
    std::copy_n(z.begin(), 2 * pairs, all.noise().begin());
  }
  report advance(const std::vector<double>& xs, std::int64_t window = 3) {
    return all.advance(
        f, params<const double>(theta), std::span<const double>(xs), window,
        [&](std::int64_t w) { begun.push_back(w); }, [&](std::int64_t w) { done.push_back(w); });
  }
  std::vector<double> emit() {
    std::vector<double> g(2);
    all.emit(view<const double>(all.noise()), dparams<double>(g));
    return g;
  }
};

}  // namespace

TEST_CASE("windows are counted from the start of the sequence, however the inputs arrive") {
  task t;
  t.advance({1, 2});
  CHECK(t.begun == std::vector<std::int64_t>{0});
  CHECK(t.done.empty());
  t.advance({3, 4, 5, 6, 7});
  CHECK(t.begun == std::vector<std::int64_t>{0, 1, 2});
  CHECK(t.done == std::vector<std::int64_t>{0, 1});
  CHECK(t.all.end() == 7);
  t.all.reset(t.f, {});
  CHECK(t.all.end() == 0);
  t.advance({1, 2, 3});
  CHECK(t.begun.back() == 0);
  CHECK(t.done.back() == 0);
}

TEST_CASE("a pair's difference is emitted along its own noise, and then forgotten") {
  // L(theta + sigma z) - L(theta - sigma z) = 2 sigma (z_0 sum x + z_1 sum t)
  task t;
  const report r = t.advance({1, 2, 4});
  CHECK((r.consumed == 3 && r.steps == 3 * 2 * 2 && r.losses == 3 && r.vjps == 0));
  CHECK(r.loss == Approx(1 * 7 - .5 * 3 + (0 + 1 + 3)).epsilon(1e-14));  // the noise cancels in the mean
  const double first = 1 * 7 + 2 * 3, second = -3 * 7 + 4 * 3;
  const auto g = t.emit();
  CHECK(g[0] == Approx((1 * first - 3 * second) / 2).epsilon(1e-13));
  CHECK(g[1] == Approx((2 * first + 4 * second) / 2).epsilon(1e-13));
  CHECK(t.emit() == std::vector<double>{0, 0});
}

TEST_CASE("copies stop together in front of a step that is not finite in one of them") {
  task t, same;
  const report r = t.advance({1, 2, 4, 13, 5});  // in window 1, of the copies at theta_0 > 1 only
  CHECK((r.code == status::non_finite && r.at == 3 && r.consumed == 3 && r.losses == 3));
  CHECK(t.done == std::vector<std::int64_t>{0});
  same.advance({1, 2, 4});
  CHECK(t.all.last_state()[0] == 7);
  CHECK(t.emit() == same.emit());

  task group;  // within a group of steps
  const report part = group.advance({1, 13});
  CHECK((part.code == status::non_finite && part.at == 1 && part.consumed == 1));
  CHECK(part.loss == Approx(1).epsilon(1e-14));
  CHECK(group.advance({2, 4}).code == status::ok);  // as if it had never been offered
  task offered;
  offered.advance({1, 2, 4});
  CHECK(group.emit() == offered.emit());
}

TEST_CASE("copies run one after the other through groups of steps, whose borders show nowhere") {
  std::vector<double> xs(300);
  for (std::size_t i = 0; i < xs.size(); ++i) xs[i] = double(i % 7);
  for (const std::size_t bad : {0u, 1u, 127u, 128u, 129u, 255u, 256u, 299u}) {
    INFO("not finite in step " << bad);
    auto offered = xs;
    offered[bad] = 13;
    task whole, one_by_one;
    const report r = whole.advance(offered, 1000);
    CHECK((r.code == status::non_finite && r.at == std::int64_t(bad) && r.consumed == std::int64_t(bad) &&
           r.losses == std::int64_t(bad)));
    for (std::size_t i = 0; i < bad; ++i) one_by_one.advance({xs[i]}, 1000);
    CHECK(whole.all.last_state()[0] == one_by_one.all.last_state()[0]);
    whole.advance({xs.begin() + std::ptrdiff_t(bad), xs.end()}, 1000);
    for (std::size_t i = bad; i < xs.size(); ++i) one_by_one.advance({xs[i]}, 1000);
    CHECK(whole.emit() == one_by_one.emit());
  }
}

TEST_CASE("an input that cannot be used stops all copies, and so does a theta that is not finite") {
  task t;
  const report r = t.advance({1, -1, 2});
  CHECK((r.code == status::non_finite && r.at == 1 && r.consumed == 1));
  const std::vector<double> bad{std::nan(""), 0}, xs{1};
  const report none = t.all.advance(
      t.f, params<const double>(bad), std::span<const double>(xs), 3, [](std::int64_t) {},
      [](std::int64_t) {});
  CHECK((none.code == status::non_finite && none.at == 1 && none.consumed == 0 && none.steps == 0));
}

TEST_CASE("every copy starts from the state that is given") {
  task t;
  const std::vector<double> s0{.5};
  t.all.reset(t.f, state<const double>(s0));
  CHECK(t.advance({1}).loss == Approx(1 + .5).epsilon(1e-14));
  CHECK(t.all.last_state()[0] == 1.5);
}
