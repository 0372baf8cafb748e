#pragma once

// Needs ADOL-C (libadolc-dev, link -ladolc) and is therefore not part of unroll.hpp. Other autodiff libraries
// are bridged the same way: their number as N, their reverse sweep in vjp, their forward sweep in jvp.
#include <adolc/adolc.h>

#include "unroll/ad/derive.hpp"

namespace unroll::ad {

struct derive_adolc_options {
  /// The tape ADOL-C records on; tapes are global, so use one tag per copy that runs at a time.
  short tag = 0;
};

/// The system that derive_adolc() returns: as derived<F>, with ADOL-C's tapes. Every vjp and jvp traces the
/// step anew, since the input and the branches taken may change. ADOL-C keeps its tapes in global variables:
/// not for several threads, unless ADOL-C was built for them. ADOL-C allocates in every call. Where a
/// derivative of 0 meets an infinite one, its jvp is NaN and its vjp 0 (2.7.2); that of derived<F> is 0 in
/// both.
template <class F>
class derived_adolc {
 public:
  using scalar = typename F::scalar;
  using input = typename F::input;
  static_assert(std::is_same_v<scalar, double>, "ADOL-C computes in double");

  explicit derived_adolc(F f, derive_adolc_options options = {})
      : f_(std::move(f)),
        options_(options),
        size_(f_.size()),
        in_(std::size_t(size_.params + size_.state)),
        din_(in_.size()),
        out_(std::size_t(size_.state) + 1),
        dout_(out_.size()),
        active_in_(in_.size()),
        active_next_(std::size_t(size_.state)) {
    size_.tape = 0;
    size_.workspace = 0;
  }

  const F& function() const { return f_; }
  dims size() const { return size_; }
  void start(state<double> s) const requires requires(const F& f, state<double> v) { f.start(v); }
  { f_.start(s); }
  bool finite(const input& x) const { return detail::finite_step(f_, x, size_.lanes); }
  index_t scored(const input& x) const { return index_t(scored_losses(f_, x)); }
  void output(params<const double> theta, state<const double> s, view<double> y) const requires
      requires(const F& f) {
    f.output(theta, s, y);
  }
  { f_.output(theta, s, y); }

  void step(const input& x, const edge<double>& e) const {
    *e.loss = f_(std::span<const double>(e.theta.begin(), e.theta.end()),
                 std::span<const double>(e.s.begin(), e.s.end()), x,
                 std::span<double>(e.next.begin(), e.next.end()));
  }

  void vjp(const input& x, const const_edge<double>& e, dstate<const double> dnext, double dloss,
           dstate<double> ds, dparams<double> dtheta) const {
    trace(x, e, 1);
    std::fill(dout_.begin(), dout_.end(), 0.0);
    std::copy(dnext.begin(), dnext.end(), dout_.begin());
    dout_.back() = dloss;
    ::fos_reverse(options_.tag, int(out_.size()), int(in_.size()), dout_.data(), din_.data());
    for (index_t i = 0; i < dtheta.size(); ++i) dtheta[i] += din_[std::size_t(i)];
    for (index_t i = 0; i < ds.size(); ++i) ds[i] += din_[std::size_t(size_.params + i)];
  }

  void jvp(const input& x, const const_edge<double>& e, params_tangent<const double> dtheta,
           state_tangent<const double> ds, state_tangent<double> dnext, double* dloss) const {
    trace(x, e, 0);
    std::fill(din_.begin(), din_.end(), 0.0);
    std::copy(dtheta.begin(), dtheta.end(), din_.begin());
    std::copy(ds.begin(), ds.end(), din_.begin() + size_.params);
    ::fos_forward(options_.tag, int(out_.size()), int(in_.size()), 0, in_.data(), din_.data(), out_.data(),
                  dout_.data());
    std::copy(dout_.begin(), dout_.end() - 1, dnext.begin());
    if (dloss) *dloss = dout_.back();
  }

 private:
  // Records (theta, s) -> (s', loss); `keep` leaves behind the values a reverse sweep needs.
  void trace(const input& x, const const_edge<double>& e, int keep) const {
    std::copy(e.theta.begin(), e.theta.end(), in_.begin());
    std::copy(e.s.begin(), e.s.end(), in_.begin() + size_.params);
    ::trace_on(options_.tag, keep);
    for (std::size_t i = 0; i < in_.size(); ++i) active_in_[i] <<= in_[i];
    const std::span<const adouble> all(active_in_);
    adouble loss = f_(all.first(std::size_t(size_.params)), all.subspan(std::size_t(size_.params)), x,
                      std::span<adouble>(active_next_));
    for (std::size_t i = 0; i < active_next_.size(); ++i) active_next_[i] >>= out_[i];
    loss >>= out_.back();
    ::trace_off();
  }

  F f_;
  derive_adolc_options options_;
  dims size_;
  mutable std::vector<double> in_, din_, out_, dout_;  // theta then s; s' then the loss; their derivatives
  mutable std::vector<adouble> active_in_, active_next_;
};

/// A system from one function over any number type, differentiated by ADOL-C.
template <class F>
derived_adolc<F> derive_adolc(F f, derive_adolc_options options = {}) {
  return derived_adolc<F>(std::move(f), options);
}

}  // namespace unroll::ad
