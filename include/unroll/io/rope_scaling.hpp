#pragma once

#include "unroll/io/json.hpp"
#include "unroll/llama/config.hpp"

namespace unroll::llama::detail {

using unroll::detail::in_quotes;

// Calls f(key, number) for the numbers of a position_scaling that its policy reads, by their names in
// config.json.
template <class Scaling, class F>
void scaling_numbers(position_policy beyond, Scaling& s, F f) {
  if (beyond == position_policy::llama3) {
    f("low_freq_factor", s.low_freq_factor);
    f("high_freq_factor", s.high_freq_factor);
  }
  if (beyond == position_policy::yarn) {
    f("beta_fast", s.beta_fast);
    f("beta_slow", s.beta_slow);
    f("mscale", s.mscale);
    f("mscale_all_dim", s.mscale_all_dim);
  }
  if (beyond == position_policy::yarn || beyond == position_policy::longrope)
    f("attention_factor", s.attention_factor);
}

// What a position_scaling says but for its length, as members of an object.
inline nlohmann::ordered_json scaling_json(const config& c) {
  const position_scaling& s = c.scaling;
  auto j = nlohmann::ordered_json::object();
  scaling_numbers(c.beyond, s, [&](const char* key, double x) {
    if (x != 0) j[key] = x;
  });
  if (c.beyond == position_policy::yarn) j["truncate"] = s.truncate;
  if (s.original_context > 0) j["original_max_position_embeddings"] = s.original_context;
  if (c.beyond == position_policy::longrope)
    j["short_factor"] = s.short_factor, j["long_factor"] = s.long_factor;
  return j;
}

// The other way round, with the defaults of transformers; c.beyond is known.
inline void read_scaling(const json_members& m, config& c) {
  position_scaling& s = c.scaling;
  scaling_numbers(c.beyond, s, [&](const char* key, double& x) { x = m.number(key, x); });
  if (c.beyond == position_policy::llama3)
    for (const char* key : {"low_freq_factor", "high_freq_factor"})
      if (!m.find(key)) m.refuse(key, "a number");
  if (m.find("attention_factor") && s.attention_factor == 0) m.refuse("attention_factor", "above 0");
  if (c.beyond == position_policy::yarn) {
    if (m.null("truncate")) m.refuse("truncate", "true or false");
    s.truncate = m.truth("truncate", true);
  }
  if (c.beyond >= position_policy::yarn)
    s.original_context = m.integer("original_max_position_embeddings", 0);
  if (c.beyond != position_policy::longrope) return;
  for (const auto& [key, list] :
       {std::pair("short_factor", &s.short_factor), std::pair("long_factor", &s.long_factor)}) {
    const auto* v = m.find(key);
    const bool numbers =
        v && v->is_array() && std::all_of(v->begin(), v->end(), [](const auto& x) { return x.is_number(); });
    if (!numbers) m.refuse(key, "a list of numbers");
    *list = v->template get<std::vector<double>>();
  }
}

inline constexpr harmless_key harmless_in_rope[] = {
    {"original_max_position_embeddings", "read by yarn, llama3 and longrope only"}};

// Beside the object, where some models have it, transformers lets it hide the one inside.
inline void read_original_context(const json_members& m, config& c) {
  const char* key = "original_max_position_embeddings";
  if (c.beyond < position_policy::yarn) return;
  const index_t outside = m.integer(key, 0), inside = c.scaling.original_context;
  if (outside == 0) return;
  if (inside > 0 && inside != outside) m.refuse(key, std::to_string(inside) + ", as among the positions");
  c.scaling.original_context = outside;
}

// The policy and its factor from the object `rope` of config.json.
inline void read_policy(const json_members& m, const json_members& rope, config& c) {
  const char* type = rope.find("rope_type") || rope.null("rope_type") ? "rope_type" : "type";
  std::string expected = "\"default\"";
  for (std::size_t i = 1; i < position_names.size(); ++i)
    if (position_policy(i) != position_policy::ntk) expected += ", " + in_quotes(position_names[i]);
  if (rope.null(type)) rope.refuse(type, "one of " + expected);
  rope.find("type");  // rope_type may hide it
  const std::string kind = rope.text(type, "default");
  if (kind == "default") return;
  const auto at = std::find(position_names.begin() + 1, position_names.end(), kind);
  c.beyond = position_policy(at - position_names.begin());
  if (at == position_names.end() || c.beyond == position_policy::ntk)
    rope.refuse(type, "one of " + expected + "; other kinds are not implemented");
  read_scaling(rope, c);
  read_original_context(m, c);
  const bool derived = c.beyond == position_policy::longrope || c.beyond == position_policy::yarn;
  if (!rope.find("factor") && !(derived && (rope.null("factor") || c.beyond == position_policy::longrope)))
    rope.refuse("factor", "a number");
  c.position_factor = rope.number("factor", derived ? double(c.context) / double(c.original_context()) : 1);
}

// What a config says of positions, as transformers understands it: "rope_scaling", where it says anything,
// hides "rope_parameters" with its base, and the "rope_theta" beside them counts where the one chosen has
// none. c.context is known.
inline void read_rope(const json_members& m, config& c) {
  const auto* scaling = m.find("rope_scaling");
  const auto* parameters = m.find("rope_parameters");
  m.find("rope_theta");  // that of the one chosen may hide it
  const bool hides = scaling && !(scaling->is_object() && scaling->empty());
  const auto base_of = [&](const json_members& o, double otherwise) {
    if (o.null("rope_theta")) o.refuse("rope_theta", "a number, or no such key");
    return o.number("rope_theta", otherwise);
  };
  if (!hides && !parameters) {
    c.rope_base = base_of(m, 10000);
    return;
  }
  const char* key = hides ? "rope_scaling" : "rope_parameters";
  const json_members rope(hides ? *scaling : *parameters, m.function(), m.name() + ", " + key);
  c.rope_base = rope.find("rope_theta") || rope.null("rope_theta") ? base_of(rope, 0) : base_of(m, 10000);
  read_policy(m, rope, c);
  if (rope.number("partial_rotary_factor", 1) != 1) rope.refuse("partial_rotary_factor", "1");
  rope.refuse_unknown(harmless_in_rope);
}

// The "rope_parameters" that read_rope reads. Throws for position_policy::ntk.
inline nlohmann::ordered_json rope_json(const config& c) {
  if (c.beyond == position_policy::ntk)
    fail("config_text", "beyond", "is ntk, which config.json cannot say; set it after loading");
  nlohmann::ordered_json j{{"rope_theta", c.rope_base}, {"rope_type", "default"}};
  if (c.beyond == position_policy::refuse) return j;
  j["rope_type"] = position_names[std::size_t(c.beyond)];
  j["factor"] = c.position_factor;
  j.update(scaling_json(c));
  return j;
}

}  // namespace unroll::llama::detail
