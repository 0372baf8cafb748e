#pragma once

#include <array>
#include <vector>

#include "unroll/core/layout.hpp"
#include "unroll/xtensor/headers.hpp"

// The other way needs nothing: a view is made from any contiguous xtensor container, and throws
// unroll::error for a strided one.
namespace unroll {

/// The elements of v as an array of this shape, without a copy; v's memory must outlive it. Row-major unless
/// told otherwise. Throws unroll::error when the sizes differ.
template <xt::layout_type L = xt::layout_type::row_major, class T, class Space>
auto as_xtensor(view<T, Space> v, const std::vector<std::size_t>& shape) {
  index_t size = 1;
  for (const std::size_t n : shape) size *= index_t(n);
  check_size("as_xtensor", "v", v.size(), size);
  return xt::adapt<L>(v.data(), std::size_t(v.size()), xt::no_ownership(), shape);
}

/// A flat vector as an array of one dimension, without a copy.
template <class T, class Space>
auto as_xtensor(view<T, Space> v) {
  return xt::adapt(v.data(), std::size_t(v.size()), xt::no_ownership(),
                   std::array<std::size_t, 1>{std::size_t(v.size())});
}

/// The named block of a flat vector as a rows x cols matrix, without a copy (column-major, as all matrices of
/// the library).
template <class T, class Space>
auto as_xtensor(view<T, Space> flat, const layout& names, std::string_view name) {
  const layout_block& b = names.at(name);
  return as_xtensor<xt::layout_type::column_major>(names.part(flat, name),
                                                   {std::size_t(b.rows), std::size_t(b.cols)});
}

}  // namespace unroll
