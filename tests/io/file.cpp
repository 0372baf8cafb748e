#include "unroll/io/file.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("a byte source reads parts of a file and of memory, and nothing beyond the end") {
  const folder f;
  write_file(f.path / "a", "0123456789");
  const byte_source sources[] = {byte_source::open(f.path / "a", "reader"),
                                 byte_source::memory("0123456789", "memory", "reader")};
  for (const byte_source& s : sources) {
    CHECK(s.size() == 10);
    CHECK(s.read(7, 3) == "789");
    CHECK(s.read(0, 2) == "01");
    CHECK(s.read(10, 0).empty());
    CHECK_THROWS_WITH(s.read(8, 3), ContainsSubstring("has 10 bytes, 3 from byte 8 on are needed"));
    CHECK_THROWS_WITH(s.read(11, 0), ContainsSubstring("has 10 bytes"));
    // nothing of that size is allocated
    CHECK_THROWS_AS(s.read(1, ~std::uint64_t{0}), unroll::error);
    CHECK_THROWS_AS(s.read(~std::uint64_t{0}, 2), unroll::error);
  }
  CHECK_THROWS_WITH(byte_source::open(f.path / "none", "reader"), ContainsSubstring("reader: \""));
  CHECK_THROWS_WITH(byte_source::open(f.path / "none", "reader"), ContainsSubstring("does not exist"));
  CHECK_THROWS_WITH(byte_source::open(f.path, "reader"), ContainsSubstring("is not a regular file"));
}

TEST_CASE("a file that shrinks while it is read is refused") {
  const folder f;
  write_file(f.path / "a", std::string(100, 'x'));
  const auto s = byte_source::open(f.path / "a", "reader");
  std::filesystem::resize_file(f.path / "a", 10);
  CHECK_THROWS_WITH(s.read(0, 100), ContainsSubstring("ends after 10 of 100 bytes"));
}

TEST_CASE("a file writer that is not committed leaves the old content and nothing else") {
  const folder f;
  write_file(f.path / "a", "old");
  {
    file_writer w(f.path / "a");
    w.append("new");
  }
  CHECK(read_file(f.path / "a") == "old");
  {
    file_writer w(f.path / "a");
    w.append("ne");
    w.append("w");
    w.commit();
  }
  CHECK(read_file(f.path / "a") == "new");
  std::size_t entries = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(f.path)) ++entries;
  CHECK(entries == 1);
  CHECK_THROWS_WITH(file_writer(f.path / "none" / "a"), ContainsSubstring("cannot be opened"));
}
