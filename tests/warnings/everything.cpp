// Makes the compiler read every member of the templates of the library, in both number types; see check.sh.
#include "unroll/llama.hpp"

using namespace unroll;

// NOLINTBEGIN(bugprone-macro-parentheses): types take none
#define UNROLL_ESTIMATORS(F)                                                          \
  template class unroll::bptt<F>;                                                     \
  template class unroll::tbptt<F>;                                                    \
  template class unroll::chunked_tbptt<F>;                                            \
  template class unroll::checkpointed_bptt<F>;                                        \
  template class unroll::rtrl<F>;                                                     \
  template class unroll::snap<F>;                                                     \
  template class unroll::adaptive_tbptt<F>;                                           \
  template class unroll::dni<F>;                                                      \
  template class unroll::bp_lambda<F>;                                                \
  template class unroll::ok_rtrl<F>;                                                  \
  template class unroll::kernl<F>;                                                    \
  template class unroll::sk_rtrl<F>;                                                  \
  template class unroll::influence::learned_kernel<F>;                                \
  template class unroll::influence::sketch<F>;                                        \
  template class unroll::influence::kronecker_sum<F>;                                 \
  template class unroll::kf_rtrl<F>;                                                  \
  template class unroll::rflo<F>;                                                     \
  template class unroll::eprop<F>;                                                    \
  template class unroll::artbp<F, fixed_truncation>;                                  \
  template class unroll::uoro<F>;                                                     \
  template class unroll::nobacktrack<F>;                                              \
  template class unroll::preuoro<F>;                                                  \
  template class unroll::forward_learner<F, influence::dense<F>>;                     \
  template class unroll::forward_learner<F, influence::kronecker<F>, philox_chooser>; \
  template class unroll::es<F>;                                                       \
  template class unroll::pes<F>;                                                      \
  template class unroll::es_single<F>;                                                \
  template class unroll::gpes<F>;                                                     \
  template class unroll::pes_a<F>;                                                    \
  template class unroll::forward_gradient<F>;                                         \
  template class unroll::random_path<F>;                                              \
  template class unroll::telescope<F>;                                                \
  template class unroll::control_variate<chunked_tbptt<F>, bptt<F>>;                  \
  template class unroll::mean_of<uoro<F>, bptt<F>>;                                   \
  template class unroll::nres<F>;                                                     \
  template class unroll::mean_of<uoro<F>>;                                            \
  template class unroll::lane_parallel<tbptt<F>>;                                     \
  template class unroll::counted<F>;                                                  \
  template class unroll::with_resets<F>;                                              \
  template class unroll::training::clipped_cotangent<F>;                              \
  template class unroll::finite_difference<F>
#define UNROLL_MEMORY_ESTIMATORS(M)                                 \
  template class unroll::rematerialise<M>;                          \
  template class unroll::proportional_replay<M>;                    \
  template class unroll::roulette_replay<M>;                        \
  template class unroll::reservoir_tbptt<M>;                        \
  template class unroll::reservoir_tbptt<M, philox_chooser, false>; \
  template class unroll::incremental_tbptt<M>

#define UNROLL_IN(T)                                                                                    \
  template class unroll::view<T>;                                                                       \
  template class unroll::block<T>;                                                                      \
  template class unroll::cells::recurrent_cell<cells::gru_equations<T>>;                                \
  template class unroll::cells::recurrent_cell<cells::lstm_equations<T>>;                               \
  template class unroll::cells::recurrent_cell<                                                         \
      cells::simple_recurrent_equations<T, cells::hyperbolic_tangent>>;                                 \
  template class unroll::cells::recurrent_cell<cells::simple_recurrent_equations<T, cells::identity>>;  \
  template class unroll::cells::recurrent_cell<cells::simple_recurrent_equations<T, cells::rectifier>>; \
  template class unroll::cells::recurrent_cell<cells::layer_norm_gru_equations<T>>;                     \
  template class unroll::cells::recurrent_cell<cells::layer_norm_lstm_equations<T>>;                    \
  template class unroll::with_resets<cells::lstm<T>, true>;                                             \
  template class unroll::cells::stack<cells::lstm<T>>;                                                  \
  template class unroll::cells::diagonal_cell<cells::rotation_equations<T, false>>;                     \
  template class unroll::cells::diagonal_cell<cells::rotation_equations<T, true>>;                      \
  template class unroll::cells::diagonal_cell<cells::min_gru_equations<T>>;                             \
  template class unroll::cells::recurrent_cell<cells::leaky_equations<T>>;                              \
  template class unroll::diagonal_rtrl<cells::lru<T>>;                                                  \
  template class unroll::layerwise_rtrl<cells::stack<cells::lru<T>>>;                                   \
  template class unroll::cells::influence_balancing<T>;                                                 \
  template class unroll::cells::linear_memory<T>;                                                       \
  template class unroll::cells::attention_memory<T>;                                                    \
  template class unroll::any_system<T, cells::example<T>>;                                              \
  template class unroll::adam<T>;                                                                       \
  template class unroll::momentum<T>;                                                                   \
  template class unroll::sgd<T>;                                                                        \
  template class unroll::training::run<T>;                                                              \
  template class unroll::ad::dual<T>;                                                                   \
  template class unroll::ad::var<T>;                                                                    \
  template class unroll::ad::tape<T>;                                                                   \
  template class unroll::data::sequences<T>;                                                            \
  template class unroll::llama::transformer<T>;                                                         \
  template class unroll::llama::language_model<T>;                                                      \
  template class unroll::llama::memory_llama<T>;                                                        \
  template class unroll::llama::memory_session<T>;                                                      \
  template class unroll::llama::generator<T>;                                                           \
  template class unroll::llama::streaming_cache<T>;                                                     \
  UNROLL_ESTIMATORS(cells::gru<T>);                                                                     \
  UNROLL_MEMORY_ESTIMATORS(llama::memory_llama<T>)

// NOLINTEND(bugprone-macro-parentheses)
UNROLL_IN(float);
UNROLL_IN(double);
