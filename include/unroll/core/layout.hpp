#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "unroll/core/view.hpp"

namespace unroll {

/// One named matrix inside a flat vector: `rows` x `cols`, column-major, starting at `offset`.
struct layout_block {
  std::string name;    ///< the name of the matrix
  index_t offset = 0;  ///< of its first number in the flat vector
  index_t rows = 0;    ///< of the matrix, which lies column-major
  index_t cols = 1;    ///< 1: a vector
  index_t size() const { return rows * cols; }
};

/// Gives the names back to a flat vector: for printing, saving and initialising parameters.
class layout {
 public:
  /// Appends a block behind the last one and returns its offset. Throws unroll::error where the numbers are
  /// more than memory has addresses for.
  index_t add(std::string name, index_t rows, index_t cols = 1) {
    constexpr index_t most = std::numeric_limits<index_t>::max() / 16;
    if (rows < 0 || cols < 0 || (rows > 0 && cols > (most - size_) / rows))
      fail("layout::add", name,
           "is " + std::to_string(rows) + " x " + std::to_string(cols) + " behind " + std::to_string(size_) +
               " numbers, at most " + std::to_string(most) + " have addresses");
    const index_t offset = size_;
    blocks_.push_back({std::move(name), offset, rows, cols});
    size_ += rows * cols;
    return offset;
  }
  index_t size() const { return size_; }
  const std::vector<layout_block>& blocks() const& { return blocks_; }
  void blocks() && = delete;  // a loop over them would outlive them

  /// The block of that name; throws unroll::error that lists the names there are.
  const layout_block& at(std::string_view name) const {
    std::string names;
    for (const auto& b : blocks_) {
      if (b.name == name) return b;
      names += names.empty() ? b.name : ", " + b.name;
    }
    fail("layout::at", "name", "\"" + std::string(name) + "\" is none of " + names);
  }

  /// The part of `flat`, size() numbers, that `name` covers, in the space of `flat`.
  template <class T, class Space>
  view<T, Space> part(view<T, Space> flat, std::string_view name) const {
    check_size("layout::part", "flat", flat.size(), size_);
    const auto& b = at(name);
    return flat.part(b.offset, b.size());
  }

 private:
  std::vector<layout_block> blocks_;
  index_t size_ = 0;
};

}  // namespace unroll
