#pragma once

// The figure of gradient_bias: bias against the price of precision, estimator by estimator.

#include "program.hpp"

namespace program {

/// An estimator by its name, and what was measured of it.
struct measured {
  std::string name;
  unroll::measurement m;
};

/// Relative bias with its interval against relative variance x time, both on logarithmic axes. What is zero
/// sits on the edge of the figure: exact estimators on the floor, deterministic ones at the left.
inline void draw_bias(const std::vector<measured>& results, const std::string& title,
                      const std::string& file) {
  using unroll::measurement;
  struct point {
    double x, y, low, high;
    bool biased;
    std::string label;
    double label_y;
  };
  constexpr double rounding = 1e-9;
  const auto cost = [](const measurement& m) { return m.variance_time / (m.exact_norm * m.exact_norm); };
  double left = 1e300, right = 0, top = 1, floor = 1e-2;
  for (const auto& r : results) {
    if (!std::isfinite(r.m.relative_bias_high)) continue;
    top = std::max(top, r.m.relative_bias_high);
    for (const double end : {r.m.relative_bias_low, r.m.relative_bias_high})
      if (end > rounding) floor = std::min(floor, end / 5);
    if (r.m.variance_time <= 0) continue;
    left = std::min(left, cost(r.m));
    right = std::max(right, cost(r.m));
  }
  if (right == 0) left = right = 1;
  floor = std::pow(10.0, std::floor(std::log10(floor)));
  const double none = left / 300;
  std::vector<point> points;
  for (const auto& r : results) {
    if (!std::isfinite(r.m.relative_bias_high)) continue;
    const auto y = [&](double v) { return std::max(v, floor); };
    point p{r.m.variance_time > 0 ? cost(r.m) : none,
            y(r.m.relative_bias),
            y(r.m.relative_bias_low),
            y(r.m.relative_bias_high),
            r.m.relative_bias_low > rounding,
            r.name,
            y(r.m.relative_bias_high)};
    // exact estimators share one point and one label
    const auto same = std::find_if(points.begin(), points.end(), [&](const point& q) {
      return p.x == none && q.x == none && p.y == floor && q.y == floor;
    });
    if (same == points.end())
      points.push_back(p);
    else
      same->label += ", " + p.label;
  }
  // a label stands at the upper end of its interval, or as far above as the labels of its neighbours need
  std::sort(points.begin(), points.end(), [](const point& p, const point& q) { return p.high < q.high; });
  const double line_height = std::pow(top * 5 / (floor / 2), 0.033);
  std::string data, labels, plot;
  for (std::size_t i = 0; i < points.size(); ++i) {
    point& p = points[i];
    for (std::size_t j = 0; j < i; ++j)
      if (std::abs(std::log10(p.x / points[j].x)) < 1)
        p.label_y = std::max(p.label_y, points[j].label_y * line_height);
    char line[400];
    std::snprintf(line, sizeof line, "%.6g %.6g %.6g %.6g %d\n", p.x, p.y, p.low, p.high, int(p.biased));
    data += line;
    std::snprintf(line, sizeof line, "at %.6g,%.6g offset 0.8,0.1 noenhanced\n", p.x, p.label_y);
    labels += "set label " + program::quoted(p.label) + " " + line;
  }
  if (points.empty()) unroll::fail("gradient_bias", "plot", "has nothing to draw: no interval is finite");
  const auto part = [&](bool biased, const char* style) {
    if (std::none_of(points.begin(), points.end(), [&](const point& p) { return p.biased == biased; }))
      return;
    plot += (plot.empty() ? "" : ", ") + ("$points using 1:($5==" + std::to_string(int(biased))) +
            "?$2:1/0):3:4 with yerrorbars " + style;
  };
  part(false, "pt 7 lc rgb '#1b6ca8' title 'interval contains 0'");
  part(true, "pt 5 lc rgb '#c0392b' title 'biased'");
  const double first_tic = std::pow(10.0, std::ceil(std::log10(left / 2))), wall = left / 3;
  char axes[400];
  std::snprintf(axes, sizeof axes,
                "set xrange [%g:%g]\nset yrange [%g:%g]\nset xtics %g,10 format '10^{%%T}'\n"
                "set xtics add (\"no variance\" %g)\nset ytics %g,10\nset ytics add (\"0\" %g)\n"
                "set arrow from %g,graph 0 to %g,graph 1 nohead lc rgb '#999999'\n",
                none / 4, right * 30, floor / 2, top * 5, first_tic, none, 10 * floor, floor, wall, wall);
  draw_figure(file, 960, 600,
              std::string("set logscale xy\nset format y '10^{%T}'\n") + axes + labels +
                  "set grid ytics\nset key top right\nset title " + program::quoted(title) +
                  " noenhanced\nset xlabel 'price of precision: tr V / |g|^2 x seconds per sequence'\n"
                  "set ylabel 'relative bias of the mean estimate'\n$points << END\n" +
                  data + "END\nplot " + plot + "\n",
              "enhanced");
}

}  // namespace program
