#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "unroll/cuda/handles.hpp"

// What the programs of this folder share: checks that run on a device without a test framework. A program
// takes names of its checks, none means all, prints one row for each result, and appends the rows as JSON to
// the file that UNROLL_ROWS names.
namespace device_test {

using namespace unroll;

/// One result. Numbers below 0 were not taken.
struct row {
  std::string name;
  double error = -1, limit = -1;
  long long differing = -1, of = -1;  // numbers whose bits differ from the expected ones
  double ms = -1, rate = -1;
  std::string unit = {};  // of the rate
  bool pass = true;
  std::string note = {};
};

class report {
 public:
  explicit report(std::string program) : program_(std::move(program)) {
    if (const char* file = std::getenv("UNROLL_ROWS")) json_ = std::fopen(file, "a");
  }
  report(const report&) = delete;
  report& operator=(const report&) = delete;
  ~report() {
    if (json_) std::fclose(json_);
  }

  void add(const row& r) {
    all_pass_ = all_pass_ && r.pass;
    std::string text = program_ + ": " + r.name;
    if (text.size() < 62) text.resize(62, ' ');
    const bool has_error = !(r.error < 0);  // NaN is one
    if (has_error) text += formatted("  error %.1e", r.error);
    if (r.limit >= 0) text += formatted(" (limit %.1e)", r.limit);
    if (r.differing >= 0)
      text += "  bits differ " + std::to_string(r.differing) + " of " + std::to_string(r.of);
    if (r.ms >= 0) text += formatted("  %.3f ms", r.ms);
    if (r.rate >= 0) text += formatted("  %.1f ", r.rate) + r.unit;
    text += r.pass ? "  pass" : "  FAIL";
    if (!r.note.empty()) text += "  [" + r.note + "]";
    std::puts(text.c_str());
    std::fflush(stdout);
    if (!json_) return;
    std::fprintf(json_, "{\"program\": \"%s\", \"name\": \"%s\"", program_.c_str(), escaped(r.name).c_str());
    if (has_error)
      std::fprintf(json_, std::isfinite(r.error) ? ", \"error\": %.6g" : ", \"error\": \"%g\"", r.error);
    if (r.limit >= 0) std::fprintf(json_, ", \"limit\": %.6g", r.limit);
    if (r.differing >= 0) std::fprintf(json_, ", \"differing\": %lld, \"of\": %lld", r.differing, r.of);
    if (r.ms >= 0) std::fprintf(json_, ", \"ms\": %.6g", r.ms);
    if (r.rate >= 0) std::fprintf(json_, ", \"rate\": %.6g, \"unit\": \"%s\"", r.rate, r.unit.c_str());
    if (!r.note.empty()) std::fprintf(json_, ", \"note\": \"%s\"", escaped(r.note).c_str());
    std::fprintf(json_, ", \"pass\": %s}\n", r.pass ? "true" : "false");
    std::fflush(json_);
  }
  bool all_pass() const { return all_pass_; }

 private:
  static std::string formatted(const char* how, double x) {
    char text[64];
    std::snprintf(text, sizeof text, how, x);
    return text;
  }
  static std::string escaped(const std::string& s) {
    std::string out;
    for (const char c : s) {
      if (c == '"' || c == '\\') out += '\\';
      out += c == '\n' ? ' ' : c;
    }
    return out;
  }
  std::string program_;
  std::FILE* json_ = nullptr;
  bool all_pass_ = true;
};

struct check_entry {
  const char* name;
  void (*run)(report&);
};

/// main of a program: 0 where all pass, 1 where one fails, 77 and a line "skipped:" where there is no device.
inline int run(const char* program, int argc, char** argv, const std::vector<check_entry>& checks) {
  if (cuda::device_count() == 0) {
    std::string why = "there are 0";
    try {
      cuda::use_device(0);
    } catch (const std::exception& e) {
      why = e.what();
    }
    std::printf("skipped: %s: there is no CUDA device: %s\n", program, why.c_str());
    return 77;
  }
  for (int i = 1; i < argc; ++i)
    if (std::none_of(checks.begin(), checks.end(),
                     [&](const check_entry& c) { return std::strcmp(c.name, argv[i]) == 0; })) {
      std::printf("%s: \"%s\" is none of its checks:", program, argv[i]);
      for (const check_entry& c : checks) std::printf(" %s", c.name);
      std::puts("");
      return 2;
    }
  report to(program);
  for (const check_entry& c : checks) {
    bool wanted = argc == 1;
    for (int i = 1; i < argc; ++i) wanted = wanted || std::strcmp(c.name, argv[i]) == 0;
    if (!wanted) continue;
    try {
      cuda::use_device(0);
      c.run(to);
      cuda::check(cudaDeviceSynchronize(), "device_test::run", "cudaDeviceSynchronize");
    } catch (const std::exception& e) {
      row r{c.name};
      r.pass = false;
      r.note = e.what();
      to.add(r);
    }
  }
  return to.all_pass() ? 0 : 1;
}

template <class T>
cuda::device_block<T> to_device(const std::vector<T>& host) {
  cuda::device_block<T> d(index_t(host.size()));
  cuda::check(cudaMemcpy(d.data(), host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), "to_device",
              "cudaMemcpy");
  return d;
}
template <class T>
std::vector<T> to_host(const cuda::device_block<T>& d) {
  std::vector<T> host(std::size_t(d.size()));
  cuda::check(cudaMemcpy(host.data(), d.data(), host.size() * sizeof(T), cudaMemcpyDeviceToHost), "to_host",
              "cudaMemcpy");
  return host;
}
/// How many of n numbers have other bits.
template <class T>
long long count_differing(const std::vector<T>& a, const std::vector<T>& b) {
  long long n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) n += std::memcmp(&a[i], &b[i], sizeof(T)) != 0;
  return n;
}

/// The median time of one call of `enqueue(stream)` in ms, after a warm-up, of at most `most` calls and about
/// `budget_ms` together.
template <class F>
double median_ms(cuda::stream_handle& stream, F&& enqueue, int most = 20, double budget_ms = 1500) {
  cuda::event_handle before, after;
  std::vector<double> times;
  for (int i = 0; i < 3; ++i) enqueue(stream.get());
  stream.synchronise();
  double spent = 0;
  while (int(times.size()) < most && (times.size() < 5 || spent < budget_ms)) {
    before.record(stream.get());
    enqueue(stream.get());
    after.record(stream.get());
    after.synchronise();
    times.push_back(after.milliseconds_since(before));
    spent += times.back();
  }
  std::nth_element(times.begin(), times.begin() + index_t(times.size() / 2), times.end());
  return times[times.size() / 2];
}

}  // namespace device_test
