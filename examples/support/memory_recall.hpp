#pragma once

// memory_llama recall: what stood `lag` segments ago, by the memories and by windows with as many keys.

#include <map>
#include <unroll/diagnose/json_sink.hpp>

#include "default_text.hpp"
#include "memory_setup.hpp"

namespace program {

/// A text whose last tokens repeat what stood `lag` segments before them: all of it but the answer, and that.
struct recall_text {
  std::vector<token> question, answer;
};

/// What became of an answer, read token by token behind the right ones before it.
struct recalled {
  double nll = 0;     ///< of the answer, summed
  index_t right = 0;  ///< of its tokens that were the most probable ones
};

/// `text`, a generator or a memory_session that has read nothing, reads a question and each token of the
/// answer. `words`: ids that stand for a text.
template <class Text>
recalled recall(Text& text, const recall_text& asked, index_t words) {
  recalled out;
  std::span<const token> next(asked.question);
  for (const token& t : asked.answer) {
    text.append(next);
    const auto logits = text.logits().part(0, words);
    out.right += unroll::llama::most_probable(logits) == t;
    const double top = double(*std::max_element(logits.begin(), logits.end()));
    double sum = 0;
    for (const auto x : logits) sum += std::exp(double(x) - top);
    out.nll += top + std::log(sum) - double(logits[index_t(t)]);
    next = std::span(&t, 1);
  }
  return out;
}

struct recall_command : reading_command<recall_command> {
  std::string task = "passkey", methods = "memory,window,sinks,none", lags = "1,4,16";
  index_t texts = 8, sinks = 4, chunk = 64;

  explicit recall_command(CLI::App& program)
      : reading_command(
            program, "recall",
            "What the model can still tell of what stood some segments ago, behind other text.\n"
            "  --task passkey: five digits, named in a sentence and asked for in another\n"
            "  --task repeat:  32 tokens of the text itself, of which the first 8 come again\n"
            "and how much of that each method has:\n"
            "  memory: the memory model\n"
            "  window: the plain Llama with a sliding window of as many keys as the memory model has\n"
            "  sinks:  the same with attention sinks among them\n"
            "  none:   the plain Llama reads the last segment alone: what can be guessed",
            "  memory_llama recall --model base --adapters adapters --text books/test --lags 1,4,16,64 "
            "--plot "
            "recall.svg") {
    text = default_text();
    base.add(app, true);
    memory.add(app);
    memory.add_weights(app);
    app->add_option("--text", text, "what stands around it: a text file, or a folder of .txt files")
        ->check(CLI::ExistingPath)
        ->capture_default_str();
    app->add_option("--task", task, "passkey or repeat")
        ->check(CLI::IsMember({"passkey", "repeat"}))
        ->capture_default_str();
    app->add_option("--lags", lags, "segments from what is asked for to the question, separated by commas")
        ->capture_default_str();
    app->add_option("--methods", methods, "separated by commas, of memory, window, sinks, none")
        ->capture_default_str();
    add_count(app, "--texts", texts, 1, 1'000'000, "of each lag, evenly spread over the documents");
    add_count(app, "--sinks", sinks, 0, 1'000'000, "first tokens that stay");
    add_count(app, "--chunk", chunk, 1, 1'000'000, "tokens that the streaming cache takes at once");
    add_seed("of new parameters, of the keys and of where they stand");
    add_threads();
    add_outputs("the share of right tokens against the lag");
  }

  template <class X>
  int run_with() {
    using namespace unroll;
    memory.needs = [](bool half, const llama::config& c, const memory_options& o) {
      return device_session(half, c, o);
    };
    const auto wanted = split(methods);
    for (const auto& m : wanted) {
      if (m != "memory" && m != "window" && m != "sinks" && m != "none")
        fail("memory_llama", "methods", "\"" + m + "\" is none of memory, window, sinks, none");
      if (m != "memory" && !base.device.on_host())
        fail("memory_llama", "methods", "\"" + m + "\" is of the host: a device reads with memories");
    }
    const std::vector<index_t> all_lags = read_lags();
    auto setup = load_memory<X>(base, memory, fold(key{seed}, 0));
    const index_t length = setup.model.options().segment;
    check_segments(setup, *std::max_element(all_lags.begin(), all_lags.end()) + 1);
    const data::documents all(text, setup.words, {.bos = setup.words.bos() >= 0, .threads = threads});
    std::printf("%s\n%s, %td texts of each lag, segments of %td tokens, %td memory tokens each\n\n",
                describe(setup.shape()).c_str(), task.c_str(), texts, length, setup.model.memory_tokens());

    json d{{"command", "recall"},
           {"model", base.path},
           {"adapter", base.adapter},
           {"adapters", memory.adapters},
           {"weights", memory.weights},
           {"device", base.device.where},
           {"text", text},
           {"task", task},
           {"shape", to_json(setup.shape())},
           {"memory", to_json(setup.model.options())},
           {"seed", seed}};
    d["rows"] = json::array();
    std::vector<row> rows;
    std::map<std::string, std::string> curves;
    for (const index_t lag : all_lags) {
      const auto asked = texts_of(all, setup.words, lag, length);
      for (const auto& m : wanted) {
        const auto found = answers<X>(m, setup, asked, lag);
        if (interrupted) break;
        rows.push_back(row_of(m, lag, asked, found));
        d["rows"].push_back(unroll::to_json(rows.back()));
        curves[m] += text_of("%td %s\n", lag, d["rows"].back()["tokens_right"].dump().c_str());
      }
    }
    d["complete"] = !interrupted.load();
    std::fputs(to_table(rows, 4).c_str(), stdout);
    std::printf(
        "\nnll: nats a token of the answer; error: its standard error over the texts; all_right: share of "
        "the "
        "texts\nwhose answer is right throughout.\n");
    write_json(d);
    if (!plot.empty() && !curves.empty()) draw(wanted, curves);
    return interrupted ? 130 : 0;
  }

 private:
  static constexpr index_t repeated = 32, cue = 8;

  std::vector<index_t> read_lags() const {
    std::vector<index_t> out;
    for (const auto& word : split(lags)) {
      index_t lag = 0;
      const auto [stop, problem] = std::from_chars(word.data(), word.data() + word.size(), lag);
      if (problem != std::errc{} || stop != word.data() + word.size() || lag < 1 || lag > 1'000'000)
        fail("memory_llama", "lags", "\"" + word + "\" is no whole number from 1 to 10^6");
      out.push_back(lag);
    }
    return out;
  }

  /// Texts of lag + 1 segments, the last without what would be read behind the answer. What is asked for
  /// stands at a random place of the first one.
  std::vector<recall_text> texts_of(const unroll::data::documents& all, const unroll::llama::tokenizer& words,
                                    index_t lag, index_t length) const {
    using namespace unroll;
    check_documents(all, "text", "\"" + text + "\"", (lag + 1) * length + 1,
                    "they are left out (--lags and --segment)");
    const auto stretches = unroll::data::stretches(all, (lag + 1) * length, texts);
    std::vector<recall_text> out;
    for (std::size_t i = 0; i < stretches.size(); ++i) {
      const key k = fold(fold(key{seed}, 4), std::uint64_t(i));
      recall_text t{{stretches[i].begin(), stretches[i].end() - 1}, {}};
      std::vector<token> fact, question;
      if (task == "passkey") {
        std::string digits;
        for (index_t n = 0; n < 5; ++n) digits += char('0' + draw_index(k, n, 10));
        fact =
            words.encode("\nThe pass key is " + digits + ". Remember it. " + digits + " is the pass key.\n");
        question = words.encode("\nWhat is the pass key? The pass key is");
        const auto answered = words.encode("\nWhat is the pass key? The pass key is " + digits);
        std::size_t same = 0;
        while (same < std::min(question.size(), answered.size()) && question[same] == answered[same]) ++same;
        question.resize(same);
        t.answer.assign(answered.begin() + std::ptrdiff_t(same), answered.end());
      }
      const index_t n = task == "passkey" ? index_t(fact.size()) : repeated;
      if (length < 2 * n)
        fail("memory_llama", "segment",
             "is " + std::to_string(length) + ", must be " + std::to_string(2 * n) + " at least");
      const index_t place = 1 + draw_index(k, 9, length - n);  // behind what begins texts
      if (task == "passkey") {
        std::copy(fact.begin(), fact.end(), t.question.begin() + place);
      } else {
        fact.assign(t.question.begin() + place, t.question.begin() + place + n);
        question.assign(fact.begin(), fact.begin() + cue);
        t.answer.assign(fact.begin() + cue, fact.end());
      }
      // the answer's last token, which nothing reads, would stand behind the last segment
      const auto asked = question.size() + t.answer.size() - 1;
      t.question.resize(t.question.size() - asked);
      t.question.insert(t.question.end(), question.begin(), question.end());
      out.push_back(std::move(t));
    }
    return out;
  }

  template <class X>
  std::vector<recalled> answers(const std::string& method, const memory_setup<X>& setup,
                                const std::vector<recall_text>& asked, index_t lag) const {
    using namespace unroll;
    const auto& model = setup.model;
    const index_t length = model.options().segment, keys = lag * model.memory_tokens() + length;
    const index_t stay = method == "sinks" ? std::min(sinks, keys - 1) : 0;
    worker_pool pool(base.device.on_host() ? std::min(threads, index_t(asked.size())) : 1);
    std::vector<recalled> out(asked.size());
    std::atomic<index_t> done{0};
    const progress line;
    const auto with = [&](auto make) {
      std::vector<decltype(make())> readers;
      for (index_t i = 0; i < pool.size(); ++i) readers.push_back(make());
      share_out(pool, index_t(asked.size()), [&](index_t worker, index_t i) {
        if (interrupted) return;
        recall_text mine = asked[std::size_t(i)];
        if (method == "none")
          mine.question.erase(mine.question.begin(), mine.question.begin() + lag * length);
        auto& reader = *readers[std::size_t(worker)];
        reader.reset();
        out[std::size_t(i)] = recall(reader, mine, setup.words.size());
        if (worker == 0)
          line.show(method + ", lag " + std::to_string(lag) + ": " + std::to_string(done.load()) + " / " +
                    std::to_string(asked.size()));
        ++done;
      });
    };
    if constexpr (!std::same_as<X, on_device>)
      if (method != "memory") {
        using cache = llama::streaming_cache<X>;
        with([&] {
          return std::make_unique<llama::generator<X, cache>>(model.stack(), model.weights(),
                                                              cache(model.stack(), stay, keys - stay),
                                                              llama::adapters<parameter_of<X>>{}, chunk);
        });
        return out;
      }
    with([&] { return session_of(setup); });
    return out;
  }

  static unroll::row row_of(const std::string& method, index_t lag, const std::vector<recall_text>& asked,
                            const std::vector<recalled>& found) {
    double tokens = 0, right = 0, all_right = 0, nll = 0, squares = 0;
    const double n = double(found.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      const index_t size = index_t(asked[i].answer.size());
      const double mean = found[i].nll / double(size);
      tokens += double(size);
      right += double(found[i].right);
      all_right += found[i].right == size;
      nll += mean / n;
      squares += mean * mean / n;
    }
    unroll::row r;
    r.add("method", method).add("lag", lag).add("texts", index_t(found.size()));
    r.add("tokens_right", right / tokens).add("all_right", all_right / n).add("nll", nll);
    r.add("error", n > 1 ? std::sqrt(std::max(0.0, squares - nll * nll) / (n - 1)) : 0);
    return r;
  }

  void draw(const std::vector<std::string>& wanted, const std::map<std::string, std::string>& curves) const {
    std::string data, lines;
    for (const auto& m : wanted) {
      const auto at = curves.find(m);
      if (at == curves.end()) continue;
      data += "$" + m + " << END\n" + at->second + "END\n";
      lines += (lines.empty() ? "" : ", ") +
               ("$" + m + " using 1:2 with linespoints pt 7 ps 0.6 lw 2 title " + quoted(m));
    }
    draw_figure(plot, 800, 480,
                "set title " + quoted("Recalled, " + task) +
                    "\nset xlabel 'segments ago'\nset ylabel 'share of right tokens'\nset logscale x 2\n"
                    "set yrange [0:1]\nset grid\nset key outside right\n" +
                    data + "plot " + lines + "\n");
  }
};

}  // namespace program
