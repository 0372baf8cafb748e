#pragma once

#include <nlohmann/json.hpp>

#include "unroll/diagnose/sink.hpp"
#include "unroll/io/file.hpp"

namespace unroll {

/// A row as an object with its names in order. Needs nlohmann-json, which is why this header is not part of
/// unroll.hpp.
inline nlohmann::ordered_json to_json(const row& r) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [name, value] : r.fields()) {
    if (value.text()) object[name] = *value.text();
    if (value.count()) object[name] = *value.count();
    if (value.number()) object[name] = *value.number();
  }
  return object;
}

/// The rows as JSON lines, one object a row; nan and inf become null. Bytes that are not UTF-8 are replaced.
inline std::string to_json_lines(std::span<const row> rows) {
  std::string out;
  for (const row& r : rows)
    out += to_json(r).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
  return out;
}

/// Writes the rows as JSON lines in one step: the file is never half written.
inline void write_json_lines(const std::filesystem::path& path, std::span<const row> rows) {
  write_file(path, to_json_lines(rows), "write_json_lines");
}

}  // namespace unroll
