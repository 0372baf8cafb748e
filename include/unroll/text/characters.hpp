#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/io/file.hpp"

namespace unroll::data {

struct text_options {
  double held_out = 0.1;  ///< share of the characters, at the end, that are not for training
};

/// The characters (bytes) of a text as numbers 0 .. vocabulary() - 1: the bytes of the training part in
/// ascending order, then one number for every other byte, which may appear in the held-out part.
class text {
 public:
  /// Reads a file. Throws unroll::error when it cannot be read or either part is empty.
  explicit text(const std::filesystem::path& path, const text_options& options = {})
      : text(read_file(path, "text"), unroll::detail::quoted_path(path), options) {}

  /// Takes the text itself; `name` stands for it in messages.
  text(const std::string& characters, const std::string& name, const text_options& options = {}) {
    if (!(options.held_out >= 0 && options.held_out < 1))
      fail("text", "held_out", "is " + std::to_string(options.held_out) + ", must be in [0, 1)");
    const auto held = std::size_t(options.held_out * double(characters.size()));
    const std::size_t split = characters.size() - held;
    if (split == 0) fail("text", name, "is empty");
    if (options.held_out > 0 && held == 0)
      fail("text", name,
           "has " + std::to_string(characters.size()) + " bytes, of which a share of " +
               std::to_string(options.held_out) + " is none");
    std::array<bool, 256> seen{};
    for (std::size_t i = 0; i < split; ++i) seen[static_cast<unsigned char>(characters[i])] = true;
    for (std::size_t b = 0; b < 256; ++b)
      if (seen[b]) bytes_.push_back(char(static_cast<unsigned char>(b)));
    number_.fill(unknown());
    for (std::size_t i = 0; i < bytes_.size(); ++i)
      number_[static_cast<unsigned char>(bytes_[i])] = std::int32_t(i);
    train_ = encode(std::string_view(characters).substr(0, split));
    held_out_ = encode(std::string_view(characters).substr(split));
  }

  /// Ids: those of the training part and the one of all others.
  index_t vocabulary() const { return index_t(bytes_.size()) + 1; }
  /// The number of a byte that the training part does not have.
  std::int32_t unknown() const { return std::int32_t(bytes_.size()); }
  /// Ids of the training part.
  std::span<const std::int32_t> train() const& { return {train_.data(), train_.size()}; }
  /// Ids of the other part.
  std::span<const std::int32_t> held_out() const& { return {held_out_.data(), held_out_.size()}; }
  void train() && = delete;  // they would be gone with it
  void held_out() && = delete;

  /// Ids of characters, those that training lacks as the last id.
  std::vector<std::int32_t> encode(std::string_view characters) const {
    std::vector<std::int32_t> numbers(characters.size());
    for (std::size_t i = 0; i < characters.size(); ++i)
      numbers[i] = number_[static_cast<unsigned char>(characters[i])];
    return numbers;
  }
  /// The characters back; '?' for unknown(). Throws on numbers outside the vocabulary.
  std::string decode(std::span<const std::int32_t> numbers) const {
    std::string characters;
    for (const std::int32_t n : numbers) {
      if (n < 0 || n >= vocabulary())
        fail("text::decode", "numbers",
             "holds " + std::to_string(n) + ", the vocabulary has " + std::to_string(vocabulary()));
      characters += n == unknown() ? '?' : bytes_[std::size_t(n)];
    }
    return characters;
  }

 private:
  std::string bytes_;
  std::array<std::int32_t, 256> number_{};
  std::vector<std::int32_t> train_, held_out_;
};

}  // namespace unroll::data
