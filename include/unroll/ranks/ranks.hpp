#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "unroll/core/error.hpp"
#include "unroll/core/view.hpp"

namespace unroll {

/// What moves bytes between the processes that run one program, its ranks 0 .. size() - 1 in the words of
/// MPI. All ranks make the same calls in the same order, each from one thread at a time:
///
///     send(to, bytes)         may return before rank `to` has received them
///     receive(from, bytes)    as many as rank `from` has sent
///     broadcast(root, bytes)  those of rank `root`, to all
template <class C>
concept communicator = requires(C& c, index_t rank, const void* from, void* to, std::size_t bytes) {
  { c.rank() } -> std::convertible_to<index_t>;
  { c.size() } -> std::convertible_to<index_t>;
  c.send(rank, from, bytes);
  c.receive(rank, to, bytes);
  c.broadcast(rank, to, bytes);
};

/// The ranks that share a piece of work, as one of them sees them: a reference to a communicator
/// (ranks/mpi.hpp), which must outlive it; without one, a process alone. What is computed with it has the
/// same bits for any number of ranks: sums are taken in the order of their items, whoever has them.
class ranks final {
 public:
  /// One process.
  ranks() = default;
  /// Those of a communicator.
  template <class C>
  requires(!std::same_as<C, ranks> && communicator<C>) ranks(C& c)
      : communicator_(&c),
        rank_(c.rank()),
        size_(c.size()),
        send_([](void* p, index_t to, const void* from, std::size_t bytes) {
          static_cast<C*>(p)->send(to, from, bytes);
        }),
        receive_([](void* p, index_t from, void* to, std::size_t bytes) {
          static_cast<C*>(p)->receive(from, to, bytes);
        }),
        broadcast_([](void* p, index_t root, void* bytes, std::size_t n) {
          static_cast<C*>(p)->broadcast(root, bytes, n);
        }) {}

  index_t rank() const { return rank_; }            ///< of this process
  index_t size() const { return size_; }            ///< how many there are
  bool first() const { return rank_ == 0; }         ///< the one that prints and writes files
  bool last() const { return rank_ + 1 == size_; }  ///< the one at which sums end

  /// Item i of those that are dealt out in turn belongs to this rank.
  index_t owner(index_t i) const { return i % size_; }
  /// Of n items in a row rank r has [begin_of(n, r), begin_of(n, r + 1)).
  index_t begin_of(index_t n, index_t r) const { return n / size_ * r + std::min(n % size_, r); }
  index_t begin(index_t n) const { return begin_of(n, rank_); }    ///< the first that this rank has
  index_t end(index_t n) const { return begin_of(n, rank_ + 1); }  ///< behind the last

  /// Numbers, to the rank `to`, which receives as many.
  template <class T, class Space>
  void send(index_t to, view<T, Space> numbers) const {
    if (numbers.size() > 0) send_(communicator_, to, numbers.data(), std::size_t(numbers.size()) * sizeof(T));
  }
  /// The numbers that the rank `from` sends.
  template <class T, class Space>
  void receive(index_t from, view<T, Space> numbers) const {
    if (numbers.size() > 0)
      receive_(communicator_, from, numbers.data(), std::size_t(numbers.size()) * sizeof(T));
  }
  /// The numbers of rank `root`, to all.
  template <class T, class Space>
  void broadcast(index_t root, view<T, Space> numbers) const {
    if (size_ > 1 && numbers.size() > 0)
      broadcast_(communicator_, root, numbers.data(), std::size_t(numbers.size()) * sizeof(T));
  }
  /// The number of rank `root`, to all.
  template <class T>
  [[nodiscard]] T broadcast(index_t root, T number) const {
    broadcast(root, view<T>(&number, 1));
    return number;
  }
  /// The text of rank `root`, to all.
  std::string broadcast_text(index_t root, std::string text) const {
    text.resize(std::size_t(broadcast(root, std::int64_t(text.size()))));
    broadcast(root, view<char>(text));
    return text;
  }
  /// All that an object shows (core/visit.hpp), from rank `root` to all.
  template <class Object>
  void broadcast_visited(index_t root, Object& object) const {
    if (size_ > 1) object.visit([&](std::string_view, auto shown) { broadcast(root, shown); });
  }

  /// A value goes from rank to rank, each of which adds what it has: add(value) is called on one rank after
  /// the other, and all have what the last one made of it.
  template <class Object, class Add>
  void visited_in_order(Object& object, Add&& add) const {
    if (rank_ > 0) object.visit([&](std::string_view, auto shown) { receive(rank_ - 1, shown); });
    add(object);
    if (!last()) object.visit([&](std::string_view, auto shown) { send(rank_ + 1, shown); });
    broadcast_visited(size_ - 1, object);
  }
  /// The same for numbers, slice by slice, so that all ranks work at once: add(slice, begin) adds to the
  /// slice of the sum that begins with number `begin`.
  template <class T, class Space, class Add>
  void in_order(view<T, Space> sum, Add&& add) const {
    constexpr index_t slice = index_t{1} << 16;
    for (index_t begin = 0; begin < sum.size(); begin += slice) {
      const auto part = sum.part(begin, std::min(slice, sum.size() - begin));
      if (rank_ > 0) receive(rank_ - 1, part);
      add(part, begin);
      if (!last()) send(rank_ + 1, part);
    }
    broadcast(size_ - 1, sum);
  }

  /// Whether it holds on one of the ranks.
  [[nodiscard]] bool any(bool here) const {
    std::int64_t sum = 0;
    in_order(view<std::int64_t>(&sum, 1), [&](auto part, index_t) { part[0] += here ? 1 : 0; });
    return sum > 0;
  }
  /// Returns when all have called it.
  void wait_for_all() const { static_cast<void>(any(false)); }
  /// Throws unroll::error, on every rank, unless a number that says what a rank works on (a hash of its
  /// files, or of its parameters) is that of rank 0 on all.
  void check_same(std::string_view function, std::string_view what, std::uint64_t number) const {
    const std::uint64_t expected = broadcast(0, number);
    std::int64_t other = -1;
    in_order(view<std::int64_t>(&other, 1), [&](auto part, index_t) {
      if (part[0] < 0 && number != expected) part[0] = rank_;
    });
    if (other >= 0) fail(function, what, "of rank " + std::to_string(other) + " is not that of rank 0");
  }

 private:
  void send(index_t, std::string_view) const {}  // what an object is, all know
  void receive(index_t, std::string_view) const {}
  void broadcast(index_t, std::string_view) const {}

  void* communicator_ = nullptr;
  index_t rank_ = 0, size_ = 1;
  void (*send_)(void*, index_t, const void*, std::size_t) = nullptr;
  void (*receive_)(void*, index_t, void*, std::size_t) = nullptr;
  void (*broadcast_)(void*, index_t, void*, std::size_t) = nullptr;
};

}  // namespace unroll
