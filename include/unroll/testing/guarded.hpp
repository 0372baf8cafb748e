#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "unroll/core/config.hpp"

// Memory that notices overruns, and what the conformance checks ask of vectors.
namespace unroll::testing::detail {

// A vector with marks in front and behind that show whether somebody wrote past its ends.
template <class T>
class guarded {
 public:
  explicit guarded(index_t size, T value = 0) : size_(size), all_(std::size_t(size) + 2 * margin, mark) {
    fill(value);
  }
  void fill(T value) { std::fill_n(data(), size_, value); }
  void assign(const std::vector<T>& v) { std::copy(v.begin(), v.end(), data()); }
  T* data() { return all_.data() + margin; }
  const T* data() const { return all_.data() + margin; }
  index_t size() const { return size_; }
  std::vector<T> values() const { return {data(), data() + size_}; }
  bool intact() const {
    return std::all_of(all_.begin(), all_.begin() + margin, [](T x) { return x == mark; }) &&
           std::all_of(all_.end() - margin, all_.end(), [](T x) { return x == mark; });
  }

 private:
  static constexpr int margin = 8;
  static constexpr T mark = T(std::is_integral_v<T> ? 90 : -1234.5);
  index_t size_;
  std::vector<T> all_;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}
template <class T>
bool finite(const std::vector<T>& v) {
  return std::all_of(v.begin(), v.end(), [](T x) { return std::isfinite(x); });
}
template <class T>
double largest(const std::vector<T>& v) {
  double m = 0;
  for (const T x : v) m = std::max(m, std::abs(double(x)));
  return m;
}
/// |a - b| <= tolerance (scale + |a| + |b|), by largest entries; false where a difference is not finite.
template <class T>
bool close(const std::vector<T>& a, const std::vector<T>& b, double tolerance, double scale = 0) {
  std::vector<T> difference(a);
  for (std::size_t i = 0; i < a.size(); ++i) difference[i] -= b[i];
  return finite(difference) && largest(difference) <= tolerance * (scale + largest(a) + largest(b));
}
template <class T>
double dot(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}
template <class T>
double length(const std::vector<T>& v) {
  return std::sqrt(dot(v, v));
}

}  // namespace unroll::testing::detail
