#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "unroll/memory/bank.hpp"
#include "unroll/rng/draw.hpp"
#include "unroll/testing/allocations.hpp"
#include "unroll/testing/guarded.hpp"

namespace unroll::testing {

struct memory_model_conformance_options {
  key randomness{1};        ///< of the directions in which derivatives are tried
  index_t segments = 4;     ///< how many segments of the sequence are examined
  double rounding = 256;    ///< two ways to the same number may differ by this many epsilons
  double smoothness = 100;  ///< central differences may be wrong by this many epsilon^(2/3)
  bool allocations = true;  ///< needs unroll/testing/count_allocations.hpp in the program
};

namespace detail {

template <class M>
class memory_model_checks {
 public:
  static_assert(std::is_same_v<numbers_of<M>, numbers<typename M::scalar>>);
  using T = typename M::scalar;
  using X = typename M::input;
  using vec = std::vector<T>;
  using memories = std::vector<vec>;

  memory_model_checks(const M& f, params<const T> theta, std::span<const X> xs,
                      const memory_model_conformance_options& o)
      : f_(f), d_(f.size()), theta_(theta.begin(), theta.end()), xs_(xs), o_(o) {}

  std::vector<std::string> run() {
    expect(d_.params >= 0 && d_.memory > 0 && d_.tape > 0, "size: the memory or the tape is empty");
    expect(index_t(theta_.size()) == d_.params,
           "theta: has size " + std::to_string(theta_.size()) + ", not " + std::to_string(d_.params));
    expect(!xs_.empty(), "xs: no segments to try");
    if (!failures_.empty()) return failures_;
    memories past;
    for (index_t t = 0; t < std::min(o_.segments, index_t(xs_.size())); ++t) {
      where_ = "segment " + std::to_string(t) + ": ";
      check_read(t, past);
      check_write(t, past);
      if (o_.allocations) check_allocations(t, past);
      past.push_back(write(theta_, t, past).m.values());
      if (!finite(past.back())) return failures_;
    }
    where_.clear();
    for (index_t n = 2; f_.independent() && n <= index_t(past.size()); ++n) check_batch(n, past);
    return failures_;
  }

 private:
  // What one write leaves, and its workspace.
  struct written {
    guarded<T> m, tape, workspace;
    bool intact() const { return m.intact() && tape.intact() && workspace.intact(); }
  };
  struct cotangents {
    T loss = 0;
    vec dtheta;
    memories dpast;
    bool intact = true;
  };
  static constexpr double eps = std::numeric_limits<T>::epsilon();
  static constexpr T poison = std::numeric_limits<T>::quiet_NaN();

  void expect(bool good, const std::string& what) {
    if (!good) failures_.push_back(where_ + what);
  }
  bool close(const vec& a, const vec& b, double scale = 0) const {
    return detail::close(a, b, o_.rounding * eps, scale);
  }
  bool close(const memories& a, const memories& b) const {
    bool good = a.size() == b.size();
    for (std::size_t s = 0; good && s < a.size(); ++s) good = close(a[s], b[s]);
    return good;
  }
  vec random(index_t size) {
    vec v(std::size_t(size), T(0));
    draw_normals(o_.randomness, draws_++, view<T>(v));
    return v;
  }
  double smooth(double scale) const { return o_.smoothness * std::pow(eps, 2.0 / 3) * (1 + scale); }

  static std::vector<const T*> addresses(const memories& past) {
    std::vector<const T*> p;
    for (const vec& m : past) p.push_back(m.data());
    return p;
  }
  std::vector<const T*> seen_by_write(const memories& past) const {
    return f_.independent() ? std::vector<const T*>{} : addresses(past);
  }
  std::span<const X> segments(index_t t, index_t n = 1) const {
    return xs_.subspan(std::size_t(t), std::size_t(n));
  }
  index_t workspace_size(index_t t) const { return f_.workspace(t, 1); }

  written write(const vec& theta, index_t t, const memories& past, bool graph = true,
                T garbage = poison) const {
    written r{guarded<T>(d_.memory, garbage), guarded<T>(d_.tape, garbage),
              guarded<T>(workspace_size(t), garbage)};
    f_.write(segments(t), t, theta, seen_by_write(past), view<T>(r.m), graph ? view<T>(r.tape) : view<T>{},
             view<T>(r.workspace));
    return r;
  }
  // Adds to `into`; the adjoints of the memories of `skip` are not asked for.
  cotangents write_vjp(written& w, index_t t, const memories& past, const vec& dm, cotangents into,
                       index_t skip = -1, T garbage = poison) const {
    w.workspace.fill(garbage);
    f_.write_vjp(segments(t), t, theta_, seen_by_write(past), {.tape = {w.tape.data(), d_.tape}, .dm = dm},
                 {.dpast = adjoint_addresses(into, skip), .dtheta = into.dtheta}, view<T>(w.workspace));
    into.intact = w.intact();
    return into;
  }
  cotangents read_vjp(index_t t, const memories& past, cotangents into, index_t skip = -1,
                      T garbage = poison) const {
    guarded<T> workspace(workspace_size(t), garbage);
    guarded<T> loss(1, garbage);
    f_.read_vjp(segments(t), t, theta_, addresses(past), view<T>(loss).data(),
                {.dpast = adjoint_addresses(into, skip), .dtheta = into.dtheta}, view<T>(workspace));
    into.loss = loss.data()[0];
    into.intact = workspace.intact() && loss.intact();
    return into;
  }
  T read(const vec& theta, index_t t, const memories& past, T garbage = poison) const {
    guarded<T> workspace(workspace_size(t), garbage);
    guarded<T> loss(1, garbage);
    f_.read(segments(t), t, theta, addresses(past), view<T>(loss).data(), view<T>(workspace));
    return workspace.intact() && loss.intact() ? loss.data()[0] : poison;
  }
  static std::vector<T*> adjoint_addresses(cotangents& c, index_t skip) {
    std::vector<T*> p;
    for (std::size_t s = 0; s < c.dpast.size(); ++s)
      p.push_back(index_t(s) == skip ? nullptr : c.dpast[s].data());
    return p;
  }
  // Of a write: the memories that it sees.
  cotangents zero(std::size_t count, bool theta = true) const {
    return {0, vec(theta ? theta_.size() : 0), memories(count, vec(std::size_t(d_.memory)))};
  }
  cotangents noise(std::size_t count) {
    cotangents c{0, random(d_.params), {}};
    for (std::size_t s = 0; s < count; ++s) c.dpast.push_back(random(d_.memory));
    return c;
  }
  static cotangents sum(cotangents a, const cotangents& b) {
    for (std::size_t i = 0; i < a.dtheta.size(); ++i) a.dtheta[i] += b.dtheta[i];
    for (std::size_t s = 0; s < a.dpast.size(); ++s)
      for (std::size_t i = 0; i < a.dpast[s].size(); ++i) a.dpast[s][i] += b.dpast[s][i];
    return a;
  }

  // What both vjps promise: `vjp(into, skip, garbage)`.
  template <class Vjp>
  cotangents check_vjp(const std::string& name, std::size_t count, Vjp&& vjp) {
    const cotangents r = vjp(zero(count), -1, poison), again = vjp(zero(count), -1, T(3));
    expect(r.intact, name + ": writes outside its workspace");
    expect(same_bits(r.dtheta, again.dtheta) && r.dpast == again.dpast && r.loss == again.loss,
           name + ": the same input gives other bits the second time, or reads old workspace");
    const cotangents base = noise(count), added = vjp(base, -1, poison), expected = sum(base, r);
    expect(close(added.dtheta, expected.dtheta), name + ": does not add to dtheta");
    expect(close(added.dpast, expected.dpast), name + ": does not add to dpast");
    for (index_t skip = 0; skip < index_t(count); ++skip) {
      const cotangents part = vjp(zero(count), skip, poison);
      cotangents rest = r;
      rest.dpast[std::size_t(skip)].assign(std::size_t(d_.memory), T(0));
      expect(close(part.dtheta, rest.dtheta) && close(part.dpast, rest.dpast),
             name + ": changes where the adjoint of memory " + std::to_string(skip) + " is not wanted");
    }
    return r;
  }

  // Compares <r, direction> with the slope of `value(theta, past)` along directions in theta, in the `count`
  // first memories, and in both.
  template <class Value>
  void check_differences(const std::string& name, std::size_t count, const memories& past,
                         const cotangents& r, Value&& value) {
    for (int kind = 0; kind < 3; ++kind) {
      cotangents v = noise(count);
      if (kind == 1) v.dtheta.assign(theta_.size(), T(0));
      if (kind == 2) v.dpast = zero(count).dpast;
      double square = dot(v.dtheta, v.dtheta), mine = dot(r.dtheta, v.dtheta), size = largest(theta_);
      double length_of_r = length(r.dtheta);
      for (std::size_t s = 0; s < count; ++s) {
        square += dot(v.dpast[s], v.dpast[s]);
        mine += dot(r.dpast[s], v.dpast[s]);
        size = std::max(size, largest(past[s]));
        length_of_r += length(r.dpast[s]);
      }
      if (square == 0) continue;
      const double h = std::cbrt(eps) * std::max(1.0, size), unit = 1 / std::sqrt(square);
      const auto moved = [&](double step) {
        vec theta(theta_);
        memories at(past);
        for (std::size_t i = 0; i < theta.size(); ++i)
          theta[i] = T(double(theta[i]) + step * double(v.dtheta[i]));
        for (std::size_t s = 0; s < count; ++s)
          for (std::size_t i = 0; i < at[s].size(); ++i)
            at[s][i] = T(double(at[s][i]) + step * double(v.dpast[s][i]));
        return value(theta, at);
      };
      const double up = moved(h * unit), down = moved(-h * unit), theirs = (up - down) / (2 * h);
      mine *= unit;
      expect(std::abs(mine - theirs) <= smooth(length_of_r + std::abs(theirs) + std::abs(up)),
             name + ": along a direction " + std::to_string(mine) + ", central differences " +
                 std::to_string(theirs));
    }
  }

  void check_write(index_t t, const memories& past) {
    written w = write(theta_, t, past), other = write(theta_, t, past, true, T(3));
    const written bare = write(theta_, t, past, false), copied = write_of_copy(t, past);
    expect(w.intact() && bare.intact(), "write: writes outside its memory");
    expect(
        same_bits(w.m.values(), other.m.values()),
        "write: the memory depends on what was in m, tape or workspace before, or changes the second time");
    expect(same_bits(w.m.values(), bare.m.values()), "write: other bits without a graph");
    expect(same_bits(w.m.values(), copied.m.values()), "write: a copy of the model gives other bits");

    const std::size_t count = f_.independent() ? 0 : past.size();
    const vec dm = random(d_.memory);
    const auto vjp = [&](cotangents into, index_t skip, T garbage) {
      return write_vjp(w, t, past, dm, std::move(into), skip, garbage);
    };
    const cotangents r = check_vjp("write_vjp", count, vjp);
    const cotangents later = write_vjp(other, t, past, dm, zero(count));
    expect(same_bits(r.dtheta, later.dtheta) && r.dpast == later.dpast,
           "write_vjp: a second graph of the same segment gives other bits");
    const cotangents nothing = write_vjp(w, t, past, vec(std::size_t(d_.memory)), zero(count));
    expect(largest(nothing.dtheta) == 0, "write_vjp: is not zero where dm is");
    check_differences("write_vjp", count, past, r, [&](const vec& theta, const memories& at) {
      return dot(dm, write(theta, t, at).m.values());
    });
  }
  written write_of_copy(index_t t, const memories& past) const {
    const M copy(f_);
    written r{guarded<T>(d_.memory, poison), guarded<T>(d_.tape, poison),
              guarded<T>(workspace_size(t), poison)};
    copy.write(segments(t), t, theta_, seen_by_write(past), view<T>(r.m), view<T>(r.tape),
               view<T>(r.workspace));
    return r;
  }

  void check_read(index_t t, const memories& past) {
    const T loss = read(theta_, t, past), again = read(theta_, t, past, T(3));
    expect(std::isfinite(loss),
           "read: the loss is not finite, or something is written outside the workspace");
    expect(same_bits(vec{loss}, vec{again}), "read: changes the second time, or reads old workspace");
    const bool direct = reads_params(f_);
    const auto vjp = [&](cotangents into, index_t skip, T garbage) {
      return read_vjp(t, past, std::move(into), skip, garbage);
    };
    const cotangents r = check_vjp("read_vjp", past.size(), vjp);
    expect(close(vec{r.loss}, vec{loss}), "read_vjp: its loss is not that of read");
    const cotangents less = read_vjp(t, past, zero(past.size(), false));
    expect(close(less.dpast, r.dpast), "read_vjp: the adjoints change where dtheta is empty");
    if (!direct) expect(largest(r.dtheta) == 0, "read_vjp: adds to dtheta, though reads_params() is false");
    check_differences("read_vjp", past.size(), past, r,
                      [&](const vec& theta, const memories& at) { return double(read(theta, t, at)); });
  }

  // A batch of the first n segments, `all` memories, against the same calls one by one.
  void check_batch(index_t n, const memories& all) {
    const std::string name = "a batch of " + std::to_string(n) + " gives ";
    const memories past(all.begin(), all.begin() + n - 1);
    guarded<T> m(n * d_.memory, poison), tape(n * d_.tape, poison), losses(n, poison);
    guarded<T> workspace(f_.workspace(n - 1, n), poison);
    const vec dm = random(n * d_.memory);
    cotangents batch = noise(past.size());
    batch.loss = 0;
    cotangents single = batch;
    const auto write = [&](view<T> graph) {
      m.fill(poison);
      f_.write(segments(0, n), 0, theta_, {}, view<T>(m), graph, view<T>(workspace));
      for (index_t i = 0; i < n; ++i)
        expect(same_bits(vec(m.data() + i * d_.memory, m.data() + (i + 1) * d_.memory), all[std::size_t(i)]),
               "write: " + name + "other memories");
    };
    write({});
    write(view<T>(tape));
    workspace.fill(poison);
    f_.write_vjp(segments(0, n), 0, theta_, {}, {.tape = {tape.data(), n * d_.tape}, .dm = dm},
                 {.dtheta = batch.dtheta}, view<T>(workspace));
    for (index_t i = n - 1; i >= 0; --i) {
      written w = this->write(theta_, i, {});
      w.workspace.fill(poison);
      f_.write_vjp(segments(i), i, theta_, {},
                   {.tape = {w.tape.data(), d_.tape}, .dm = view<const T>(dm).part(i * d_.memory, d_.memory)},
                   {.dtheta = single.dtheta}, view<T>(w.workspace));
    }
    expect(same_bits(batch.dtheta, single.dtheta), "write_vjp: " + name + "another dtheta");

    vec bare(std::size_t(n), T(0)), with_vjp, one_by_one;
    workspace.fill(poison);
    f_.read(segments(0, n), 0, theta_, addresses(past), view<T>(losses).data(), view<T>(workspace));
    bare = losses.values();
    workspace.fill(poison);
    f_.read_vjp(segments(0, n), 0, theta_, addresses(past), view<T>(losses).data(),
                {.dpast = adjoint_addresses(batch, -1), .dtheta = batch.dtheta}, view<T>(workspace));
    with_vjp = losses.values();
    for (index_t t = 0; t < n; ++t) {
      const memories before(past.begin(), past.begin() + t);
      expect(same_bits(vec{bare[std::size_t(t)]}, vec{read(theta_, t, before)}),
             "read: " + name + "other losses");
      cotangents part{0, single.dtheta, memories(single.dpast.begin(), single.dpast.begin() + t)};
      part = read_vjp(t, before, std::move(part));
      single.dtheta = part.dtheta;
      std::copy(part.dpast.begin(), part.dpast.end(), single.dpast.begin());
      one_by_one.push_back(part.loss);
    }
    expect(same_bits(with_vjp, one_by_one), "read_vjp: " + name + "other losses");
    expect(same_bits(batch.dtheta, single.dtheta), "read_vjp: " + name + "another dtheta");
    expect(batch.dpast == single.dpast, "read_vjp: " + name + "other adjoints");
    expect(m.intact() && tape.intact() && workspace.intact() && losses.intact(),
           name + "writes outside its memory");
  }

  void check_allocations(index_t t, const memories& past) {
    if (!allocations_are_counted()) {
      if (!counting_is_replaced())
        failures_.push_back("allocations are not counted: include unroll/testing/count_allocations.hpp once");
      return;
    }
    const auto x = segments(t);
    T loss;
    guarded<T> m(d_.memory), tape(d_.tape),
        workspace(workspace_size(t));  // a model that writes too far is told above
    const auto seen = seen_by_write(past), all = addresses(past);
    cotangents c = zero(past.size());
    const auto to = adjoint_addresses(c, -1);
    const std::span<T* const> to_seen = std::span<T* const>(to).first(seen.size());
    const auto count = [&](const char* call, auto&& body) {
      const allocation_counter counter;
      body();
      const std::int64_t made = counter.count();
      expect(made == 0, std::string(call) + ": allocates " + std::to_string(made) + " times");
    };
    const view<T> into(m), graph(tape), given(workspace);
    count("write", [&] { f_.write(x, t, theta_, seen, into, graph, given); });
    count("write_vjp", [&] {
      f_.write_vjp(x, t, theta_, seen, {.tape = graph, .dm = into}, {.dpast = to_seen, .dtheta = c.dtheta},
                   given);
    });
    count("read", [&] { f_.read(x, t, theta_, all, &loss, given); });
    count("read_vjp",
          [&] { f_.read_vjp(x, t, theta_, all, &loss, {.dpast = to, .dtheta = c.dtheta}, given); });
  }

  const M& f_;
  memory_dims d_;
  vec theta_;
  std::span<const X> xs_;
  const memory_model_conformance_options& o_;
  std::vector<std::string> failures_;
  std::string where_;
  std::int64_t draws_ = 0;
};

}  // namespace detail

/// The rules that the concept of a memory model cannot express, tried along the sequence `xs`: results do not
/// depend on old memory or on earlier calls; nothing is written outside its memory, the workspace is enough;
/// a write without a graph, or once more, has the same bits; vjps add, agree with central differences of
/// write and read, and do not change where some adjoints are not wanted; a batch has the bits of one by one;
/// nothing allocates. Numbers of all kinds have one type. Returns what is wrong, nothing for a conforming
/// model. Choose theta and xs so that the model is smooth there.
template <memory_model M>
std::vector<std::string> memory_model_conformance(
    const M& model, std::type_identity_t<params<const typename M::scalar>> theta,
    std::type_identity_t<std::span<const typename M::input>> xs,
    const memory_model_conformance_options& options = {}) {
  return detail::memory_model_checks<M>(model, theta, xs, options).run();
}

}  // namespace unroll::testing
