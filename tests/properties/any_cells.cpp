#include "tests/properties/any_cells.hpp"

#include "tests/properties/random_task.hpp"
#include "unroll/cells/elman.hpp"
#include "unroll/cells/gru.hpp"
#include "unroll/cells/layer_norm_gru.hpp"
#include "unroll/cells/layer_norm_lstm.hpp"
#include "unroll/cells/leaky.hpp"
#include "unroll/cells/linear.hpp"
#include "unroll/cells/lru.hpp"
#include "unroll/cells/lstm.hpp"
#include "unroll/cells/min_gru.hpp"
#include "unroll/cells/relu.hpp"
#include "unroll/cells/rtu.hpp"
#include "unroll/cells/stack.hpp"

namespace support {

using namespace unroll;

template <class T>
any_task<T> make_task(std::string_view name, index_t steps, index_t hidden, index_t lanes, index_t out,
                      std::uint64_t seed, loss_kind loss) {
  const auto of = [&]<class Cell>(std::type_identity<Cell>) -> any_task<T> {
    typename Cell::options_type o;
    o.in = 1;
    o.hidden = hidden;
    o.out = out;
    o.lanes = lanes;
    o.loss = loss;
    const Cell cell = [&] {
      if constexpr (requires { Cell(o, index_t(2)); })
        return Cell(o, 2);
      else
        return Cell(o);
    }();
    // a linear recurrence is kept from growing over long sequences
    const double size = name == "linear" ? 0.4 / double(hidden) : 0.6;
    const random_task<Cell> task(cell, steps, key{seed}, feed::dense, size);
    return {std::string(name) + ", hidden " + std::to_string(hidden) + ", lanes " + std::to_string(lanes) +
                ", out " + std::to_string(out) + ", seed " + std::to_string(seed),
            cell,
            task.theta,
            task.xs,
            task.bad,
            task.owner()};
  };
  if (name == "elman") return of(std::type_identity<cells::elman<T>>{});
  if (name == "gru") return of(std::type_identity<cells::gru<T>>{});
  if (name == "lstm") return of(std::type_identity<cells::lstm<T>>{});
  if (name == "linear") return of(std::type_identity<cells::linear<T>>{});
  if (name == "lru") return of(std::type_identity<cells::lru<T>>{});
  if (name == "leaky") return of(std::type_identity<cells::leaky<T>>{});
  if (name == "min_gru") return of(std::type_identity<cells::min_gru<T>>{});
  if (name == "rtu") return of(std::type_identity<cells::rtu<T>>{});
  if (name == "stack") return of(std::type_identity<cells::stack<cells::gru<T>>>{});
  if (name == "elman_2") return of(std::type_identity<cells::stack<cells::elman<T>>>{});
  if (name == "relu") return of(std::type_identity<cells::relu<T>>{});
  if (name == "layer_norm_gru") return of(std::type_identity<cells::layer_norm_gru<T>>{});
  if (name == "layer_norm_lstm") return of(std::type_identity<cells::layer_norm_lstm<T>>{});
  fail("make_task", "name", "\"" + std::string(name) + "\" is no cell of the tests");
}

template any_task<float> make_task(std::string_view, index_t, index_t, index_t, index_t, std::uint64_t,
                                   loss_kind);
template any_task<double> make_task(std::string_view, index_t, index_t, index_t, index_t, std::uint64_t,
                                    loss_kind);

}  // namespace support
