#pragma once

#include <span>
#include <string>

#include "unroll/core/matrix.hpp"
#include "unroll/llama/weights.hpp"
#include "unroll/text/token.hpp"

// What stands below the layers of a Llama. Weights and matrices live at the place of the executor `e`, tokens
// on the host.
namespace unroll::llama {

/// Throws unroll::error, in the name of `function`, on an id that is outside the vocabulary and, for
/// targets, not negative.
inline void check_tokens(const char* function, const char* argument, const config& c,
                         std::span<const token> ids, bool targets = false) {
  for (const token id : ids)
    if (id >= c.vocabulary || (id < 0 && !targets))
      fail(
          function, argument,
          "holds " + std::to_string(id) + ", the vocabulary has " + std::to_string(c.vocabulary) + " tokens");
}

/// x, hidden x tokens <- the embeddings of the tokens. weights: map.size() numbers. Ids are not checked: see
/// check_tokens.
template <class E>
void embed(const E& e, const weight_map& map, const typename E::numbers::weight* weights,
           std::span<const token> ids, matrix<typename E::numbers::activation> x) {
  const config& c = map.shape();
  UNROLL_ASSERT(x.rows == c.hidden && x.cols == index_t(ids.size()));
  e.gather_columns(matrix(weights + map.embedding(), c.hidden, c.vocabulary), ids, x);
}
/// ADDS dx, hidden x tokens, to the gradients of the tokens' embeddings; dweights: map.size() numbers.
template <class E>
void embed_vjp(const E& e, const weight_map& map, std::span<const token> ids,
               matrix<const typename E::numbers::activation> dx, typename E::numbers::parameter* dweights) {
  const config& c = map.shape();
  e.scatter_add_columns(dx, ids, matrix(dweights + map.embedding(), c.hidden, c.vocabulary));
}

}  // namespace unroll::llama
