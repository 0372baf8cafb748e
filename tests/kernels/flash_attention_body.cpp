#include "unroll/kernels/flash_attention_body.hpp"

#include "tests/cuda/attention_run.hpp"
#include "tests/support/catch.hpp"
#include "unroll/testing/simt/context.hpp"

using namespace unroll;
using namespace attention_test;

namespace {

template <class Body>
outputs run(const attention_inputs& in, key order) {
  const auto blocks = in.blocks_from(in.prefix.data());
  outputs o = poisoned(in);
  testing::simt::run(in.body<Body>(in.q.data(), in.k.data(), in.v.data(), blocks.data(), in.of.ranges.data(),
                                   o.out.data(), o.log_sum.data()),
                     order);
  return o;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <int Head>
void check_borders(const attention_case& c) {
  INFO(c.name);
  const attention_inputs in(c, {11});
  const outputs o = run<kernels::flash_attention_body<Head>>(in, {});
  const attention_error e = compare(in, o.out, o.log_sum, 1000);
  CHECK(e.finite);
  CHECK(e.ours <= 2 * e.rounded);
  CHECK(e.ours < 4e-3);
  CHECK(e.log_sum < 6e-6);
  if (c.along != 0) CHECK(o.log_sum.back() < -88.7f);
  // the order of threads, how many queries a block has, and products by four warps change no bit
  const outputs other = run<kernels::flash_attention_body<Head, 3, true>>(in, {5});
  CHECK(same_bits(o.out, other.out));
  CHECK(same_bits(o.log_sum, other.log_sum));
  const outputs large = run<kernels::flash_attention_body<Head, 2, true, 128>>(in, {7});
  const attention_error of_large = compare(in, large.out, large.log_sum, 1000);
  CHECK(of_large.finite);
  CHECK(of_large.ours <= 2 * of_large.rounded);
}

/// Adjoints by bodies of one group or more, with an order of threads.
template <int Head, int Groups, bool Together>
outcome vjp_of(const attention_inputs& in, const outputs& o, key order) {
  outcome a;
  std::vector<float> delta(o.log_sum.size(), NAN);
  a.dprefix.assign(in.prefix.size(), 0.0f);
  a.dk = poisoned(std::size_t(in.kvw * in.tokens)), a.dv = poisoned(a.dk.size());
  a.dq = poisoned(std::size_t(in.qw * in.columns));
  std::copy_n(in.q.begin(), a.dq.size(), a.dq.begin());  // in its place
  const auto blocks = in.blocks_from(in.prefix.data());
  const auto dblocks = in.blocks_from(a.dprefix.data());
  const auto on =
      in.body<kernels::flash_attention_body<Head>>(a.dq.data(), in.k.data(), in.v.data(), blocks.data(),
                                                   in.of.ranges.data(), nullptr, nullptr)
          .on;
  run_vjp<Head, Groups, Groups, Together>(in, on, o.out.data(), o.log_sum.data(), in.dout.data(),
                                          delta.data(), a.dq.data(), a.dk.data(), a.dv.data(), dblocks.data(),
                                          [&](const auto& body) { testing::simt::run(body, order); });
  return a;
}

template <int Head>
void check_vjp(const attention_case& c) {
  INFO(c.name);
  const attention_inputs in(c, {11});
  const outputs o = run<kernels::flash_attention_body<Head>>(in, {});
  const outcome a = vjp_of<Head, 1, false>(in, o, {3});
  const auto want = in.vjp_reference(false), rounded = in.vjp_reference(true);
  CHECK(distance(a.dq, want.dq) <= 2 * distance(rounded.dq, want.dq));
  CHECK(distance(a.dk, want.dk) <= 2 * distance(rounded.dk, want.dk));
  CHECK(distance(a.dv, want.dv) <= 2 * distance(rounded.dv, want.dv));
  CHECK(distance(a.dprefix, want.dprefix) <= 2 * distance(rounded.dprefix, want.dprefix));
  // the order of threads, and products by four warps of two groups, change no bit
  CHECK(vjp_of<Head, 2, true>(in, o, {8}) == a);
}

}  // namespace

TEST_CASE("the vjp of attention on tensor cores equals the double reference at its borders",
          "[flash_attention]") {
  for (const attention_case& c : attention_borders())
    if (c.head == 64)
      check_vjp<64>(c);
    else
      check_vjp<128>(c);
}

TEST_CASE("attention on tensor cores equals the double reference at its borders", "[flash_attention]") {
  for (const attention_case& c : attention_borders())
    if (c.head == 64)
      check_borders<64>(c);
    else
      check_borders<128>(c);
}

TEST_CASE("the first query of attention on tensor cores sees the prefix and itself", "[flash_attention]") {
  const attention_inputs in({.name = "by hand", .head = 64, .heads = 1, .length = 3, .blocks = 1, .keys = 2},
                            {3});
  attention_inputs flat = in;  // all scores 0: out is the mean of the values that are seen
  for (bf16& x : flat.q) x = bf16(0.0f);
  const auto o = run<kernels::flash_attention_body<64>>(flat, {});
  const auto value = [](const std::vector<bf16>& m, int column, int d) {
    return double(float(m[std::size_t(column * 64 + d)]));
  };
  for (int d = 0; d < 64; ++d) {
    const double before = value(in.prefix, 2, d) + value(in.prefix, 3, d);
    CHECK(value(o.out, 0, d) == Approx((before + value(in.v, 0, d)) / 3).margin(0.01));
  }
  CHECK(double(o.log_sum[0]) == Approx(std::log(3.0)));
  CHECK(double(o.log_sum[2]) == Approx(std::log(5.0)));
}

TEST_CASE("a query whose scores are not finite becomes NaN, the others keep their bits",
          "[flash_attention]") {
  const attention_inputs in({.name = "by hand", .head = 64, .heads = 1, .kv_heads = 1, .length = 150}, {3});
  const outputs want = run<kernels::flash_attention_body<64>>(in, {});
  for (const float bad : {NAN, INFINITY})
    for (const std::size_t row : {std::size_t(70), std::size_t(149)}) {
      attention_inputs broken = in;
      broken.q[row * 64 + 5] = bf16(bad);
      const outputs got = run<kernels::flash_attention_body<64>>(broken, {});
      for (std::size_t i = 0; i < 150; ++i) {
        CHECK(std::isnan(got.log_sum[i]) == (i == row));
        CHECK(std::isnan(float(got.out[i * 64])) == (i == row));
        if (i != row) CHECK(got.log_sum[i] == want.log_sum[i]);
      }
    }
}

TEST_CASE("a block of attention has room in the shared memory of every device", "[flash_attention]") {
  using namespace kernels;
  constexpr index_t most = 99 * 1024;  // of compute capability 8.6 and 8.9, which have the least from 8.0 on
  CHECK(flash_attention_body<128, 1, false, 64>().shared_bytes() == 81920);
  CHECK(flash_dkv_body<128, false, 1, false>().shared_bytes() == 66048);
  CHECK(flash_dkv_body<128, true, 1, false>().shared_bytes() == 66048);
  CHECK(flash_dq_body<128, 1, false, 64>().shared_bytes() == 98304);
  CHECK(flash_dq_body<128, 1, false, 64>().shared_bytes() <= most);
  CHECK(flash_dq_body<64, 1, false, 64>().shared_bytes() <= most);
  constexpr index_t of_hopper = 227 * 1024;  // by wgmma
  CHECK(flash_attention_body<128, 2, true, 128>().shared_bytes() <= of_hopper);
  CHECK(flash_dkv_body<128, false, 2, true>().shared_bytes() <= of_hopper);
  CHECK(flash_dq_body<128, 2, true, 64>().shared_bytes() <= of_hopper);
}

TEST_CASE("attention on tensor cores of sequences without tokens writes nothing", "[flash_attention]") {
  const attention_inputs in(
      {.name = "empty", .head = 64, .length = 0, .sequences = 2, .blocks = 2, .keys = 8}, {3});
  const outputs o = run<kernels::flash_attention_body<64>>(in, {});
  CHECK(o.out.empty());
  const outcome a = vjp_of<64, 1, false>(in, o, {3});
  CHECK(a.dk.empty());
  CHECK(a.dprefix == std::vector<float>(in.prefix.size(), 0.0f));
}

TEST_CASE("a sequence of attention on tensor cores has the bits of itself alone", "[flash_attention]") {
  const attention_case both{.name = "both",
                            .head = 64,
                            .length = 40,
                            .sequences = 2,
                            .blocks = 3,
                            .keys = 16,
                            .ranges = {{0, 1, 16}, {1, 2, 16}}};
  const attention_inputs in(both, {4});
  const outputs o = run<kernels::flash_attention_body<64>>(in, {2});
  attention_inputs second = in;
  second.of.sequences = 1;
  second.of.ranges = {{1, 2, 16}};
  second.columns = second.tokens = 40;
  second.q.erase(second.q.begin(), second.q.begin() + 40 * in.qw);
  second.k.erase(second.k.begin(), second.k.begin() + 40 * in.kvw);
  second.v.erase(second.v.begin(), second.v.begin() + 40 * in.kvw);
  const outputs alone = run<kernels::flash_attention_body<64>>(second, {});
  CHECK(std::memcmp(alone.out.data(), o.out.data() + 40 * in.qw, alone.out.size() * sizeof(bf16)) == 0);
}
