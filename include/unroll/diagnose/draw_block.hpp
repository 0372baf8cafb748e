#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "unroll/core/linalg.hpp"
#include "unroll/core/report.hpp"
#include "unroll/diagnose/moments.hpp"

namespace unroll {

namespace detail {

// The sums of a sample that do not depend on the order of its draws.
struct sample_sums {
  explicit sample_sums(index_t size) : x(size) {}

  void clear() {
    x.clear();
    fours.clear();
    projection.clear();
    norm = spread = widest = seconds = 0;
    diverged = 0;
    work = report{};
  }
  void merge(const sample_sums& other) {
    x.merge(other.x);
    fours.merge(other.fours);
    projection.merge(other.projection);
    norm += other.norm;
    spread += other.spread;
    widest = std::max(widest, other.widest);
    seconds += other.seconds;
    diverged += other.diverged;
    work += other.work;
  }
  template <class V>
  void visit(V&& v) {
    visit_part(v, "x", x);
    visit_part(v, "fours", fours);
    visit_part(v, "projection", projection);
    for (double* number : {&norm, &spread, &widest, &seconds}) v("sums", view<double>(number, 1));
    visit_integer(v, "diverged", diverged);
    visit_part(v, "work", work);
  }

  moments x;              // x_i = draw_i - centre
  moments fours{1};       // of the estimates of tr V^2 from groups of four
  moments projection{1};  // of <x_i, centre>
  double norm = 0, spread = 0, widest = 0, seconds = 0;
  index_t diverged = 0;
  report work;
};

}  // namespace detail

/// Up to 16 draws in a row of a sample, x_i = draw_i - centre. Memory: 18 P doubles.
class draw_block {
 public:
  static constexpr index_t most = 16;  ///< draws that a block takes

  explicit draw_block(index_t size) : size_(size), sums_(size), draws_(most * size) {}

  void clear() { sums_.clear(); }

  /// Adds one draw. `centre`, as many numbers as the draw, is what it is compared with; empty: zero.
  template <class T>
  void add(dparams<const T> draw, view<const double> centre, const report& r, double seconds) {
    UNROLL_ASSERT(count() < most);
    sums_.work += r;
    sums_.seconds += seconds;
    if (r.code != status::ok || !linalg::all_finite(draw.data(), draw.size())) {
      ++sums_.diverged;
      return;
    }
    double norm2 = 0, projection = 0;
    const view<double> x = row(count());
    for (index_t j = 0; j < draw.size(); ++j) {
      const auto g = double(draw[j]);
      const double c = centre.empty() ? 0 : centre[j];
      x[j] = g - c;
      norm2 += g * g;
      projection += x[j] * c;
    }
    sums_.x.add(x);
    sums_.norm += std::sqrt(norm2);
    sums_.projection.add(view<const double>(&projection, 1));
    if (count() % 4 == 0) add_four();
  }

  /// The draws and their sums, for another rank. Throws unroll::error where they are more than `most`.
  template <class V>
  void visit(V&& v) {
    visit_part(v, "sums", sums_);
    if (count() > most)
      fail("draw_block", "count", "is " + std::to_string(count()) + ", at most " + std::to_string(most));
    v("draws", view<double>(draws_).part(0, count() * size_));
  }

  index_t count() const { return sums_.x.count(); }  ///< finite draws
  /// Draw i less the centre.
  view<const double> x(index_t i) const& { return view<const double>(draws_).part(i * size_, size_); }
  view<const double> x(index_t i) && = delete;
  const detail::sample_sums& sums() const& { return sums_; }  ///< of the draws so far
  const detail::sample_sums& sums() && = delete;

 private:
  view<double> row(index_t i) { return view<double>(draws_).part(i * size_, size_); }

  // The last four draws, centred at their mean: their spread, and an estimate of tr V^2.
  void add_four() {
    constexpr index_t chunk = 256;
    double centred[4][chunk], gram[4][4] = {};
    for (index_t j = 0; j < size_; j += chunk) {
      const index_t n = std::min(chunk, size_ - j);
      const double* x[4];
      for (int a = 0; a < 4; ++a) x[a] = row(count() - 4 + a).data() + j;
      for (index_t i = 0; i < n; ++i) {
        const double middle = (x[0][i] + x[1][i] + x[2][i] + x[3][i]) / 4;
        for (int a = 0; a < 4; ++a) centred[a][i] = x[a][i] - middle;
      }
      for (int a = 0; a < 4; ++a)
        for (int b = 0; b <= a; ++b) gram[a][b] += linalg::dot(centred[a], centred[b], n);
    }
    for (int a = 0; a < 4; ++a)
      for (int b = 0; b < a; ++b) gram[b][a] = gram[a][b];
    const auto pairing = [&](int a, int b, int c, int d) {
      const double product = (gram[a][c] - gram[a][d] - gram[b][c] + gram[b][d]) / 2;
      return product * product;
    };
    const double value = (pairing(0, 1, 2, 3) + pairing(0, 2, 1, 3) + pairing(0, 3, 1, 2)) / 3;
    sums_.fours.add(view<const double>(&value, 1));
    for (int a = 0; a < 4; ++a) {
      sums_.spread += gram[a][a];
      sums_.widest = std::max(sums_.widest, gram[a][a]);
    }
  }

  index_t size_;
  detail::sample_sums sums_;
  block<double> draws_;
};

}  // namespace unroll
