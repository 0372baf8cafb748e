#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "unroll/llama/generate.hpp"
#include "unroll/llama/language_model.hpp"
#include "unroll/text/segments.hpp"

namespace unroll::llama {

/// How a text that is longer than the model's context is cut: into windows of `window` inputs, each of which
/// sees nothing in front of it. A window begins with the last `overlap` inputs of the one before, which are
/// not scored again.
struct score_options {
  index_t window = 0;   ///< 0: all positions of the model
  index_t overlap = 0;  ///< tokens that a window repeats without scoring them
  index_t threads = 1;  ///< over windows; no result depends on them; 1 but on the host
};

/// nll[i] = -log p(ids[i + 1] | the earlier tokens of its window), in nats.
template <class T>
struct text_score {
  std::vector<T> nll;  ///< one less than ids; fewer where the work was ended early

  double mean() const {
    return nll.empty() ? 0 : std::accumulate(nll.begin(), nll.end(), 0.0) / double(nll.size());
  }
};

/// The mean of a text's nll and how many tokens it is over.
struct text_mean {
  double nll = 0;      ///< mean negative log probability of a scored token, in nats
  index_t tokens = 0;  ///< scored
};

namespace detail {

struct go_on {
  bool operator()(index_t) const { return true; }
};

/// The windows of a text that is scored; its inputs are all tokens but the last.
inline segmenter windows_of(const config& c, std::span<const token> ids, const score_options& o,
                            const char* function) {
  check(c, function);
  check_at_least(function, "ids", index_t(ids.size()), 2);
  check_tokens(function, "ids", c, ids);
  const index_t length = o.window == 0 ? c.positions() : o.window;
  check_at_least(function, "window", length, 1);
  check_at_least(function, "overlap", o.overlap, 0);
  check_at_least(function, "threads", o.threads, 1);
  if (length > c.positions())
    fail(function, "window",
         "is " + std::to_string(length) + ", the model has " + std::to_string(c.positions()) + " positions");
  if (o.overlap >= length)
    fail(function, "overlap",
         "is " + std::to_string(o.overlap) + ", must be less than the window of " + std::to_string(length));
  return {index_t(ids.size()) - 1, length, o.overlap, function};
}

}  // namespace detail

/// Scores a text whose first token is given: as a rule the one that begins texts. `more(tokens scored)` is
/// asked between windows whether to go on. Throws unroll::error on fewer than two tokens, ids out of range
/// and options that do not fit the model. Time and memory of one pass a window, without a tape.
template <class X, class More = detail::go_on>
text_score<typename transformer<X>::P> score(const transformer<X>& stack,
                                             params<const typename transformer<X>::W> weights,
                                             std::span<const token> ids, score_options o = {},
                                             adapters<typename transformer<X>::P> a = {}, More&& more = {}) {
  using E = typename transformer<X>::executor_type;
  using A = typename E::numbers::activation;
  using P = typename E::numbers::parameter;
  const E& e = stack.executor();
  const config& c = stack.shape();
  const segmenter windows = detail::windows_of(c, ids, o, "score");
  detail::check_threads<E>("score", o.threads);
  check_size("score", "weights", weights.size(), stack.map().size());
  worker_pool pool(std::min(o.threads, windows.size()));
  std::vector<typename E::template block<A>> xs, workspaces;
  std::vector<exec::mirror<E, P>> losses;
  const index_t workspace_size = std::max(lm_head<E>::workspace_size(c, windows.length()),
                                          stack.workspace_size(stack.pass_over(0, windows.length()), false));
  for (index_t i = 0; i < pool.size(); ++i) {
    xs.push_back(e.template allocate<A>(c.hidden * windows.length()));
    workspaces.push_back(e.template allocate<A>(workspace_size));
    losses.emplace_back(e, windows.length() + 1);
  }
  text_score<P> out;
  out.nll.resize(std::size_t(windows.items()));
  index_t done = 0;
  for (; done < windows.size() && more(windows.covered(done)); done += pool.size()) {
    auto job = [&](index_t i) {
      if (done + i >= windows.size()) return;
      const piece w = windows[done + i];
      const matrix<A> x(xs[std::size_t(i)].data(), c.hidden, w.count);
      const view<A> workspace = workspaces[std::size_t(i)];
      embed(e, stack.map(), weights.data(), ids.subspan(std::size_t(w.first), std::size_t(w.count)), x);
      stack.forward(weights.data(), a, stack.pass_over(0, w.count), x, view<A>{}, workspace);
      const index_t first = w.first + w.repeated, n = w.count - w.repeated;
      exec::mirror<E, P>& nll = losses[std::size_t(i)];
      const lm_head<E> head{e, stack.map(), weights.data(), workspace};
      head.losses(columns_of(x, w.repeated, n), ids.subspan(std::size_t(first) + 1, std::size_t(n)),
                  nll.data(), nll.data() + n);
      std::copy_n(nll.fetch(e, n).data(), n, out.nll.begin() + first);
    };
    pool.run(job);
  }
  out.nll.resize(std::size_t(windows.covered(std::min(done, windows.size()))));
  return out;
}

/// WRITES the gradient of the mean nll of such a text to g, under weight_map's names: what the two uses of a
/// tied matrix receive is summed; and that of the adapters `a` to da, unless it is empty. Up to 4 windows run
/// side by side, whatever the number of threads; each but the first needs a gradient of its own, and each
/// thread a tape. X: see transformer; weights, adapters and gradients lie at the place of the executor.
template <class X, class More = detail::go_on>
text_mean score_gradient(const config& c, params<const typename exec::of<X>::numbers::weight> weights,
                         std::span<const token> ids, dparams<typename exec::of<X>::numbers::parameter> g,
                         score_options o = {}, More&& more = {}, exec::of<X> e = exec::of<X>{},
                         adapters<typename exec::of<X>::numbers::parameter> a = {},
                         dparams<typename exec::of<X>::numbers::parameter> da = {}) {
  using P = typename exec::of<X>::numbers::parameter;
  const segmenter windows = detail::windows_of(c, ids, o, "score_gradient");
  const index_t rounds = (windows.size() + 3) / 4, group = (windows.size() + rounds - 1) / rounds;
  const index_t length = windows.length();
  language_model<X> model(c,
                          {.sequences = group,
                           .length = length,
                           .shares = group,
                           .threads = std::min(o.threads, group),
                           .adapter_size = da.size()},
                          e);
  check_size("score_gradient", "g", g.size(), model.stack().map().size());
  for (const dparams<P> part : {g, da})
    if (!part.empty()) e.fill(matrix<P>(part.data(), part.size(), 1), 0);
  std::vector<token> in(std::size_t(group * length)), targets(in.size());
  double sum = 0;
  index_t done = 0;
  for (; done < windows.size() && more(windows.covered(done)); done += group) {
    std::fill(in.begin(), in.end(), 0);  // behind the end of a window stands what no causal model sees
    std::fill(targets.begin(), targets.end(), -1);
    for (index_t s = 0; s < group && done + s < windows.size(); ++s) {
      const piece w = windows[done + s];
      std::copy_n(ids.begin() + w.first, w.count, in.begin() + s * length);
      std::copy_n(ids.begin() + w.first + w.repeated + 1, w.count - w.repeated,
                  targets.begin() + s * length + w.repeated);
    }
    sum += double(model.gradient(weights, in, targets, g, a, da));
  }
  const index_t tokens = windows.covered(std::min(done, windows.size()));
  if (tokens == 0) return {};
  for (const dparams<P> part : {g, da})
    if (!part.empty()) e.scale(1.0 / double(tokens), part.data(), part.size());
  return {sum / double(tokens), tokens};
}

/// Attention sinks and a sliding window, see streaming_cache; 0 sinks: the window alone.
struct streaming_options {
  index_t sinks = 4;  ///< tokens that are never evicted
  index_t window = 252;
  index_t chunk = 1;  ///< tokens at once, up to the window; 1 is the published method
};

/// Scores a text of any length in one go, seeing what a streaming_cache keeps. Throws as `score` does, and
/// where sinks + window is more than the model has positions.
template <class X, class More = detail::go_on>
text_score<typename transformer<X>::P> score_streaming(const transformer<X>& stack,
                                                       params<const typename transformer<X>::W> weights,
                                                       std::span<const token> ids, streaming_options o = {},
                                                       adapters<typename transformer<X>::P> a = {},
                                                       More&& more = {}) {
  using P = typename transformer<X>::P;
  check_at_least("score_streaming", "ids", index_t(ids.size()), 2);
  check_at_least("score_streaming", "chunk", o.chunk, 1);
  check_tokens("score_streaming", "ids", stack.shape(), ids);
  generator<X, streaming_cache<X>> g(stack, weights, streaming_cache<X>(stack, o.sinks, o.window), a,
                                     o.chunk);
  const index_t inputs = index_t(ids.size()) - 1, chunk = std::min(o.chunk, o.window);
  text_score<P> out;
  out.nll.resize(std::size_t(inputs));
  index_t done = 0;
  while (done < inputs && more(done)) {
    const index_t n = std::min(chunk, inputs - done);
    g.append_scored(ids.subspan(std::size_t(done), std::size_t(n)),
                    ids.subspan(std::size_t(done) + 1, std::size_t(n)), view<P>(out.nll.data() + done, n));
    done += n;
  }
  out.nll.resize(std::size_t(done));
  return out;
}

}  // namespace unroll::llama
