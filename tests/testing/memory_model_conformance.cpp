#include "unroll/testing/memory_model_conformance.hpp"

#include <string>

#include "tests/support/catch.hpp"
#include "tests/support/memory_task.hpp"

namespace {

using namespace unroll;
using namespace memory_task;
using past_type = std::span<const double* const>;
using dpast_type = std::span<double* const>;

// attention_memory with one rule broken.
enum class mistake {
  none,
  writes_dtheta,     // write_vjp writes where it must add
  wrong_adjoint,     // read_vjp forgets a factor
  needs_all,         // read_vjp gives other adjoints where one is not wanted
  graph_bits,        // a write without a graph has other bits
  reads_tape,        // a write depends on what was in the tape
  other_loss,        // read_vjp returns another loss
  beyond_workspace,  // read writes behind the workspace
  memory_of_calls,   // every other write differs
  touches_dtheta,    // read_vjp adds to dtheta though reads_params() is false
  batch_bits,        // of a batch, the second memory has other bits
  leaves_out,        // write_vjp forgets the last segment of a batch
  other_order,       // write_vjp adds the first segment of a batch first
  added_twice,       // read_vjp adds the adjoints of the second segment of a batch twice
  allocates
};

class broken : public attention {
 public:
  broken(bool recurrent, mistake which) : attention(make_attention(recurrent)), which_(which) {}

  void write(std::span<const example> xs, index_t s, params<const double> theta, past_type past,
             view<double> m, view<double> tape, view<double> work) const {
    const double old = tape.empty() ? 0 : tape[0];
    attention::write(xs, s, theta, past, m, tape, work);
    if (which_ == mistake::graph_bits && tape.empty()) m[0] *= 1 + 1e-15;
    if (which_ == mistake::reads_tape && old == 3) m[0] += 1;
    if (which_ == mistake::memory_of_calls) m[0] += ++calls_ % 2;
    if (which_ == mistake::batch_bits && xs.size() > 1) m[size().memory] *= 1 + 1e-15;
    if (which_ == mistake::allocates) ::operator delete(::operator new(8));
  }
  void write_vjp(std::span<const example> xs, index_t s, params<const double> theta, past_type past,
                 write_graphs<numbers<double>> graphs, memory_gradients<numbers<double>> to,
                 view<double> work) const {
    if (which_ == mistake::writes_dtheta) std::fill(to.dtheta.begin(), to.dtheta.end(), 0.);
    if (which_ == mistake::leaves_out && xs.size() > 1) xs = xs.first(xs.size() - 1);
    if (which_ == mistake::other_order && xs.size() > 1) {
      for (std::size_t i = 0; i < xs.size(); ++i)
        attention::write_vjp(xs.subspan(i, 1), s + index_t(i), theta, past,
                             {part(graphs.tape, i, size().tape), part(graphs.dm, i, size().memory)}, to,
                             work);
      return;
    }
    attention::write_vjp(xs, s, theta, past, graphs, to, work);
  }
  void read(std::span<const example> xs, index_t t, params<const double> theta, past_type past,
            double* losses, view<double> work) const {
    if (which_ == mistake::beyond_workspace) work.data()[work.size()] = 0;
    attention::read(xs, t, theta, past, losses, work);
  }
  void read_vjp(std::span<const example> xs, index_t t, params<const double> theta, past_type past,
                double* losses, memory_gradients<numbers<double>> to, view<double> work) const {
    attention::read_vjp(xs, t, theta, past, losses, to, work);
    const auto dpast = to.dpast;
    const auto g = to.dtheta;
    double* const last = dpast.empty() ? nullptr : dpast.back();
    if (which_ == mistake::wrong_adjoint && last) last[0] += .01;
    if (which_ == mistake::needs_all && last && !dpast.front()) last[0] += 1;
    if (which_ == mistake::touches_dtheta && !g.empty()) g[0] += 1;
    if (which_ == mistake::other_loss) losses[0] += 1e-6;
    if (which_ == mistake::added_twice && xs.size() > 1)
      attention::read_vjp(xs.subspan(1, 1), t + 1, theta, past.first(std::size_t(t + 1)), losses + 1,
                          {dpast.first(std::size_t(t + 1)), g}, work);
  }

 private:
  static view<const double> part(view<const double> all, std::size_t i, index_t n) {
    return all.part(index_t(i) * n, n);
  }
  mistake which_;
  mutable int calls_ = 0;
};

std::string failures(bool recurrent, mistake which) {
  const task k(broken(recurrent, which), 4);
  std::string all;
  for (const auto& line : testing::memory_model_conformance(
           k.model, k.theta, k.xs, {.allocations = testing::allocations_are_counted()}))
    all += line + "\n";
  return all;
}

}  // namespace

TEST_CASE("every broken rule of a memory model is found, and named") {
  using Catch::Matchers::ContainsSubstring;
  for (const bool recurrent : {false, true}) {
    CHECK(failures(recurrent, mistake::none) == "");
    CHECK_THAT(failures(recurrent, mistake::writes_dtheta),
               ContainsSubstring("write_vjp: does not add to dtheta"));
    CHECK_THAT(failures(recurrent, mistake::wrong_adjoint), ContainsSubstring("read_vjp: along a direction"));
    CHECK_THAT(failures(recurrent, mistake::needs_all),
               ContainsSubstring("read_vjp: changes where the adjoint of memory 0 is not wanted"));
    CHECK_THAT(failures(recurrent, mistake::graph_bits), ContainsSubstring("other bits without a graph"));
    CHECK_THAT(failures(recurrent, mistake::reads_tape), ContainsSubstring("depends on what was in m, tape"));
    CHECK_THAT(failures(recurrent, mistake::other_loss), ContainsSubstring("its loss is not that of read"));
    CHECK_THAT(failures(recurrent, mistake::beyond_workspace), ContainsSubstring("outside the workspace"));
    CHECK_THAT(failures(recurrent, mistake::memory_of_calls), ContainsSubstring("write: "));
    CHECK_THAT(failures(recurrent, mistake::touches_dtheta), ContainsSubstring("reads_params() is false"));
    if (recurrent) continue;
    CHECK_THAT(failures(recurrent, mistake::batch_bits),
               ContainsSubstring("write: a batch of 2 gives other memories"));
    CHECK_THAT(failures(recurrent, mistake::leaves_out),
               ContainsSubstring("write_vjp: a batch of 2 gives another dtheta"));
    CHECK_THAT(failures(recurrent, mistake::other_order),
               ContainsSubstring("write_vjp: a batch of 4 gives another dtheta"));
    CHECK_THAT(failures(recurrent, mistake::added_twice),
               ContainsSubstring("read_vjp: a batch of 2 gives other adjoints"));
    if (testing::allocations_are_counted())
      CHECK_THAT(failures(recurrent, mistake::allocates), ContainsSubstring("write: allocates 1 times"));
  }
}
