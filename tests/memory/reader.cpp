#include "unroll/memory/reader.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/memory_task.hpp"

using namespace unroll;
using namespace memory_task;

namespace {

// The losses by the model's own calls.
template <class K>
std::vector<double> losses_of(const K& k) {
  const auto d = k.model.size();
  const index_t T = index_t(k.xs.size());
  std::vector<double> workspace(std::size_t(k.model.workspace(T, 1))), losses(k.xs.size());
  std::vector<std::vector<double>> m(k.xs.size(), std::vector<double>(std::size_t(d.memory)));
  std::vector<const double*> past;
  for (std::size_t t = 0; t < k.xs.size(); ++t) {
    const auto x = std::span(k.xs).subspan(t, 1);
    k.model.read(x, index_t(t), k.theta, past, &losses[t], workspace);
    const std::span<const double* const> seen(past.data(), k.model.independent() ? 0 : past.size());
    k.model.write(x, index_t(t), k.theta, seen, m[t], {}, workspace);
    past.push_back(m[t].data());
  }
  return losses;
}

}  // namespace

TEST_CASE("a memory_reader gives the losses of the model's own calls, text after text") {
  for (const bool recurrent : {false, true}) {
    const task<attention> k(make_attention(recurrent), 5), other(make_attention(recurrent), 3, 8);
    const auto expected = losses_of(k);
    memory_reader reader(k.model, 5);
    CHECK(reader.losses(k.theta, k.xs) == expected);
    CHECK(reader.losses(other.theta, other.xs) == losses_of(other));
    CHECK(reader.losses(k.theta, k.xs) == expected);
    CHECK(reader.losses(k.theta, {}).empty());
    std::vector<index_t> asked;
    const auto some = reader.losses(k.theta, k.xs, [&](index_t t) {
      asked.push_back(t);
      return t < 2;
    });
    CHECK(some == std::vector<double>(expected.begin(), expected.begin() + 2));
    CHECK(asked == std::vector<index_t>{0, 1, 2});
  }
}

TEST_CASE("a memory_reader never writes the last segment and refuses longer texts") {
  struct watching : linear {
    std::vector<index_t>* written;
    watching(linear f, std::vector<index_t>& w) : linear(std::move(f)), written(&w) {}
    void write(std::span<const example> xs, index_t s, params<const double> theta,
               std::span<const double* const> past, view<double> m, view<double> tape,
               view<double> workspace) const {
      CHECK(tape.empty());
      written->push_back(s);
      linear::write(xs, s, theta, past, m, tape, workspace);
    }
  };
  std::vector<index_t> written;
  const task<watching> k(watching(make_linear(), written), 4);
  memory_reader reader(k.model, 3);
  reader.losses(k.theta, std::span(k.xs).first(3));
  CHECK(written == std::vector<index_t>{0, 1});
  CHECK_THROWS_WITH(reader.losses(k.theta, k.xs),
                    Catch::Matchers::ContainsSubstring("has 4 segments, there is room for 3"));
  CHECK_THROWS_AS(memory_reader(k.model, 0), error);
}
