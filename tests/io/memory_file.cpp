#if __has_include(<nlohmann/json.hpp>)

#include "unroll/io/memory_file.hpp"

#include <fstream>

#include "tests/support/catch.hpp"
#include "tests/support/folder.hpp"
#include "tests/support/llama_files.hpp"
#include "tests/support/small_memory.hpp"

using namespace unroll;
using namespace unroll::llama;
using Catch::Matchers::ContainsSubstring;

namespace {

const std::vector<std::string> names{"encoder/adapter_config.json", "encoder/adapter_model.safetensors",
                                     "head/adapter_config.json",    "head/adapter_model.safetensors",
                                     "memory_tokens.safetensors",   "memory.json"};

memory_options everywhere() {
  memory_options o = small_memory::options();
  o.encoder.adapted.fill(true);
  return o;
}

template <class T>
parameters<T> theta_of(const memory_llama<T>& m, double factor = 1) {
  auto theta = small_memory::start(m);
  for (T& x : theta) x *= T(factor);
  return theta;
}

// Does not wait for the disk: a file that is cut and written again may be flushed.
void put(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

// What the folder holds, or why it is refused.
struct outcome {
  parameters<float> theta;
  double alpha = 0;
  std::string refused;
};
outcome read_folder(const std::filesystem::path& folder, const config& c) {
  outcome o;
  o.refused = made::message([&] {
    const memory_folder f(folder);
    o.alpha = f.options(c).encoder.alpha;
    o.theta = f.read<float>(c);
  });
  return o;
}

std::string refusal_of_base(const memory_folder& f, const config& c, const parameters<float>& w) {
  return f.other_base<float>(c, w);
}

}  // namespace

TEST_CASE("a memory model's parameters come back bit by bit with their options") {
  const folder f;
  memory_options other = everywhere();
  other.mask = memory_mask::causal;
  other.positions = memory_positions::following;
  other.separate_tokens = other.recurrent = true;
  other.encoder.first_layer = 1;
  other.encoder.alpha = 0.1;
  memory_options frozen_head = small_memory::options(), frozen_encoder = frozen_head;
  frozen_head.transfer_head.adapted.fill(false);
  frozen_encoder.encoder.adapted.fill(false);
  memory_options only_memories = frozen_head;
  only_memories.encoder.adapted.fill(false);
  config stretched = small_memory::shape(3, false, rope_pairs::neighbours);
  stretched.beyond = position_policy::ntk;
  stretched.position_factor = 2.5;
  config long_rope = small_memory::shape();
  long_rope.beyond = position_policy::longrope;
  long_rope.position_factor = 4;
  long_rope.scaling = {.original_context = 10,
                       .length = 40,
                       .attention_factor = 1.1,
                       .short_factor = {1, 1.5},
                       .long_factor = {1, 0.1}};
  config yarn = small_memory::shape();
  yarn.beyond = position_policy::yarn;
  yarn.scaling.truncate = false;
  int n = 0;
  for (const auto& [c, o] :
       {std::pair(small_memory::shape(), everywhere()), std::pair(stretched, other),
        std::pair(long_rope, everywhere()), std::pair(yarn, everywhere()),
        std::pair(small_memory::shape(), frozen_head), std::pair(small_memory::shape(), frozen_encoder),
        std::pair(small_memory::shape(), only_memories)}) {
    const auto path = f.path / "deep" / std::to_string(n++);
    const auto model = small_memory::make<float>(c, o);
    const auto theta = theta_of(model);
    save_memory<float>(path, model, theta, "a base");
    const memory_folder saved(path);
    config plain = c;
    plain.beyond = position_policy::refuse;
    plain.position_factor = 1;
    plain.scaling = {};
    saved.set_positions(plain);
    CHECK(plain == c);
    const memory_options back = saved.options(c);
    CHECK(to_json(back) == to_json(o));
    CHECK(back.encoder.adapted == o.encoder.adapted);
    CHECK(back.encoder.first_layer == o.encoder.first_layer);
    CHECK(back.transfer_head.adapted == o.transfer_head.adapted);
    CHECK(made::same_bits(saved.read<float>(c), theta));
    CHECK(saved.other_base<float>(c, model.weights()).empty());
    const index_t adapted = model.trainable().encoder().size();
    if (adapted > 0) CHECK(load_lora<float>(path / "encoder", c).map.size() == adapted);
  }
}

TEST_CASE("one damaged byte anywhere in a folder of a memory model is refused") {
  const folder f;
  const auto model = small_memory::make<float>(small_memory::shape(), small_memory::options());
  const auto theta = theta_of(model);
  save_memory<float>(f.path, model, theta, "a base");
  REQUIRE(read_folder(f.path, model.shape()).refused.empty());
  for (const std::string& name : names) {
    const std::string whole = read_file(f.path / name);
    const bool text = name.ends_with(".json");
    std::vector<std::string> accepted;
    const auto with = [&](const std::string& bytes, const std::string& what) {
      put(f.path / name, bytes);
      const auto o = read_folder(f.path, model.shape());
      if (o.refused.empty()) accepted.push_back(what);
      if (!o.refused.empty()) CHECK_THAT(o.refused, ContainsSubstring(f.path.string()));
    };
    for (std::size_t i = 0; i < whole.size(); i += text ? 1 : 41) {
      std::string bytes = whole;
      bytes[i] = char(bytes[i] ^ (1 << i % 8));
      with(bytes, "flipped at " + std::to_string(i));
      if (!text) continue;
      for (const char c : {' ', '\n', 'A', '9'}) {
        bytes[i] = c;
        if (bytes != whole) with(bytes, "byte " + std::to_string(i) + " " + c);
      }
    }
    with(whole.substr(0, whole.size() - 1), "cut");
    with(whole + "\n", "with a line more");
    with("", "empty");
    INFO(name);
    CHECK(accepted == std::vector<std::string>{});
    put(f.path / name, whole);
  }
  CHECK(made::same_bits(read_folder(f.path, model.shape()).theta, theta));
}

TEST_CASE("a save that ends between two files leaves the old folder, the new one or a refused one") {
  const config c = small_memory::shape();
  memory_options o = small_memory::options();
  const auto first = small_memory::make<float>(c, o);
  o.encoder.alpha = 5;  // same shapes: only the numbers tell
  const auto second = small_memory::make<float>(c, o);
  const auto old_theta = theta_of(first), new_theta = theta_of(second, 2);
  const folder f;
  save_memory<float>(f.path / "old", first, old_theta);
  save_memory<float>(f.path / "new", second, new_theta);
  // in the order of writing: memory.json is the last
  for (std::size_t written = 0; written <= names.size(); ++written) {
    std::filesystem::remove_all(f.path / "now");
    std::filesystem::copy(f.path / "old", f.path / "now", std::filesystem::copy_options::recursive);
    for (std::size_t i = 0; i < written; ++i)
      put(f.path / "now" / names[i], read_file(f.path / "new" / names[i]));
    const auto found = read_folder(f.path / "now", c);
    INFO(written << " files written, " << found.refused);
    if (written == 0) CHECK((made::same_bits(found.theta, old_theta) && found.alpha == 3));
    if (written == names.size()) CHECK((made::same_bits(found.theta, new_theta) && found.alpha == 5));
    if (written > 0 && written < names.size())
      CHECK_THAT(found.refused, ContainsSubstring("it is damaged, or a save was interrupted"));
  }
  // any other mixture
  for (unsigned mixture = 1; mixture + 1 < 1u << names.size(); ++mixture) {
    for (std::size_t i = 0; i < names.size(); ++i)
      put(f.path / "now" / names[i], read_file(f.path / (mixture >> i & 1 ? "new" : "old") / names[i]));
    const auto found = read_folder(f.path / "now", c);
    const bool whole = made::same_bits(found.theta, old_theta) || made::same_bits(found.theta, new_theta);
    INFO(mixture);
    CHECK((!found.refused.empty() || whole));
  }
}

TEST_CASE("adapters know their base by the values of all of its weights") {
  const folder f;
  const config c = small_memory::shape(2, true, rope_pairs::neighbours);
  const auto model = small_memory::make<float>(c, small_memory::options());
  save_memory<float>(f.path, model, theta_of(model));
  const memory_folder saved(f.path);
  parameters<float> w(model.weights().size());
  std::copy(model.weights().begin(), model.weights().end(), w.begin());
  CHECK(refusal_of_base(saved, c, w).empty());

  // every tensor counts
  const weight_map map(c);
  for (const layout_block& b : map.names().blocks()) {
    auto other = w;
    other[b.offset + b.size() / 2] += 1e-3f;
    INFO(b.name);
    CHECK_THAT(refusal_of_base(saved, c, other), ContainsSubstring("its weights have hash"));
  }

  // neither the order of the pairs, nor the type, nor a stored copy of the embedding, nor the file
  config halves = c;
  auto turned = w;
  permute_rope_pairs<float>(halves, turned);
  CHECK(refusal_of_base(saved, halves, turned).empty());
  CHECK_FALSE(refusal_of_base(saved, c, turned).empty());
  parameters<double> wide(w.size());
  std::copy(w.begin(), w.end(), wide.begin());
  CHECK(saved.other_base<double>(c, wide).empty());
  config untied = c;
  untied.tied = false;
  parameters<float> twice(weight_map(untied).size());
  std::copy(w.begin(), w.end(), twice.begin());
  std::copy_n(w.data() + map.embedding(), c.hidden * c.vocabulary,
              twice.data() + weight_map(untied).output());
  CHECK(refusal_of_base(saved, untied, twice).empty());
  twice[twice.size() - 1] += 1;
  CHECK_FALSE(refusal_of_base(saved, untied, twice).empty());
  save_llama<float>(f.path / "base", c, w);
  const auto loaded = load_llama<double>(f.path / "base");
  CHECK(saved.other_base<double>(loaded.shape, loaded.weights).empty());

  // other precision is told from other weights, in both directions
  auto brain = w, half = w;
  for (float& x : brain) x = bf16(x);
  for (float& x : half) x = from_f16(to_f16(x));
  CHECK_THAT(refusal_of_base(saved, c, brain),
             ContainsSubstring("its weights are those of then, rounded to bf16"));
  CHECK_THAT(refusal_of_base(saved, c, half),
             ContainsSubstring("its weights are those of then, rounded to f16"));
  const memory_llama<float> coarse(c, std::make_shared<const parameters<float>>(brain), model.options());
  save_memory<float>(f.path / "coarse", coarse, theta_of(coarse));
  CHECK_THAT(refusal_of_base(memory_folder(f.path / "coarse"), c, w),
             ContainsSubstring("in higher precision: then they were rounded to bf16"));

  // the same weights as another model
  config other = c;
  other.rope_base = 5e5;
  CHECK(refusal_of_base(saved, other, w) == "rope_theta is 500000.0, it was 10000.0");
  other = c;
  other.norm_epsilon = 1e-6;
  CHECK(refusal_of_base(saved, other, w) == "rms_norm_eps is 1e-06, it was 1e-05");
  other = c;
  other.heads = other.kv_heads = 2;
  other.head_dim = 8;
  parameters<float> regrouped(weight_map(other).size());
  CHECK_FALSE(refusal_of_base(saved, other, regrouped).empty());
}

TEST_CASE("folders that contradict themselves or the model are refused by file") {
  const folder f;
  const config c = small_memory::shape();
  const auto model = small_memory::make<float>(c, small_memory::options());
  const auto theta = theta_of(model);
  save_memory<float>(f.path, model, theta);
  CHECK(read_folder(f.path, c).refused.empty());
  const auto refused = [&](auto edit) {
    auto s = load_sealed(f.path, "memory.json");
    edit(s);
    save_sealed(f.path / "other", "memory.json", s);
    return read_folder(f.path / "other", c).refused;
  };
  CHECK(refused([](sealed_folder&) {}).empty());
  CHECK_THAT(refused([](sealed_folder& s) { s.values["lora_alpha"] = 32; }),
             ContainsSubstring("encoder/adapter_config.json") &&
                 ContainsSubstring("has rank 2 and alpha 3") &&
                 ContainsSubstring("memory.json says 2 and 32"));
  CHECK_THAT(refused([](sealed_folder& s) { s.values["new"] = 1; }),
             ContainsSubstring("memory.json\": \"new\" is 1, expected no such key"));
  CHECK_THAT(refused([](sealed_folder& s) { s.values["mask"] = "none"; }),
             ContainsSubstring("\"mask\" is \"none\", expected \"coverage\" or \"causal\""));
  CHECK_THAT(refused([](sealed_folder& s) { s.values["ratio"] = 4; }),
             ContainsSubstring("memory.json\": ratio: is 4, does not divide the segment of 6"));
  CHECK_THAT(refused([](sealed_folder& s) { s.values.erase("base"); }),
             ContainsSubstring("\"base\" is absent"));
  CHECK_THAT(refused([](sealed_folder& s) { s.files.erase("encoder/adapter_config.json"); }),
             ContainsSubstring("memory.json\": names no encoder/adapter_config.json"));
  CHECK_THAT(refused([](sealed_folder& s) { s.files.erase("head/adapter_config.json"); }),
             ContainsSubstring("memory.json\": names no head/adapter_config.json"));
  CHECK_THAT(refused([](sealed_folder& s) { s.values["separate_tokens"] = true; }),
             ContainsSubstring("memory_tokens.safetensors\": tensor \"memory_tokens\" has shape [1, 12]"));
  const auto wide = small_memory::make<double>(c, small_memory::options());
  for (const auto& [at, file] :
       {std::pair(index_t{0}, "encoder/adapter_model.safetensors"),
        std::pair(model.trainable().memory_offset(), "memory_tokens.safetensors"),
        std::pair(model.trainable().transfer_head_offset(), "head/adapter_model.safetensors")}) {
    parameters<double> beyond(theta.size());
    beyond[at] = 1e300;
    CHECK_THROWS_WITH(
        save_memory<double>(f.path / "wide", wide, beyond),
        ContainsSubstring((f.path / "wide" / file).string()) && ContainsSubstring("beyond the floats"));
  }
  auto bad = theta;
  bad[0] = std::nanf("");
  save_memory<float>(f.path / "nan", model, bad);
  CHECK_THAT(read_folder(f.path / "nan", c).refused, ContainsSubstring("is nan at [0, 0]"));
  write_file(f.path / "memory.json", "{\"segment\": 6}\n");
  CHECK_THAT(read_folder(f.path, c).refused, ContainsSubstring("memory.json\": \"hash\" is absent"));
  CHECK_THAT(read_folder(f.path / "none", c).refused, ContainsSubstring("memory.json\": does not exist"));
}

TEST_CASE("a folder of a memory model holds no adapters of one that was there before") {
  const folder f;
  const config c = small_memory::shape();
  memory_options o = small_memory::options();
  const auto both = small_memory::make<float>(c, o);
  save_memory<float>(f.path, both, theta_of(both));
  o.transfer_head.adapted.fill(false);
  const auto one = small_memory::make<float>(c, o);
  save_memory<float>(f.path, one, theta_of(one));
  CHECK_FALSE(std::filesystem::exists(f.path / "head"));
  o.encoder.adapted.fill(false);
  write_file(f.path / "encoder" / "notes", "of a reader");
  const auto none = small_memory::make<float>(c, o);
  save_memory<float>(f.path, none, theta_of(none));
  CHECK(std::filesystem::exists(f.path / "encoder" / "notes"));
  CHECK_FALSE(std::filesystem::exists(f.path / "encoder" / "adapter_model.safetensors"));
  CHECK(made::same_bits(read_folder(f.path, c).theta, theta_of(none)));
}

TEST_CASE("a seal names each file once, by its plain name") {
  const folder f;
  save_sealed(f.path, "seal.json", {{{"a", 1}}, {{"deep/file", "bytes"}}});
  CHECK(load_sealed(f.path, "seal.json").files.at("deep/file") == "bytes");
  const auto seal = nlohmann::json::parse(read_file(f.path / "seal.json"));
  for (const std::string& name :
       {std::string("./deep/file"), std::string("deep//file"), std::string("deep/./file"),
        std::string("deep/file\0x", 11), std::string("../deep/file"), (f.path / "deep/file").string(),
        std::string()}) {
    auto other = seal;
    other["files"][name] = seal["files"]["deep/file"];
    write_file(f.path / "other.json", unroll::detail::seal_text(other));
    INFO(name);
    CHECK_THROWS_WITH(load_sealed(f.path, "other.json"),
                      ContainsSubstring("which is no file below its folder"));
  }
}

#endif
