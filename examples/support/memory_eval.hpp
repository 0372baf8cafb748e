#pragma once

// memory_llama eval: perplexity against the length of the context, beside windows with as many keys.

#include <map>
#include <unroll/diagnose/json_sink.hpp>

#include "default_text.hpp"
#include "eval_losses.hpp"

namespace program {

struct eval_command : reading_command<eval_command> {
  std::string methods = "memory,alone,window,sinks";
  index_t segments = 16, per_document = 2, sinks = 4, chunk = 16;

  explicit eval_command(CLI::App& program)
      : reading_command(
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
    text = default_text();
    base.add(app, true);
    memory.add(app);
    memory.add_on_host(app);
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
    add_seed("of new parameters");
    add_threads();
    add_outputs("perplexity against the length");
  }

  template <class X>
  int run_with() {
    using namespace unroll;
    memory.needs = [this](bool half, const llama::config& c, const memory_options& o) {
      return device_reading(half, c, o, segments);
    };
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const auto& model = setup.model;
    const index_t length = model.options().segment;
    const auto wanted = split(methods);
    for (const auto& m : wanted)
      if (m != "memory" && m != "alone" && m != "window" && m != "sinks" && m != "full")
        fail("memory_llama", "methods", "\"" + m + "\" is none of memory, alone, window, sinks, full");
    check_segments(setup, segments);
    const data::documents all(text, setup.words, {.bos = setup.words.bos() >= 0, .threads = threads});
    std::vector<document_stretch> texts;
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
           {"adapter", base.adapter},
           {"adapters", memory.adapters},
           {"weights", memory.weights},
           {"device", base.device.where},
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
      const auto nll = segment_losses(m, setup, texts, {segments, sinks, chunk, threads});
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

 private:
  void add_rows(const std::string& method, const loss_table& nll, const std::vector<document_stretch>& texts,
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
