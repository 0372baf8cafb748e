#include "tests/support/golden_rnn.hpp"
#include "unroll/llama.hpp"

// What would look into a temporary that is gone does not compile; the same of an object that lives does.
namespace {

using namespace unroll;

// `name` can be asked of a T that lives, constant or not, and of no temporary.
#define UNROLL_LOOKS_INTO(name, ...)                           \
  static_assert([]<class T>(T*) {                              \
    return requires(T & t, const T& c) { t.name(), c.name(); } \
    &&!requires(T && t) { std::move(t).name(); };              \
  }(static_cast<__VA_ARGS__*>(nullptr)))

UNROLL_LOOKS_INTO(inputs, data::sequences<double>);
UNROLL_LOOKS_INTO(train, data::text);
UNROLL_LOOKS_INTO(held_out, data::text);
UNROLL_LOOKS_INTO(blocks, layout);
UNROLL_LOOKS_INTO(names, llama::weight_map);
UNROLL_LOOKS_INTO(names, llama::lora_map);
UNROLL_LOOKS_INTO(names, llama::memory_map);
UNROLL_LOOKS_INTO(names, llama::memory_llama<double>);
UNROLL_LOOKS_INTO(trainable, llama::memory_llama<double>);
UNROLL_LOOKS_INTO(fields, row);
UNROLL_LOOKS_INTO(mean, moments);
UNROLL_LOOKS_INTO(x, gradient_sample);
UNROLL_LOOKS_INTO(along, gradient_sample);
UNROLL_LOOKS_INTO(batches, gradient_sample);
UNROLL_LOOKS_INTO(sums, draw_block);
UNROLL_LOOKS_INTO(influence, rtrl<golden::rnn<>>);
UNROLL_LOOKS_INTO(copies, mean_of<rtrl<golden::rnn<>>>);
UNROLL_LOOKS_INTO(inclusion, proportional_replay<llama::memory_llama<double>>);
UNROLL_LOOKS_INTO(inclusion, roulette_replay<llama::memory_llama<double>>);
UNROLL_LOOKS_INTO(logits, llama::generator<double>);
UNROLL_LOOKS_INTO(logits, llama::memory_session<double>);
UNROLL_LOOKS_INTO(residual, llama::memory_session<double>);

using xs = std::vector<int>;
static_assert(std::is_constructible_v<segments<const int>, std::span<const int>, index_t>);
static_assert(std::is_constructible_v<segments<const int>, xs&, index_t>);
static_assert(std::is_constructible_v<segments<int>, std::span<int>, index_t>);
static_assert(!std::is_constructible_v<segments<const int>, xs, index_t>);
static_assert(!std::is_constructible_v<segments<const int>, const xs, index_t>);

using texts = data::documents;
static_assert(std::is_constructible_v<data::windows, texts&, index_t, index_t, key>);
static_assert(!std::is_constructible_v<data::windows, texts, index_t, index_t, key>);
static_assert(std::is_constructible_v<data::document_stream, const texts&, index_t, key>);
static_assert(!std::is_constructible_v<data::document_stream, texts, index_t, key>);

using stack = llama::transformer<double>;
using weights = parameters<double>;
using generator = llama::generator<double>;
static_assert(std::is_constructible_v<generator, stack&, weights&>);
static_assert(
    std::is_constructible_v<generator, const stack&, params<const double>, llama::adapters<double>>);
static_assert(!std::is_constructible_v<generator, stack, weights&>);
static_assert(!std::is_constructible_v<generator, stack&, weights>);
static_assert(!std::is_constructible_v<generator, stack&, weights, llama::adapters<double>>);

using session = llama::memory_session<double>;
using memory_llama = llama::memory_llama<double>;
static_assert(std::is_constructible_v<session, memory_llama, weights&>);
static_assert(std::is_constructible_v<session, memory_llama, params<const double>>);
static_assert(!std::is_constructible_v<session, memory_llama, weights>);

template <class Bytes>
concept source_of = requires(Bytes&& b) {
  byte_source::memory(std::forward<Bytes>(b), "name", "reader");
};
static_assert(source_of<std::string&> && source_of<std::string_view> && source_of<const char (&)[3]>);
static_assert(!source_of<std::string>);

}  // namespace
