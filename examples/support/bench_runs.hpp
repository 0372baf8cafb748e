#pragma once

// What memory_llama bench measures: one gradient, or one reading of a text, its time and its bytes.

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "memory_setup.hpp"

namespace program {

/// Bytes of the heap that are in use, 0 where the C library does not tell.
inline double heap_bytes() {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
  const auto info = mallinfo2();
  return double(info.uordblks) + double(info.hblkhd);
#else
  return 0;
#endif
}

/// Processor time, bytes of the heap, and those that an estimator says it holds.
struct measured {
  double seconds = std::numeric_limits<double>::infinity(), heap = 0, held = 0;

  /// The faster time and the most bytes of two measurements of the same.
  void merge(const measured& other) {
    seconds = std::min(seconds, other.seconds);
    heap = std::max(heap, other.heap);
    held = std::max(held, other.held);
  }
};

/// Runs on one model and one thread, each `repeats` times at most; the fastest counts.
class bench_runs {
 public:
  using T = float;

  bench_runs(const memory_setup<T>& setup, index_t repeats, std::uint64_t seed)
      : setup_(setup), repeats_(repeats), seed_(seed) {}

  std::vector<token> random_text(index_t n) const {
    std::vector<token> ids;
    for (index_t i = 0; i < n; ++i)
      ids.push_back(token(unroll::draw_index(fold(key{seed_}, 9), i, setup_.shape().vocabulary)));
    return ids;
  }

  /// What a copy of the model takes, which every estimator has: its tables, not its weights.
  static double model_bytes(const memory_llama<T>& model) {
    const double before = heap_bytes();
    const auto copy = std::make_unique<memory_llama<T>>(model);
    return heap_bytes() - before;
  }

  /// One gradient by an estimator that has made one before, so that its memory is mapped (the first where
  /// --repeats is 1); bytes of the heap beside a copy of the model, and those that the estimator says it
  /// holds.
  measured gradient_of(const unroll::policy& p, const std::vector<segment>& text, index_t repeat = 0) const {
    using namespace unroll;
    measured out;
    gradient<T> g(setup_.theta.size());
    const double before = heap_bytes() + model_bytes(setup_.model);
    with_policy(p, setup_.model, index_t(text.size()), philox_chooser{}, [&](auto&& e) {
      for (index_t i = 0; i < std::min<index_t>(repeats_, 2) && !interrupted; ++i) {
        g.zero();
        const double start = processor_seconds();
        e.reset(fold(key{seed_}, std::uint64_t(repeat)));
        report r = e.advance(setup_.theta, text, g);
        r += e.finish(setup_.theta, g);
        out.seconds = processor_seconds() - start;
        out.held = double(r.bytes);
        out.heap = heap_bytes() - before;
      }
    });
    return out;
  }

  /// TBPTT(S) as it is written: before every loss the S encoders in front of it run with their graphs, and
  /// after it each is differentiated.
  measured naive_gradient(index_t window, const std::vector<segment>& text) const {
    using namespace unroll;
    const auto& model = setup_.model;
    const memory_dims d = model.size();
    const index_t n = index_t(text.size()), size = std::min(window, n - 1);
    measured out;
    gradient<T> g(setup_.theta.size());
    const double before = heap_bytes();
    buffer<T> memories((n - 1) * d.memory), adjoints(size * d.memory), tapes(size * d.tape),
        workspace(model.workspace(n - 1));
    const auto memory_of = [&](index_t s) { return view<T>(memories).part(s * d.memory, d.memory); };
    const auto slot = [&](buffer<T>& all, index_t s, index_t each) {
      return view<T>(all).part(s % size * each, each);
    };
    std::vector<const T*> past;
    const double start = processor_seconds();
    for (index_t t = 0; t < n && !interrupted; ++t) {
      const index_t first = std::max<index_t>(0, t - size);
      std::vector<T*> dpast(std::size_t(t), nullptr);
      adjoints.zero();
      for (index_t s = first; s < t; ++s) {
        model.write(text[std::size_t(s)], s, setup_.theta, {}, memory_of(s), slot(tapes, s, d.tape),
                    workspace);
        dpast[std::size_t(s)] = slot(adjoints, s, d.memory).data();
      }
      if (t > 0) past.push_back(memory_of(t - 1).data());
      model.read_vjp(text[std::size_t(t)], t, setup_.theta, past, {.dpast = dpast}, workspace);
      for (index_t s = first; s < t; ++s)
        model.write_vjp(text[std::size_t(s)], s, setup_.theta, {},
                        {.tape = slot(tapes, s, d.tape), .dm = slot(adjoints, s, d.memory)}, {.dtheta = g},
                        workspace);
    }
    out.seconds = processor_seconds() - start;
    out.heap = heap_bytes() - before;
    out.held = double(memories.bytes() + adjoints.bytes() + tapes.bytes() + workspace.bytes());
    return out;
  }

  /// All but the last segment into memories, then the last one is read.
  measured read_with_memories(const std::vector<segment>& text) const {
    using namespace unroll;
    const double before = heap_bytes();
    const auto& model = setup_.model;
    const memory_dims d = model.size();
    const index_t n = index_t(text.size());
    measured out;
    buffer<T> memories((n - 1) * d.memory), workspace(model.workspace(n - 1));
    for (index_t i = 0; i < repeats_ && !interrupted; ++i) {
      std::vector<const T*> past;
      const double start = processor_seconds();
      for (index_t s = 0; s + 1 < n && !interrupted; ++s) {
        const view<T> m = view<T>(memories).part(s * d.memory, d.memory);
        model.write(text[std::size_t(s)], s, setup_.theta,
                    model.independent() ? std::span<const T* const>{} : past, m, {}, workspace);
        past.push_back(m.data());
      }
      if (!interrupted) model.read(text.back(), n - 1, setup_.theta, past, workspace);
      out.seconds = std::min(out.seconds, processor_seconds() - start);
      out.heap = std::max(out.heap, heap_bytes() - before);
    }
    out.held = double(memories.bytes() + workspace.bytes());
    return out;
  }

  measured read_plainly(std::span<const token> ids) const {
    using namespace unroll;
    measured out;
    const auto& stack = setup_.model.stack();
    const double before = heap_bytes();
    llama::generator<T> reader(stack, setup_.model.weights(),
                               llama::key_value_cache<T>(setup_.shape(), index_t(ids.size())), {}, 256);
    for (index_t i = 0; i < repeats_ && !interrupted; ++i) {
      reader.reset();
      const double start = processor_seconds();
      for (std::size_t at = 0; at < ids.size() && !interrupted; at += 256)
        reader.append(ids.subspan(at, std::min(ids.size() - at, std::size_t(256))));
      out.seconds = std::min(out.seconds, processor_seconds() - start);
      out.heap = std::max(out.heap, heap_bytes() - before);
      if (out.seconds > 5) break;
    }
    out.held = double(reader.bytes());
    return out;
  }

  /// Keys and values of all tokens, and what one chunk of 256 needs.
  static double plain_bytes(const unroll::llama::transformer<T>& stack, index_t tokens) {
    const auto& c = stack.shape();
    const index_t chunk = std::min<index_t>(256, tokens);
    const T* none = nullptr;
    unroll::llama::pass<T> p;
    p.length = chunk;
    p.layers = c.layers;
    p.before = {std::span(&none, 1), tokens, tokens};
    const index_t workspace = std::max(stack.workspace_size(p),
                                       unroll::llama::lm_head<unroll::exec::of<T>>::workspace_size(c, chunk));
    const double cache = 2 * double(c.layers) * double(c.kv_width()) * double(tokens);
    return sizeof(T) * (cache + double(workspace + c.hidden * chunk + c.vocabulary));
  }

 private:
  const memory_setup<T>& setup_;
  index_t repeats_;
  std::uint64_t seed_;
};

}  // namespace program
