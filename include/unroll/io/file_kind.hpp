#pragma once

#include <algorithm>

#include "unroll/io/file.hpp"

namespace unroll {

/// What the first bytes of a file say it is, for a message: "a GGUF file"; empty where they are those of no
/// format that is mistaken for a model. A llama2.c file without a magic number is never taken for another.
inline std::string file_kind(std::string_view bytes) {
  const auto number = [&](std::size_t at, std::size_t size) {
    std::uint64_t n = 0;
    for (std::size_t i = size; i-- > 0;)
      n = n << 8 | (at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0u);
    return n;
  };
  if (bytes.starts_with("24ka") && bytes.size() >= 8)
    return "a llama2.c file of version " + std::to_string(number(4, 4)) + " (magic number \"ak42\")";
  if (bytes.starts_with("GGUF")) return "a GGUF file";
  if (bytes.starts_with("lmgg") || bytes.starts_with("tjgg") || bytes.starts_with("fmgg"))
    return "a GGML file, from before GGUF";
  if (bytes.starts_with("PK\x03\x04")) return "a zip archive, as torch.save and numpy.savez write";
  // protocols 2 to 5; two zeros behind the 128 would be a hidden size
  if (bytes.starts_with('\x80') && number(1, 1) >= 2 && number(1, 1) <= 5 && number(2, 2) != 0)
    return "a pickle of Python, as old versions of torch.save write";
  if (bytes.starts_with("\x1f\x8b\x08")) return "a file packed by gzip";
  if (bytes.starts_with("\x89HDF")) return "an HDF5 file";
  if (bytes.starts_with("\x93NUMPY")) return "a .npy file";
  if (bytes.starts_with("UNROLLCP")) return "a checkpoint of a training run";
  if (bytes.starts_with("version https://git-lfs"))
    return "a pointer of Git LFS, without the file that it stands for";
  if (bytes.starts_with("<!DOCTYPE") || bytes.starts_with("<!doctype") || bytes.starts_with("<html"))
    return "a page of HTML";
  if (bytes.size() > 8 && bytes[8] == '{' && number(0, 8) < (std::uint64_t{1} << 32))
    return "a safetensors file";
  return {};
}

/// Throws "function: file: is a GGUF file, which is not read here" where the first bytes are those of such a
/// file, unless it is `expected`.
inline void refuse_other_kinds(const byte_source& bytes, std::string_view expected = {}) {
  const std::string kind = file_kind(bytes.read(0, std::min<std::uint64_t>(bytes.size(), 32)));
  if (!kind.empty() && kind != expected) bytes.refuse("is " + kind + ", which is not read here");
}

}  // namespace unroll
