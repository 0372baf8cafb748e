#pragma once

// memory_llama plan: bytes and operations of every policy before anything runs.

#include <unroll/diagnose/json_sink.hpp>

#include "memory_setup.hpp"

namespace program {

struct plan_command : command {
  model_options base;
  memory_choice memory;
  std::string policies = "keep_all,keep:4,rematerialise,proportional:8,reservoir:2,window:2",
              numbers = "float";
  std::vector<index_t> tokens;
  index_t vocabulary = 258;
  double budget = 0;

  explicit plan_command(CLI::App& program)
      : command(program, "plan",
                "Bytes by item, operations and the longest text of every policy, before anything runs.",
                "  memory_llama plan --model llama2-7b-config --numbers bf16 --segment 1024 --ratio 32 "
                "--lora-rank "
                "128 --tokens 4096,32768,99328 --budget 80\n"
                "  memory_llama plan --hidden 256 --layers 6 --segment 128 --tokens 4096") {
    app->add_option("--model", base.path,
                    "a folder with config.json (weights are not needed), a GGUF file or a checkpoint .bin")
        ->check(CLI::ExistingPath);
    base.add_shape(app);
    base.device.add(app);
    app->add_option("--vocabulary", vocabulary, "its vocabulary")
        ->check(CLI::Range(1, 1 << 30))
        ->capture_default_str();
    app->add_option("--positions", base.positions,
                    "beyond the trained context: linear:FACTOR, ntk:FACTOR or length:TOKENS");
    memory.add(app, false);
    memory.add_on_host(app);
    app->add_option("--tokens", tokens,
                    "lengths of the text, separated by commas; by default the longest one")
        ->delimiter(',')
        ->check(CLI::Range(1, 2'000'000'000));
    app->add_option("--policy", policies, "separated by commas: " + unroll::policy_catalogue::forms())
        ->capture_default_str();
    app->add_option(
           "--numbers", numbers,
           "float, double, bf16-weights: what --weights bf16 holds, or bf16: weights, activations and "
           "memories of 2 bytes, adjoints of 4, 18 a trained parameter (float, its copy, gradient, moments); "
           "with --device what lies there: 20 a trained parameter (itself, gradients of a step and of a "
           "document, moments), and 2 for a copy in bf16")
        ->check(CLI::IsMember({"float", "double", "bf16-weights", "bf16"}))
        ->capture_default_str();
    app->add_option(
           "--budget", budget,
           "GB: the longest text and the cheapest policy without bias that fit; of a device by default what "
           "is free")
        ->check(not_negative);
    add_outputs("bytes against the length of the text");
  }

  int run() {
    check_files({{"--model", base.path}});
    if (base.device.on_host()) memory.check_host();
    if (base.device.on_host())
      return run_with(
          unroll::llama::memory_costs<float>(base.shape_without_weights(vocabulary), memory.options()),
          bytes_of(numbers));
    if (numbers != "float" && numbers != "bf16")
      fail("memory_llama", "numbers", "are " + numbers + ", a device has float and bf16");
    const bool half = numbers == "bf16";
    if (budget == 0) budget = base.device.bytes(*base.device.open(half)) / 1e9;
    return with_device_sizes(half, [&]<class E>(std::type_identity<E>) {
      using costs_type = unroll::llama::memory_costs<E>;
      unroll::number_bytes bytes = unroll::number_bytes_of<costs_type>();
      const bytes_a_parameter each = bytes_of_training(half);
      bytes.parameters = each.all();
      return run_with(costs_type(base.shape_without_weights(vocabulary), memory.options()), bytes, each);
    });
  }

 private:
  template <class Costs>
  int run_with(const Costs& costs, const unroll::number_bytes& bytes,
               const std::optional<bytes_a_parameter>& each = {}) {
    using namespace unroll;
    std::vector<policy> wanted;
    for (const std::string& name : split(policies)) wanted.push_back(parse_policy(name));
    if (app->count("--policy") == 0) leave_out_unsupported(wanted, memory.options());
    const llama::config& c = costs.shape();
    if (tokens.empty()) tokens.push_back(costs.segments() * memory.segment);
    std::printf(
        "%s\n%td weights, %td trainable parameters; a segment of %td tokens leaves %td memory tokens, %.4g "
        "MB\n"
        "the positions allow %td segments, %td tokens\n\n",
        describe(c).c_str(), costs.weights(), costs.size().params, memory.segment,
        memory.options().memory_tokens(), double(costs.size().memory) * bytes.memory / 1e6, costs.segments(),
        costs.segments() * memory.segment);
    double largest = 0;
    for (const index_t n : tokens)
      for (const policy& p : wanted) largest = std::max(largest, plan(costs, n, p, bytes).place_bytes());
    const double unit = largest < 1e9 ? 1e6 : 1e9;
    std::vector<row> rows, numbers_rows;
    for (const index_t n : tokens)
      for (const policy& p : wanted) {
        const memory_plan planned = plan(costs, n, p, bytes);
        rows.push_back(summary(planned, unit));
        numbers_rows.push_back(all_numbers(planned));
        if (!each) continue;
        const device_plan there(planned, double(costs.size().params), *each);
        numbers_rows.back()
            .add("theta_bytes", there.theta_bytes)
            .add("gradient_bytes", there.gradient_bytes)
            .add("moment_bytes", there.moment_bytes);
      }
    std::fputs(to_table(rows, 4).c_str(), stdout);
    std::printf(
        "\nencoders: forwards, once more, backwards; MB and GB are 10^6 and 10^9 bytes; graphs are those of "
        "encoders.\n");

    json d{{"command", "plan"},
           {"model", base.path},
           {"shape", program::to_json(c)},
           {"memory", program::to_json(memory.options())},
           {"numbers", numbers},
           {"device", base.device.where},
           {"weights", costs.weights()},
           {"parameters", costs.size().params},
           {"longest_text", costs.segments() * memory.segment}};
    d["rows"] = json::array();
    for (const row& r : numbers_rows) d["rows"].push_back(unroll::to_json(r));
    if (budget > 0) {
      std::printf("\nwithin %.4g GB\n", budget);
      std::vector<row> fitting;
      for (const policy& p : wanted)
        fitting.push_back(row()
                              .add("policy", to_string(p))
                              .add("longest_text", longest_text(costs, p, budget * 1e9, bytes)));
      std::fputs(to_table(fitting).c_str(), stdout);
      d["budget"] = budget;
      d["longest"] = json::array();
      for (const row& r : fitting) d["longest"].push_back(unroll::to_json(r));
      for (const index_t n : tokens) {
        const auto best = cheapest_unbiased(costs, n, budget * 1e9, bytes);
        std::printf("%td tokens, the cheapest without bias: %s\n", n,
                    best ? text_of("%s, %.4g GB, %.4g PFLOP", to_string(best->replay).c_str(),
                                   best->place_bytes() / 1e9, best->operations() / 1e15)
                               .c_str()
                         : "nothing fits");
        d["cheapest"].push_back({{"tokens", n}, {"policy", best ? json(to_string(best->replay)) : json()}});
      }
    }
    write_json(d);
    if (!plot.empty()) draw(costs, wanted, bytes);
    return 0;
  }

  static unroll::number_bytes bytes_of(const std::string& numbers) {
    using namespace unroll;
    if (numbers == "bf16") return {2, 18, 2, 2, 4, 2};
    if (numbers == "bf16-weights") return number_bytes_of<llama::memory_costs<bf16_weights>>();
    return numbers == "double" ? number_bytes{8, 32, 8, 8, 8, 8} : number_bytes{};
  }
  static unroll::row summary(const unroll::memory_plan& p, double unit) {
    unroll::row r;
    r.add("tokens", p.tokens)
        .add("policy", to_string(p.replay))
        .add("forwards", p.writes)
        .add("again", p.rewrites);
    r.add("backwards", p.write_vjps)
        .add("TFLOP", p.operations() / 1e12)
        .add(unit > 1e8 ? "GB" : "MB", p.place_bytes() / unit);
    if (p.host_bytes > 0) r.add("on the host", p.host_bytes / unit);
    r.add("weights", p.weight_bytes / unit).add("trained", p.parameter_bytes / unit);
    r.add("memories", p.memory_bytes / unit).add("adjoints", p.adjoint_bytes / unit);
    r.add("graphs", p.graph_bytes / unit)
        .add("decoder", p.decoder_graph_bytes / unit)
        .add("work", p.workspace_bytes / unit);
    return r;
  }
  static unroll::row all_numbers(const unroll::memory_plan& p) {
    unroll::row r;
    r.add("policy", to_string(p.replay)).add("tokens", p.tokens).add("segments", p.segments);
    r.add("exact", index_t(is_exact(p.replay))).add("unbiased", index_t(is_unbiased(p.replay)));
    r.add("writes", p.writes).add("rewrites", p.rewrites).add("write_vjps", p.write_vjps);
    r.add("reads", p.reads).add("read_vjps", p.read_vjps).add("live_graphs", p.live_graphs);
    r.add("write_operations", p.write_operations).add("write_vjp_operations", p.write_vjp_operations);
    r.add("read_operations", p.read_operations).add("operations", p.operations());
    r.add("weight_bytes", p.weight_bytes).add("parameter_bytes", p.parameter_bytes);
    r.add("memory_bytes", p.memory_bytes)
        .add("adjoint_bytes", p.adjoint_bytes)
        .add("graph_bytes", p.graph_bytes);
    r.add("decoder_graph_bytes", p.decoder_graph_bytes)
        .add("work_bytes", p.workspace_bytes)
        .add("host_bytes", p.host_bytes)
        .add("bytes", p.bytes());
    return r;
  }

  template <class Costs>
  void draw(const Costs& costs, const std::vector<unroll::policy>& wanted,
            const unroll::number_bytes& bytes) const {
    std::string data, lines;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      data += "$p" + std::to_string(i) + " << END\n";
      index_t before = 0;
      for (double t = 1; index_t(t) <= costs.segments(); t = std::max(t + 1, t * 1.15)) {
        if (index_t(t) == before) continue;
        before = index_t(t);
        const index_t n = before * memory.segment;
        data += text_of("%td %g\n", n, plan(costs, n, wanted[i], bytes).place_bytes() / 1e9);
      }
      data += "END\n";
      lines += (i > 0 ? ", " : "") + ("$p" + std::to_string(i) + " using 1:2 with lines lw 2 title " +
                                      quoted(to_string(wanted[i])));
    }
    if (budget > 0) lines += text_of(", %g with lines dt 2 lc rgb '#333333' title 'budget'", budget);
    draw_figure(plot, 800, 480,
                "set title 'Planned bytes of training on one text'\nset logscale xy\n"
                "set xlabel 'tokens'\nset ylabel 'GB'\nset grid\nset key top left\n" +
                    data + "plot " + lines + "\n");
  }
};

}  // namespace program
