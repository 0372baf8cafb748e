#include "unroll/exec/visit_block.hpp"

#include "tests/support/catch.hpp"
#include "unroll/exec/host.hpp"
#include "unroll/testing/simt/executor.hpp"

using namespace unroll;

using both_places = std::tuple<exec::host<numbers<float>>, testing::simt::executor<numbers<float>>>;

namespace {

/// Keeps what it is shown by name, or puts it back.
struct recorder {
  bool restore = false;
  std::vector<std::string> names = {};
  std::vector<double> numbers = {};
  std::vector<std::int64_t> words = {};

  void operator()(const std::string& name, view<float> x) {
    names.push_back(name);
    if (restore)
      std::copy(numbers.begin(), numbers.end(), x.begin());
    else
      numbers.assign(x.begin(), x.end());
  }
  void operator()(const std::string& name, view<std::int64_t> x) {
    names.push_back(name);
    if (restore)
      std::copy(words.begin(), words.end(), x.begin());
    else
      words.assign(x.begin(), x.end());
  }
};

template <class U, class E>
std::vector<U> on_host(const E& e, const U* from, index_t n) {
  std::vector<U> x(static_cast<std::size_t>(n));
  e.download(from, n, x.data());
  e.synchronise();
  return x;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("a visitor sees a block of any kind at any place, and puts its numbers back",
                        "[exec]", both_places) {
  using E = TestType;
  const E e;
  const auto check = [&]<class U>(const std::vector<U>& written, bool as_numbers) {
    const index_t n = index_t(written.size()) - 1;  // the last one is not shown
    auto block = e.template allocate<U>(n + 1);
    e.upload(written.data(), n + 1, block.data());
    recorder r;
    visit_block(r, "some", e, block, 0);
    CHECK(r.names.empty());
    visit_block(r, "some", e, block, n);
    CHECK(r.names == std::vector<std::string>{"some"});
    CHECK(r.numbers.size() == (as_numbers ? std::size_t(n) : 0));
    CHECK(r.words.size() == (as_numbers ? 0 : (std::size_t(n) * sizeof(U) + 7) / 8));
    const std::vector<U> others(written.size(), U(1));
    e.upload(others.data(), n + 1, block.data());
    r.restore = true;
    visit_block(r, "some", e, block, n);
    const std::vector<U> got = on_host<U>(e, block.data(), n + 1);
    CHECK(std::equal(got.begin(), got.end() - 1, written.begin()));
    CHECK(got.back() == U(1));
  };
  check(std::vector<float>{1.5f, -2, 3e-38f, 9}, true);
  check(std::vector<std::int32_t>{1, -7, 1 << 30, 4}, false);
}
