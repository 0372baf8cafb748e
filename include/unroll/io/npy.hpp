#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "unroll/io/file_kind.hpp"
#include "unroll/xtensor/headers.hpp"

namespace unroll {

namespace detail {

/// What the header of a .npy file says (NEP 1, versions 1 to 3).
struct npy_header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::size_t> shape;
  std::size_t elements = 1;
  std::size_t data = 0;  // offset of the first element
};

// Reads the Python dictionary of the header, in any order of its keys, and nothing else.
class npy_parser {
 public:
  npy_parser(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  npy_header parse() {
    npy_header h;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !descr) {
        descr = true;
        if (peek() == '[') refuse("holds records, expected plain numbers");
        h.descr = quoted();
      } else if (key == "fortran_order" && !order) {
        order = true;
        h.fortran_order = accept_word("True");
        if (!h.fortran_order && !accept_word("False")) refuse("has a fortran_order that is no truth value");
      } else if (key == "shape" && !shape) {
        shape = true;
        expect('(');
        while (!accept(')')) {
          h.shape.push_back(number());
          accept_word("L");  // as Python 2 writes its long numbers
          if (h.shape.size() > 32) refuse("has more than 32 dimensions");
          if (!accept(',') && peek() != ')') refuse("has a damaged header");
        }
      } else {
        refuse("has an unexpected or repeated header key \"" + key + "\"");
      }
      if (!accept(',') && peek() != '}') refuse("has a damaged header");
    }
    if (!descr || !order || !shape) refuse("misses descr, fortran_order or shape in its header");
    if (peek() != '\0') refuse("has a damaged header");
    return h;
  }

  [[noreturn]] void refuse(const std::string& why) const { fail("load_npy", name_, why); }

 private:
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) refuse("has a damaged header");
  }
  bool accept_word(std::string_view word) {
    peek();
    if (text_.substr(std::min(at_, text_.size()), word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  std::string quoted() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') refuse("has a damaged header");
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) refuse("has a damaged header");
    std::string s(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return s;
  }
  std::size_t number() {
    if (peek() < '0' || peek() > '9') refuse("has a damaged header");
    std::size_t n = 0;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      n = 10 * n + std::size_t(text_[at_++] - '0');
      if (n > (std::size_t{1} << 48)) refuse("has a dimension of more than 2^48");
    }
    return n;
  }

  std::string_view text_, name_;
  std::size_t at_ = 0;
};

// The header of the .npy file in `bytes`; refuses whatever does not fit the size of the file.
inline npy_header read_npy_header(std::string_view bytes, std::string_view name, std::string_view descr,
                                  std::size_t item) {
  const auto refuse = [&](const std::string& why) { fail("load_npy", name, why); };
  if (bytes.size() < 10 || bytes.substr(0, 6) != "\x93NUMPY") {
    const std::string kind = file_kind(bytes);
    refuse("is " + (kind.empty() ? "" : kind + ", ") + "not a .npy file");
  }
  const auto byte = [&](std::size_t i) { return std::size_t(static_cast<unsigned char>(bytes[i])); };
  const std::size_t version = byte(6), prefix = version == 1 ? 10 : 12;
  if (version < 1 || version > 3 || byte(7) != 0)
    refuse("has version " + std::to_string(version) + "." + std::to_string(byte(7)) +
           ", expected 1.0 to 3.0");
  if (bytes.size() < prefix) refuse("ends inside its header");
  std::size_t length = byte(8) | byte(9) << 8;
  if (version > 1) length |= byte(10) << 16 | byte(11) << 24;
  if (length > bytes.size() - prefix)
    refuse("has " + std::to_string(bytes.size()) + " bytes, its header alone " + std::to_string(length));
  npy_header h = npy_parser(bytes.substr(prefix, length), name).parse();
  h.data = prefix + length;
  if (h.descr != descr) refuse("has dtype \"" + h.descr + "\", expected \"" + std::string(descr) + "\"");
  // the bound holds for the product without the zeros, so that no stride can overflow
  std::size_t bound = 1;
  for (const std::size_t n : h.shape) {
    h.elements *= n;
    if (n > (std::size_t{1} << 48) / bound) refuse("has a shape of more than 2^48 numbers");
    bound *= std::max<std::size_t>(n, 1);
  }
  if (h.elements * item != bytes.size() - h.data)
    refuse("has " + std::to_string(bytes.size() - h.data) + " bytes of data, its shape needs " +
           std::to_string(h.elements * item));
  return h;
}

template <class T>
constexpr const char* npy_descr() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, std::int32_t> ||
                    std::is_same_v<T, std::int64_t>,
                "a .npy file is read as float, double, std::int32_t or std::int64_t");
  return std::is_same_v<T, float>          ? "<f4"
         : std::is_same_v<T, double>       ? "<f8"
         : std::is_same_v<T, std::int32_t> ? "<i4"
                                           : "<i8";
}

}  // namespace detail

/// Reads a .npy file of exactly the type T; Fortran order becomes row-major. The header is compared with the
/// size of the file before anything is allocated, because xt::load_npy trusts it. Throws unroll::error that
/// names the file.
template <class T>
xt::xarray<T, xt::layout_type::row_major> load_npy(const std::filesystem::path& path) {
  const std::string bytes = read_file(path, "load_npy"), name = detail::quoted_path(path);
  const auto h = detail::read_npy_header(bytes, name, detail::npy_descr<T>(), sizeof(T));
  auto result = xt::xarray<T, xt::layout_type::row_major>::from_shape(h.shape);
  const auto fill = [&](auto& array) {
    if (h.elements > 0) std::memcpy(array.data(), bytes.data() + h.data, h.elements * sizeof(T));
  };
  if (h.fortran_order) {
    auto columns = xt::xarray<T, xt::layout_type::column_major>::from_shape(h.shape);
    fill(columns);
    result = columns;
  } else {
    fill(result);
  }
  return result;
}

/// Writes an xtensor expression as .npy, in one step: the file is never half written.
template <class E>
void save_npy(const std::filesystem::path& path, const xt::xexpression<E>& e) {
  // evaluated here: xt::eval inside dump_npy loses the shape under C++20 (xtensor 0.24, its issue 1970)
  const xt::xarray<typename E::value_type, xt::layout_type::row_major> array = e.derived_cast();
  write_file(path, xt::dump_npy(array), "save_npy");
}

}  // namespace unroll
