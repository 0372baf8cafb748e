#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unroll/diagnose/horizon.hpp"
#include "unroll/diagnose/measure.hpp"

namespace unroll {

/// A value of a row: a number, a count or a text.
class field {
 public:
  field(double number) : kind_(kind::number), number_(number) {}
  template <std::integral I>
  field(I count) : kind_(kind::count), count_(static_cast<std::int64_t>(count)) {}
  field(std::string text) : kind_(kind::text), text_(std::move(text)) {}
  field(const char* text) : field(std::string(text)) {}

  /// The number, or null where it is something else; so the two below.
  const double* number() const { return kind_ == kind::number ? &number_ : nullptr; }
  /// The count, or null.
  const std::int64_t* count() const { return kind_ == kind::count ? &count_ : nullptr; }
  /// The text, or null.
  const std::string* text() const { return kind_ == kind::text ? &text_ : nullptr; }

 private:
  enum class kind { number, count, text } kind_;
  double number_ = 0;
  std::int64_t count_ = 0;
  std::string text_;
};

/// One line of a table: named values in order.
class row {
 public:
  /// A value and what its column is called.
  struct named_field {
    std::string name;  ///< of the column
    field value;       ///< in it
  };

  /// Appends a value; a name that is there already gets the new value.
  row& add(std::string_view name, field value) {
    for (named_field& f : fields_) {
      if (f.name != name) continue;
      f.value = std::move(value);
      return *this;
    }
    fields_.push_back({std::string(name), std::move(value)});
    return *this;
  }

  /// Names and values, in the order they were added.
  const std::vector<named_field>& fields() const& { return fields_; }
  void fields() && = delete;
  /// The field of that name, or null.
  const field* find(std::string_view name) const {
    for (const named_field& f : fields_)
      if (f.name == name) return &f.value;
    return nullptr;
  }

 private:
  std::vector<named_field> fields_;
};

/// As a table names it.
inline const char* name_of(estimand e) {
  switch (e) {
    case estimand::frozen_theta:
      return "frozen_theta";
    case estimand::jointly_smoothed:
      return "jointly_smoothed";
    case estimand::independently_smoothed:
      return "independently_smoothed";
  }
  return "unknown";
}

/// All numbers of a measurement, for files.
inline row to_row(const std::string& name, const measurement& m) {
  row r;
  r.add("name", name).add("estimand", name_of(m.estimated_gradient));
  r.add("status", m.code == status::ok ? "ok" : "non_finite");
  r.add("replicas", m.replicas).add("diverged", m.diverged).add("pilot", m.pilot);
  r.add("exact_norm", m.exact_norm).add("reference_error", m.reference_error);
  r.add("bias_square", m.bias_square).add("relative_bias", m.relative_bias);
  r.add("relative_bias_low", m.relative_bias_low).add("relative_bias_high", m.relative_bias_high);
  r.add("variance", m.variance).add("mse", m.mse).add("snr", m.snr).add("cosine", m.cosine);
  r.add("mean_norm_ratio", m.mean_norm_ratio).add("descent", m.descent);
  r.add("descent_low", m.descent_low).add("descent_high", m.descent_high);
  r.add("worst_z", m.worst_z).add("worst_z_limit", m.worst_z_limit).add("worst_z_events", m.worst_z_events);
  r.add("max_over_sum", m.max_over_sum).add("events", m.events);
  r.add("heavy_tails", m.heavy_tails ? "yes" : "no").add("batches", m.batches);
  r.add("steps", m.steps).add("vjps", m.vjps).add("jvps", m.jvps).add("seconds", m.seconds);
  r.add("bytes", m.bytes).add("sample_bytes", m.sample_bytes).add("variance_time", m.variance_time);
  return r;
}

/// What must be known before a row is believed; empty where nothing is.
inline std::string note_of(const measurement& m) {
  std::string note;
  const auto add = [&](const std::string& what) { note += (note.empty() ? "" : ", ") + what; };
  if (m.code != status::ok) add("not finite: " + std::to_string(m.diverged));
  if (m.heavy_tails) add("heavy tails");
  if (m.variance > 0 && m.batches == 0) add("no batches");
  return note;
}

/// The numbers to look at first, for a console.
inline row to_short_row(const std::string& name, const measurement& m) {
  row r;
  r.add("name", name).add("replicas", m.replicas).add("bias", m.relative_bias);
  r.add("low", m.relative_bias_low).add("high", m.relative_bias_high);
  r.add("variance", m.exact_norm > 0 ? m.variance / (m.exact_norm * m.exact_norm) : m.variance);
  r.add("cosine", m.cosine).add("descent", m.descent).add("vjps", m.vjps).add("jvps", m.jvps);
  r.add("bytes", m.bytes).add("seconds", m.seconds);
  if (const auto note = note_of(m); !note.empty()) r.add("note", note);
  return r;
}

/// One lag as a row of a table.
inline row to_row(const lag_entry& e) {
  row r;
  r.add("lag", e.lag).add("norm", e.norm).add("projection", e.projection);
  return r.add("cumulative", e.cumulative).add("phi", e.phi);
}

/// A profile as rows, one a lag. Norms are shares of ||g||; `tail`, their sum over the later lags, bounds the
/// relative bias of truncation there.
inline std::vector<row> to_rows(const lag_profile& p) {
  double tail = 0;
  for (const lag_entry& e : p.lags) tail += e.norm / p.gradient_norm;
  std::vector<row> rows;
  for (const lag_entry& e : p.lags) {
    const double norm = e.norm / p.gradient_norm;
    row r;
    r.add("lag", e.lag).add("norm", norm).add("tail", tail -= norm).add("projection", e.projection);
    rows.push_back(r.add("cumulative", e.cumulative).add("phi", e.phi));
  }
  return rows;
}

namespace detail {

struct column {
  std::string name;
  std::size_t width = 0;  // of its longest text
  bool is_text = false;   // any of its values
};

// One for each name, in the order in which they first appear.
inline std::vector<column> columns(std::span<const row> rows) {
  std::vector<column> all;
  for (const row& r : rows)
    for (const auto& f : r.fields()) {
      std::size_t i = 0;
      while (i < all.size() && all[i].name != f.name) ++i;
      if (i == all.size()) all.push_back({f.name});
    }
  return all;
}

// `digits` significant digits, or as many as it takes to read the same number back when 0; never depends on
// the locale.
inline std::string to_text(const field& value, int digits) {
  if (const std::string* s = value.text()) return *s;
  char text[40];
  char* end = text + sizeof text;
  if (const std::int64_t* i = value.count()) return {text, std::to_chars(text, end, *i).ptr};
  const double x = *value.number();
  return {text, (digits > 0 ? std::to_chars(text, end, x, std::chars_format::general, digits)
                            : std::to_chars(text, end, x))
                    .ptr};
}

inline std::string quoted(const std::string& s) {
  if (s.find_first_of(",\"\r\n") == std::string::npos && !s.starts_with(' ') && !s.ends_with(' ')) return s;
  std::string out = "\"";
  for (char c : s) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}

}  // namespace detail

/// The rows as an aligned table: text to the left, numbers to the right.
inline std::string to_table(std::span<const row> rows, int digits = 4) {
  auto columns = detail::columns(rows);
  for (detail::column& c : columns) {
    c.width = c.name.size();
    for (const row& r : rows) {
      const field* f = r.find(c.name);
      if (!f) continue;
      c.width = std::max(c.width, detail::to_text(*f, digits).size());
      c.is_text = c.is_text || f->text();
    }
  }
  std::string out;
  const auto put = [&](const detail::column& c, const std::string& cell) {
    if (&c != &columns[0]) out += "  ";
    const std::string space(c.width - cell.size(), ' ');
    out += c.is_text ? cell + space : space + cell;
  };
  const auto end_line = [&] {
    while (!out.empty() && out.back() == ' ') out.pop_back();
    out += '\n';
  };
  for (const detail::column& c : columns) put(c, c.name);
  end_line();
  for (const row& r : rows) {
    for (const detail::column& c : columns) {
      const field* f = r.find(c.name);
      put(c, f ? detail::to_text(*f, digits) : std::string());
    }
    end_line();
  }
  return out;
}

/// The rows as CSV (RFC 4180, lines end in \n). Numbers read back as the same numbers; nan and inf are
/// spelled so.
inline std::string to_csv(std::span<const row> rows) {
  const auto columns = detail::columns(rows);
  std::string out;
  const auto separate = [&](const detail::column& c) {
    if (&c != &columns[0]) out += ',';
  };
  for (const detail::column& c : columns) {
    separate(c);
    out += detail::quoted(c.name);
  }
  out += '\n';
  for (const row& r : rows) {
    for (const detail::column& c : columns) {
      separate(c);
      if (const field* f = r.find(c.name)) out += detail::quoted(detail::to_text(*f, 0));
    }
    out += '\n';
  }
  return out;
}

}  // namespace unroll
