// Attention through a library, played by testing::simt::sdpa_double: padding, lengths, strides, workspaces
// and what is dealt out again, against sums in double; by the bodies where the library cannot, by name.
#include "unroll/exec/sdpa_executor.hpp"

#include "tests/cuda/attention_run.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/simt/executor.hpp"
#include "unroll/testing/simt/sdpa.hpp"

using namespace unroll;
using attention_test::attention_case;
using attention_test::attention_inputs;
using attention_test::call_of;
using attention_test::fetched;
using attention_test::moved;
using attention_test::outcome;
using attention_test::run;

namespace {

using N = unroll::numbers<bf16>;
using device = testing::simt::executor<N>;
using testing::simt::sdpa_double;
using through = exec::sdpa_executor<device, sdpa_double>;
static_assert(exec::executor<through>);

struct pair {
  device e{key{3}};
  std::shared_ptr<sdpa_double> library = std::make_shared<sdpa_double>(e.machine().memory());
  through with{e, library};
};

/// Against sums in double; limits are twice the error of a computation that rounds as PyTorch's does.
void check_values(const attention_inputs& in, const outcome& o) {
  const auto forward = attention_test::compare(in, o.out, o.log_sum, 1000);
  CHECK(forward.finite);
  CHECK(forward.ours <= 2 * forward.rounded + 1e-3);
  CHECK(forward.log_sum < 1e-5);
  const auto want = in.vjp_reference(false), rounded = in.vjp_reference(true);
  const auto close = [](const auto& x, const auto& exact, auto like) {
    for (double& u : like) u = double(float(bf16(u)));  // a library's adjoints are bfloat16
    CHECK(attention_test::distance(x, exact) <= 2 * attention_test::distance(like, exact) + 1e-3);
  };
  close(o.dq, want.dq, rounded.dq);
  close(o.dk, want.dk, rounded.dk);
  close(o.dv, want.dv, rounded.dv);
  if (in.of.blocks > 0) close(o.dprefix, want.dprefix, rounded.dprefix);
}

}  // namespace

TEST_CASE("attention through a library is attention, at the borders") {
  for (const attention_case& c : attention_test::attention_borders()) {
    INFO(c.name);
    const attention_inputs in(c, {7});
    pair p;
    const outcome o = run(p.with, in);
    check_values(in, o);
    CHECK(p.with.repaired() == 0);
    const bool bodies = c.length == 1 || (c.ordinals >= 0 && c.first >= c.ordinals);
    CHECK(p.library->forwards == (bodies ? 0 : c.sequences));
    CHECK(p.library->vjps == (bodies ? 0 : c.sequences));
    for (const exec::sdpa_shape& s : p.library->shapes) CHECK(s.keys % 128 == 0);
  }
}

TEST_CASE("a sequence through a library has the bits that it has alone") {
  attention_case c{.name = "two", .head = 8, .heads = 2, .length = 9, .sequences = 2, .blocks = 3, .keys = 4};
  c.ranges = {{0, 1, 4}, {0, 3, 4}};
  c.ordinals = 6, c.ratio = 2;
  const attention_inputs both(c, {5});
  pair p;
  const outcome together = run(p.with, both);
  check_values(both, together);
  outcome apart;
  for (int s = 0; s < 2; ++s) {
    attention_inputs one = both;
    one.of.sequences = 1;
    one.of.ranges = {c.ranges[std::size_t(s)]};
    one.columns = c.length, one.tokens = c.length;
    one.q.erase(one.q.begin(), one.q.begin() + s * c.length * one.qw);
    one.dout.erase(one.dout.begin(), one.dout.begin() + s * c.length * one.qw);
    one.k.erase(one.k.begin(), one.k.begin() + s * c.length * one.kvw);
    one.v.erase(one.v.begin(), one.v.begin() + s * c.length * one.kvw);
    const outcome o = run(p.with, one, apart.dprefix);
    const auto add = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
    add(apart.out, o.out), add(apart.dq, o.dq), add(apart.dk, o.dk), add(apart.dv, o.dv);
    add(apart.log_sum, o.log_sum);
    apart.dprefix = o.dprefix;
  }
  CHECK(together == apart);
}

TEST_CASE("what a library leaves not finite is computed again by the bodies") {
  const attention_case c{
      .name = "", .head = 64, .heads = 2, .length = 20, .sequences = 2, .blocks = 2, .keys = 5};
  const attention_inputs in(c, {9});
  pair p;
  const outcome bodies = run(p.e, in), library = run(p.with, in);
  CHECK(p.with.repaired() == 0);
  CHECK_FALSE(library == bodies);
  for (const index_t broken : {1, 3}) {  // the second sequence, forward and in the vjp
    p.library->break_in = broken;
    const outcome o = run(p.with, in);
    check_values(in, o);
    const auto second = [&](const std::vector<bf16>& x, index_t width) {
      std::vector<std::uint16_t> bits;
      for (std::size_t i = std::size_t(width * c.length); i < x.size(); ++i) bits.push_back(x[i].bits);
      return bits;
    };
    if (broken == 1) CHECK(second(o.out, in.qw) == second(bodies.out, in.qw));
    if (broken == 3) CHECK(second(o.out, in.qw) == second(library.out, in.qw));
    CHECK(p.with.repaired() == (broken + 1) / 2);
  }
  p.library->break_in = 0, p.library->break_log_sum = true;  // of the first sequence: its vjp would read it
  const outcome o = run(p.with, in);
  check_values(in, o);
  CHECK(p.with.repaired() == 3);
}

TEST_CASE("numbers that are not finite stay so through a library") {
  const attention_case c{.name = "", .head = 64, .heads = 1, .length = 8};
  attention_inputs in(c, {9});
  in.q[3 * 64].bits = 0x7fff;
  pair p;
  const outcome o = run(p.with, in), bodies = run(p.e, in);
  CHECK(std::isnan(float(o.out[3 * 64])));
  CHECK(o == bodies);
  CHECK(p.with.repaired() == 2);
}

TEST_CASE("queries, keys and values may be slices of one matrix, and the library may read keys in place") {
  const index_t head = 16, n = 128;
  pair p;
  attention_inputs in({.name = "", .head = 16, .heads = 1, .length = 128}, {4});
  const outcome packed = run(p.with, in);
  REQUIRE(p.library->shapes.size() == 2);
  CHECK(p.library->shapes[0].kv_stride == head);
  std::vector<bf16> all(std::size_t(3 * head * n));
  for (index_t j = 0; j < n; ++j)
    for (index_t i = 0; i < head; ++i) {
      all[std::size_t(3 * head * j + i)] = in.q[std::size_t(head * j + i)];
      all[std::size_t(3 * head * j + head + i)] = in.k[std::size_t(head * j + i)];
      all[std::size_t(3 * head * j + 2 * head + i)] = in.v[std::size_t(head * j + i)];
    }
  const auto qkv = moved(p.e, all), dout = moved(p.e, in.dout);
  const matrix<const bf16> m(qkv.data(), 3 * head, n);
  exec::attention_call<N> call{.shape = {1, 1, head},
                               .mask = {},
                               .q = rows_of(m, 0, head),
                               .k = rows_of(m, head, head),
                               .v = rows_of(m, 2 * head, head)};
  // the cotangent's memory becomes dq's, wide matrices those of dk and dv
  auto out = p.e.allocate<bf16>(2 * head * n), d = p.e.allocate<bf16>(3 * head * n);
  auto log_sum = p.e.allocate<float>(n);
  auto workspace = p.e.allocate<bf16>(through::attention_workspace(call.shape, {1, n, 0, 0, true}));
  const matrix<bf16> wide(out.data(), head, n, 2 * head), dall(d.data(), 3 * head, n);
  p.e.copy(matrix<const bf16>(dout.data(), head, n), rows_of(dall, 0, head));
  p.with.attention(call, wide, log_sum.data(), workspace);
  p.with.attention_vjp(call,
                       {wide, log_sum.data(), rows_of(dall, 0, head), rows_of(dall, 0, head),
                        rows_of(dall, head, head), rows_of(dall, 2 * head, head)},
                       workspace);
  CHECK(p.library->shapes[2].kv_stride == 3 * head);
  const auto o = fetched(p.e, out.data(), out.size()), g = fetched(p.e, d.data(), d.size());
  for (index_t j = 0; j < n; ++j)
    for (index_t i = 0; i < head; ++i) {
      const auto at = std::size_t(head * j + i), in_all = std::size_t(3 * head * j + i);
      REQUIRE(o[std::size_t(2 * head * j + i)].bits == packed.out[at].bits);
      REQUIRE(g[in_all].bits == packed.dq[at].bits);
      REQUIRE(g[in_all + std::size_t(head)].bits == packed.dk[at].bits);
      REQUIRE(g[in_all + std::size_t(2 * head)].bits == packed.dv[at].bits);
    }
}

TEST_CASE("the bodies compute what a library does not, and it is said why") {
  const attention_case c{.name = "", .head = 64, .heads = 2, .length = 10};
  const attention_inputs in(c, {2});
  pair p;
  const auto why = [&](const attention_inputs& x) {
    return p.with.why_bodies(call_of(x, x.q.data(), x.k.data(), x.v.data(), {}));
  };
  const outcome bodies = run(p.e, in);
  CHECK(why(in).empty());
  p.library->refusal = "because";
  CHECK(why(in) == "because");
  CHECK(run(p.with, in) == bodies);
  const through without(p.e, nullptr, "libcudnn.so.9 is not there");
  CHECK(without.why_bodies(call_of(in, in.q.data(), in.k.data(), in.v.data(), {})) ==
        "libcudnn.so.9 is not there");
  CHECK(run(without, in) == bodies);
  p.library->refusal.clear();
  const auto of = [&](attention_case other) { return why(attention_inputs(other, {1})); };
  CHECK(of({.name = "", .head = 64, .length = 1}) == "a sequence has one query");
  CHECK(of({.name = "", .head = 12, .length = 4}) == "a head has 12 numbers, not a multiple of 8 up to 128");
  CHECK(of({.name = "", .head = 256, .length = 4}) ==
        "a head has 256 numbers, not a multiple of 8 up to 128");
  CHECK(of({.name = "", .head = 8, .length = 4, .first = 9, .ordinals = 9, .ratio = 3}) ==
        "all queries are memory tokens");
}

TEST_CASE("keys are padded to few sizes") {
  for (const auto& [n, padded] : std::vector<std::pair<index_t, index_t>>{{1, 128},
                                                                          {128, 128},
                                                                          {129, 256},
                                                                          {1024, 1024},
                                                                          {2048, 2048},
                                                                          {2049, 2304},
                                                                          {4128, 4608},
                                                                          {33792, 36864}})
    CHECK(through::padded_keys(n) == padded);
  for (index_t n = 1; n < 9000; ++n) REQUIRE(through::padded_keys(n) <= through::padded_keys(n + 1));
}

TEST_CASE("attention through a library as recorded operations has the bits of its calls") {
  struct recorded : through {
    explicit recorded(const pair& p) : through(p.e, p.library) {}
    void attention(const exec::attention_call<numbers>& c, matrix<bf16> out, float* log_sum,
                   view<bf16> workspace) const {
      together(*forward, [&] { through::attention(c, out, log_sum, workspace); });
    }
    void attention_vjp(const exec::attention_call<numbers>& c, const exec::attention_adjoint<numbers>& d,
                       view<bf16> workspace) const {
      together(*vjp, [&] { through::attention_vjp(c, d, workspace); });
    }
    std::shared_ptr<device::recording> forward = std::make_shared<device::recording>(),
                                       vjp = std::make_shared<device::recording>();
  };
  const attention_case c{
      .name = "", .head = 8, .heads = 2, .length = 9, .sequences = 2, .blocks = 2, .keys = 5};
  pair p;
  const recorded lists(p);
  for (const std::uint64_t seed : {5u, 6u}) {
    const attention_inputs in(c, {seed});
    CHECK(run(lists, in) == run(p.with, in));
  }
  CHECK(p.library->forwards == 8);
  CHECK(lists.forward->size() > 0);
}
