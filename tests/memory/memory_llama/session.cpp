#include "unroll/memory/memory_llama/session.hpp"

#include "tests/support/catch.hpp"
#include "tests/support/instruction_sets.hpp"
#include "tests/support/small_memory.hpp"
#include "unroll/diagnose/measure.hpp"
#include "unroll/llama/generate.hpp"
#include "unroll/llama/score.hpp"
#include "unroll/optim/adam.hpp"
#include "unroll/testing/allocations.hpp"

using namespace unroll;
using namespace unroll::llama;
using small_memory::make;
using small_memory::pass_over;
using small_memory::shape;
using small_memory::start;

namespace {

double nll(view<const double> logits, token target) {
  std::vector<double> p(std::size_t(logits.size()));
  return kernels::softmax_cross_entropy(logits.data(), logits.size(), target, p.data());
}

memory_options options(bool recurrent) {
  memory_options o = small_memory::options();
  o.recurrent = recurrent;
  return o;
}

}  // namespace

TEST_CASE("a session's logits are those of reading the same text") {
  for (const bool recurrent : {false, true}) {
    const auto model = make<double>(shape(3, false), options(recurrent));
    const auto theta = start(model);
    const auto ids = small_memory::text(5 * 6 - 1);
    const auto text = segments_of(ids, 6);
    const pass_over<double> read(model, theta, text, false);
    memory_session<double> session(model, theta);
    for (std::size_t t = 0; t < text.size(); ++t) {
      double loss = 0;
      for (std::size_t i = 0; i < text[t].tokens.size(); ++i) {
        session.append(text[t].tokens[i]);
        CHECK(session.memories() == index_t(t));
        CHECK(session.residual().size() == i + 1);
        loss += nll(session.logits(), text[t].targets[i]);
      }
      CHECK(loss == Approx(read.losses[t]).epsilon(1e-13));
    }
  }
}

TEST_CASE("a prompt may come in any pieces") {
  for (const bool recurrent : {false, true}) {
    const auto model = make<double>(shape(), options(recurrent));
    const auto theta = start(model);
    const auto ids = small_memory::text(27);
    memory_session<double> one(model, theta);
    for (const token id : ids) one.append(id);
    for (const std::size_t piece : {2u, 5u, 6u, 7u, 13u, 27u}) {
      CAPTURE(piece);
      memory_session<double> session(model, theta);
      for (std::size_t at = 0; at < ids.size(); at += piece)
        session.append(std::span(ids).subspan(at, std::min(piece, ids.size() - at)));
      CHECK(session.memories() == one.memories());
      CHECK(std::equal(session.residual().begin(), session.residual().end(), one.residual().begin()));
      for (index_t i = 0; i < 17; ++i) CHECK(session.logits()[i] == Approx(one.logits()[i]).epsilon(1e-12));
    }
  }
}

TEST_CASE("a session that encodes segments together has the bits of one by one") {
  const auto model = make<double>(shape(4, false), options(false));
  const auto theta = start(model);
  const auto ids = small_memory::text(45);
  for (const std::size_t piece : {45u, 42u, 20u, 13u}) {
    CAPTURE(piece);
    memory_session<double> one(model, theta), together(model, theta, 3);
    for (std::size_t at = 0; at < ids.size(); at += piece)
      for (auto* session : {&one, &together})
        session->append(std::span(ids).subspan(at, std::min(piece, ids.size() - at)));
    CHECK(together.memories() == 7);
    CHECK(together.residual().size() == 3);
    CHECK(std::equal(one.residual().begin(), one.residual().end(), together.residual().begin()));
    for (index_t i = 0; i < 17; ++i) CHECK(together.logits()[i] == one.logits()[i]);
  }
  const auto recurrent = make<double>(shape(), options(true));
  const auto its_theta = start(recurrent);
  CHECK_THROWS_WITH(
      (memory_session<double>(recurrent, its_theta, 2)),
      Catch::Matchers::ContainsSubstring("batch") && Catch::Matchers::ContainsSubstring("is 2"));
}

TEST_CASE("a full residual becomes a memory when another token comes") {
  const auto model = make<double>(shape(), options(false));
  const auto theta = start(model);
  const auto ids = small_memory::text(13);
  memory_session<double> session(model, theta);
  session.append(std::span(ids).first(6));
  CHECK(session.memories() == 0);  // the logits behind it are still those of the whole segment
  session.append(ids[6]);
  CHECK(session.memories() == 1);
  CHECK(session.residual().size() == 1);
  session.append(std::span(ids).subspan(7));
  CHECK(session.memories() == 2);
}

TEST_CASE("texts in two sessions, or behind a reset, do not touch each other") {
  const auto model = make<double>(shape(), options(true));
  const auto theta = start(model);
  const auto a = small_memory::text(15, 17, 1), b = small_memory::text(20, 17, 2);
  memory_session<double> alone(model, theta), used(model, theta), beside(model, theta);
  alone.append(b[0]);
  const double first = alone.logits()[0];
  alone.append(std::span(b).subspan(1));
  used.append(a);
  const memory_session<double> copy = used;
  for (std::size_t i = 0; i < 15; ++i) beside.append(a[i]);
  used.reset();
  CHECK(used.memories() == 0);
  CHECK_THROWS_WITH(used.logits(), Catch::Matchers::ContainsSubstring("none were appended"));
  used.append(b[0]);
  CHECK(used.logits()[0] == first);
  used.append(std::span(b).subspan(1));
  for (index_t i = 0; i < 17; ++i) CHECK(used.logits()[i] == alone.logits()[i]);
  for (index_t i = 0; i < 17; ++i) CHECK(copy.logits()[i] == Approx(beside.logits()[i]).epsilon(1e-12));
  memory_session<double> resumed = copy;
  resumed.append(b[0]);
  beside.append(b[0]);
  for (index_t i = 0; i < 17; ++i) CHECK(resumed.logits()[i] == Approx(beside.logits()[i]).epsilon(1e-12));
}

TEST_CASE("a session refuses what has no positions and goes on") {
  auto c = shape();
  c.context = 13;  // 4 memories of 2 and 5 tokens
  for (const bool recurrent : {false, true}) {
    auto o = options(recurrent);
    const auto model = make<double>(c, o);
    const auto theta = start(model);
    CHECK(model.longest_text() == 24);
    const auto ids = small_memory::text(40);
    memory_session<double> session(model, theta);
    CHECK(session.room(29));
    CHECK_FALSE(session.room(30));
    CHECK_THROWS_WITH(
        session.append(std::span(ids).first(30)),
        Catch::Matchers::ContainsSubstring("are 30 behind 0 memories and 0 tokens, too many for "
                                           "the 13 positions"));
    CHECK(session.memories() == 0);
    session.append(std::span(ids).first(28));
    CHECK(session.room());
    session.append(ids[28]);
    CHECK_FALSE(session.room());
    CHECK_THROWS_AS(session.append(ids[29]), error);
    CHECK(session.residual().size() == 5);
    CHECK_THROWS_WITH(session.append(token(17)), Catch::Matchers::ContainsSubstring("holds 17"));
    CHECK_THROWS_AS(session.remember(std::span(ids).first(6)), error);
    session.reset();
    CHECK_THROWS_WITH(session.remember(std::span(ids).first(5)),
                      Catch::Matchers::ContainsSubstring("ids: has size 5, expected 6"));
    session.append(std::span<const token>{});
    CHECK(session.room(29));
  }
}

TEST_CASE("generated tokens are compressed like those of the prompt") {
  auto c = shape();
  c.context = 13;
  const auto model = make<double>(c, options(false));
  const auto theta = start(model);
  const auto prompt = small_memory::text(9);
  memory_session<double> session(model, theta), forced(model, theta);
  session.append(prompt);
  sampler s(17, {.temperature = 0});
  std::vector<token> out;
  const auto done = generate(session, s, 100, {}, key{1}, [&](token t) {
    out.push_back(t);
    return true;
  });
  CHECK(done.why == stop_reason::room);
  CHECK(done.tokens == 29 - 9 + 1);  // the last one is drawn, but has no position
  CHECK(session.memories() == 4);
  CHECK(session.consumed() == 29);
  forced.append(prompt);
  for (const token t : out) {
    const auto logits = forced.logits();
    CHECK(t == std::max_element(logits.begin(), logits.end()) - logits.begin());
    if (forced.room()) forced.append(t);
  }
}

TEST_CASE("a session allocates nothing while it reads and compresses") {
  const auto model = make<float>(shape(), options(true));
  const auto theta = start(model);
  const auto ids = small_memory::text(30);
  memory_session<float> session(model, theta);
  const testing::allocation_counter counter;
  for (std::size_t i = 0; i < 15; ++i) session.append(ids[i]);
  session.append(std::span(ids).subspan(15));
  session.reset();
  session.remember(std::span(ids).first(6));
  CHECK(counter.count() == 0);
  CHECK((testing::allocations_are_counted() || testing::counting_is_replaced()));
}

TEST_CASE("a segment is reproduced from its memory after some training") {
  // Overfits one text: the loss through the memory alone falls until greedy decoding gives the text back,
  // which the decoder without this memory cannot.
  auto o = options(false);
  o.encoder.rank = o.transfer_head.rank = 4;
  const auto model = make<double>(shape(2, false), o);
  auto theta = start(model);
  const auto ids = small_memory::text(6, 17, 27);
  std::vector<token> shifted(6), out(6);
  const auto pair = autoencoding_of(ids, 1, shifted);
  adam<double> optimiser(theta.size(), {.rate = 0.03});
  double loss = 0, first = 0;
  for (int step = 0; step < 400; ++step) {
    const pass_over<double> p(model, theta, pair, true);
    loss = p.loss;
    if (step == 0) first = loss;
    REQUIRE(optimiser.step(theta, p.g) == status::ok);
  }
  CHECK(loss < first / 5);
  memory_session<double> session(model, theta);
  reproduce<double>(session, ids, 1, out);
  CHECK(out == ids);
  const token largest = *std::max_element(ids.begin(), ids.end());
  reproduce<double>(session, ids, 1, out, largest);
  CHECK(out != ids);
  CHECK(*std::max_element(out.begin(), out.end()) < largest);
  session.reset();
  for (token& t : out) {  // the same without the memory
    session.append(&t == out.data() ? 1 : *(&t - 1));
    t = most_probable(session.logits());
  }
  CHECK(out != ids);

  // teacher forced, the session sees what read() sees
  session.reset();
  session.remember(ids);
  double forced = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    session.append(shifted[i]);
    forced += nll(session.logits(), ids[i]);
  }
  CHECK(forced == Approx(pass_over<double>(model, theta, pair, false).loss).epsilon(1e-12));
}

TEST_CASE("with bfloat16 weights a memory model is that of the same weights in floats") {
  using half = numbers<float, bf16>;
  config c = shape(3, false);
  c.hidden = 24;  // more than a vector, and not a multiple of one
  c.intermediate_size = 36;
  parameters<double> w(weight_map(c).size());
  init_weights<double>(weight_map(c), w, {11});
  auto narrow = std::make_shared<parameters<bf16>>(w.size());
  auto wide = std::make_shared<parameters<float>>(w.size());
  for (index_t i = 0; i < w.size(); ++i) {
    (*narrow)[i] = bf16(w[i] == 1 ? 1 : 15 * w[i]);
    (*wide)[i] = (*narrow)[i];
  }
  const memory_llama<half> model(c, narrow, options(false));
  const memory_llama<float> same(c, wide, options(false));
  const auto theta = start(same);
  const auto ids = small_memory::text(23);
  const auto compare = [&](double tolerance) {
    const auto close = [&](const auto& x, const auto& y) {
      double off = 0, largest = 0;
      for (index_t i = 0; i < index_t(x.size()); ++i) {
        off = std::max(off, std::abs(double(x.data()[i]) - double(y.data()[i])));
        largest = std::max(largest, std::abs(double(y.data()[i])));
      }
      CHECK(largest > 0.01);
      CHECK(off <= tolerance * largest);
    };
    memory_session<half> session(model, theta);
    memory_session<float> expected(same, theta);
    session.append(ids);
    expected.append(ids);
    close(session.logits(), expected.logits());
    close(score(model.stack(), model.weights(), ids).nll, score(same.stack(), same.weights(), ids).nll);
    close(exact_gradient(model, theta, segments_of(ids, 6)),
          exact_gradient(same, theta, segments_of(ids, 6)));
  };
  {
    const support::with_instructions widened(
        std::min(simd::best_instructions(), simd::instruction_set::avx512));
    compare(1e-5);
  }
  compare(linalg::fastest_bf16_way() == linalg::bf16_way::dot_pairs ? 0.1 : 1e-5);
}
