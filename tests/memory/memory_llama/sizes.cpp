#include "unroll/memory/memory_llama/sizes.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/memory/memory_llama/tables.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

using host = exec::of<float>;
using sizes_of = memory_sizes<host>;

std::vector<index_t> listed(std::span<const index_t> x) { return {x.begin(), x.end()}; }

}  // namespace

TEST_CASE("tokens and memories of a memory model stand where its options say") {
  const config c = small_memory::shape();  // 40 positions, segments of 6, M = 2
  memory_options o = small_memory::options();
  using list = std::vector<index_t>;
  const memory_tables<host> alone(c, o);
  CHECK(listed(alone.encoder_positions_of(3)) == list{0, 1, 2, 3, 4, 5, 3, 6});
  CHECK(listed(alone.segment_positions_of(4, 2)) == list{8, 9, 10, 11, 12, 13, 10, 11, 12, 13, 14, 15});
  CHECK(listed(alone.memory_positions_of(4, 2)) == list{10, 11, 8, 9});
  const auto seen = alone.seen_by(4, 2);
  CHECK((seen[0].first == 0 && seen[0].blocks == 4 && seen[0].keys == 2 && seen[1].blocks == 5));
  o.recurrent = true;
  o.positions = memory_positions::following;
  const memory_tables<host> recurrent(c, o);
  CHECK(listed(recurrent.encoder_positions_of(3)) == list{6, 7, 8, 9, 10, 11, 12, 13});
}

TEST_CASE("a memory model knows before anything runs which segments have positions") {
  const config c = small_memory::shape();
  for (const bool recurrent : {false, true})
    for (const auto positions : {memory_positions::coverage, memory_positions::following}) {
      CAPTURE(recurrent, int(positions));
      memory_options o = small_memory::options();
      o.recurrent = recurrent;
      o.positions = positions;
      const sizes_of sizes(c, o);
      const index_t own = positions == memory_positions::following ? 8 : 7;  // behind the last of a segment
      for (index_t s = 0; s < 25; ++s) {
        const index_t end = std::max(2 * (s + 1), recurrent ? 2 * s + own : own);
        CHECK(sizes.write_end(s) == end);
        CHECK(sizes.can_write(s) == (end <= 40));
      }
      CHECK_NOTHROW(sizes.check_positions("f", 17, 6));
      CHECK_THROWS_WITH(sizes.check_positions("f", 18, 5), ContainsSubstring("ends at position 41"));
    }
}

TEST_CASE("the sizes of a memory model grow with the batch and with what stands in front") {
  const config c = small_memory::shape();
  for (const bool recurrent : {false, true}) {
    memory_options o = small_memory::options();
    o.recurrent = recurrent;
    const sizes_of sizes(c, o);
    CHECK(sizes.memory() == 2 * c.layers * c.kv_width() * 2);
    CHECK(sizes.kept(3) >= 3 * c.layers * c.hidden * 2);
    CHECK(sizes.outputs_from() == o.segment);
    CHECK(sizes.workspace(2, 1) < sizes.workspace(2, 3));
    CHECK(sizes.workspace(1) < sizes.workspace(9));
    CHECK(sizes.write_workspace(4, 1) < sizes.write_workspace(4, 3));
    const pass_size p = sizes.encoder(4, 3), d = sizes.decoder(5, 4);
    CHECK((p.tokens() == 24 && p.outputs() == 6 && p.layers == c.layers - 1));
    CHECK((p.blocks == (recurrent ? 4 : 0) && d.blocks == 4 && d.keys == 2 && d.tokens() == 5));
    o.ratio = 6;  // one memory token: outputs of two tokens, for the bits of a product
    CHECK(sizes_of(c, o).outputs_from() == o.segment - 1);
  }
  CHECK_THROWS_WITH(sizes_of::check_workspace("f", 5, 6, 1), ContainsSubstring("f: workspace: is 5"));
  CHECK_THROWS_WITH(sizes_of::check_workspace("f", 5, 6, 2),
                    ContainsSubstring("a batch of 2 segments needs 6"));
  CHECK_NOTHROW(sizes_of::check_workspace("f", 6, 6, 2));
}
