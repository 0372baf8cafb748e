#pragma once

// The table and the figure of memory_llama gradient.

#include <unroll/diagnose/json_sink.hpp>

#include "memory_setup.hpp"

namespace program {

/// A policy, what was measured of its gradients, what one of them did, and what the plan says.
struct measured_policy {
  std::string policy;
  unroll::measurement m;
  unroll::replay_counts counts;
  unroll::memory_plan planned;
};

/// The numbers to look at first.
inline unroll::row summary(const measured_policy& l, index_t segments) {
  const auto& m = l.m;
  const double texts_seconds = m.seconds * double(segments), square = m.exact_norm * m.exact_norm;
  unroll::row r;
  r.add("policy", l.policy);
  r.add("bias", m.relative_bias).add("low", m.relative_bias_low).add("high", m.relative_bias_high);
  r.add("cosine", m.cosine).add("variance", m.variance / square).add("norm_ratio", m.mean_norm_ratio);
  r.add("replicas", m.replicas).add("writes", l.counts.writes).add("rewrites", l.counts.rewrites);
  r.add("back", l.planned.write_vjps).add("graphs", l.counts.live_graphs);
  r.add("seconds", texts_seconds).add("MB", double(m.bytes) / 1e6);
  if (const auto note = unroll::note_of(m); !note.empty()) r.add("note", note);
  return r;
}
/// All of them, for files.
inline unroll::row all_numbers(const measured_policy& l, index_t segments) {
  unroll::row r;
  r.add("policy", l.policy);
  const unroll::row known = unroll::to_row(l.policy, l.m);
  for (const auto& f : known.fields())
    if (f.name != "name") r.add(f.name, f.value);
  const double square = l.m.exact_norm * l.m.exact_norm;
  r.add("relative_variance", l.m.variance / square);
  r.add("norm_ratio", l.m.mean_norm_ratio);
  r.add("writes", l.counts.writes).add("rewrites", l.counts.rewrites);
  r.add("write_vjps", l.counts.write_vjps).add("reads", l.counts.reads).add("read_vjps", l.counts.read_vjps);
  r.add("live_graphs", l.counts.live_graphs);
  r.add("write_vjps_expected", l.planned.write_vjps);
  r.add("operations_planned", l.planned.operations());
  r.add("bytes_planned", l.planned.estimator_bytes());
  r.add("seconds_per_text", l.m.seconds * double(segments));
  return r;
}

/// Relative bias with its interval, and relative standard deviation, policy by policy.
inline void draw_policies(const std::vector<measured_policy>& lines, index_t segments,
                          const std::string& plot) {
  std::string rows;
  for (const measured_policy& l : lines) {
    const auto& m = l.m;
    const double deviation = std::sqrt(std::max(0.0, m.variance)) / m.exact_norm;
    rows += text_of("\"%s\" %g %g %g %g %g\n", l.policy.c_str(), m.relative_bias, m.relative_bias_low,
                    std::isfinite(m.relative_bias_high) ? m.relative_bias_high : m.relative_bias, deviation,
                    m.mean_norm_ratio);
  }
  draw_figure(
      plot, 960, 520,
      "set title " + quoted("Gradients of a memory model over " + std::to_string(segments) + " segments") +
          " noenhanced\nset style data histograms\nset style fill solid 0.8\nset boxwidth 0.35\nset xtics "
          "rotate by -35 "
          "noenhanced\nset yrange [0:*]\nset grid ytics\nset key outside top center horizontal\nset ylabel "
          "'relative to |g|'\n"
          "set xrange [-0.7:" +
          text_of("%g", double(lines.size()) - 0.3) + "]\n$rows << END\n" + rows +
          "END\nplot $rows using ($0-0.2):2:xtic(1) with boxes lc rgb '#c0392b' title 'bias of the mean "
          "gradient', "
          "'' using ($0-0.2):3:(0):($4-$3) with vectors nohead lw 2 lc rgb '#333333' notitle, "
          "'' using ($0+0.2):5 with boxes lc rgb '#9db8d0' title 'standard deviation', "
          "'' using 0:6 with points pt 6 lc rgb '#333333' title 'norm ratio E|g^| / |g|: no measure of "
          "bias'\n");
}

}  // namespace program
