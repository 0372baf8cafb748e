#include "tests/support/catch.hpp"

#if __has_include(<xtensor/xarray.hpp>) || __has_include(<xtensor/containers/xarray.hpp>)

#include "tests/support/folder.hpp"
#include "unroll/io/npy.hpp"

using namespace unroll;
using Catch::Matchers::ContainsSubstring;

namespace {

// A .npy file with any header and data, of version 2 where the header is too long for version 1.
std::string npy(const std::string& header, const std::string& data) {
  const bool large = header.size() > 0xffff;
  std::string bytes = "\x93NUMPY";
  bytes += large ? '\2' : '\1';
  bytes += '\0';
  for (int i = 0; i < (large ? 4 : 2); ++i) bytes += char(header.size() >> 8 * i & 0xff);
  return bytes + header + data;
}

template <class T>
std::string raw(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

}  // namespace

TEST_CASE("arrays come back from .npy files") {
  const folder f;
  xt::xarray<double> a = {{1, 2, 3}, {4, 5, 6}};
  save_npy(f.path / "a.npy", a);
  const bool same = load_npy<double>(f.path / "a.npy") == a;  // Catch must not see the comparison of arrays
  CHECK(same);
  save_npy(f.path / "a.npy", a * 2.0);
  CHECK(load_npy<double>(f.path / "a.npy")(1, 2) == 12);
  xt::xarray<std::int64_t> scalar = 7;
  save_npy(f.path / "s.npy", scalar);
  CHECK(load_npy<std::int64_t>(f.path / "s.npy")() == 7);
  xt::xarray<float> empty = xt::xarray<float>::from_shape({0, 3});
  save_npy(f.path / "e.npy", empty);
  CHECK(load_npy<float>(f.path / "e.npy").shape()[1] == 3);
  CHECK_THROWS_AS(save_npy(f.path / "missing" / "a.npy", a), unroll::error);
}

TEST_CASE("headers are read in any order, of any length, and Fortran order is turned") {
  const folder f;
  const auto data = raw<float>({1, 2, 3, 4, 5, 6});
  const auto read = [&](const std::string& header) {
    write_file(f.path / "a.npy", npy(header, data));
    return load_npy<float>(f.path / "a.npy");
  };
  CHECK(read("{'shape': (2, 3), 'descr': '<f4', 'fortran_order': False}")(1, 0) == 4);
  CHECK(read("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n")(1, 0) == 2);
  CHECK(read("{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":(6,)}" + std::string(180, ' ') +
             "\n")(5) == 6);
  CHECK(read("{'descr':'<f4','fortran_order':False,'shape':(6,)}" + std::string(0x12345, ' ') + "\n")(5) ==
        6);
  // as numpy of Python 2 wrote them
  CHECK(read("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }\n")(1, 0) == 4);
  CHECK(read("{'descr': '<f4', 'fortran_order': False, 'shape': (6L,), }\n")(5) == 6);
}

TEST_CASE("files that are damaged, too short, too long or of another type are refused by name") {
  const folder f;
  const auto path = f.path / "bad.npy";
  const auto refuses = [&](const std::string& bytes, const std::string& why) {
    write_file(path, bytes);
    CHECK_THROWS_WITH(load_npy<double>(path), ContainsSubstring("bad.npy") && ContainsSubstring(why));
  };
  const auto data = raw<double>({1, 2});
  refuses("", "not a .npy file");
  refuses("PK\x03\x04 and so on", "is a zip archive, as torch.save and numpy.savez write, not a .npy file");
  refuses(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", data),
          "dtype \"<f4\", expected \"<f8\"");
  refuses(npy("{'descr': '>f8', 'fortran_order': False, 'shape': (2,)}", data), "dtype \">f8\"");
  refuses(npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,)}", data), "records");
  refuses(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}", data), "its shape needs 24");
  refuses(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", data), "its shape needs 8");
  refuses(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}", data), "2^48");
  refuses(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", data), "2^48");
  refuses(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (281474976710656, 2, 0)}", data), "2^48");
  refuses(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2LL,)}", data), "damaged");
  refuses(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (L,)}", data), "damaged");
  refuses(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}", data), "damaged");
  refuses(npy("{'descr': '<f8', 'fortran_order': maybe, 'shape': (2,)}", data), "truth value");
  refuses(npy("{'descr': '<f8', 'shape': (2,)}", data), "misses");
  refuses(npy("{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", data), "repeated");
  auto late = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", data);
  late[6] = 9;
  refuses(late, "version 9.0");
  auto cut = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", data);
  for (std::size_t i = 0; i < cut.size(); ++i) {
    write_file(path, cut.substr(0, i));
    CHECK_THROWS_AS(load_npy<double>(path), unroll::error);
  }
  // any byte of the header changed: refused, or read within bounds
  int read = 0, refused = 0;
  for (std::size_t i = 0; i + 16 < cut.size(); ++i) {
    for (char c : {'\0', '9', '\'', '(', '\xff'}) {
      auto altered = cut;
      altered[i] = c;
      write_file(path, altered);
      try {
        load_npy<double>(path);
        ++read;
      } catch (const unroll::error&) {
        ++refused;
      }
    }
  }
  CHECK(read > 0);
  CHECK(refused > 100);
  CHECK_THROWS_WITH(load_npy<double>(f.path / "none.npy"), ContainsSubstring("does not exist"));
}

#endif
