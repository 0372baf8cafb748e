#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "unroll/core/visit.hpp"
#include "unroll/rng/draw.hpp"

namespace unroll {

/// The only door through which randomness enters an estimator. Draws are named by (step, index), never by
/// the order of the calls: asking twice gives the same answer.
///   reset(k)            a new stream
///   mirror(on)          the antithetic twin of the stream: normals negated, signs negated at odd steps
///                       (negating every sign would leave a rank-one estimate unchanged), uniforms u -> 1 - u
///   signs(t, out)       out[i] = -1 or +1 with probability 1/2 each
///   coin(t, p)          true with probability p
///   uniform(t, n)       one of 0 .. n-1
///   normals(t, out)     standard normal
/// and, so that an estimator can be saved, visit(v) (core/visit.hpp). One may have, for who draws many,
///   coins(t, p, out)    out[i] = coin(t + i, p) ? 1 : 0, of doubles
template <class C>
concept chooser = std::copyable<C> && requires(C c, key k, std::int64_t t, view<double> out) {
  c.reset(k);
  c.mirror(true);
  c.signs(t, out);
  { c.coin(t, 0.5) } -> std::same_as<bool>;
  { c.uniform(t, index_t{2}) } -> std::same_as<index_t>;
  c.normals(t, out);
};

/// Shows the whole state of a chooser (core/visit.hpp); draws are functions of it.
template <class V>
void visit_stream(V&& v, key& k, bool& mirrored) {
  auto seed = static_cast<std::int64_t>(k.seed);
  v("key", view<std::int64_t>(&seed, 1));
  k.seed = static_cast<std::uint64_t>(seed);
  visit_flag(v, "mirrored", mirrored);
}

/// The chooser of a run: counter-based random numbers.
class philox_chooser {
 public:
  philox_chooser() = default;
  explicit philox_chooser(key k) : key_(k) {}

  void reset(key k) { key_ = k; }
  void mirror(bool on) { mirrored_ = on; }
  template <class V>
  void visit(V&& v) {
    visit_stream(v, key_, mirrored_);
  }

  template <class T, class Space>
  void signs(std::int64_t t, view<T, Space> out) const {
    draw_signs(key_, t, out);
    if (mirrored_ && t % 2 != 0)
      for (T& x : out) x = -x;
  }
  bool coin(std::int64_t t, double p) const { return falls(draw_uniform(key_, t), p); }
  template <class T = double>
  void coins(std::int64_t t, double p, std::type_identity_t<view<T>> out) const {
    draw_uniforms(key_, t, out);
    for (T& u : out) u = falls(u, p) ? 1 : 0;
  }
  index_t uniform(std::int64_t t, index_t n) const {
    const index_t i = draw_index(key_, t, n);
    return mirrored_ ? n - 1 - i : i;
  }
  template <class T, class Space>
  void normals(std::int64_t t, view<T, Space> out) const {
    draw_normals(key_, t, out);
    if (mirrored_)
      for (T& x : out) x = -x;
  }

 private:
  bool falls(double u, double p) const { return mirrored_ ? u >= 1.0 - p : u < p; }

  key key_;
  bool mirrored_ = false;
};

}  // namespace unroll
