#pragma once

#include "unroll/text/tokenizer_bin.hpp"
#include "unroll/text/tokenizer_gguf.hpp"
#include "unroll/text/tokenizer_json.hpp"
#include "unroll/text/tokenizer_model.hpp"

namespace unroll::llama {

namespace detail {

inline bool is_gguf_file(const std::filesystem::path& path) {
  std::error_code code;
  return std::filesystem::is_regular_file(path, code) && is_gguf(byte_source::open(path, "load_tokenizer"));
}

}  // namespace detail

/// The file that holds the vocabulary of a model, a folder or a file in it: a GGUF file itself, else the
/// first in its folder of tokenizer.json, tokenizer.model, tokenizer.bin, the only tok*.bin, the only
/// tok*.model. Throws unroll::error, which names the folder, where there is none or the name is of several.
inline std::filesystem::path find_tokenizer(const std::filesystem::path& model) {
  namespace fs = std::filesystem;
  const char* function = "find_tokenizer";
  std::error_code code;
  if (!fs::exists(model, code)) unroll::detail::fail_file(function, model, "does not exist");
  if (detail::is_gguf_file(model)) return model;
  const fs::path parent = model.parent_path();
  const fs::path folder = fs::is_directory(model, code) ? model : parent.empty() ? fs::path(".") : parent;
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer.bin"})
    if (fs::exists(folder / name, code) || code)
      return folder / name;  // reading refuses what is out of reach
  for (const char* extension : {".bin", ".model"}) {
    std::vector<fs::path> found;
    for (fs::directory_iterator at(folder, code); !code && at != fs::directory_iterator(); at.increment(code))
      if (at->path().extension() == extension && at->path().filename().string().starts_with("tok"))
        found.push_back(at->path());
    if (code) unroll::detail::fail_file(function, folder, "cannot be read: " + code.message());
    if (found.size() == 1) return found.front();
    if (found.size() > 1)
      unroll::detail::fail_file(function, folder,
                                "has several tok*" + std::string(extension) + ", name one of them");
  }
  unroll::detail::fail_file(function, folder,
                            "has no tokenizer.json, tokenizer.model, tokenizer.bin, tok*.bin or tok*.model");
}

/// Reads a vocabulary: that of a GGUF file, a file named .bin, .json or .model, another name by its first
/// bytes, or the one that find_tokenizer() finds in a folder. A tokenizer_config.json beside a tokenizer.json
/// names its begin and end. Throws unroll::error that names the file.
inline tokenizer load_tokenizer(const std::filesystem::path& path) {
  std::error_code code;
  if (std::filesystem::is_directory(path, code)) return load_tokenizer(find_tokenizer(path));
  if (detail::is_gguf_file(path)) return parse_tokenizer_gguf(gguf::open(path, "load_tokenizer"));
  const std::string bytes = read_file(path, "load_tokenizer"), name = unroll::detail::quoted_path(path);
  const auto is = [&](const char* extension, bool magic) {
    const auto e = path.extension();
    return e == extension || (magic && e != ".bin" && e != ".json" && e != ".model");
  };
  // a .bin begins with the length of a piece, a .model with its first piece, whose first field is the text
  if (is(".bin", bytes.size() > 3 && bytes[2] == 0 && bytes[3] == 0)) return parse_tokenizer_bin(bytes, name);
  if (is(".model", bytes.size() > 2 && bytes[0] == 10 && bytes[2] == 10))
    return parse_tokenizer_model(bytes, name);
  tokenizer_config config;
  if (const auto beside = path.parent_path() / "tokenizer_config.json";
      path.filename() == "tokenizer.json" && (std::filesystem::exists(beside, code) || code))
    config = parse_tokenizer_config(read_file(beside, "load_tokenizer"), unroll::detail::quoted_path(beside));
  return parse_tokenizer_json(bytes, name, config);
}

}  // namespace unroll::llama
