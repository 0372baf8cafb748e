#pragma once

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "unroll/diagnose/sink.hpp"
#include "unroll/io/file.hpp"

namespace unroll {

namespace detail {

// What TensorBoard 2.21 reads: records of TensorFlow's TFRecord format, a file of
//   u64 length, u32 masked CRC-32C of these 8 bytes, the bytes, u32 masked CRC-32C of the bytes
// little-endian, each one message of tensorboard/compat/proto/event.proto in the wire format of protocol
// buffers, of which a scalar needs few fields.

inline std::uint32_t masked_crc32c(std::string_view bytes) {
  std::uint32_t crc = ~std::uint32_t{0};
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return std::rotr(~crc, 15) + 0xa282ead8u;
}

template <class Number>
void put_bytes(std::string& out, Number value) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  out.append(raw, sizeof value);
}
inline void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  out += static_cast<char>(value);
}
// A field of bytes: its tag is the number of the field times 8, and 2.
inline void put_field(std::string& out, char tag, std::string_view bytes) {
  out += tag;
  put_varint(out, bytes.size());
  out += bytes;
}

// Event { double wall_time = 1; int64 step = 2; ... } with a field behind these, as a record.
inline std::string event_record(double wall_time, std::int64_t step, char tag, std::string_view what) {
  std::string event = "\x09";
  put_bytes(event, wall_time);
  if (step != 0) {
    event += '\x10';
    put_varint(event, static_cast<std::uint64_t>(step));
  }
  put_field(event, tag, what);
  std::string length;
  put_bytes(length, std::uint64_t(event.size()));
  std::string out = length;
  put_bytes(out, masked_crc32c(length));
  out += event;
  put_bytes(out, masked_crc32c(event));
  return out;
}

}  // namespace detail

/// The numbers of a row at a step as a record of a file of events, where TensorBoard finds each as a scalar
/// of that name, in float. Texts are left out, and a field "step", the axis; nan and inf stay what they are.
/// `wall_time`: seconds since 1970.
inline std::string to_event(std::int64_t step, double wall_time, const row& r) {
  std::string summary;
  for (const auto& [name, value] : r.fields()) {
    const double* number = value.number();
    const std::int64_t* count = value.count();
    if ((!number && !count) || name == "step") continue;
    std::string scalar;  // Summary.Value { string tag = 1; float simple_value = 2; }
    detail::put_field(scalar, '\x0a', name);
    scalar += '\x15';
    detail::put_bytes(scalar, number ? float(*number) : float(*count));
    detail::put_field(summary, '\x0a', scalar);  // Summary { repeated Value value = 1; }
  }
  return detail::event_record(wall_time, step, '\x2a', summary);
}

/// A file of events of a run, for TensorBoard, beside CSV and JSON lines. Rows are added while the run goes
/// on, each with its numbers at a step:
///
///     event_file events("runs/first", wall_time);
///     events.add(step, wall_time, row().add("loss", loss));
///
/// It is always a new file, named after the time, and nothing that is there is written over. A run that is
/// resumed has a further file, which begins with the word that it starts again behind step `resumed_from`:
/// TensorBoard drops what earlier files of the folder have from later steps. Times are told.
///
/// A record that the disk has no room for is taken back, so that the file ends with a whole record, and add()
/// may be tried again.
class event_file final {
 public:
  /// In `folder`, which is made where it is missing. Throws unroll::error where that cannot be, and where the
  /// folder has events and this is no resumed run: its scalars would be mixed with those of another.
  event_file(const std::filesystem::path& folder, double wall_time, std::int64_t resumed_from = 0) {
    namespace fs = std::filesystem;
    if (!(wall_time >= 0 && wall_time < 1e10))
      fail("event_file", "wall_time", "is " + number_text(wall_time) + ", must be seconds since 1970");
    if (resumed_from < 0)
      fail("event_file", "resumed_from", "is " + std::to_string(resumed_from) + ", must be at least 0");
    std::error_code code;
    fs::create_directories(folder, code);
    std::error_code unknown;
    if (!fs::is_directory(folder, unknown))
      detail::fail_file("event_file", folder, "cannot be made a folder: " + code.message());
    const std::string version =  // string file_version = 3
        detail::event_record(wall_time, 0, '\x1a', "brain.Event:2");
    if (resumed_from == 0)
      for (const auto& entry : fs::directory_iterator(folder, code))
        if (entry.path().filename().string().find("tfevents") != std::string::npos &&
            entry.file_size(unknown) > version.size())
          fail("event_file", detail::quoted_path(folder),
               "has events of another run, " + detail::quoted_path(entry.path().filename()) +
                   ": a new run needs another folder");
    std::string seconds = std::to_string(static_cast<std::int64_t>(wall_time));
    seconds.insert(0, 10 - std::min<std::size_t>(10, seconds.size()), '0');  // sorted by name is by time
    for (int i = 0; !file_ && i < 1000; ++i) {
      path_ = folder / ("events.out.tfevents." + seconds + ".unroll." + std::to_string(1000 + i).substr(1));
      file_.reset(std::fopen(path_.string().c_str(), "wbx"));
      if (!file_ && errno != EEXIST) break;
    }
    if (!file_)
      detail::fail_file("event_file", path_, std::string("cannot be opened: ") + std::strerror(errno));
    std::setvbuf(file_.get(), nullptr, _IONBF, 0);
    append(version);
    if (resumed_from > 0)  // SessionLog session_log = 7, of status = 1, START; steps from this one on go
      append(detail::event_record(wall_time, resumed_from + 1, '\x3a', std::string_view("\x08\x01", 2)));
  }

  /// The numbers of the row, as to_event says. Throws unroll::error where they cannot be written.
  void add(std::int64_t step, double wall_time, const row& r) { append(to_event(step, wall_time, r)); }
  const std::filesystem::path& path() const { return path_; }  ///< of the file

 private:
  void append(std::string_view record) {
    if (std::fwrite(record.data(), 1, record.size(), file_.get()) == record.size()) {
      size_ += record.size();
      return;
    }
    const int why = errno;
    std::clearerr(file_.get());
    std::error_code code;
    std::filesystem::resize_file(path_, size_, code);
    std::fseek(file_.get(), long(size_), SEEK_SET);
    detail::fail_file("event_file", path_,
                      std::string("cannot be written: ") + std::strerror(why) +
                          (code ? "" : "; its first " + std::to_string(size_) + " bytes are whole records"));
  }

  std::filesystem::path path_;
  detail::file file_;
  std::uintmax_t size_ = 0;  // of the whole records
};

}  // namespace unroll
