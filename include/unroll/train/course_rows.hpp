#pragma once

#include <vector>

#include "unroll/diagnose/sink.hpp"
#include "unroll/train/run.hpp"

namespace unroll::training {

/// One report as a row, for tables, CSV, JSON lines and events (diagnose/sink.hpp, csv_file.hpp,
/// json_sink.hpp, event_file.hpp).
inline row to_row(const course_row& r) {
  row out;
  out.add("step", r.step).add("training", r.training).add("held_out", r.held_out);
  out.add("held_out_bits_per_byte", r.held_out_bits_per_byte).add("rate", r.rate).add("norm", r.norm);
  return out.add("tokens_per_second", r.tokens_per_second).add("seconds", r.seconds);
}
/// All reports of a run.
inline std::vector<row> to_rows(const std::vector<course_row>& course) {
  std::vector<row> rows;
  rows.reserve(course.size());
  for (const course_row& r : course) rows.push_back(to_row(r));
  return rows;
}

}  // namespace unroll::training
