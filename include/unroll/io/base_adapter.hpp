#pragma once

#include <Eigen/Eigenvalues>
#include <Eigen/QR>

#include "unroll/io/lora_file.hpp"

namespace unroll::llama {

namespace detail {

using adapter_numbers = Eigen::MatrixXd;

// Where the matrix m of a layer lies in the weights.
inline index_t offset_of(const weight_map::layer& l, layer_matrix m) {
  const std::array<index_t, 7> all{l.q, l.k, l.v, l.o, l.gate, l.up, l.down};
  return all[std::size_t(m)];
}

// f(W, place) for every adapted matrix W, in x out, in double; what f leaves is written back.
template <class W, class F>
void change_adapted(const config& c, const lora_map& map, params<W> weights, F&& f) {
  const weight_map at(c);
  check_size("load_adapter", "weights", weights.size(), at.size());
  adapter_numbers w;
  for (index_t i = 0; i < c.layers; ++i)
    for (std::size_t m = 0; m < layer_matrix_names.size(); ++m) {
      const auto place = map.at(i, layer_matrix(m));
      if (place.a < 0) continue;
      W* const numbers = weights.data() + offset_of(at[i], layer_matrix(m));
      w.resize(place.in, place.out);
      for (index_t k = 0; k < w.size(); ++k) w.data()[k] = double(numbers[k]);
      f(w, place, module_name(i, layer_matrix(m)));
      for (index_t k = 0; k < w.size(); ++k) {
        if constexpr (std::is_floating_point_v<W>)
          numbers[k] = W(w.data()[k]);
        else
          numbers[k] = W(float(w.data()[k]));
      }
    }
}

// scale A B, in x out.
template <class T>
adapter_numbers product_of(const lora_map::factors& f, const T* theta) {
  using numbers = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>>;
  return f.scale * numbers(theta + f.a, f.in, f.rank).template cast<double>() *
         numbers(theta + f.b, f.rank, f.out).template cast<double>();
}

// W without the part of its r largest singular values: W - V V' W, with V the first eigenvectors of W W', or
// W - W V V' with those of W' W, whichever is smaller.
inline void take_out_largest(adapter_numbers& w, index_t r, const std::string& function,
                             const std::string& name) {
  const bool left = w.rows() <= w.cols();
  const index_t n = std::min(w.rows(), w.cols());
  if (r >= n) return void(w.setZero());
  const Eigen::SelfAdjointEigenSolver<adapter_numbers> s(left ? adapter_numbers(w * w.transpose())
                                                              : adapter_numbers(w.transpose() * w));
  const auto singular = [&](index_t k) { return std::sqrt(std::max(0.0, s.eigenvalues()[n - k])); };  // k-th
  if (singular(r) - singular(r + 1) <= 1e-6 * singular(1))
    fail(function, name,
         "has the singular values " + std::to_string(singular(r)) + " and " +
             std::to_string(singular(r + 1)) + " at " + std::to_string(r) + " and " + std::to_string(r + 1) +
             ", which \"init_lora_weights\" \"pissa\" cannot tell apart");
  const adapter_numbers v = s.eigenvectors().rightCols(r);
  if (left)
    w -= v * (v.transpose() * w);
  else
    w -= (w * v) * v.transpose();
}

// W - scale W Q Q', with Q an orthonormal basis of the first r columns of the file's [out, in].
inline void take_out_first(adapter_numbers& w, index_t r, double scale, const std::string& function,
                           const std::string& name) {
  r = std::min({r, index_t(w.rows()), index_t(w.cols())});
  const Eigen::HouseholderQR<adapter_numbers> qr(adapter_numbers(w.topRows(r).transpose()));
  const Eigen::VectorXd diagonal = qr.matrixQR().diagonal().cwiseAbs();
  if (!(diagonal.minCoeff() > 1e-6 * diagonal.maxCoeff()))
    fail(function, name,
         "has columns that depend on each other among its first " + std::to_string(r) +
             ", of which \"init_lora_weights\" \"olora\" has no one basis");
  const adapter_numbers q = qr.householderQ() * adapter_numbers::Identity(w.cols(), r);
  w -= scale * (w * q) * q.transpose();
}

}  // namespace detail

/// Adapters from a folder that PEFT wrote, for the Llama of shape `c` with these weights. WRITES the weights
/// where PEFT (0.21.2) changes them when it loads the folder, so that the weights with the adapters are its
/// model: for "pissa" and "olora" it takes out what base_change says, for DoRA, with m its magnitudes,
///
///   y_o = m_o / |W_o + scale (A B)_o| (W' x + scale B' A' x)_o,
///
/// W and B take the factor in. Weights of bfloat16 are rounded again. Throws unroll::error, before a weight
/// is touched unless a split is not determined or DoRA would scale a row of zeros, that names file, key or
/// tensor and both values. Takes O(n^3) for a matrix of n x n with "pissa", a few matrices in double.
template <class T, class W>
adapter<T> load_adapter(const std::filesystem::path& folder, const config& c, params<W> weights,
                        load_options options = {}) {
  const char* function = "load_adapter";
  check(c, function);
  const auto source = byte_source::open(folder / "adapter_config.json", function);
  const auto said = parse_adapter_options(source.read(0, source.size()), c, source.name(), function);
  const auto files = detail::adapter_tensors(folder, function);
  std::vector<T> magnitudes;
  auto out = load_adapter_tensors<T>(c, said.lora, files, options, said.dora ? &magnitudes : nullptr);
  out.dora = said.dora;
  if (said.base == base_change::none && !said.dora) return out;
  const std::string where = std::string(function) + ": " + source.name();
  const T* m = magnitudes.data();
  detail::change_adapted(c, out.map, weights, [&](auto& w, const auto& f, const std::string& name) {
    if (said.base == base_change::pissa) detail::take_out_largest(w, f.rank, where, name);
    if (said.base == base_change::olora) detail::take_out_first(w, f.rank, f.scale, where, name);
    if (!said.dora) return;
    const Eigen::VectorXd norms = (w + detail::product_of(f, out.theta.data())).colwise().norm();
    for (index_t o = 0; o < f.out; ++o) {
      if (!(norms[o] > 0))
        fail(where, name, "has a row " + std::to_string(o) + " of zeros, which \"use_dora\" scales");
      const double gain = double(*m++) / norms[o];
      w.col(o) *= gain;
      for (index_t k = 0; k < f.rank; ++k) out.theta[f.b + o * f.rank + k] *= T(gain);
    }
  });
  return out;
}

/// WRITES weights + scale A B of every adapter to the weights: the same model without the adapters, up to
/// rounding. Refuses adapters with biases, which the weights of a Llama have no place for.
template <class T, class W>
void merge_adapter(const config& c, const lora_map& map, params<const T> theta, params<W> weights) {
  check_size("merge_adapter", "theta", theta.size(), map.size());
  if (map.options().bias)
    fail("merge_adapter", "map", "has biases (\"lora_bias\"), which a Llama's matrices do not");
  detail::change_adapted(c, map, weights, [&](auto& w, const auto& f, const std::string&) {
    w += detail::product_of(f, theta.data());
  });
}

}  // namespace unroll::llama
