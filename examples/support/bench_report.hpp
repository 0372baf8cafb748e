#pragma once

// The tables and figures of memory_llama bench.

#include <unroll/diagnose/json_sink.hpp>

#include "bench_runs.hpp"

namespace program {

/// Slope of log y against log x by least squares.
inline double exponent(const std::vector<std::pair<double, double>>& points) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const auto& [a, b] : points) {
    if (!(a > 0 && b > 0)) continue;
    const double u = std::log(a), v = std::log(b);
    n += 1, x += u, y += v, xx += u * u, xy += u * v;
  }
  const double spread = n * xx - x * x;
  return spread > 0 ? (n * xy - x * y) / spread : std::numeric_limits<double>::quiet_NaN();
}

/// Method by method, seconds and bytes of the heap against the window or the length.
using bench_curves =
    std::vector<std::pair<std::string, std::array<std::vector<std::pair<double, double>>, 2>>>;

inline unroll::row bench_row(const std::string& method, const char* axis, index_t at, const measured& m,
                             double planned_bytes, double operations) {
  unroll::row r;
  r.add("method", method).add(axis, at).add("seconds", m.seconds).add("GFLOP", operations / 1e9);
  r.add("GFLOP_per_s", operations / 1e9 / m.seconds).add("MB", m.held / 1e6).add("MB_heap", m.heap / 1e6);
  return r.add("MB_planned", planned_bytes / 1e6).add("measured_over_planned", m.heap / planned_bytes);
}

/// FILE_name.svg for FILE.svg.
inline std::string bench_figure(const std::string& plot, const std::string& name) {
  std::filesystem::path file = plot;
  file.replace_filename(file.stem().string() + "_" + name + file.extension().string());
  return file.string();
}
inline void draw_bench(const std::string& plot, const std::string& name, const bench_curves& curves) {
  std::string data, time, bytes;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const auto& [method, both] = curves[i];
    if (both[0].empty()) continue;
    data += "$c" + std::to_string(i) + " << END\n";
    for (std::size_t k = 0; k < both[0].size(); ++k)
      data += text_of("%g %g %g\n", both[0][k].first, both[0][k].second, both[1][k].second / 1e6);
    data += "END\n";
    const std::string style = " with linespoints pt 7 ps 0.6 lw 2 title " + quoted(method);
    time += (time.empty() ? "" : ", ") + ("$c" + std::to_string(i) + " using 1:2" + style);
    bytes += (bytes.empty() ? "" : ", ") + ("$c" + std::to_string(i) + " using 1:3" + style);
  }
  if (time.empty()) return;  // interrupted before anything was measured
  draw_figure(bench_figure(plot, name), 1000, 440,
              std::string("set logscale xy\nset grid\nset key top left\nset xlabel '") +
                  (name == "length" ? "tokens" : "window S") + "'\n" + data +
                  "set multiplot layout 1,2\nset ylabel 'seconds'\nplot " + time +
                  "\nset ylabel 'MB on the heap'\nplot " + bytes + "\nunset multiplot\n");
}

inline void show_bench(json& d, const std::string& plot, const char* name,
                       const std::vector<unroll::row>& rows, const bench_curves& curves) {
  std::printf("\n%s", unroll::to_table(rows).c_str());
  d[name] = json::array();
  for (const auto& r : rows) d[name].push_back(unroll::to_json(r));
  for (const auto& [method, both] : curves) {
    if (both[0].size() < 2) continue;
    const double time = exponent(both[0]), bytes = exponent(both[1]);
    std::printf("%-20s time ~ %s^%.2f, bytes ~ %s^%.2f\n", method.c_str(),
                name == std::string("length") ? "N" : "S", time, name == std::string("length") ? "N" : "S",
                bytes);
    d["exponents"][name][method] = {{"time", time}, {"bytes", bytes}};
  }
  if (!plot.empty() && !curves.empty()) draw_bench(plot, name, curves);
}

}  // namespace program
