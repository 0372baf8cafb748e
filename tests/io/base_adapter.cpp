#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/base_adapter.hpp"

#include "tests/llama/small_llama.hpp"
#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_files.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

using numbers = Eigen::MatrixXd;

config shape(rope_pairs pairs = rope_pairs::halves) {
  config c = made::tiny();
  c.head_dim = 4;
  c.pairs = pairs;
  return c;
}
template <class T>
parameters<T> owned(const std::vector<T>& x) {
  parameters<T> out(index_t(x.size()));
  std::copy(x.begin(), x.end(), out.begin());
  return out;
}
parameters<double> weights_of(const config& c) {
  return owned(tests::normals<double>(weight_map(c).size(), 3, 0.4));
}
numbers matrix_of(const config& c, const parameters<double>& w, index_t layer, layer_matrix m) {
  const weight_map map(c);
  return Eigen::Map<const numbers>(w.data() + llama::detail::offset_of(map[layer], m),
                                   lora_map::in_width(c, m), lora_map::out_width(c, m));
}
// Factors A, in x rank, and B, rank x out, of an adapter.
void set(parameters<double>& theta, const lora_map::factors& f, const numbers& a, const numbers& b) {
  std::copy_n(a.data(), a.size(), theta.data() + f.a);
  std::copy_n(b.data(), b.size(), theta.data() + f.b);
}
// Saves adapters and adds a member to their config.
void save(const folder& f, const config& c, const lora_map& map, const parameters<double>& theta,
          const char* key, const nlohmann::json& value) {
  save_lora<double>(f.path, c, map, theta);
  auto j = nlohmann::json::parse(read_file(f.path / "adapter_config.json"));
  j[key] = value;
  write_file(f.path / "adapter_config.json", j.dump());
}
double largest_difference(const parameters<double>& a, const parameters<double>& b) {
  double largest = 0;
  for (index_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

const std::array<bool, 7> every{true, true, true, true, true, true, true};

}  // namespace

TEST_CASE("an adapter that was not trained leaves the model as it is, also where PEFT changes the base") {
  for (const auto pairs : {rope_pairs::halves, rope_pairs::neighbours})
    for (const bool pissa : {true, false}) {
      INFO("pissa " << pissa << " pairs " << int(pairs));
      const config c = shape(pairs);
      const auto base = weights_of(c);
      const lora_map map(c, {.rank = 3, .alpha = 6, .adapted = every});
      parameters<double> theta(map.size());
      for (index_t i = 0; i < c.layers; ++i)
        for (std::size_t m = 0; m < every.size(); ++m) {
          const auto f = map.at(i, layer_matrix(m));
          // what PEFT computes of W [out, in]: U S V', of the eigenvectors of W' W; or Q R
          const numbers w = matrix_of(c, base, i, layer_matrix(m)).transpose();
          if (pissa) {
            const Eigen::SelfAdjointEigenSolver<numbers> s(numbers(w.transpose() * w));
            const numbers v = s.eigenvectors().rightCols(3);  // U S = W V
            set(theta, f, v / f.scale, (w * v).transpose());
          } else {
            // the rows of a head stand in the file's order there
            numbers file = w;
            if (pairs == rope_pairs::neighbours && m < 2)
              for (index_t h = 0; h < file.rows() / 4; ++h)
                for (index_t k = 0; k < 4; ++k)
                  file.row(4 * h + k) = w.row(4 * h + (k < 2 ? 2 * k : 2 * k - 3));
            const Eigen::HouseholderQR<numbers> qr(file);
            const numbers r = numbers(qr.matrixQR().triangularView<Eigen::Upper>()).topRows(3);
            numbers q = qr.householderQ() * numbers::Identity(w.rows(), 3);
            if (pairs == rope_pairs::neighbours && m < 2) {
              const numbers file_q = q;
              for (index_t h = 0; h < q.rows() / 4; ++h)
                for (index_t k = 0; k < 4; ++k)
                  q.row(4 * h + (k < 2 ? 2 * k : 2 * k - 3)) = file_q.row(4 * h + k);
            }
            set(theta, f, r.transpose(), q.transpose());
          }
        }
      const folder f;
      save(f, c, map, theta, "init_lora_weights", pissa ? "pissa" : "olora");
      auto w = base;
      const auto a = load_adapter<double, double>(f.path, c, w);
      CHECK(largest_difference(w, base) > 0.1);
      merge_adapter<double, double>(c, a.map, a.theta, w);
      CHECK(largest_difference(w, base) < 1e-6);  // the factors were written as float32
      CHECK_THROWS_WITH(load_lora<double>(f.path, c), ContainsSubstring("\"init_lora_weights\" is"));
    }
}

TEST_CASE("bases that PEFT splits in no one way are refused") {
  const config c = shape();
  const lora_map map(c, {.rank = 3, .alpha = 6});
  const folder f;
  auto zeros = parameters<double>(weight_map(c).size());
  save(f, c, map, parameters<double>(map.size()), "init_lora_weights", "pissa");
  CHECK_THROWS_WITH(
      (load_adapter<double, double>(f.path, c, zeros)),
      ContainsSubstring("adapter_config.json\": model.layers.0.self_attn.q_proj: has the singular values") &&
          ContainsSubstring("\"pissa\" cannot tell apart"));
  save(f, c, map, parameters<double>(map.size()), "init_lora_weights", "olora");
  CHECK_THROWS_WITH((load_adapter<double, double>(f.path, c, zeros)),
                    ContainsSubstring("has columns that depend"));
  CHECK_THROWS_WITH((load_adapter<double, double>(f.path, c, params<double>(zeros).part(0, 5))),
                    ContainsSubstring("load_adapter: weights: has size 5"));
}

TEST_CASE("the outputs of DoRA have the magnitudes of its file") {
  for (const auto pairs : {rope_pairs::halves, rope_pairs::neighbours}) {
    const config c = shape(pairs);
    const auto base = weights_of(c);
    const lora_map map(c, {.rank = 2, .alpha = 6, .adapted = every});
    const auto theta = tests::normals<double>(map.size(), 4, 0.5);
    const lora_files files = lora_bytes<double>(c, map, owned(theta));
    const safetensors stored(byte_source::memory(files.tensors, "tensors", "test"));
    std::vector<made::tensor> tensors;
    for (const auto& [name, t] : stored.tensors()) {
      std::vector<float> x(std::size_t(t.size));
      stored.read(name, 0, view<float>(x));
      tensors.push_back({name, "F32", t.shape, made::raw(x)});
    }
    const layout magnitudes = llama::detail::magnitude_layout(c, map);
    for (const layout_block& b : magnitudes.blocks()) {
      std::vector<float> m;
      for (index_t i = 0; i < b.size(); ++i) m.push_back(float(b.offset + i + 1) / 16);
      tensors.push_back({b.name, "F32", {b.size()}, made::raw(m)});
    }
    const folder f;
    auto j = nlohmann::json::parse(files.config);
    j["use_dora"] = true;
    write_file(f.path / "adapter_config.json", j.dump());
    write_file(f.path / "adapter_model.safetensors", made::safetensors(tensors));
    auto w = base;
    const auto a = load_adapter<double, double>(f.path, c, w);
    CHECK(a.dora);
    merge_adapter<double, double>(c, a.map, a.theta, w);
    double wrong = 0;
    for (index_t i = 0; i < c.layers; ++i)
      for (std::size_t m = 0; m < every.size(); ++m) {
        const auto p = map.at(i, layer_matrix(m));
        const numbers v = matrix_of(c, base, i, layer_matrix(m)) + llama::detail::product_of(p, theta.data()),
                      is = matrix_of(c, w, i, layer_matrix(m));
        const layout_block& b = magnitudes.at(
            "base_model.model." + llama::detail::module_name(i, layer_matrix(m)) + ".lora_magnitude_vector");
        for (index_t o = 0; o < p.out; ++o) {
          const index_t k = o % 4;  // of a head: the file has the halves one behind the other
          const bool turned = pairs == rope_pairs::neighbours && m < 2;
          const index_t row = turned ? o - k + (k % 2 == 0 ? k / 2 : 2 + k / 2) : o;
          const double magnitude = double(b.offset + row + 1) / 16;
          wrong = std::max(wrong, (is.col(o) - magnitude * v.col(o) / v.col(o).norm()).norm() / magnitude);
        }
      }
    CHECK(wrong < 1e-6);
    tensors.pop_back();
    write_file(f.path / "adapter_model.safetensors", made::safetensors(tensors));
    CHECK_THROWS_WITH(
        (load_adapter<double, double>(f.path, c, w)),
        ContainsSubstring("lacks tensor") && ContainsSubstring("mlp.down_proj.lora_magnitude_vector"));
  }
}

TEST_CASE("adapters with biases are not merged, and weights of bfloat16 are rounded once") {
  const config c = shape();
  lora_options o;
  o.rank = 2;
  const lora_map map(c, o);
  o.bias = true;
  const lora_map biased(c, o);
  auto w = weights_of(c);
  CHECK_THROWS_WITH((merge_adapter<double, double>(c, biased, parameters<double>(biased.size()), w)),
                    ContainsSubstring("merge_adapter: map: has biases"));
  const auto theta = tests::normals<float>(map.size(), 4, 0.5);
  parameters<bf16> half(w.size());
  for (index_t i = 0; i < w.size(); ++i) half[i] = bf16(float(w[i]));
  const auto f = map.at(1, layer_matrix::v);
  const index_t at = weight_map(c)[1].v;
  double sum = double(float(half[at + 1]));
  for (index_t k = 0; k < 2; ++k)
    sum += 8 * double(theta[std::size_t(f.a + 1 + k * f.in)]) * double(theta[std::size_t(f.b + k)]);
  merge_adapter<float, bf16>(c, map, owned(theta), half);
  CHECK(float(half[at + 1]) == float(bf16(float(sum))));
}

#endif
