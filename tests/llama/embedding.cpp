#include "unroll/llama/embedding.hpp"

#include "tests/llama/small_llama.hpp"
#include "tests/support/catch.hpp"
#include "unroll/exec/of.hpp"

using namespace unroll;
using namespace unroll::llama;
using tests::lively_weights;
using tests::small_llama;

TEST_CASE("Embeddings are copied, and their gradients are added at their tokens") {
  const config c = small_llama();
  const weight_map map(c);
  const auto w = lively_weights<float>(map);
  const std::vector<token> ids{3, 0, 3};
  std::vector<float> x(std::size_t(3 * c.hidden)), dw(w.size(), 0);
  const matrix<float> columns(x.data(), c.hidden, 3);
  const exec::of<float> e;
  embed(e, map, w.data(), ids, columns);
  for (index_t j = 0; j < 3; ++j)
    for (index_t i = 0; i < c.hidden; ++i)
      CHECK(x[std::size_t(i + j * c.hidden)] ==
            w[std::size_t(map.embedding() + ids[std::size_t(j)] * c.hidden + i)]);
  embed_vjp(e, map, ids, matrix<const float>(columns), dw.data());
  for (index_t v = 0; v < c.vocabulary; ++v)
    for (index_t i = 0; i < c.hidden; ++i) {
      const std::size_t at = std::size_t(map.embedding() + v * c.hidden + i);
      CHECK(dw[at] == (v == 3 ? 2 : v == 0 ? 1 : 0) * w[at]);
    }
  CHECK_NOTHROW(check_tokens("f", "ids", c, ids));
  const std::vector<token> bad{1, -1}, worse{token(c.vocabulary)};
  CHECK_NOTHROW(check_tokens("f", "targets", c, bad, true));
  CHECK_THROWS_WITH(check_tokens("f", "ids", c, bad), Catch::Matchers::ContainsSubstring("f: ids: holds -1"));
  CHECK_THROWS_WITH(check_tokens("f", "ids", c, worse, true), Catch::Matchers::ContainsSubstring("holds 23"));
}
