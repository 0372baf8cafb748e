#pragma once

#include <map>

#include "unroll/io/file.hpp"
#include "unroll/io/hash.hpp"
#include "unroll/io/json.hpp"

namespace unroll {

/// Files that belong together: a JSON object, the seal, says what they are and holds hashes of all of them
/// and of itself. One byte changed anywhere, or files of two saves side by side, is refused.
struct sealed_folder {
  nlohmann::json values;                     ///< of the seal, without the hashes
  std::map<std::string, std::string> files;  ///< bytes by their name below the folder
};

namespace detail {

// "hash" is that of the text without it.
inline std::string seal_text(nlohmann::json seal) {
  seal.erase("hash");
  seal["hash"] = hash_text(fnv1a(seal.dump(1)));
  return seal.dump(1) + "\n";
}

}  // namespace detail

/// Writes the files, each in one step, and the seal last: killed at any point, the folder holds all of what
/// was there, all of the new, or is refused by load_sealed. `values` is an object without "files" and "hash".
inline void save_sealed(const std::filesystem::path& folder, const std::string& seal, const sealed_folder& s,
                        const std::string& function = "save_sealed") {
  nlohmann::json all = s.values;
  for (const auto& [name, bytes] : s.files) {
    std::error_code code;
    std::filesystem::create_directories((folder / name).parent_path(), code);
    if (code) detail::fail_file(function, folder, "cannot be made: " + code.message());
    write_file(folder / name, bytes, function);
    all["files"][name] = hash_text(fnv1a(bytes));
  }
  write_file(folder / seal, detail::seal_text(std::move(all)), function);
}

/// Reads what save_sealed wrote. Throws unroll::error that names the file and both hashes.
inline sealed_folder load_sealed(const std::filesystem::path& folder, const std::string& seal,
                                 const std::string& function = "load_sealed") {
  const auto source = byte_source::open(folder / seal, function);
  const std::string text = source.read(0, source.size());
  sealed_folder out{parse_json(text, function, source.name()), {}};
  const json_members members(out.values, function, source.name());
  const std::string found = members.text("hash", "");
  if (found.empty()) members.refuse("hash", "that of the text; folders of older versions have none");
  if (detail::seal_text(out.values) != text)
    source.refuse("is damaged: it is not the text that its hash " + found + " belongs to");
  const auto files = out.values.value("files", nlohmann::json::object());
  if (!files.is_object()) members.refuse("files", "an object of names and hashes");
  for (const auto& [name, hash] : files.items()) {
    const std::filesystem::path path(name);
    // one name for each file, so that none is held twice
    if (name.empty() || name.find('\0') != std::string::npos || name.find("..") != std::string::npos ||
        !path.is_relative() || path.lexically_normal().generic_string() != name)
      source.refuse("names " + detail::in_quotes(name) + ", which is no file below its folder");
    std::string bytes = read_file(folder / path, function);
    if (const auto is = hash_text(fnv1a(bytes)); hash != is)
      detail::fail_file(function, folder / path,
                        "has hash " + is + ", " + source.name() + " says " + hash.dump() +
                            ": it is damaged, or a save was interrupted");
    out.files[name] = std::move(bytes);
  }
  out.values.erase("files");
  out.values.erase("hash");
  return out;
}

}  // namespace unroll
