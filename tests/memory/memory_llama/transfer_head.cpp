#include "unroll/memory/memory_llama/transfer_head.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/exec/of.hpp"
#include "unroll/llama/positions.hpp"
#include "unroll/testing/oracle.hpp"

using namespace unroll;
using namespace unroll::llama;

namespace {

using host = exec::of<double>;

std::vector<double> normals(index_t n, std::int64_t stream) {
  std::vector<double> x(std::size_t(n), 0);
  draw_normals(key{9}, stream, view<double>(x));
  return x;
}
double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Three memories of two columns of layer 1; memory b is the last but b of `kv`.
struct problem {
  static constexpr index_t count = 3, columns = 2, layer = 1;
  host e;
  config c = small_memory::shape();
  weight_map map{c};
  kernels::rotary<double> rotary = make_rotary<double>(c);
  kernels::rotary_table<double> table = rotary.table();
  lora_map lora{c, small_memory::options().transfer_head};
  std::vector<double> weights = normals(map.size(), 1), theta = normals(lora.size(), 2),
                      h = normals(c.hidden * count * columns, 3),
                      workspace = std::vector<double>(
                          std::size_t(transfer_head<host>::workspace_size(c, count*columns)));
  std::vector<index_t> positions{4, 5, 2, 3, 0, 1};

  index_t size() const { return 2 * c.kv_width() * columns; }
  transfer_head<host> head() const { return {e, map, weights.data(), {&lora, theta.data()}, table}; }
  std::span<const index_t> at(index_t b, index_t n) const {
    return std::span(positions).subspan(std::size_t(b * columns), std::size_t(n * columns));
  }
  matrix<double> of(std::vector<double>& x, index_t b, index_t n) const {
    return {x.data() + b * columns * c.hidden, c.hidden, n * columns};
  }
  template <class U>
  layer_memories<U> in(U* kv, index_t b, index_t n) const {
    return {kv + (count - 1 - b) * size(), -size(), n};
  }
  std::vector<double> forward() {
    std::vector<double> kv(std::size_t(count * size()));
    head().forward(layer, of(h, 0, count), at(0, count), in(kv.data(), 0, count), workspace);
    return kv;
  }
};

}  // namespace

TEST_CASE("the transfer head makes the keys and values of the definition") {
  problem p;
  const std::vector<double> kv = p.forward();
  const config& c = p.c;
  double wrong = 0;
  for (const layer_matrix m : {layer_matrix::k, layer_matrix::v}) {
    const index_t w = m == layer_matrix::k ? p.map[1].k : p.map[1].v, r = p.lora.rank();
    const auto f = p.lora.at(1, m);
    for (index_t j = 0; j < p.count * p.columns; ++j) {
      std::vector<double> y(std::size_t(c.kv_width()));
      for (index_t o = 0; o < c.kv_width(); ++o)
        for (index_t i = 0; i < c.hidden; ++i) {
          double x = p.weights[std::size_t(w + i + o * c.hidden)];
          for (index_t k = 0; k < r; ++k)
            x += p.lora.scale() * p.theta[std::size_t(f.a + i + k * c.hidden)] *
                 p.theta[std::size_t(f.b + k + o * r)];
          y[std::size_t(o)] += x * p.h[std::size_t(i + j * c.hidden)];
        }
      if (m == layer_matrix::k)
        p.rotary.rotate(matrix<double>(y.data(), c.kv_width(), 1),
                        std::span(p.positions).subspan(std::size_t(j), 1));
      const index_t b = j / p.columns, side = m == layer_matrix::k ? 0 : c.kv_width() * p.columns;
      for (index_t o = 0; o < c.kv_width(); ++o)
        wrong = std::max(
            wrong,
            std::abs(
                y[std::size_t(o)] -
                kv[std::size_t((p.count - 1 - b) * p.size() + side + j % p.columns * c.kv_width() + o)]));
    }
  }
  CHECK(wrong < 1e-11);
}

TEST_CASE("several memories have the bits of one by one, and so have their gradients") {
  problem p;
  const std::vector<double> kv = p.forward(), dkv = normals(p.count * p.size(), 5);
  std::vector<double> one(kv.size()), dh(p.h.size(), 0), dh_one(dh), g(p.theta.size(), 0), g_one(g);
  p.head().vjp(p.layer, p.of(p.h, 0, p.count), p.at(0, p.count), p.in(dkv.data(), 0, p.count),
               p.of(dh, 0, p.count), g.data(), p.workspace);
  for (index_t b = 0; b < p.count; ++b) {
    p.head().forward(p.layer, p.of(p.h, b, 1), p.at(b, 1), p.in(one.data(), b, 1), p.workspace);
    p.head().vjp(p.layer, p.of(p.h, b, 1), p.at(b, 1), p.in(dkv.data(), b, 1), p.of(dh_one, b, 1),
                 g_one.data(), p.workspace);
  }
  CHECK(one == kv);
  CHECK(dh == dh_one);
  CHECK(g == g_one);
}

TEST_CASE("the vjp of the transfer head is the transpose, and the slope along its adapters") {
  problem p;
  const std::vector<double> dkv = normals(p.count * p.size(), 5);
  std::vector<double> dh(p.h.size(), 0), g(p.theta.size(), 0), again(dh);
  const auto vjp = [&](std::vector<double>& to, double* da) {
    p.head().vjp(p.layer, p.of(p.h, 0, p.count), p.at(0, p.count), p.in(dkv.data(), 0, p.count),
                 p.of(to, 0, p.count), da, p.workspace);
  };
  vjp(dh, g.data());
  vjp(again, nullptr);
  CHECK(again == dh);
  CHECK(dot(dh, p.h) == Approx(dot(dkv, p.forward())).epsilon(1e-12));  // linear in h
  const std::vector<double> u = normals(index_t(p.theta.size()), 6), theta = p.theta;
  const auto moved = [&](double step) {
    for (std::size_t i = 0; i < u.size(); ++i) p.theta[i] = theta[i] + step * u[i];
    return dot(dkv, p.forward());
  };
  CHECK(dot(g, u) == Approx((moved(0.5) - moved(-0.5)) / 1.0).epsilon(1e-11));  // quadratic in (A, B)
}
