#include "unroll/train/document_gradients.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/memory_task.hpp"
#include "tests/support/thread_ranks.hpp"
#include "unroll/exec/mirror.hpp"
#include "unroll/testing/simt/executor.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;
using memory_task::attention;
using memory_task::example;

namespace {

struct problem {
  memory_task::task<attention> whole{memory_task::make_attention(), 11};
  std::vector<std::vector<example>> documents{{whole.xs.begin(), whole.xs.begin() + 5},
                                              {whole.xs.begin() + 5, whole.xs.begin() + 7},
                                              {whole.xs.begin() + 7, whole.xs.end()}};

  gradient<double> of(const policy& p, index_t threads, report* r = nullptr, key k = {3}) const {
    training::document_gradients<attention> all(whole.model, p, 5, 3, threads);
    gradient<double> g(whole.theta.size());
    g.zero();
    for (int again = 0; again < 2; ++again) {  // what is left of a call must not show in the next
      if (again > 0) g.zero();
      const report sum = all.add(k, whole.theta, documents, g);
      if (r) *r = sum;
    }
    return g;
  }
};

std::vector<double> entries(const gradient<double>& g) { return {g.begin(), g.end()}; }

}  // namespace

TEST_CASE("the gradient of several documents is the sum of those of each, on any number of threads") {
  const problem x;
  report r;
  const auto g = x.of(parse_policy("rematerialise"), 1, &r);
  std::vector<double> sum(std::size_t(g.size()));
  double loss = 0;
  for (const auto& d : x.documents) {
    report one;
    const auto part = memory_task::run(rematerialise(x.whole.model, {.segments = 5}), x.whole.theta, d, &one);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
    loss += one.loss;
  }
  CHECK(memory_task::relative_error(g, sum) < 1e-14);
  CHECK(r.loss == Approx(loss).epsilon(1e-14));
  CHECK(r.losses == 11);
  CHECK(r.code == status::ok);
  for (const char* name : {"rematerialise", "reservoir:1", "proportional:1"}) {
    const auto one = entries(x.of(parse_policy(name), 1));
    CHECK(entries(x.of(parse_policy(name), 2)) == one);
    CHECK(entries(x.of(parse_policy(name), 9)) == one);
  }
}

TEST_CASE("documents dealt to ranks have the gradient and the report of one rank, bit for bit") {
  problem x;
  x.documents.push_back(x.documents[0]);
  x.documents.push_back(x.documents[1]);
  const policy p = parse_policy("reservoir:1");
  gradient<double> one(x.whole.theta.size());
  report expected;
  {
    training::document_gradients<attention> all(x.whole.model, p, 5, 6, 1);
    expected = all.add(key{3}, x.whole.theta, x.documents, one);
  }
  for (const index_t size : {2, 3, 7}) {
    const auto said = thread_ranks::run(size, [&](const ranks& among) {
      training::document_gradients<attention> mine(x.whole.model, p, 5, 6, 2, among);
      gradient<double> g(x.whole.theta.size());
      for (int again = 0; again < 2; ++again) {
        g.zero();
        const report r = mine.add(key{3}, x.whole.theta, x.documents, g);
        if (entries(g) != entries(one)) fail("test", "gradient", "has other bits");
        if (r.loss != expected.loss || r.losses != expected.losses || r.steps != expected.steps ||
            r.bytes != expected.bytes)
          fail("test", "report", "is another");
      }
    });
    CHECK(said == std::vector<std::string>(std::size_t(size)));
  }
}

TEST_CASE("documents of a step draw from keys of their own") {
  problem x;
  const policy p = parse_policy("reservoir:1");
  CHECK(entries(x.of(p, 1, nullptr, key{3})) != entries(x.of(p, 1, nullptr, key{4})));
  const auto once = [&](std::uint64_t document) {
    return memory_task::run(reservoir_tbptt(x.whole.model, {.segments = 5, .size = 1}), x.whole.theta,
                            x.documents[0], nullptr, nullptr, fold(key{3}, document));
  };
  x.documents = {x.documents[0], x.documents[0], x.documents[0]};
  std::vector<double> sum = once(0);
  for (const std::uint64_t d : {std::uint64_t{1}, std::uint64_t{2}}) {
    const auto more = once(d);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
  }
  CHECK(memory_task::relative_error(x.of(p, 2), sum) < 1e-14);
}

TEST_CASE(
    "more documents than there is room for are refused, a gradient of another size, and counts below one") {
  const problem x;
  training::document_gradients<attention> two(x.whole.model, policy{}, 5, 2, 1);
  gradient<double> g(x.whole.theta.size());
  CHECK_THROWS_WITH(two.add(key{}, x.whole.theta, x.documents, g),
                    ContainsSubstring("are 3, there is room for 2"));
  training::document_gradients<attention> three(x.whole.model, policy{}, 5, 3, 1);
  for (const index_t size : {x.whole.theta.size() - 1, x.whole.theta.size() + 1}) {
    gradient<double> other(size);
    CHECK_THROWS_WITH(three.add(key{}, x.whole.theta, x.documents, other),
                      ContainsSubstring("document_gradients::add: g: has size " + std::to_string(size) +
                                        ", expected " + std::to_string(x.whole.theta.size())));
  }
  using gradients = training::document_gradients<attention>;
  CHECK_THROWS_WITH(gradients(x.whole.model, policy{}, 5, 0, 1), ContainsSubstring("documents"));
  CHECK_THROWS_WITH(gradients(x.whole.model, policy{}, 5, 1, 0), ContainsSubstring("threads"));
}

TEST_CASE("copies of an estimator have the bits of the policy that it is") {
  const problem x;
  const auto reservoir = reservoir_tbptt(x.whole.model, {.segments = 5, .size = 1});
  for (const index_t threads : {1, 2}) {
    training::document_gradients all(reservoir, 3, threads);
    gradient<double> g(x.whole.theta.size());
    CHECK(all.add(key{3}, x.whole.theta, x.documents, g).losses == 11);
    CHECK(entries(g) == entries(x.of(parse_policy("reservoir:1"), 1)));
  }
  using gradients = training::document_gradients<attention>;
  CHECK_THROWS_WITH(gradients(reservoir, 0, 1), ContainsSubstring("documents"));
}

namespace {

using device = testing::simt::executor<numbers<float>>;
constexpr index_t parameters_there = (index_t{1} << 16) + 9;  // more than one slice of what ranks send

// Numbers at the place of an executor, and an estimator over them: the gradient of an input x is theta / 2
// and x times normals of the document's key.
struct drawn_system {
  using scalar = float;
  using input = float;
  device e;
  const device& executor() const { return e; }
  struct sizes {
    index_t params;
  };
  static sizes size() { return {parameters_there}; }
};
struct drawing {
  using scalar = float;
  using input = float;
  using system_type = drawn_system;
  static constexpr estimand estimated_gradient = estimand::frozen_theta;
  static constexpr bool unbiased = false, random = true;
  static constexpr std::array<const char*, 0> references{};

  void reset(key k, state<const float> = {}) {
    key_ = k;
    step_ = 0;
  }
  report advance(params<const float> theta, std::span<const float> xs, dparams<float> g) {
    report r;
    auto z = of.e.allocate<float>(g.size());
    for (const float x : xs) {
      of.e.normals(key_, step_++, z.data(), g.size());
      of.e.axpy(double(x), z.data(), g.data(), g.size());
      of.e.axpy(0.5, theta.data(), g.data(), g.size());
      r.loss += double(x);
      ++r.losses;
    }
    return r;
  }
  report finish(params<const float>, dparams<float>) { return {}; }
  const drawn_system& system() const { return of; }

  drawn_system of{device()};
  key key_{};
  std::int64_t step_ = 0;
};
static_assert(gradient_estimator<drawing>);

using block_there = device::block<float, param_cotangent_space>;
const std::vector<std::vector<float>> texts_there{{1, 2}, {-0.3f}, {0.7f, 0.1f}, {3}, {0.01f}};

block_there theta_there(const device& e) {
  auto theta = e.allocate<float, param_cotangent_space>(parameters_there);
  e.normals({5}, 0, theta.data(), theta.size());
  return theta;
}
std::vector<float> brought(const device& e, const block_there& g) {
  const auto here = exec::on_host(e, dparams<const float>(g));
  return {here.begin(), here.end()};
}
// Two calls, the second of which has to show nothing of the first: the gradient, its loss and the losses.
template <class... Ranks>
std::pair<std::vector<float>, report> summed(const device& e, const Ranks&... ranks) {
  const auto theta = theta_there(e);
  training::document_gradients all(drawing{{e}}, 5, 1, ranks...);
  std::pair<std::vector<float>, report> out;
  for (int again = 0; again < 2; ++again) {
    auto g = e.allocate<float, param_cotangent_space>(parameters_there);
    e.fill(matrix<float>(g.data(), g.size(), 1), 0.25);
    out.second = all.add(key{3}, {theta.data(), theta.size()}, texts_there, g);
    out.first = brought(e, g);
  }
  return out;
}

// Ranks whose bytes lie in the memory of a device, as cuda::nccl_ranks.
struct ranks_there {
  ranks host;
  device e;
  index_t rank() const { return host.rank(); }
  index_t size() const { return host.size(); }
  void send(index_t to, const void* bytes, std::size_t n) {
    const testing::simt::device_memory::access open(*e.machine().memory());
    host.send(to, view<const char>(static_cast<const char*>(bytes), index_t(n)));
  }
  void receive(index_t from, void* bytes, std::size_t n) {
    const testing::simt::device_memory::access open(*e.machine().memory());
    host.receive(from, view<char>(static_cast<char*>(bytes), index_t(n)));
  }
  void broadcast(index_t root, void* bytes, std::size_t n) {
    const testing::simt::device_memory::access open(*e.machine().memory());
    host.broadcast(root, view<char>(static_cast<char*>(bytes), index_t(n)));
  }
};

}  // namespace

TEST_CASE("documents at another place are added there, one after another, whatever the ranks") {
  const device e;
  const auto [one, of_all] = summed(e);
  auto sum = e.allocate<float, param_cotangent_space>(parameters_there);
  e.fill(matrix<float>(sum.data(), sum.size(), 1), 0.25);
  const auto theta = theta_there(e);
  for (std::size_t i = 0; i < texts_there.size(); ++i) {
    auto g = e.allocate<float, param_cotangent_space>(parameters_there);
    drawing alone{{e}};
    alone.reset(fold(key{3}, i));
    alone.advance({theta.data(), theta.size()}, texts_there[i], g);
    e.axpy(1, g.data(), sum.data(), sum.size());
  }
  CHECK((one == brought(e, sum)));  // too many to be printed
  CHECK(of_all.losses == 7);
  for (const index_t size : {2, 3, 7})
    for (const bool through_host : {true, false}) {
      const auto said = thread_ranks::run(size, [&, &want = one, loss = of_all.loss](const ranks& among) {
        const device own(key{std::uint64_t(among.rank())});
        ranks_there between{among, own};
        const auto [g, r] = through_host ? summed(own, among) : summed(own, among, ranks(between));
        if (g != want) fail("test", "gradient", "has other bits");
        if (r.loss != loss || r.losses != 7) fail("test", "report", "is another");
      });
      CHECK(said == std::vector<std::string>(std::size_t(size)));
    }
}

TEST_CASE("documents at another place have one thread, and ranks of one number") {
  const drawing over;
  CHECK_THROWS_WITH(
      training::document_gradients(over, 2, 2),
      ContainsSubstring("threads: are 2, must be 1 on an executor whose place is not the host"));
  const auto said = thread_ranks::run(
      2, [&](const ranks& among) { training::document_gradients(drawing{}, 2, 1, ranks(), among); });
  for (const std::string& text : said)
    CHECK_THAT(text, ContainsSubstring("document_gradients: at_place: has size 2, expected 1"));
}
