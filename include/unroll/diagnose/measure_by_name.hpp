#pragma once

#include "unroll/diagnose/measure.hpp"
#include "unroll/estimate/catalogue.hpp"
#include "unroll/estimate/policy.hpp"

namespace unroll {

/// measure() of the estimator that the catalogue calls so: over a recurrent system one of catalogue.hpp
/// ("uoro:4"), over a memory model one of policy.hpp ("reservoir:2"). Throws unroll::error on other names,
/// listing those there are, and where measure() does.
template <class F>
measurement measure_by_name(std::string_view estimator, const F& system,
                            std::type_identity_t<params<const typename F::scalar>> theta,
                            std::type_identity_t<std::span<const typename F::input>> xs,
                            measure_options options = {}) {
  const auto measured = [&](const auto& e) { return measure(e, theta, xs, options); };
  if constexpr (memory_model<F>)
    return with_policy(parse_policy(estimator), system, index_t(xs.size()), philox_chooser{}, measured);
  else
    return with_estimator(estimator, system, index_t(xs.size()), measured);
}

}  // namespace unroll
