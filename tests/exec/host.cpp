// Every operation of exec::host against its formula in plain loops, in double to 1e-12, in float and with
// bfloat16 weights to 2e-5 of the largest magnitude.
#include "unroll/exec/host.hpp"

#include <map>

#include "tests/support/catch.hpp"

using namespace unroll;

namespace {

using list = std::vector<double>;
using host64 = exec::of<double>;
using host32 = exec::of<float>;
using mixed = exec::of<numbers<float, bf16>>;
using all_hosts = std::tuple<host64, host32, mixed>;

template <class E>
using T = typename E::numbers::activation;
template <class E>
using W = typename E::numbers::weight;

/// Numbers of size 1 that every kind holds exactly.
template <class U>
std::vector<U> drawn(index_t n, std::uint64_t seed) {
  std::vector<U> x(std::size_t(n), U(0.0f));
  for (index_t i = 0; i < n; ++i)
    x[std::size_t(i)] = U(float(bf16(draw_normal({seed}, 0, std::uint64_t(i)))));
  return x;
}
template <class U>
list plain(const std::vector<U>& x) {
  list out;
  for (const U& v : x) out.push_back(double(float(v)));
  return out;
}
list plain(const std::vector<double>& x) { return x; }
template <class U>
matrix<U> shaped(std::vector<U>& x, index_t rows, index_t cols) {
  return {x.data(), rows, cols};
}
template <class U>
matrix<const U> shaped(const std::vector<U>& x, index_t rows, index_t cols) {
  return {x.data(), rows, cols};
}

template <class U>
void check_close(const std::vector<U>& got, const list& want) {
  REQUIRE(got.size() == want.size());
  double most = 0, size = 1e-300;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double e = std::abs(double(got[i]) - want[i]);
    most = e <= most ? most : e;  // NaN counts
    size = std::max(size, std::abs(want[i]));
  }
  CHECK(most <= (std::is_same_v<U, double> ? 1e-12 : 2e-5) * size);
}

/// c (+)= op(a) op(b), a and b as they lie, c m x n.
list product(op oa, const list& a, op ob, const list& b, index_t m, index_t n, index_t k, list c) {
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < n; ++j)
      for (index_t q = 0; q < k; ++q)
        c[std::size_t(i + j * m)] += a[std::size_t(oa == op::none ? i + q * m : q + i * k)] *
                                     b[std::size_t(ob == op::none ? q + j * k : j + q * n)];
  return c;
}

}  // namespace

TEST_CASE("exec::host is an executor") {
  STATIC_REQUIRE(exec::executor<host64>);
  STATIC_REQUIRE(exec::executor<host32>);
  STATIC_REQUIRE(exec::executor<mixed>);
  STATIC_REQUIRE(std::is_same_v<exec::of<exec::host<numbers<float>>>, host32>);
  STATIC_REQUIRE(host32::where == place::host);
  const host32 e;
  auto block = e.allocate<float>(3);
  const float one[] = {1, 2, 3};
  e.upload(one, 3, block.data());
  CHECK(exec::value(e, block.data() + 2) == 3);
}

TEMPLATE_LIST_TEST_CASE("exec::host: numbers move", "", all_hosts) {
  using E = TestType;
  using U = T<E>;
  const E e;
  const auto table = drawn<W<E>>(7 * 5, 1);
  const std::vector<std::int32_t> ids = {4, 0, 4};
  std::vector<U> x(7 * 3), sums(7 * 5, U(1)), columns(7, U(2));
  e.gather_columns(shaped(table, 7, 5), ids, shaped(x, 7, 3));
  list want(7 * 5, 1), all(7, 2);
  for (std::size_t j = 0; j < 3; ++j)
    for (std::size_t i = 0; i < 7; ++i) {
      const double v = plain(table)[std::size_t(ids[j]) * 7 + i];
      CHECK(double(x[j * 7 + i]) == v);
      want[std::size_t(ids[j]) * 7 + i] += v;
      all[i] += v;
    }
  e.scatter_add_columns(shaped(x, 7, 3), ids, shaped(sums, 7, 5));
  check_close(sums, want);
  e.sum_columns(shaped(x, 7, 3), columns.data());
  check_close(columns, all);
  e.copy(columns_of(shaped(x, 7, 3), 1, 2), columns_of(shaped(x, 7, 3), 0, 2));  // to the front
  CHECK(double(x[0]) == plain(table)[0]);
  e.fill(part(shaped(x, 7, 3), 1, 2, 1, 1), 9);
  CHECK((x[8] == 9 && x[9] == 9 && x[7] != 9 && x[10] != 9));
}

TEMPLATE_LIST_TEST_CASE("exec::host: vectors and their sums", "", all_hosts) {
  using U = T<TestType>;
  const TestType e;
  const auto x = drawn<U>(1003, 2), y = drawn<U>(1003, 3);
  const list px = plain(x), py = plain(y);
  list want = py;
  double sum = 0, dot = 0, squares = 0;
  for (std::size_t i = 0; i < px.size(); ++i) {
    want[i] = -0.5 * (py[i] + 2 * px[i]);
    sum += px[i];
    dot += px[i] * py[i];
    squares += px[i] * px[i];
  }
  std::vector<U> z = y, out(4);
  e.axpy(2, x.data(), z.data(), 1003);
  e.scale(-0.5, z.data(), 1003);
  check_close(z, want);
  e.sum(x.data(), 1003, &out[0]);
  e.dot(x.data(), y.data(), 1003, &out[1]);
  e.norm(x.data(), 1003, &out[2]);
  out.resize(3);
  check_close(out, {sum, dot, std::sqrt(squares)});
  const auto finite = [&](const std::vector<U>& v, int power) {
    U ok = 5;
    e.all_finite(v.data(), index_t(v.size()), power, &ok);
    return ok;
  };
  CHECK(finite(x, 1) == 1);
  std::vector<U> bad = x;
  bad[500] = std::numeric_limits<U>::max();
  CHECK(finite(bad, 1) == 1);
  CHECK(finite(bad, 2) == 0);
  bad[500] = std::numeric_limits<U>::quiet_NaN();
  CHECK(finite(bad, 1) == 0);
}

TEMPLATE_LIST_TEST_CASE("exec::host: products and adapters", "", all_hosts) {
  using E = TestType;
  using U = T<E>;
  const E e;
  for (const op oa : {op::none, op::transpose})
    for (const bool add : {false, true})
      for (const index_t n : {1, 6}) {
        CAPTURE(int(oa), add, n);
        const auto a = drawn<W<E>>(13 * 9, 4);
        const auto b = drawn<U>(9 * n, 5);
        auto c = drawn<U>(13 * n, 6);
        const list want =
            product(oa, plain(a), op::none, plain(b), 13, n, 9, add ? plain(c) : list(c.size()));
        e.gemm(oa, oa == op::none ? shaped(a, 13, 9) : shaped(a, 9, 13), op::none, shaped(b, 9, n), add,
               shaped(c, 13, n));
        check_close(c, want);
      }

  // y += scale b' (a' x) and its vjp, of a rank above a slice
  const index_t in = 6, out = 5, rank = 70, n = 4;
  const auto a = drawn<U>(in * rank, 7), b = drawn<U>(rank * out, 8), x = drawn<U>(in * n, 9),
             dy = drawn<U>(out * n, 10);
  auto y = drawn<U>(out * n, 11), dx = drawn<U>(in * n, 12), da = drawn<U>(in * rank, 13),
       db = drawn<U>(rank * out, 14);
  const double scale = 0.25;
  const auto times = [&](list v) {
    for (double& u : v) u *= scale;
    return v;
  };
  const list z = times(product(op::transpose, plain(a), op::none, plain(x), rank, n, in, list(rank * n)));
  const list dz = times(product(op::none, plain(b), op::none, plain(dy), rank, n, out, list(rank * n)));
  const list want_y = product(op::transpose, plain(b), op::none, z, out, n, rank, plain(y));
  const list want_dx = product(op::none, plain(a), op::none, dz, in, n, rank, plain(dx));
  const list want_da = product(op::none, plain(x), op::transpose, dz, in, rank, n, plain(da));
  const list want_db = product(op::none, z, op::transpose, plain(dy), rank, out, n, plain(db));
  std::vector<U> workspace(std::size_t(E::adapter_workspace(in + out, n, true)));
  const exec::adapter<U> l{shaped(a, in, rank), shaped(b, rank, out), scale};
  e.adapt(l, shaped(x, in, n), shaped(y, out, n), workspace);
  e.adapt_vjp(l,
              {shaped(x, in, n),
               shaped(dy, out, n),
               shaped(dx, in, n),
               {shaped(da, in, rank), shaped(db, rank, out)},
               2},
              workspace);
  check_close(y, want_y);
  check_close(dx, want_dx);
  check_close(da, want_da);
  check_close(db, want_db);
}

TEMPLATE_LIST_TEST_CASE("exec::host: norm, positions, swiglu", "", all_hosts) {
  using E = TestType;
  using U = T<E>;
  const E e;
  const index_t d = 530, n = 3;  // more gains than are widened at a time
  const auto x = drawn<U>(d * n, 20), dy = drawn<U>(d * n, 21);
  const auto gain = drawn<W<E>>(d, 22);
  auto dx = drawn<U>(d * n, 23), dgain = drawn<U>(d, 24);
  std::vector<U> y(x.size()), rstd(std::size_t(n), U(0));
  const list px = plain(x), pg = plain(gain), pd = plain(dy);
  list wy(px.size()), wr, wdx = plain(dx), wdg = plain(dgain);
  for (std::size_t j = 0; j < std::size_t(n); ++j) {
    double squares = 0, along = 0;
    for (std::size_t i = 0; i < std::size_t(d); ++i) squares += px[j * d + i] * px[j * d + i];
    const double r = 1 / std::sqrt(squares / double(d) + 0.01);
    wr.push_back(r);
    for (std::size_t i = 0; i < std::size_t(d); ++i)
      along += pg[i] * pd[j * d + i] * px[j * d + i] / double(d);
    for (std::size_t i = 0; i < std::size_t(d); ++i) {
      wy[j * d + i] = pg[i] * px[j * d + i] * r;
      wdx[j * d + i] += r * pg[i] * pd[j * d + i] - px[j * d + i] * r * r * r * along;
      wdg[i] += pd[j * d + i] * px[j * d + i] * r;
    }
  }
  e.rmsnorm(shaped(x, d, n), gain.data(), 0.01, shaped(y, d, n), rstd.data());
  e.rmsnorm_vjp(shaped(x, d, n), gain.data(), rstd.data(), shaped(dy, d, n), shaped(dx, d, n), dgain.data());
  check_close(y, wy);
  check_close(rstd, wr);
  check_close(dx, wdx);
  check_close(dgain, wdg);

  // three tokens at the positions 5, 0, 5 of two heads of four
  const kernels::rotary<U> rotary(4, 10, false, 6);
  auto q = drawn<U>(8 * 3, 25);
  const auto before = plain(q);
  const std::vector<index_t> at = {5, 0};
  e.rotary(kernels::turn::forward, rotary.table(), at, shaped(q, 8, 3));
  list turned = before;
  for (std::size_t j = 0; j < 3; ++j)
    for (std::size_t h = 0; h < 2; ++h)
      for (std::size_t i = 0; i < 2; ++i) {
        const double angle = double(at[j % 2]) * std::pow(10.0, -2.0 * double(i) / 4);
        const double u = before[j * 8 + h * 4 + i], v = before[j * 8 + h * 4 + i + 2];
        turned[j * 8 + h * 4 + i] = u * std::cos(angle) - v * std::sin(angle);
        turned[j * 8 + h * 4 + i + 2] = v * std::cos(angle) + u * std::sin(angle);
      }
  check_close(q, turned);
  e.rotary(kernels::turn::back, rotary.table(), at, shaped(q, 8, 3));
  check_close(q, before);

  const index_t m = 9;
  const auto gated = drawn<U>(2 * m * n, 26), dout = drawn<U>(m * n, 27);
  std::vector<U> active(std::size_t(m * n)), dgated(gated.size());
  const list g = plain(gated), o = plain(dout);
  list wa(active.size()), wd(gated.size());
  for (std::size_t j = 0; j < std::size_t(n); ++j)
    for (std::size_t i = 0; i < std::size_t(m); ++i) {
      const double a = g[j * 2 * m + i], u = g[j * 2 * m + m + i], s = 1 / (1 + std::exp(-a));
      wa[j * m + i] = u * a * s;
      wd[j * 2 * m + i] = o[j * m + i] * u * s * (1 + a * (1 - s));
      wd[j * 2 * m + m + i] = o[j * m + i] * a * s;
    }
  e.swiglu(shaped(gated, 2 * m, n), shaped(active, m, n));
  check_close(active, wa);
  e.copy(shaped(dout, m, n), rows_of(shaped(dgated, 2 * m, n), m, m));  // dout in the half of dup
  e.swiglu_vjp(shaped(gated, 2 * m, n), rows_of(shaped(std::as_const(dgated), 2 * m, n), m, m),
               shaped(dgated, 2 * m, n));
  check_close(dgated, wd);
}

namespace {

/// Two sequences of five tokens, of which the last three have queries; two heads over one; the first sees two
/// blocks of a prefix, the second two keys of the second block.
template <class U>
struct attending {
  static constexpr index_t length = 5, first = 2, queries = 3, head = 4, heads = 2, keys = 3, columns = 4;
  std::vector<U> q = drawn<U>(heads * head * 2 * queries, 30), k = drawn<U>(head * 2 * length, 31),
                 v = drawn<U>(head * 2 * length, 32), dout = drawn<U>(heads * head * 2 * queries, 33);
  std::vector<std::vector<U>> blocks = {drawn<U>(2 * head * columns, 34), drawn<U>(2 * head * columns, 35)};
  std::vector<kernels::prefix_range> ranges = {{0, 2, 3}, {1, 1, 2}};
  kernels::attention_mask mask;

  /// f(address of k, address of v, of which block or -1, offsets) for every key that a query sees.
  template <class F>
  void seen(index_t s, index_t i, F&& f) const {
    for (index_t b = 0; b < ranges[std::size_t(s)].blocks; ++b)
      for (index_t t = 0; t < ranges[std::size_t(s)].keys; ++t)
        f(ranges[std::size_t(s)].first + b, t * head, (columns + t) * head);
    for (index_t t = 0; t < length; ++t) {
      const index_t token = first + i;
      const bool own = t == token;
      const bool shown = mask.ordinals < 0 || token < mask.ordinals
                             ? t <= token
                             : own || t < std::min(mask.ordinals, (token - mask.ordinals + 1) * mask.ratio);
      if (shown) f(index_t(-1), (s * length + t) * head, (s * length + t) * head);
    }
  }
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("exec::host: attention with prefixes, either mask", "", all_hosts) {
  using E = TestType;
  using U = T<E>;
  const E e;
  for (const kernels::attention_mask mask : {kernels::attention_mask{}, kernels::attention_mask{3, 1}}) {
    attending<U> in;
    in.mask = mask;
    constexpr index_t head = in.head, heads = in.heads, n = 2 * in.queries, length = in.length;
    list out(in.q.size()), log_sum, dq(in.q.size()), dk(in.k.size()), dv(in.k.size());
    std::vector<list> dblocks(2, list(in.blocks[0].size(), 1));  // added to
    const list q = plain(in.q), dout = plain(in.dout);
    const auto number = [&](index_t block, bool value, index_t at) {
      return double(block < 0 ? (value ? in.v : in.k)[std::size_t(at)]
                              : in.blocks[std::size_t(block)][std::size_t(at)]);
    };
    for (index_t c = 0; c < n; ++c)
      for (index_t h = 0; h < heads; ++h) {
        const std::size_t at = std::size_t(c * heads * head + h * head);
        const index_t s = c / in.queries, i = c % in.queries;
        const double root = 1 / std::sqrt(double(head));
        double total = 0, along = 0;
        const auto score = [&](index_t block, index_t k) {
          double sum = 0;
          for (std::size_t x = 0; x < std::size_t(head); ++x)
            sum += q[at + x] * number(block, false, k + index_t(x));
          return sum * root;
        };
        in.seen(s, i, [&](index_t block, index_t k, index_t) { total += std::exp(score(block, k)); });
        log_sum.push_back(std::log(total));
        in.seen(s, i, [&](index_t block, index_t k, index_t v) {
          const double p = std::exp(score(block, k)) / total;
          for (std::size_t x = 0; x < std::size_t(head); ++x)
            out[at + x] += p * number(block, true, v + index_t(x));
        });
        for (std::size_t x = 0; x < std::size_t(head); ++x) along += out[at + x] * dout[at + x];
        in.seen(s, i, [&](index_t block, index_t k, index_t v) {
          const double p = std::exp(score(block, k)) / total;
          double dp = 0;
          for (std::size_t x = 0; x < std::size_t(head); ++x)
            dp += dout[at + x] * number(block, true, v + index_t(x));
          const double ds = p * (dp - along) * root;
          list& to_k = block < 0 ? dk : dblocks[std::size_t(block)];
          list& to_v = block < 0 ? dv : dblocks[std::size_t(block)];
          for (std::size_t x = 0; x < std::size_t(head); ++x) {
            to_v[std::size_t(v) + x] += p * dout[at + x];
            to_k[std::size_t(k) + x] += ds * q[at + x];
            dq[at + x] += ds * number(block, false, k + index_t(x));
          }
        });
      }

    const std::vector<const U*> blocks = {in.blocks[0].data(), in.blocks[1].data()};
    exec::attention_call<typename E::numbers> call;
    call.shape = {heads, 1, head};
    call.mask = mask;
    call.mask.first = in.first;
    call.sequences = 2;
    call.q = shaped(std::as_const(in.q), heads * head, n);
    call.k = shaped(std::as_const(in.k), head, 2 * length);
    call.v = shaped(std::as_const(in.v), head, 2 * length);
    call.before = {blocks, 0, head * in.columns, in.keys, in.ranges};
    std::vector<U> got(in.q.size()), lse(std::size_t(heads * n)), gq(in.q.size()), gk(in.k.size()),
        gv(in.k.size());
    std::vector<std::vector<U>> gblocks(2, std::vector<U>(in.blocks[0].size(), U(1)));
    const std::vector<U*> addresses = {gblocks[0].data(), gblocks[1].data()};
    std::vector<U> workspace(std::size_t(E::attention_workspace(call.shape, {2, length, 2, in.keys, true})));
    e.attention(call, shaped(got, heads * head, n), lse.data(), workspace);
    check_close(got, out);
    check_close(lse, log_sum);
    e.attention_vjp(call,
                    {shaped(std::as_const(got), heads * head, n), lse.data(),
                     shaped(std::as_const(in.dout), heads * head, n), shaped(gq, heads * head, n),
                     shaped(gk, head, 2 * length), shaped(gv, head, 2 * length), addresses},
                    workspace);
    check_close(gq, dq);
    check_close(gk, dk);
    check_close(gv, dv);
    check_close(gblocks[0], dblocks[0]);
    check_close(gblocks[1], dblocks[1]);
  }
}

TEMPLATE_LIST_TEST_CASE("exec::host: cross entropy and the choice of a token", "", all_hosts) {
  using E = TestType;
  using U = T<E>;
  const E e;
  const index_t d = 6, V = 11, n = 3;
  const auto output = drawn<W<E>>(d * V, 40);
  const auto h = drawn<U>(d * n, 41);
  const std::vector<std::int32_t> targets = {3, -1, 10};
  auto dlm_head = drawn<U>(d * V, 42);
  list logits = product(op::transpose, plain(output), op::none, plain(h), V, n, d, list(V * n)), losses(n),
       delta(V * n);
  for (std::size_t j = 0; j < std::size_t(n); ++j) {
    if (targets[j] < 0) continue;
    double total = 0;
    for (std::size_t v = 0; v < std::size_t(V); ++v) total += std::exp(logits[j * V + v]);
    losses[j] = std::log(total) - logits[j * V + std::size_t(targets[j])];
    for (std::size_t v = 0; v < std::size_t(V); ++v)
      delta[j * V + v] = 1.5 * (std::exp(logits[j * V + v]) / total - (v == std::size_t(targets[j])));
  }
  const list dh = product(op::none, plain(output), op::none, delta, d, n, V, list(d * n));
  const list dw = product(op::none, plain(h), op::transpose, delta, d, V, n, plain(dlm_head));
  std::vector<U> workspace(std::size_t(E::cross_entropy_workspace(d, V, n))), got(std::size_t(n), U(0)),
      dnormed(std::size_t(d * n));
  const exec::cross_entropy_call<typename E::numbers> call{shaped(output, d, V), shaped(h, d, n), targets,
                                                           got.data()};
  e.cross_entropy(call, workspace);
  check_close(got, losses);
  std::fill(got.begin(), got.end(), U(7));
  e.cross_entropy_vjp(call, {1.5, shaped(dnormed, d, n), dlm_head.data()}, workspace);
  check_close(got, losses);
  check_close(dnormed, dh);
  check_close(dlm_head, dw);

  std::vector<U> some = {U(0.5), U(2), U(2), U(-1)}, for_draws(std::size_t(E::sample_workspace(4)));
  std::int32_t token = -1;
  e.argmax(some.data(), 4, &token);
  CHECK(token == 1);
  std::map<std::int32_t, int> counts, nucleus;
  for (std::int64_t i = 0; i < 4000; ++i) {
    e.sample(some.data(), 4, {2, 1}, key{5}, i, for_draws, &token);
    ++counts[token];
    e.sample(some.data(), 4, {2, 0.6}, key{6}, i, for_draws, &token);
    ++nucleus[token];
  }
  double total = 0;
  for (const U x : some) total += std::exp(double(x) / 2);
  for (std::int32_t t = 0; t < 4; ++t) {
    const double p = std::exp(double(some[std::size_t(t)]) / 2) / total;
    CHECK(std::abs(counts[t] - 4000 * p) < 5 * std::sqrt(4000 * p * (1 - p)));
  }
  CHECK((nucleus.size() == 2 && nucleus[1] > 1800 && nucleus[2] > 1800));
  e.sample(some.data(), 4, {0, 1}, key{5}, 0, for_draws, &token);
  CHECK(token == 1);
}

TEMPLATE_LIST_TEST_CASE("exec::host: random numbers and optimisers", "", all_hosts) {
  using U = T<TestType>;
  const TestType e;
  const index_t n = 37;
  std::vector<U> x(std::size_t(n), U(0)), y(x);
  e.signs(key{3}, 4, x.data(), n);
  draw_signs(key{3}, 4, view<U>(y));
  CHECK(x == y);
  e.normals(key{3}, 4, x.data(), n);
  for (index_t i = 0; i < n; ++i) CHECK(x[std::size_t(i)] == U(draw_normal(key{3}, 4, std::uint64_t(i))));

  const auto theta = drawn<U>(n, 50), g = drawn<U>(n, 51), m = drawn<U>(n, 52);
  auto v = drawn<U>(n, 53);
  for (U& a : v) a *= a;
  const list pt = plain(theta), pg = plain(g), pm = plain(m);
  list pv, sgd, velocity, heavy, nesterov, am, av, adam, clipped;
  double squares = 0;
  for (const double a : pg) squares += a * a;
  for (std::size_t i = 0; i < std::size_t(n); ++i) {
    pv.push_back(double(v[i]));
    sgd.push_back(pt[i] - 0.1 * pg[i]);
    velocity.push_back(0.9 * pm[i] + pg[i]);
    heavy.push_back(pt[i] - 0.1 * velocity[i]);
    nesterov.push_back(pt[i] - 0.1 * (pg[i] + 0.9 * velocity[i]));
    am.push_back(0.8 * pm[i] + 0.2 * pg[i]);
    av.push_back(0.9 * pv[i] + 0.1 * pg[i] * pg[i]);
    adam.push_back(
        pt[i] - 0.1 * (am[i] / (1 - std::pow(0.8, 3)) / (std::sqrt(av[i] / (1 - std::pow(0.9, 3))) + 0.01) +
                       0.3 * pt[i]));
    clipped.push_back(pg[i] * 2 / std::sqrt(squares));
  }
  const U yes = 1, no = 0;
  const exec::adamw_step step{0.1, 0.8, 0.9, 0.01, 0.3, 3};
  auto t = theta, a = m, b = v;
  e.sgd(0.1, {t.data(), g.data(), n, &yes});
  check_close(t, sgd);
  t = theta;
  e.momentum({0.1, 0.9, false}, {t.data(), g.data(), n, nullptr}, a.data());
  check_close(t, heavy);
  check_close(a, velocity);
  t = theta, a = m;
  e.momentum({0.1, 0.9, true}, {t.data(), g.data(), n, &yes}, a.data());
  check_close(t, nesterov);
  t = theta, a = m;
  e.adamw(step, {t.data(), g.data(), n, &yes}, a.data(), b.data());
  check_close(t, adam);
  check_close(a, am);
  check_close(b, av);
  t = theta, a = m, b = v;
  e.sgd(0.1, {t.data(), g.data(), n, &no});
  e.momentum({}, {t.data(), g.data(), n, &no}, a.data());
  e.adamw(step, {t.data(), g.data(), n, &no}, a.data(), b.data());
  CHECK((t == theta && a == m && b == v));

  U norm = 0;
  t = g;
  e.clip(2, t.data(), n, &norm);
  check_close(t, clipped);
  check_close(std::vector<U>{norm}, {std::sqrt(squares)});
  t = g;
  e.clip(1e3, t.data(), n, &norm);
  CHECK(t == g);
  constexpr U inf = std::numeric_limits<U>::infinity();
  t = {-2, U(0.1), 0, inf, -inf, U(-0.1), std::numeric_limits<U>::quiet_NaN(), 3};
  e.clamp(0.1, t.data(), 7);
  CHECK((std::isnan(t[6]) && t[7] == 3));
  t[6] = 0;
  CHECK(t == std::vector<U>{U(-0.1), U(0.1), 0, inf, -inf, U(-0.1), 0, 3});
}
