#include "unroll/llama/lora.hpp"

#include <Eigen/Core>

#include "tests/llama/small_llama.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/plain_llama.hpp"
#include "unroll/llama/generate.hpp"
#include "unroll/llama/lora_product.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;
using tests::normals;
using tests::small_llama;

namespace {

using host = exec::of<double>;

double at(const matrix<const double>& m, index_t i, index_t j) { return m.data[i + j * m.stride]; }

}  // namespace

TEST_CASE("adapters lie one behind the other, under the names of PEFT") {
  const config c = small_llama();
  const lora_map map(
      c, {.rank = 3, .adapted = {true, false, false, false, false, false, true}, .first_layer = 1});
  const auto q = map.at(1, layer_matrix::q), down = map.at(1, layer_matrix::down);
  CHECK((q.in == c.hidden && q.out == c.query_width()));
  CHECK((down.in == c.intermediate_size && down.out == c.hidden));
  CHECK((q.a == 0 && q.b == 3 * q.in && down.a == q.b + 3 * q.out && down.b == down.a + 3 * down.in));
  CHECK(map.size() == down.b + 3 * down.out);
  CHECK((map.at(0, layer_matrix::q).a == -1 && map.at(1, layer_matrix::k).a == -1));
  CHECK((lora_map().size() == 0 && lora_map().at(1, layer_matrix::q).a == -1));
  const layout_block& b = map.names().at("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight");
  CHECK((b.offset == down.b && b.rows == 3 && b.cols == c.hidden));
  CHECK_THROWS_WITH(lora_map(c, {.rank = 0}), ContainsSubstring("rank: is 0"));
  CHECK_THROWS_WITH(lora_map(c, {.first_layer = -1}), ContainsSubstring("first_layer"));
  CHECK_THROWS_WITH(lora_map(c, {.first_layer = 1, .layers = 2}),
                    ContainsSubstring("end at 3, the model has 2"));
}

TEST_CASE("adapters begin at the frozen model, or with a B that is not zero") {
  const lora_map map(small_llama(), {.rank = 50});
  parameters<double> theta(map.size()), other(map.size());
  init_lora<double>(map, theta, key{3});
  init_lora<double>(map, other, key{3}, 0.25);
  for (const layout_block& b : map.names().blocks()) {
    CAPTURE(b.name);
    const auto deviation = [&](const parameters<double>& of) {
      double squares = 0;
      for (index_t i = 0; i < b.size(); ++i) squares += of[b.offset + i] * of[b.offset + i];
      return std::sqrt(squares / double(b.size()));
    };
    const bool is_a = b.name.ends_with("lora_A.weight");
    CHECK(deviation(theta) == Approx(is_a ? 1 / std::sqrt(double(b.rows)) : 0).epsilon(0.15));
    CHECK(deviation(other) == Approx(is_a ? 1 / std::sqrt(double(b.rows)) : 0.25).epsilon(0.15));
  }
  CHECK_THROWS_WITH(init_lora<double>(map, params<double>(theta).part(0, 5), key{3}),
                    ContainsSubstring("init_lora: theta: has size 5"));
}

TEST_CASE("a product with an adapter and its vjp are those of the definition, for every matrix") {
  const config c = small_llama();
  const lora_map map(c, {.rank = 3, .alpha = 6, .adapted = {true, true, true, true, true, true, true}});
  const auto theta = normals<double>(map.size(), 1, 0.5);
  const index_t n = 6, r = 3;
  const double scale = 2;
  const host e;
  for (int number = 0; number < 7; ++number) {
    const auto m = layer_matrix(number);
    CAPTURE(number);
    const auto f = map.at(1, m);
    std::vector<double> workspace(std::size_t(host::adapter_workspace(f.in + f.out, n, true)));
    const lora_product<host> product{e, {&map, theta.data()}, 1, workspace};
    auto x = normals<double>(f.in * n, 2, 1), dy = normals<double>(f.out * n, 3, 1);
    auto y = normals<double>(f.out * n, 4, 1), dx = normals<double>(f.in * n, 5, 1);
    auto g = normals<double>(map.size(), 6, 1);
    const auto y0 = y, dx0 = dx, g0 = g;
    const matrix<const double> X(x.data(), f.in, n), DY(dy.data(), f.out, n), a(theta.data() + f.a, f.in, r),
        b(theta.data() + f.b, r, f.out);
    product.add(m, X, matrix<double>(y.data(), f.out, n));
    product.add_vjp(m, X, DY, matrix<double>(dx.data(), f.in, n), g.data(), 2);

    std::vector<double> z(std::size_t(r * n)), dz(z.size());  // A' x and scale B dy
    for (index_t j = 0; j < n; ++j)
      for (index_t k = 0; k < r; ++k) {
        for (index_t i = 0; i < f.in; ++i) z[std::size_t(k + j * r)] += at(a, i, k) * at(X, i, j);
        for (index_t i = 0; i < f.out; ++i) dz[std::size_t(k + j * r)] += scale * at(b, k, i) * at(DY, i, j);
      }
    double wrong = 0;
    for (index_t j = 0; j < n; ++j) {
      for (index_t i = 0; i < f.out; ++i) {
        double sum = y0[std::size_t(i + j * f.out)];
        for (index_t k = 0; k < r; ++k) sum += scale * at(b, k, i) * z[std::size_t(k + j * r)];
        wrong = std::max(wrong, std::abs(sum - y[std::size_t(i + j * f.out)]));
      }
      for (index_t i = 0; i < f.in; ++i) {
        double sum = dx0[std::size_t(i + j * f.in)];
        for (index_t k = 0; k < r; ++k) sum += at(a, i, k) * dz[std::size_t(k + j * r)];
        wrong = std::max(wrong, std::abs(sum - dx[std::size_t(i + j * f.in)]));
      }
    }
    auto expected = g0;
    for (index_t j = 0; j < n; ++j)
      for (index_t k = 0; k < r; ++k) {
        for (index_t i = 0; i < f.in; ++i)
          expected[std::size_t(f.a + i + k * f.in)] += at(X, i, j) * dz[std::size_t(k + j * r)];
        for (index_t i = 0; i < f.out; ++i)
          expected[std::size_t(f.b + k + i * r)] += scale * z[std::size_t(k + j * r)] * at(DY, i, j);
      }
    for (std::size_t i = 0; i < g.size(); ++i) wrong = std::max(wrong, std::abs(g[i] - expected[i]));
    CHECK(wrong < 1e-12);
  }
}

TEST_CASE("a matrix without an adapter adds nothing") {
  const config c = small_llama();
  const lora_map map(c, {.rank = 2});
  const std::vector<double> theta = normals<double>(map.size(), 1, 1);
  const auto x = normals<double>(c.hidden, 2, 1);
  std::vector<double> y(std::size_t(c.kv_width()), 3), dx(x.size(), 4), g(theta.size(), 5), workspace(100);
  const host e;
  for (const adapters<double> a : {adapters<double>{}, adapters<double>{&map, theta.data()}}) {
    const lora_product<host> product{e, a, 0, workspace};
    CHECK_FALSE(product.has(layer_matrix::k));
    CHECK(product.has(layer_matrix::v) == (a.map != nullptr));
    product.add(layer_matrix::k, matrix<const double>(x.data(), c.hidden, 1),
                matrix<double>(y.data(), c.kv_width(), 1));
    product.add_vjp(layer_matrix::k, matrix<const double>(x.data(), c.hidden, 1),
                    matrix<const double>(y.data(), c.kv_width(), 1), matrix<double>(dx.data(), c.hidden, 1),
                    g.data(), 1);
    CHECK(y == std::vector<double>(y.size(), 3));
    CHECK(dx == std::vector<double>(dx.size(), 4));
    CHECK(g == std::vector<double>(g.size(), 5));
  }
}

TEST_CASE("adapters take part in what is generated") {
  const plain_llama::problem<double> p(plain_llama::small());
  const lora_map map(p.stack.shape(), {.rank = 2});
  parameters<double> theta(map.size());
  init_lora<double>(map, theta, key{5}, 0.5);
  generator<double> plain(p.stack, p.weights), zero(p.stack, p.weights, adapters<double>{}),
      adapted(p.stack, p.weights, adapters<double>{&map, theta.data()});
  // the same model with the adapters added to its weights
  parameters<double> merged = p.weights;
  for (index_t i = 0; i < p.stack.shape().layers; ++i)
    for (const layer_matrix m : {layer_matrix::q, layer_matrix::v}) {
      const auto f = map.at(i, m);
      const index_t in = f.in, out = f.out;
      const index_t w = m == layer_matrix::q ? p.stack.map()[i].q : p.stack.map()[i].v;
      for (index_t a = 0; a < in; ++a)
        for (index_t b = 0; b < out; ++b)
          for (index_t r = 0; r < 2; ++r)
            merged[w + a + b * in] += map.scale() * theta[f.a + a + r * in] * theta[f.b + r + b * 2];
    }
  generator<double> expected(p.stack, merged);
  for (auto* g : {&plain, &zero, &adapted, &expected}) g->append(p.ids);
  double change = 0;
  for (index_t i = 0; i < plain.logits().size(); ++i) {
    CHECK(plain.logits()[i] == zero.logits()[i]);
    CHECK(adapted.logits()[i] == Approx(expected.logits()[i]).epsilon(1e-11));
    change = std::max(change, std::abs(plain.logits()[i] - adapted.logits()[i]));
  }
  CHECK(change > 1e-3);
}

TEST_CASE("adapters may differ in rank and scale, and have biases") {
  const config c = small_llama();
  lora_options o;
  o.modules = {{0, layer_matrix::v, 2, 3}, {1, layer_matrix::up, 5, 0.5}};
  o.bias = true;
  const lora_map map(c, o);
  CHECK((map.at(0, layer_matrix::v).rank == 2 && map.at(1, layer_matrix::up).rank == 5));
  CHECK((map.at(0, layer_matrix::up).a == -1 && map.at(1, layer_matrix::v).a == -1));
  CHECK(map.names().at("base_model.model.model.layers.1.mlp.up_proj.lora_B.bias").size() ==
        c.intermediate_size);
  const auto theta = normals<double>(map.size(), 1, 0.5);
  const host e;
  const index_t n = 3;
  for (const lora_module& m : o.modules) {
    const auto f = map.at(m.layer, m.matrix);
    std::vector<double> workspace(std::size_t(host::adapter_workspace(f.in + f.out, n, true)));
    const lora_product<host> product{e, {&map, theta.data()}, m.layer, workspace};
    const auto x = normals<double>(f.in * n, 2, 1), dy = normals<double>(f.out * n, 3, 1);
    std::vector<double> y(dy.size(), 0), dx(x.size(), 0), g(theta.size(), 0);
    product.add(m.matrix, matrix<const double>(x.data(), f.in, n), matrix<double>(y.data(), f.out, n));
    product.add_vjp(m.matrix, matrix<const double>(x.data(), f.in, n),
                    matrix<const double>(dy.data(), f.out, n), matrix<double>(dx.data(), f.in, n), g.data(),
                    1);
    const auto numbers = [](const double* p, index_t rows, index_t cols) {
      return Eigen::Map<const Eigen::MatrixXd>(p, rows, cols);
    };
    const auto A = numbers(theta.data() + f.a, f.in, m.rank), B = numbers(theta.data() + f.b, m.rank, f.out),
               X = numbers(x.data(), f.in, n), DY = numbers(dy.data(), f.out, n);
    const Eigen::VectorXd b = numbers(theta.data() + f.bias, f.out, 1);
    const Eigen::MatrixXd expected = m.scale * ((B.transpose() * (A.transpose() * X)).colwise() + b);
    CHECK((numbers(y.data(), f.out, n) - expected).norm() < 1e-12);
    CHECK((numbers(dx.data(), f.in, n) - m.scale * A * (B * DY)).norm() < 1e-12);
    CHECK((numbers(g.data() + f.bias, f.out, 1) - m.scale * DY.rowwise().sum()).norm() < 1e-12);
    CHECK((numbers(g.data() + f.b, m.rank, f.out) - m.scale * A.transpose() * X * DY.transpose()).norm() <
          1e-12);
  }
  o.modules[1].layer = 2;
  CHECK_THROWS_WITH(lora_map(c, o), ContainsSubstring("modules.layer: is 2, the model has 2"));
  o.modules = {{1, layer_matrix::q, 2, 1}, {0, layer_matrix::q, 2, 1}};
  CHECK_THROWS_WITH(lora_map(c, o),
                    ContainsSubstring("modules: are not in order at layer 0, self_attn.q_proj"));
  o.modules = {{0, layer_matrix::q, 0, 1}};
  CHECK_THROWS_WITH(lora_map(c, o), ContainsSubstring("modules.rank: is 0"));
}
