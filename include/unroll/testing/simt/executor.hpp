#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/exec/body_executor.hpp"
#include "unroll/exec/offload.hpp"
#include "unroll/exec/recording.hpp"
#include "unroll/testing/simt/context.hpp"
#include "unroll/testing/simt/device_memory.hpp"

namespace unroll::testing::simt {

class recording;

/// Runs kernel bodies on the host, see context.hpp, in an order of the key.
class machine {
 public:
  explicit machine(key k) : key_(k), shared_(std::make_shared<shared>()) {}

  /// Runs every block of a body.
  template <class Body>
  void run(const Body& body) const {
    happen([body](const machine& m) {
      const device_memory::access open(*m.memory());
      ++m.shared_->launches[&kind_of<Body>];
      simt::run(body, m.key_);
    });
  }
  /// op(machine), which is trivially copyable, now or as part of a recording.
  template <class Op>
  void happen(Op op) const;
  /// How often a body of this kind has run.
  template <class Body>
  std::int64_t launches() const {
    return shared_->launches[&kind_of<Body>];
  }

  /// Numbers of the host that bodies can read: a copy, or their place in a recording.
  template <class U>
  class staged_span {
   public:
    explicit staged_span(std::span<U> numbers) : own_(numbers.begin(), numbers.end()) {}
    explicit staged_span(const void* recorded) : recorded_(static_cast<const U*>(recorded)) {}
    const U* data() const { return recorded_ ? recorded_ : own_.data(); }

   private:
    std::vector<std::remove_const_t<U>> own_;
    const U* recorded_ = nullptr;
  };
  /// See exec/body_executor.hpp.
  template <class U>
  staged_span<U> staged(std::span<U> numbers) const;

  double* partial_sums() const { return shared_->partial.data(); }  ///< of one sum
  const std::shared_ptr<device_memory>& memory() const { return shared_->memory; }
  recording*& open() const { return shared_->open; }  ///< what operations are noted in; null: they happen
  friend bool operator==(const machine&, const machine&) = default;

 private:
  struct shared {
    std::shared_ptr<device_memory> memory = std::make_shared<device_memory>();
    device_block<double> partial{kernels::reduce_body<kernels::reduction::sum, float>::most_parts, memory};
    recording* open = nullptr;
    std::map<const void*, std::int64_t> launches;  // by kind
  };
  template <class Body>
  static inline char kind_of = 0;  // its address tells one kind of body from another

  key key_;
  std::shared_ptr<shared> shared_;
};

/// Memory of recorded spans, see exec/recording.hpp.
struct recorded_chunk {
  explicit recorded_chunk(index_t n) : written(std::size_t(n)), brought(std::size_t(n)) {}
  unsigned char* host() { return written.data(); }   ///< where they are written
  unsigned char* place() { return brought.data(); }  ///< where operations find them
  std::vector<unsigned char> written;                ///< on the host
  std::vector<unsigned char> brought;                ///< at the place
};

/// A recorded list of launches that is run with new spans in the same memory, see exec/recording.hpp. What it
/// is given of the host comes to the place when the list is run, not before.
class recording : public exec::recorded<machine, recorded_chunk> {
 public:
  /// Makes all of it.
  void run(const machine& m) {
    end();
    spans_.for_changed(
        [](const unsigned char* from, unsigned char* to, index_t n) { std::copy_n(from, n, to); });
    list_.run(m);
  }
};

template <class Op>
void machine::happen(Op op) const {
  if (open())
    open()->add(op);
  else
    op(*this);
}
template <class U>
machine::staged_span<U> machine::staged(std::span<U> numbers) const {
  if (!open() || numbers.empty()) return staged_span<U>(numbers);
  return staged_span<U>(open()->put(numbers.data(), index_t(numbers.size_bytes())));
}

/// Copies between a device and memory of the host, made as late as exec/offload.hpp allows, and one direction
/// as far ahead of the other: what is done with numbers that nobody has waited for finds others.
class late_copies {
 public:
  /// To the place, or to the host.
  enum direction { bring, take };
  /// ahead: the direction that is made first.
  late_copies(std::shared_ptr<device_memory> m, direction ahead) : memory_(std::move(m)), ahead_(ahead) {}
  /// `to` = `from` is due.
  template <class U>
  void add(direction d, matrix<const U> from, matrix<U> to) {
    const auto bytes = [](index_t n) { return std::size_t(n) * sizeof(U); };
    for (index_t j = 0; j < from.cols; ++j)
      due_[d].push_back({reinterpret_cast<const char*>(from.data + j * from.stride),
                         reinterpret_cast<char*>(to.data + j * to.stride), bytes(from.rows), calls_++});
  }
  /// Makes what is due.
  void make() {
    const device_memory::access open(*memory_);
    const direction behind = ahead_ == bring ? take : bring;
    std::size_t made = 0;
    for (const copy& c : due_[ahead_]) {
      // of the other direction, up to the last one called before this that touches the same numbers at the
      // place
      std::size_t first = made;
      for (std::size_t i = made; i < due_[behind].size(); ++i)
        if (const copy& other = due_[behind][i];
            other.call < c.call && touch(at_place(ahead_, c), c.bytes, at_place(behind, other), other.bytes))
          first = i + 1;
      for (; made < first; ++made) make(due_[behind][made]);
      make(c);
    }
    for (; made < due_[behind].size(); ++made) make(due_[behind][made]);
    due_[bring].clear();
    due_[take].clear();
  }

 private:
  struct copy {
    const char* from;
    char* to;
    std::size_t bytes;
    std::int64_t call;
  };
  static void make(const copy& c) { std::memcpy(c.to, c.from, c.bytes); }
  static const char* at_place(direction d, const copy& c) { return d == bring ? c.to : c.from; }
  static bool touch(const char* a, std::size_t n, const char* b, std::size_t m) {
    return a < b + m && b < a + n;
  }

  std::shared_ptr<device_memory> memory_;
  direction ahead_;
  std::vector<copy> due_[2];
  std::int64_t calls_ = 0;
};

/// The executor that runs the kernel bodies of a device on the host: numbers<float>, numbers<bf16>,
/// numbers<float, bf16>. With it a model, its layouts, arenas and batches are tested without a device, under
/// sanitizers, which also find host code that touches memory of the device. The key permutes blocks, threads,
/// warps and lanes, which changes no bit. Copies share the device's memory.
template <class N>
class executor : public exec::body_executor<N, machine> {
 public:
  template <class U, class Space = plain_space>
  using block = device_block<U, Space>;
  /// Numbers in memory of the host, see exec/offload.hpp.
  template <class U>
  using host_block = unroll::buffer<U>;

  explicit executor(key order = {})
      : exec::body_executor<N, machine>(simt::machine(order)),
        copies_(std::make_shared<late_copies>(
            this->machine().memory(), order.seed % 2 == 0 ? late_copies::bring : late_copies::take)) {}

  /// A list of operations.
  using recording = simt::recording;
  /// See exec/recording.hpp.
  template <class F>
  void together(recording& r, F&& f) const {
    try {
      exec::note("simt::executor", this->machine().open(), r, f);
      r.run(this->machine());
    } catch (...) {
      this->casts()->all_changed();
      throw;
    }
  }

  template <class U, class Space = plain_space>
  block<U, Space> allocate(index_t n) const {
    return block<U, Space>(n, this->machine().memory());
  }
  template <class U>
  void upload(const U* from, index_t n, U* here) const {
    this->casts()->changed(here, std::size_t(n) * sizeof(U));
    if (this->machine().open()) {
      const auto at = this->machine().staged(std::span(from, std::size_t(n)));
      return this->machine().happen([at = at.data(), n, here](const simt::machine& m) {
        const device_memory::access open(*m.memory());
        std::copy_n(at, n, here);
      });
    }
    const device_memory::access open(*this->machine().memory());
    std::copy_n(from, n, here);
  }
  template <class U>
  void download(const U* here, index_t n, U* to) const {
    refuse_recorded("download");
    const device_memory::access open(*this->machine().memory());
    std::copy_n(here, n, to);
  }
  void synchronise() const {
    refuse_recorded("synchronise");
    copies_->make();
  }

  /// n zeros U in memory of the host.
  template <class U>
  host_block<U> host_allocate(index_t n) const {
    return host_block<U>(n);
  }
  /// here = from, of the host, as late as may be.
  template <class U>
  void bring(matrix<const U> from, matrix<U> here) const {
    this->machine().happen(
        [c = copies_.get(), from, here](const simt::machine&) { c->add(late_copies::bring, from, here); });
  }
  /// The other way.
  template <class U>
  void take(matrix<const U> here, matrix<U> to) const {
    this->machine().happen(
        [c = copies_.get(), here, to](const simt::machine&) { c->add(late_copies::take, here, to); });
  }
  /// Makes those that are due.
  void wait_for_copies() const {
    this->machine().happen([c = copies_.get()](const simt::machine&) { c->make(); });
  }

  friend bool operator==(const executor& a, const executor& b) { return a.machine() == b.machine(); }

 private:
  void refuse_recorded(std::string_view call) const {
    exec::refuse_noted("simt::executor", this->machine().open(), call);
  }

  std::shared_ptr<late_copies> copies_;
};

}  // namespace unroll::testing::simt
