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

TEST_CASE("bytes that lie in memory are not copied, those of a file are") {
  const folder f;
  write_file(f.path / "a", "0123456789");
  const std::string in_memory = "0123456789";
  const auto memory = byte_source::memory(in_memory, "memory", "reader");
  unsigned char out[4] = {};
  CHECK(static_cast<const void*>(memory.bytes(6, out, 4)) == in_memory.data() + 6);
  CHECK(out[0] == 0);
  CHECK(byte_source::open(f.path / "a", "reader").bytes(6, out, 4) == out);
  CHECK((out[0] == '6' && out[3] == '9'));
  for (const std::uint64_t at : {std::uint64_t{7}, std::uint64_t{11}, ~std::uint64_t{0}})
    CHECK_THROWS_WITH(memory.bytes(at, out, 4), ContainsSubstring("has 10 bytes, 4 from byte "));
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
    w.sync();
    CHECK(read_file(f.path / "a") == "old");
    CHECK_THROWS_WITH(w.append("er"), ContainsSubstring("nothing can be appended behind sync()"));
    w.commit();
  }
  CHECK(read_file(f.path / "a") == "new");
  CHECK(f.entries() == 1);
  CHECK_THROWS_WITH(file_writer(f.path / "none" / "a"), ContainsSubstring("cannot be opened"));
  CHECK_THROWS_WITH(file_writer(f.path), ContainsSubstring("is a folder"));
  CHECK_THROWS_WITH(file_writer(""), ContainsSubstring("names no file"));
  CHECK_THROWS_WITH(file_writer(f.path / "new/"), ContainsSubstring("names no file"));
}

TEST_CASE("writers of one path do not share a file") {
  const folder f;
  file_writer a(f.path / "a"), b(f.path / "a");
  a.append(std::string(1000, 'a'));
  b.append(std::string(2000, 'b'));
  a.commit();
  CHECK(read_file(f.path / "a") == std::string(1000, 'a'));
  b.commit();
  CHECK(read_file(f.path / "a") == std::string(2000, 'b'));
  CHECK(f.entries() == 1);
}

TEST_CASE("a link stays and the file behind it is replaced, there or not") {
  namespace fs = std::filesystem;
  const folder f;
  fs::create_directory(f.path / "far");
  write_file(f.path / "far" / "a", "old");
  fs::create_symlink("far", f.path / "near");
  fs::create_symlink("near/a", f.path / "link");
  fs::create_symlink(f.path / "link", f.path / "link_to_link");
  write_file(f.path / "link_to_link", "new");
  CHECK(fs::is_symlink(f.path / "link"));
  CHECK(fs::is_symlink(f.path / "link_to_link"));
  CHECK(read_file(f.path / "far" / "a") == "new");
  fs::create_symlink("far/b", f.path / "dangling");
  write_file(f.path / "dangling", "there");
  CHECK(read_file(f.path / "far" / "b") == "there");
  fs::create_symlink("circle", f.path / "circle");
  CHECK_THROWS_WITH(write_file(f.path / "circle", "x"), ContainsSubstring("circle\": cannot be reached"));
}

TEST_CASE("a file keeps its permissions, and one without write permission its content") {
  namespace fs = std::filesystem;
  const folder f;
  write_file(f.path / "a", "old");
  fs::permissions(f.path / "a", fs::perms(0600));
  write_file(f.path / "a", "new");
  CHECK(fs::status(f.path / "a").permissions() == fs::perms(0600));
  fs::permissions(f.path / "a", fs::perms(0444));
  CHECK_THROWS_WITH(write_file(f.path / "a", "x"), ContainsSubstring("has no write permission"));
  CHECK(read_file(f.path / "a") == "new");
  fs::permissions(f.path / "a", fs::perms(0600));
}

TEST_CASE("devices and descriptors are written to, never replaced") {
  namespace fs = std::filesystem;
  if (!fs::is_character_file("/dev/null")) return;
  write_file("/dev/null", "x");
  CHECK(fs::is_character_file("/dev/null"));
  const folder f;
  fs::create_symlink("/dev/null", f.path / "link");
  write_file(f.path / "link", "x");
  CHECK(fs::is_symlink(f.path / "link"));
  if (fs::is_character_file("/dev/full")) {
    CHECK_THROWS_WITH(write_file("/dev/full", "x"), ContainsSubstring("\"/dev/full\": cannot be written"));
    CHECK(fs::is_character_file("/dev/full"));
  }
  if (!fs::exists("/proc/self/fd")) return;
  // an open file behind /dev/fd keeps what is in it, and its place
  const detail::file open(std::fopen((f.path / "a").string().c_str(), "wb"));
  std::fputs("before ", open.get());
  std::fflush(open.get());
  write_file("/dev/fd/" + std::to_string(fileno(open.get())), "between ");
  std::fputs("behind", open.get());
  std::fflush(open.get());
  CHECK(read_file(f.path / "a") == "before between behind");
}

TEST_CASE("two paths of one file are the same, whatever links lead there") {
  namespace fs = std::filesystem;
  const folder f;
  write_file(f.path / "a", "a");
  write_file(f.path / "b", "a");
  fs::create_symlink("a", f.path / "link");
  fs::create_hard_link(f.path / "a", f.path / "hard");
  fs::create_symlink(f.path, f.path / "self");
  fs::create_symlink("new", f.path / "to_new");
  CHECK(same_file(f.path / "a", f.path / "a"));
  CHECK(same_file(f.path / "a", f.path / "link"));
  CHECK(same_file(f.path / "hard", f.path / "link"));
  CHECK(same_file(f.path / "self" / "a", f.path / "self" / ".." / f.path.filename() / "hard"));
  CHECK_FALSE(same_file(f.path / "a", f.path / "b"));
  // of files that are not there yet
  CHECK(same_file(f.path / "new", f.path / "." / "self" / "new"));
  CHECK(same_file(f.path / "new", f.path / "to_new"));
  CHECK(same_file(f.path / "new", f.path / "new/"));
  CHECK_FALSE(same_file(f.path / "new", f.path / "newer"));
}

TEST_CASE("what the system refuses is a file_error, and a file that is too long or too short is not") {
  const folder files;
  const auto plain = files.path / "plain";
  write_file(plain, "text");
  CHECK_THROWS_AS(read_file(files.path / "none"), file_error);
  CHECK_THROWS_AS(read_file(files.path), file_error);
  CHECK_THROWS_AS(write_file(files.path, "text"), file_error);
  CHECK_THROWS_AS(write_file(plain / "below", "text"), file_error);
  CHECK_THROWS_WITH(
      read_file(files.path / "none", "test"),
      Catch::Matchers::Equals("test: " + detail::quoted_path(files.path / "none") + ": does not exist"));
  const auto kind = [](auto call) {
    try {
      call();
    } catch (const file_error&) {
      return "file_error";
    } catch (const error&) {
      return "error";
    }
    return "none";
  };
  CHECK(kind([&] { read_file(plain, "test", 3); }) == std::string("error"));
  CHECK(kind([&] { byte_source::open(plain, "test").read(2, 3); }) == std::string("error"));
  CHECK(kind([&] { read_file(files.path / "none"); }) == std::string("file_error"));
}
