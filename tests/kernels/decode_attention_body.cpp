#include "unroll/kernels/decode_attention_body.hpp"

#include "tests/cuda/attention_case.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/simt/context.hpp"

using namespace unroll;
using namespace attention_test;

namespace {

template <int Head>
outputs run(const attention_inputs& in, key order) {
  const auto blocks = in.blocks_from(in.prefix.data());
  outputs o = poisoned(in);
  const auto flash =
      in.body<kernels::flash_attention_body<Head>>(in.q.data(), in.k.data(), in.v.data(), blocks.data(),
                                                   in.of.ranges.data(), o.out.data(), o.log_sum.data());
  const index_t keys = index_t(in.of.blocks) * in.of.keys + in.of.first + 1;
  std::vector<float> workspace(
      std::size_t(kernels::attention_shares<Head>::numbers(in.of.sequences, in.of.heads, keys)), NAN);
  const kernels::attention_shares<Head> shares{workspace.data(), kernels::key_parts::bound(keys)};
  testing::simt::run(kernels::decode_attention_body<Head>{flash.on, shares}, order);
  testing::simt::run(kernels::decode_attention_join_body<Head>{flash.on, shares, flash.out, flash.log_sum},
                     order);
  return o;
}
template <class F>
auto with_head(int head, F&& f) {
  return head == 64 ? f(std::integral_constant<int, 64>{}) : f(std::integral_constant<int, 128>{});
}

}  // namespace

TEST_CASE("attention of one token a sequence equals the double reference", "[decode_attention]") {
  using ranges = std::vector<kernels::prefix_range>;
  const attention_case cases[] = {
      {.name = "itself alone", .head = 64, .length = 1},
      {.name = "memories", .head = 128, .heads = 4, .kv_heads = 2, .length = 1, .blocks = 9, .keys = 32},
      {.name = "one key more than a part", .head = 64, .length = 1, .blocks = 1, .keys = 128},
      {.name = "parts of two tiles", .head = 64, .heads = 1, .length = 1, .blocks = 1, .keys = 8300},
      {.name = "keys of its own", .head = 128, .length = 1, .blocks = 2, .keys = 5, .first = 133},
      {.name = "very negative scores", .head = 128, .length = 1, .blocks = 4, .keys = 40, .along = 40},
      {.name = "sequences that see what is theirs",
       .head = 64,
       .length = 1,
       .sequences = 3,
       .blocks = 5,
       .keys = 70,
       .ranges = ranges{{0, 5, 70}, {3, 1, 3}, {2, 0, 0}}}};
  for (const attention_case& c : cases) {
    INFO(c.name);
    const attention_inputs in(c, {11});
    with_head(c.head, [&](auto head) {
      const outputs o = run<head.value>(in, {});
      const attention_error e = compare(in, o.out, o.log_sum, 1000);
      CHECK(e.finite);
      CHECK(e.ours <= 2 * e.rounded);
      CHECK(e.ours < 4e-3);
      CHECK(e.log_sum < 1e-6);
      const outputs other = run<head.value>(in, {5});
      CHECK(std::memcmp(o.out.data(), other.out.data(), o.out.size() * sizeof(bf16)) == 0);
      CHECK(o.log_sum == other.log_sum);
    });
  }
}

TEST_CASE("keys are dealt to at most 64 parts", "[decode_attention]") {
  using kernels::key_parts;
  for (const index_t n : {1, 128, 129, 8192, 8193, 100000}) {
    CHECK(key_parts::count(n) <= key_parts::bound(n));
    CHECK(key_parts::bound(n) <= 64);
    CHECK((key_parts::count(n) - 1) * key_parts::size(n) < n);
    CHECK(key_parts::count(n) * key_parts::size(n) >= n);
  }
  CHECK(key_parts::count(3105) == 25);
}

TEST_CASE("attention of one token has the bits of its sequence alone", "[decode_attention]") {
  const attention_case both{.name = "both",
                            .head = 64,
                            .length = 1,
                            .sequences = 2,
                            .blocks = 5,
                            .keys = 100,
                            .ranges = {{0, 1, 16}, {1, 4, 100}}};
  const attention_inputs in(both, {4});
  const outputs o = run<64>(in, {2});
  attention_inputs second = in;
  second.of.sequences = 1;
  second.of.ranges = {{1, 4, 100}};
  second.columns = second.tokens = 1;
  second.q.erase(second.q.begin(), second.q.begin() + in.qw);
  second.k.erase(second.k.begin(), second.k.begin() + in.kvw);
  second.v.erase(second.v.begin(), second.v.begin() + in.kvw);
  const outputs alone = run<64>(second, {});
  CHECK(std::memcmp(alone.out.data(), o.out.data() + in.qw, alone.out.size() * sizeof(bf16)) == 0);
}
