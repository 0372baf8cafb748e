#pragma once

#include "unroll/diagnose/sink.hpp"
#include "unroll/io/file.hpp"

namespace unroll {

/// Writes the rows as CSV in one step: the file is never half written.
inline void write_csv(const std::filesystem::path& path, std::span<const row> rows) {
  write_file(path, to_csv(rows), "write_csv");
}

}  // namespace unroll
