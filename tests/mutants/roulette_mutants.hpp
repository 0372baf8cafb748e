#pragma once

#include <algorithm>
#include <vector>

#include "unroll/estimate/concept.hpp"
#include "unroll/system/memory_model.hpp"

// Roulette replay with one probability for all segments, written plainly, with a mistake to choose.
namespace mutants {

using unroll::index_t;

enum class roulette_mistake {
  none,
  no_weight,            ///< the factor is 1
  weighs_losses_only,   ///< what later memories have sent is not divided by p
  weighs_theta_only,    ///< earlier memories receive what is not divided by p
  without_replacement,  ///< p n of the n segments, each with the factor 1/p (SpaCO)
  capped,               ///< the factor is 2 at most
  one_coin_for_all      ///< the coins of all segments have one name
};

/// The gradient of a sequence, one segment at a time. `choose` has been reset.
template <class M, class C>
std::vector<double> roulette(const M& model, double p, roulette_mistake mistake, C& choose,
                             unroll::params<const double> theta, std::span<const typename M::input> xs) {
  using enum roulette_mistake;
  const auto d = model.size();
  const auto width = std::size_t(d.memory), n = xs.size() - 1;
  std::vector<double> g(std::size_t(d.params)), workspace(std::size_t(model.workspace(index_t(n), 1)));
  std::vector<std::vector<double>> m, A(n, std::vector<double>(width)), sent = A;
  std::vector<const double*> past;
  const auto addresses = [&](std::vector<std::vector<double>>& to, std::size_t count) {
    std::vector<double*> out;
    for (std::size_t s = 0; s < count; ++s) out.push_back(to[s].data());
    return out;
  };
  const auto seen = [&](std::size_t s) { return std::span(past).first(model.independent() ? 0 : s); };
  for (std::size_t t = 0; t < xs.size(); ++t) {
    double loss = 0;
    const auto dpast = addresses(A, t);
    model.read_vjp(xs.subspan(t, 1), index_t(t), theta, past, &loss, {.dpast = dpast, .dtheta = g},
                   workspace);
    if (t == n) break;
    m.emplace_back(width);
    model.write(xs.subspan(t, 1), index_t(t), theta, seen(t), m.back(), {}, workspace);
    past.clear();
    for (const auto& v : m) past.push_back(v.data());
  }
  const auto size = index_t(p * double(n) + 0.5);  // of a sample without replacement
  index_t count = 0;
  for (std::size_t s = n; s-- > 0;) {
    const bool kept = mistake == without_replacement
                          ? choose.coin(index_t(s), double(size - count) / double(s + 1))
                          : choose.coin(mistake == one_coin_for_all ? 0 : index_t(s), p);
    if (!kept) continue;
    ++count;
    const double factor = mistake == no_weight ? 1 : mistake == capped ? std::min(2., 1 / p) : 1 / p;
    std::vector<double> dm(width), tape(std::size_t(d.tape)), again(width), plain(width);
    for (std::size_t i = 0; i < width; ++i) {
      dm[i] = factor * A[s][i] + (mistake == weighs_losses_only ? 1 : factor) * sent[s][i];
      plain[i] = A[s][i] + sent[s][i];
    }
    model.write(xs.subspan(s, 1), index_t(s), theta, seen(s), again, tape, workspace);
    const auto dpast = addresses(sent, seen(s).size());
    const auto send = [&](const std::vector<double>& what,
                          unroll::memory_gradients<unroll::numbers<double>> to) {
      model.write_vjp(xs.subspan(s, 1), index_t(s), theta, seen(s), {.tape = tape, .dm = what}, to,
                      workspace);
    };
    send(dm, {.dtheta = g});
    std::vector<double> unused(g.size());
    send(mistake == weighs_theta_only ? plain : dm, {.dpast = dpast, .dtheta = unused});
  }
  return g;
}

}  // namespace mutants
