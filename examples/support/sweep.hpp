#pragma once

// A sweep: one run for every combination of some options' values, their results in one file, and one table.

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <unroll/core/worker_pool.hpp>
#include <unroll/diagnose/interval.hpp>
#include <unroll/diagnose/sink.hpp>
#include <unroll/io/json.hpp>

#include "program.hpp"

namespace program {

/// Empty, or what is wrong with a list of whole numbers from `least` to `most`, such as 16,64 or 1..6; its
/// numbers are appended to `values`.
template <class Number>
std::string read_numbers(const std::string& text, Number least, Number most,
                         std::vector<std::string>& values) {
  for (const std::string& part : split(text)) {
    const std::size_t dots = part.find("..");
    const std::string first = part.substr(0, dots), last = dots == part.npos ? first : part.substr(dots + 2);
    Number ends[2] = {};
    for (int i = 0; i < 2; ++i) {
      const std::string& end = i == 0 ? first : last;
      if (const std::string wrong = written_out<Number>(end); !wrong.empty()) return wrong;
      std::from_chars(end.data() + (end.starts_with('+') ? 1 : 0), end.data() + end.size(), ends[i]);
      if (ends[i] < least || ends[i] > most)
        return end + " is not in " + std::to_string(least) + " to " + std::to_string(most);
    }
    if (ends[1] < ends[0]) return part + " ends before it begins";
    if (ends[1] - ends[0] >= 10'000) return part + " is more than 10000 numbers";
    for (Number n = ends[0];; ++n) {
      values.push_back(std::to_string(n));
      if (n == ends[1]) break;
    }
  }
  return "";
}

/// An option that takes one whole number or, for a sweep, several; `text` is the default.
template <class Number>
CLI::Option* add_numbers(CLI::App* app, const char* name, std::string& text, Number least, Number most,
                         const std::string& what) {
  return app->add_option(name, text, what + "; several, as 16,64 or 1..6: a sweep")
      ->check([least, most](const std::string& given) {
        std::vector<std::string> values;
        return read_numbers(given, least, most, values);
      })
      ->capture_default_str();
}

/// An option with all the values that it takes in a sweep.
template <class Options>
struct swept {
  std::string name;
  std::vector<std::string> values;
  void (*set)(Options&, const std::string&);
};

/// The combinations: the last option changes first.
template <class Options>
class sweep {
 public:
  sweep(Options base, std::vector<swept<Options>> axes) : base_(std::move(base)), axes_(std::move(axes)) {
    for (const auto& a : axes_) {
      size_ *= index_t(a.values.size());
      for (const std::string& v : a.values)
        if (std::count(a.values.begin(), a.values.end(), v) > 1)
          unroll::fail("sweep", "--" + a.name, "has " + v + " twice");
    }
  }

  index_t size() const { return size_; }
  const std::vector<swept<Options>>& axes() const { return axes_; }
  /// The value of option `axis` in run i.
  const std::string& value(index_t i, std::size_t axis) const {
    for (std::size_t a = axes_.size(); --a > axis;) i /= index_t(axes_[a].values.size());
    return axes_[axis].values[std::size_t(i) % axes_[axis].values.size()];
  }
  Options at(index_t i) const {
    Options o = base_;
    for (std::size_t a = 0; a < axes_.size(); ++a) axes_[a].set(o, value(i, a));
    return o;
  }
  /// Run i in words; without one option, that of a group of runs.
  std::string name(index_t i, const std::string& without = "") const {
    std::string text;
    for (std::size_t a = 0; a < axes_.size(); ++a)
      if (axes_[a].name != without) text += (text.empty() ? "" : ", ") + axes_[a].name + " " + value(i, a);
    return text;
  }

 private:
  Options base_;
  std::vector<swept<Options>> axes_;
  index_t size_ = 1;
};

/// The results of a sweep, by the names of its runs, in a file that is replaced whenever one is added.
class sweep_results {
 public:
  /// Goes on with the file, if it is there. `identity`: all that the runs have in common. Throws
  /// unroll::error on the file of another sweep, and on one that is none.
  sweep_results(const char* program, std::string file, const std::string& identity)
      : program_(program),
        file_(std::move(file)),
        document_{{"sweep", identity}, {"runs", nlohmann::json::object()}} {
    if (!is_replaced(file_) || !std::filesystem::exists(file_)) return;
    written_ = unroll::read_file(file_, program_);
    unroll::parse_json(written_, program_, "\"" + file_ + "\"");
    nlohmann::json there = nlohmann::json::parse(written_);
    if (!there.is_object() || !there.contains("sweep") || !there["sweep"].is_string() ||
        !there.contains("runs") || !there["runs"].is_object())
      unroll::fail(program_, "--sweep", "\"" + file_ + "\" is there and holds no sweep");
    if (there["sweep"] != identity)
      unroll::fail(program_, "--sweep",
                   "\"" + file_ + "\" holds another sweep: \"" + there["sweep"].get<std::string>() +
                       "\", asked for \"" + identity + "\"");
    document_ = std::move(there);
  }

  std::string identity() const { return document_["sweep"].get<std::string>(); }
  /// Null, or the result of a run.
  const nlohmann::json* find(const std::string& run) const {
    const auto at = document_["runs"].find(run);
    return at == document_["runs"].end() ? nullptr : &*at;
  }
  void add(const std::string& run, nlohmann::json result) {
    document_["runs"][run] = std::move(result);
    write();
  }
  /// Of several ranks the first one writes. Throws unroll::error where somebody else has changed the file.
  void write() {
    if (!world.first()) return;
    std::string text = document_.dump(1) + "\n";
    unroll::file_writer writer(file_, program_);
    writer.append(text);
    writer.sync();
    if (is_replaced(file_)) {
      const bool there = std::filesystem::exists(file_);
      if (there ? unroll::read_file(file_, program_) != written_ : !written_.empty())
        unroll::fail(program_, "--sweep", "\"" + file_ + "\" was changed by another program meanwhile");
    }
    writer.commit();
    written_ = std::move(text);  // where it could not be written, what is there stays ours
  }

 private:
  const char* program_;
  std::string file_, written_;
  nlohmann::json document_;
};

/// Makes the runs that are not in the results: f(options) is a run's result, null where it was interrupted.
/// An unroll::error that it throws is its result too, since a run of these options can come to nothing else;
/// but an unroll::file_error, and whatever else may be over tomorrow, ends the sweep when the runs beside it
/// are done, and the same sweep makes that run again. Up to `threads` runs at the same time (0: one a core)
/// on each of the ranks, which share them and all call this.
template <class Options, class F>
void run_sweep(const sweep<Options>& all, sweep_results& results, index_t threads, F&& f) {
  std::vector<index_t> left;
  std::string named = results.identity();
  for (index_t i = 0; i < all.size(); ++i)
    if (results.find(all.name(i)) == nullptr) {
      left.push_back(i);
      named += "\n" + all.name(i);
    }
  world.check_same("sweep", "what is left to do", fingerprint(named.data(), named.size()));
  results.write();
  if (threads == 0) threads = std::max<index_t>(1, index_t(std::thread::hardware_concurrency()));
  threads = world.broadcast(0, threads);  // a round is as long on all ranks
  // one process takes the next run whenever a thread is free, ranks meet when each has had one a thread
  const auto count = index_t(left.size()), round = world.size() == 1 ? count : threads * world.size();
  const progress line;
  for (index_t begin = 0; begin < count && !stop_asked(); begin += round) {
    const index_t n = std::min(round, count - begin), own = world.end(n) - world.begin(n);
    const auto name = [&](index_t i) { return all.name(left[std::size_t(begin + i)]); };
    std::vector<std::string> found(static_cast<std::size_t>(n));
    std::atomic<index_t> next{world.begin(n)};
    std::mutex mutex;
    index_t done = begin;
    const auto make = [&](index_t i) {
      nlohmann::json result;
      try {
        result = f(all.at(left[std::size_t(begin + i)]));
      } catch (const unroll::file_error&) {
        throw;
      } catch (const unroll::error& e) {
        result = {{"error", e.what()}};
      }
      if (result.is_null()) return;
      const std::lock_guard lock(mutex);
      found[std::size_t(i)] = result.dump();
      results.add(name(i), std::move(result));
      line.show(text_of("%td of %td runs", ++done, count));
    };
    auto work = [&](index_t) {
      try {
        for (index_t i; (i = next.fetch_add(1)) < world.end(n) && !interrupted;) make(i);
      } catch (...) {
        next = world.end(n);  // no more runs, on this thread or another
        throw;
      }
    };
    unroll::worker_pool pool(std::min(threads, std::max<index_t>(1, own)));
    pool.run(work);
    for (index_t r = 0; r < world.size() && world.size() > 1; ++r)
      for (index_t i = world.begin_of(n, r); i < world.begin_of(n, r + 1); ++i)
        if (const std::string text = world.broadcast_text(r, found[std::size_t(i)]);
            r != world.rank() && !text.empty())
          results.add(name(i), nlohmann::json::parse(text));
  }
}

/// A table with a row for every group of runs that differ in their seed alone, and every label of theirs.
/// A result is {"rows": [{label: text, number: value, ...}, ...]}. Of `estimated` the mean over the seeds and
/// its interval by Student, or of one seed its own (_low, _high); of the other numbers the mean.
template <class Options>
std::vector<unroll::row> table_of(const sweep<Options>& all, const sweep_results& results,
                                  const std::string& label, const std::string& estimated,
                                  const std::vector<std::string>& others, double confidence) {
  struct group {
    index_t first = 0, failed = 0;
    std::string label;
    std::vector<const nlohmann::json*> rows;
  };
  std::vector<std::pair<std::string, group>> groups;
  const auto group_of = [&](index_t i, const std::string& text) -> group& {
    const std::string key = all.name(i, "seed") + "\n" + text;
    for (auto& g : groups)
      if (g.first == key) return g.second;
    groups.push_back({key, {i, 0, text, {}}});
    return groups.back().second;
  };
  for (index_t i = 0; i < all.size(); ++i) {
    const nlohmann::json* result = results.find(all.name(i));
    if (result == nullptr) continue;
    if (!result->contains("rows")) {
      ++group_of(i, "").failed;
      continue;
    }
    for (const nlohmann::json& r : (*result)["rows"])
      group_of(i, label.empty() ? "" : r.at(label).template get<std::string>()).rows.push_back(&r);
  }
  const auto number = [](const nlohmann::json& r, const std::string& name) {
    return r.contains(name) && r[name].is_number() ? r[name].template get<double>()
                                                   : std::numeric_limits<double>::quiet_NaN();
  };
  std::vector<unroll::row> table;
  for (const auto& named : groups) {
    const group& g = named.second;
    unroll::row out;
    for (std::size_t a = 0; a < all.axes().size(); ++a)
      if (all.axes()[a].name != "seed") out.add(all.axes()[a].name, all.value(g.first, a));
    if (!label.empty()) out.add(label, g.label);
    out.add("runs", index_t(g.rows.size()) + g.failed);
    out.add("failed", g.failed);
    const auto mean = [&](const std::string& name) {
      double sum = 0;
      for (const nlohmann::json* r : g.rows) sum += number(*r, name);
      return g.rows.empty() ? std::numeric_limits<double>::quiet_NaN() : sum / double(g.rows.size());
    };
    std::vector<double> estimates;
    for (const nlohmann::json* r : g.rows) estimates.push_back(number(*r, estimated));
    const auto [middle, margin] = unroll::student_mean(estimates, confidence);
    const bool several = estimates.size() > 1;
    const double low = several ? middle - margin : mean(estimated + "_low"),
                 high = several ? middle + margin : mean(estimated + "_high");
    out.add(estimated, middle).add(estimated + "_low", low).add(estimated + "_high", high);
    for (const std::string& name : others) out.add(name, mean(name));
    table.push_back(std::move(out));
  }
  return table;
}

/// Says of every run that came to nothing why: a line each.
template <class Options>
void print_failures(const sweep<Options>& all, const sweep_results& results) {
  for (index_t i = 0; i < all.size(); ++i)
    if (const nlohmann::json* result = results.find(all.name(i)); result && result->contains("error"))
      std::printf("%s: %s\n", all.name(i).c_str(), result->at("error").template get<std::string>().c_str());
}

/// Throws unroll::error where the results of a sweep would have no place, or options say what one run does.
inline void check_sweep(const char* program, index_t runs, const std::string& file,
                        const std::vector<std::pair<const char*, bool>>& of_one_run) {
  if (file.empty())
    unroll::fail(program, "--sweep",
                 "must name the file for the results of " + std::to_string(runs) + " runs");
  for (const auto& [option, given] : of_one_run)
    if (given) unroll::fail(program, option, "is of one run; --sweep FILE holds the results of a sweep");
}

}  // namespace program
