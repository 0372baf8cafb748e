#pragma once

// memory_llama eval: perplexity against the length of the context, beside windows with as many keys.

#include <unroll/diagnose/json_sink.hpp>

#include "memory_setup.hpp"

namespace program {

struct eval_command : command {
  model_options base;
  memory_choice memory;
  std::string text = UNROLL_DEFAULT_TEXT, methods = "memory,alone,window,sinks";
  index_t segments = 16, per_document = 2, sinks = 4, chunk = 16;

  explicit eval_command(CLI::App& program)
      : command(
            program, "eval",
            "Perplexity against the length of the context, beside windows of plain attention.\n"
            "  memory: the memory model\n"
            "  alone:  the plain Llama reads each segment by itself\n"
            "  window: the plain Llama reads each segment behind as many tokens as there are memory tokens\n"
            "  sinks:  the plain Llama with attention sinks and a window that fill the largest of these "
            "budgets\n"
            "  full:   the plain Llama reads all of the text, where it has the positions",
            "  memory_llama eval --model base --adapters adapters --text books/test --segments 32 --plot "
            "perplexity.svg --json perplexity.json") {
    base.add(app, true);
    memory.add(app);
    memory.add_weights(app);
    app->add_option("--text", text, "a text file, or a folder of .txt files, each a document of its own")
        ->check(CLI::ExistingPath)
        ->capture_default_str();
    const auto add = [&](const char* name, index_t& value, index_t least, const char* what) {
      app->add_option(name, value, what)->check(CLI::Range(least, index_t{1'000'000}))->capture_default_str();
    };
    add("--segments", segments, 1, "of a stretch of text");
    add("--per-document", per_document, 1, "stretches of a document, evenly spread");
    app->add_option("--methods", methods, "separated by commas, of memory, alone, window, sinks, full")
        ->capture_default_str();
    add("--sinks", sinks, 0, "first tokens that stay");
    add("--chunk", chunk, 1, "tokens that the streaming cache takes at once");
    add_seed("of fresh parameters");
    add_threads();
    add_outputs("perplexity against the length");
  }

  int run() {
    check_files(base.inputs({{"--text", text}, {"--adapters", memory.adapters}}));
    return with_weights(memory.weights, [&]<class X>(std::type_identity<X>) { return run_with<X>(); });
  }

 private:
  template <class X>
  int run_with() {
    using namespace unroll;
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const auto& model = setup.model;
    const index_t length = model.options().segment;
    const auto wanted = split(methods);
    for (const auto& m : wanted)
      if (m != "memory" && m != "alone" && m != "window" && m != "sinks" && m != "full")
        fail("memory_llama", "methods", "\"" + m + "\" is none of memory, alone, window, sinks, full");
    if (segments > model.segments())
      fail("memory_llama", "segments",
           "are " + std::to_string(segments) + ", the longest text has " + std::to_string(model.segments()) +
               " segments in " + std::to_string(setup.shape().positions()) +
               " positions; --positions linear:FACTOR stretches them");
    const data::documents all(text, setup.words, {.bos = setup.words.bos() >= 0, .threads = threads});
    std::vector<stretch> texts;
    for (index_t d = 0; d < all.size(); ++d)
      for (const auto& ids : unroll::data::stretches(std::span(&all[d], 1), segments * length, per_document))
        texts.push_back({d, ids});
    check_documents(all, "text", "\"" + text + "\"", segments * length + 1,
                    "they are left out (--segments times --segment)");
    std::printf(
        "%s\n%s\n%zu stretches of %td segments of %td tokens, %td memory tokens each, %.2f bytes a token\n\n",
        describe(setup.shape()).c_str(), text.c_str(), texts.size(), segments, length, model.memory_tokens(),
        bytes_per_token(all, setup.words));

    json d{{"command", "eval"},
           {"model", base.path},
           {"adapters", memory.adapters},
           {"weights", memory.weights},
           {"text", text},
           {"shape", to_json(setup.shape())},
           {"memory", to_json(model.options())},
           {"segments", segments},
           {"stretches", texts.size()},
           {"bytes_per_token", bytes_per_token(all, setup.words)},
           {"seed", seed}};
    d["rows"] = json::array();
    std::vector<row> rows;
    std::vector<std::pair<std::string, std::vector<double>>> curves;
    for (const auto& m : wanted) {
      const auto nll = losses(m, setup, texts);
      if (interrupted) break;
      add_rows(m, nll, texts, length, rows, d["rows"]);
      std::vector<double> at(static_cast<std::size_t>(segments), 0.0);
      for (const auto& one : nll)
        for (std::size_t t = 0; t < at.size(); ++t) at[t] += one[t] / double(length) / double(nll.size());
      curves.emplace_back(m, at);
      d["segment_nll"][m] = at;
    }
    d["complete"] = !interrupted.load();
    std::fputs(to_table(rows, 5).c_str(), stdout);
    std::printf(
        "\nperplexity is that of all tokens of a text of that length; per_document the mean over documents "
        "of "
        "their own;\nlast_segment that of its last segment alone; error the standard error of its nll over "
        "the stretches.\n");
    write_json(d);
    if (!plot.empty() && !curves.empty()) draw(curves, length);
    return interrupted ? 130 : 0;
  }

  struct stretch {
    index_t document;
    std::span<const token> ids;
  };
  using table = std::vector<std::vector<double>>;  // the summed nll of each segment of each stretch

  template <class X>
  table losses(const std::string& method, const memory_setup<X>& setup,
               const std::vector<stretch>& texts) const {
    using namespace unroll;
    table out(texts.size());
    worker_pool pool(std::min(threads, index_t(texts.size())));
    const progress line;
    std::atomic<index_t> done{0};
    const auto& model = setup.model;
    std::vector<memory_reader<memory_llama<X>>> readers;
    if (method == "memory")
      for (index_t i = 0; i < pool.size(); ++i) readers.emplace_back(model, segments);
    const auto go_on = [](index_t) { return !interrupted; };
    share_out(pool, index_t(texts.size()), [&](index_t worker, index_t i) {
      if (interrupted) return;
      const auto ids = texts[std::size_t(i)].ids;
      auto& mine = out[std::size_t(i)];
      if (method == "memory")
        mine = readers[std::size_t(worker)].losses(setup.theta,
                                                   llama::segments_of(ids, model.options().segment), go_on);
      else if (method == "window")
        mine = window_losses(model, ids, std::size_t(model.memory_tokens()));
      else if (method == "alone")
        mine = window_losses(model, ids, 0);
      else
        mine = plain_losses(method, model, ids);
      if (worker == 0)
        line.show(method + ": " + std::to_string(done.load()) + " / " + std::to_string(texts.size()));
      ++done;
    });
    return out;
  }

  /// Segment t behind the t m tokens in front of it: with m = M as many keys as the memory model has.
  template <class X>
  std::vector<double> window_losses(const memory_llama<X>& model, std::span<const token> ids,
                                    std::size_t m) const {
    using namespace unroll;
    using T = parameter_of<X>;
    const auto length = std::size_t(model.options().segment);
    const llama::transformer<X>& stack = model.stack();
    std::vector<index_t> positions(length + std::size_t(segments) * m);
    for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = index_t(i);
    llama::pass<T> p;
    p.length = index_t(positions.size() - m);
    p.layers = stack.shape().layers;
    buffer<T> x(stack.shape().hidden * p.length);
    buffer<T> work(std::max(stack.workspace_size(p, false),
                            llama::lm_head<exec::of<X>>::workspace_size(stack.shape(), p.length)));
    std::vector<double> out;
    for (std::size_t t = 0; t < std::size_t(segments) && !interrupted; ++t) {
      const std::size_t before = t * m, n = before + length;
      const auto seen = ids.subspan(t * length - before, n);
      p.length = index_t(n);
      p.positions = std::span<const index_t>(positions).first(n);
      const matrix<T> h(x.data(), stack.shape().hidden, p.length);
      llama::embed(stack.executor(), stack.map(), model.weights().data(), seen, h);
      stack.forward(model.weights().data(), {}, p, h, view<T>{}, view<T>(work));
      T nll = 0;
      const llama::lm_head<exec::of<X>> head{stack.executor(), stack.map(), model.weights().data(), work};
      head.losses(columns_of(h, index_t(before), index_t(length)), ids.subspan(t * length + 1, length),
                  nullptr, &nll);
      out.push_back(double(nll));
    }
    return out;
  }

  template <class X>
  std::vector<double> plain_losses(const std::string& method, const memory_llama<X>& model,
                                   std::span<const token> ids) const {
    using namespace unroll;
    const index_t length = model.options().segment;
    const auto go_on = [](index_t) { return !interrupted.load(); };
    llama::text_score<parameter_of<X>> s;
    if (method == "full") {
      if (segments * length > model.shape().positions())
        fail("memory_llama", "methods",
             "full reads " + std::to_string(segments * length) + " tokens at once, the model has " +
                 std::to_string(model.shape().positions()) + " positions");
      s = llama::score<X>(model.stack(), model.weights(), ids, {}, {}, go_on);
    } else {
      const index_t budget = (segments - 1) * model.memory_tokens() + length;
      if (budget <= sinks + chunk)
        fail("memory_llama", "sinks",
             "and chunk take " + std::to_string(sinks + chunk) + " keys, the budget is " +
                 std::to_string(budget));
      s = llama::score_streaming<X>(model.stack(), model.weights(), ids,
                                    {.sinks = sinks, .window = budget - sinks, .chunk = chunk}, {}, go_on);
    }
    std::vector<double> out(static_cast<std::size_t>(segments), 0.0);
    for (std::size_t i = 0; i < s.nll.size(); ++i) out[i / std::size_t(length)] += double(s.nll[i]);
    return out;
  }

  void add_rows(const std::string& method, const table& nll, const std::vector<stretch>& texts,
                index_t length, std::vector<unroll::row>& rows, json& all) const {
    for (index_t n = 1; n <= segments; n = n < segments ? std::min(2 * n, segments) : n + 1) {
      double sum = 0, last = 0, last_squares = 0;
      std::map<index_t, std::pair<double, double>> documents;
      for (std::size_t i = 0; i < nll.size(); ++i) {
        double mine = 0;
        for (std::size_t t = 0; t < std::size_t(n); ++t) mine += nll[i][t];
        sum += mine;
        auto& d = documents[texts[i].document];
        d.first += mine;
        d.second += double(n * length);
        const double end = nll[i][std::size_t(n - 1)] / double(length);
        last += end;
        last_squares += end * end;
      }
      const double count = double(nll.size()), tokens = count * double(n * length);
      double perplexities = 0;
      for (const auto& [id, d] : documents) perplexities += std::exp(d.first / d.second);
      const double mean = last / count;
      const double error =
          count > 1 ? std::sqrt(std::max(0.0, last_squares / count - mean * mean) / (count - 1)) : 0;
      unroll::row r;
      r.add("method", method).add("tokens", n * length).add("perplexity", std::exp(sum / tokens));
      r.add("per_document", perplexities / double(documents.size())).add("nll", sum / tokens);
      r.add("last_segment", std::exp(mean)).add("last_nll", mean).add("error", error);
      rows.push_back(r);
      all.push_back(unroll::to_json(r));
    }
  }

  void draw(const std::vector<std::pair<std::string, std::vector<double>>>& curves, index_t length) const {
    std::string data, lines;
    for (const auto& [method, nll] : curves) {
      data += "$" + method + " << END\n";
      for (std::size_t t = 0; t < nll.size(); ++t)
        data += text_of("%td %g\n", index_t(t + 1) * length, std::exp(nll[t]));
      data += "END\n";
      lines += (lines.empty() ? "" : ", ") +
               ("$" + method + " using 1:2 with linespoints pt 7 ps 0.4 lw 2 title " + quoted(method));
    }
    draw_figure(plot, 800, 480,
                "set title 'Perplexity of a segment that ends there'\nset xlabel 'tokens'\n"
                "set ylabel 'perplexity'\nset grid\n" +
                    data + "plot " + lines + "\n");
  }
};

}  // namespace program
