#include "unroll/diagnose/event_file.hpp"

#include <limits>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"

#if __has_include(<sys/resource.h>)
#include <signal.h>
#include <sys/resource.h>
#endif

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes)
    for (const int four : {static_cast<unsigned char>(c) / 16, static_cast<unsigned char>(c) % 16})
      out += "0123456789abcdef"[four];
  return out;
}

row scalars() {
  return row().add("step", 300).add("held_out", 1.5).add("rate", 0.001).add("note", "left out");
}

// Records that RecordWriter of tensorboard 2.21.0 writes of the same messages.
const std::string begins = "1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b353110";
const std::string restarts = "100000000000000095fbfe180900002040fc54d94110ac023a020801b94512a3";
const std::string holds =
    "2c00000000000000f4aecc450900005040fc54d94110ac022a1e0a0f0a0868656c645f6f7574150000c03f0a0b0a04726174651"
    "56f12833ad80d0ba7";

}  // namespace

TEST_CASE("CRC-32C has its check value, and a row is the record that TensorBoard's own writer makes of it") {
  const std::uint32_t crc = std::rotl(detail::masked_crc32c("123456789") - 0xa282ead8u, 15);
  CHECK(crc == 0xe3069283u);
  CHECK(hex(to_event(300, 1700000001.25, scalars())) == holds);
}

TEST_CASE("a file of events begins with its version, and a resumed one says where it starts again") {
  const folder files;
  const auto runs = files.path / "runs" / "first";
  event_file(runs, 1600000000.0);  // ended before its first report, and in nobody's way
  {
    event_file events(runs, 1700000000.5);
    CHECK(events.path() == runs / "events.out.tfevents.1700000000.unroll.000");
    events.add(300, 1700000001.25, scalars());
    CHECK(hex(read_file(events.path())) == begins + holds);  // at once: TensorBoard reads it meanwhile
  }
  CHECK_THROWS_WITH(event_file(runs, 1700000000.5),
                    ContainsSubstring("has events of another run, \"events.out.tfevents.1700000000"));
  const std::string before = read_file(runs / "events.out.tfevents.1700000000.unroll.000");
  event_file resumed(runs, 1700000000.5, 299);
  CHECK(resumed.path() == runs / "events.out.tfevents.1700000000.unroll.001");
  CHECK(hex(read_file(resumed.path())) == begins + restarts);
  CHECK((read_file(runs / "events.out.tfevents.1700000000.unroll.000") == before));
  CHECK(event_file(files.path / "epoch", 7).path().filename() == "events.out.tfevents.0000000007.unroll.000");
}

TEST_CASE("numbers that are none stay none, and wrong times and places are refused by name") {
  const folder files;
  constexpr double inf = std::numeric_limits<double>::infinity();
  const std::string event = to_event(0, 0, row().add("x", inf).add("n", 3));
  CHECK_THAT(hex(event), ContainsSubstring("0a0178150000807f") && ContainsSubstring("0a016e1500004040"));
  for (const double time : {-1.0, 1e10, inf, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_WITH(event_file(files.path, time),
                      ContainsSubstring("wall_time: is " + number_text(time) + ", must be seconds"));
  CHECK_THROWS_WITH(event_file(files.path, 1, -2), ContainsSubstring("resumed_from: is -2"));
  write_file(files.path / "plain", "text");
  CHECK_THROWS_WITH(event_file(files.path / "plain", 1), ContainsSubstring("cannot be made a folder"));
  CHECK_THROWS_AS(event_file(files.path / "plain" / "below", 1), file_error);
}

#ifdef RLIMIT_FSIZE
TEST_CASE("an event that the disk has no room for is taken back, and can be added again") {
  const folder files;
  event_file events(files.path, 1700000000.5);
  events.add(300, 1700000001.25, scalars());
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit small = old;
  small.rlim_cur = (begins.size() + holds.size()) / 2 + 10;  // room for ten bytes
  setrlimit(RLIMIT_FSIZE, &small);
  std::string said;
  try {
    events.add(301, 1700000001.25, scalars());
  } catch (const file_error& e) {
    said = e.what();
  }
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, handler);
  CHECK_THAT(said, ContainsSubstring("event_file: \"" + events.path().string() + "\": cannot be written: ") &&
                       ContainsSubstring("its first 100 bytes are whole records"));
  CHECK(hex(read_file(events.path())) == begins + holds);
  events.add(300, 1700000001.25, scalars());
  CHECK(hex(read_file(events.path())) == begins + holds + holds);
}
#endif
