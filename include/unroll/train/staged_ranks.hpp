#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "unroll/exec/executor.hpp"
#include "unroll/ranks/ranks.hpp"

namespace unroll::training {

/// Ranks of the host as a communicator (ranks/ranks.hpp) whose numbers lie at the place of an executor: they
/// go through memory of the host, 65,536 at a time, and every call waits. They are parameters P of the
/// executor.
template <class E>
class staged_ranks final {
  using P = typename E::numbers::parameter;

 public:
  staged_ranks(E e, ranks host) : executor_(std::move(e)), host_(host) {}

  index_t rank() const { return host_.rank(); }  ///< of this process
  index_t size() const { return host_.size(); }  ///< how many there are

  /// See communicator; n bytes at the executor's place.
  void send(index_t to, const void* bytes, std::size_t n) {
    in_pieces(bytes, n, [&](const P* here, view<P> piece) {
      fetch(here, piece);
      host_.send(to, piece);
    });
  }
  /// See communicator; n bytes at the executor's place.
  void receive(index_t from, void* bytes, std::size_t n) {
    in_pieces(bytes, n, [&](P* here, view<P> piece) {
      host_.receive(from, piece);
      executor_.upload(piece.data(), piece.size(), here);
    });
  }
  /// See communicator; n bytes at the executor's place.
  void broadcast(index_t root, void* bytes, std::size_t n) {
    in_pieces(bytes, n, [&](P* here, view<P> piece) {
      if (rank() == root) fetch(here, piece);
      host_.broadcast(root, piece);
      if (rank() != root) executor_.upload(piece.data(), piece.size(), here);
    });
  }

 private:
  static constexpr index_t most = index_t{1} << 16;  // numbers of a piece

  void fetch(const P* here, view<P> piece) {
    executor_.download(here, piece.size(), piece.data());
    executor_.synchronise();
  }
  template <class Bytes, class F>
  void in_pieces(Bytes* bytes, std::size_t n, F&& f) {
    using number = std::conditional_t<std::is_const_v<Bytes>, const P, P>;
    number* const here = static_cast<number*>(bytes);
    const index_t count = index_t(n / sizeof(P));
    if (index_t(piece_.size()) < std::min(count, most)) piece_.resize(std::size_t(std::min(count, most)));
    for (index_t i = 0; i < count; i += most) f(here + i, view<P>(piece_.data(), std::min(most, count - i)));
  }

  E executor_;
  ranks host_;
  std::vector<P> piece_;
};

}  // namespace unroll::training
