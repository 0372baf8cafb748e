// An estimator over memories, whose model cannot send adjoints back: the message is the signature to write.
// expect: a memory model needs: void write_vjp\(std::span<const input> xs, index_t s,
// expect: unroll::write_graphs<numbers> graphs, unroll::memory_gradients<numbers> to,
// expect: it ADDS to to.dpast and to.dtheta
#include "unroll/estimate/rematerialise.hpp"

struct model {
  using scalar = double;
  using input = double;
  using numbers = unroll::numbers<double>;
  using past_type = std::span<const double* const>;
  unroll::memory_dims size() const { return {1, 1, 1}; }
  bool independent() const { return true; }
  unroll::index_t workspace(unroll::index_t, unroll::index_t) const { return 0; }
  void write(std::span<const double> xs, unroll::index_t, unroll::params<const double> theta, past_type,
             unroll::view<double> m, unroll::view<double>, unroll::view<double>) const {
    for (std::size_t i = 0; i < xs.size(); ++i) m[unroll::index_t(i)] = theta[0] * xs[i];
  }
#ifndef UNROLL_SHOULD_FAIL
  void write_vjp(std::span<const double> xs, unroll::index_t, unroll::params<const double>, past_type,
                 unroll::write_graphs<numbers> graphs, unroll::memory_gradients<numbers> to,
                 unroll::view<double>) const {
    for (std::size_t i = 0; i < xs.size(); ++i) to.dtheta[0] += graphs.dm[unroll::index_t(i)] * xs[i];
  }
#endif
  void read(std::span<const double> xs, unroll::index_t, unroll::params<const double>, past_type past,
            double* losses, unroll::view<double>) const {
    for (std::size_t i = 0; i < xs.size(); ++i) losses[i] = past.empty() ? 0 : *past.front() * xs[i];
  }
  void read_vjp(std::span<const double> xs, unroll::index_t t, unroll::params<const double> theta,
                past_type past, double* losses, unroll::memory_gradients<numbers> to,
                unroll::view<double> workspace) const {
    for (std::size_t i = 0; i < xs.size(); ++i)
      if (!to.dpast.empty() && to.dpast.front()) *to.dpast.front() += xs[i];
    read(xs, t, theta, past, losses, workspace);
  }
};

unroll::rematerialise estimator(model{});
