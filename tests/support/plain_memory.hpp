#pragma once

// The memory model written with loops over numbers: adapters are multiplied into the weights, a text is read
// with nothing shared between its segments.

#include "tests/support/plain_llama.hpp"
#include "unroll/memory/memory_llama/model.hpp"

namespace plain_llama {

// Rotated keys and values in front of a text, by layer.
struct seen {
  std::vector<std::vector<numbers>> k, v;
};

// Layers [0, layers) over the inputs x; sees(i, j): whether token i sees token j <= i. Returns the normed
// inputs of the attentions, one list a layer and one behind the last, and leaves the outputs in x.
template <class Sees>
std::vector<std::vector<numbers>> run(const model& m, std::vector<numbers>& x,
                                      const std::vector<index_t>& positions, index_t layers, const seen& past,
                                      Sees&& sees) {
  const auto& c = m.c;
  const std::size_t n = x.size();
  std::vector<std::vector<numbers>> normed;
  for (index_t l = 0;; ++l) {
    if (l == c.layers) break;
    const auto& at = m.map[l];
    std::vector<numbers> a(n), k, v;
    for (std::size_t t = 0; t < n; ++t) a[t] = m.norm(at.attention_norm, x[t]);
    normed.push_back(a);
    if (l == layers) break;
    for (std::size_t t = 0; t < n; ++t) {
      k.push_back(m.rotated(m.product(at.k, a[t], c.kv_width()), double(positions[t])));
      v.push_back(m.product(at.v, a[t], c.kv_width()));
    }
    for (std::size_t t = 0; t < n; ++t) {
      std::vector<const numbers*> keys, values;
      if (!past.k.empty())
        for (std::size_t j = 0; j < past.k[std::size_t(l)].size(); ++j) {
          keys.push_back(&past.k[std::size_t(l)][j]);
          values.push_back(&past.v[std::size_t(l)][j]);
        }
      for (std::size_t j = 0; j <= t; ++j)
        if (sees(index_t(t), index_t(j))) {
          keys.push_back(&k[j]);
          values.push_back(&v[j]);
        }
      const numbers q = m.rotated(m.product(at.q, a[t], c.query_width()), double(positions[t]));
      numbers mixed(q.size(), 0);
      for (index_t h = 0; h < c.heads; ++h) {
        const index_t g = h / (c.heads / c.kv_heads) * c.head_dim;
        numbers p;
        double total = 0;
        for (const numbers* key : keys) {
          double s = 0;
          for (index_t d = 0; d < c.head_dim; ++d)
            s += q[std::size_t(h * c.head_dim + d)] * (*key)[std::size_t(g + d)];
          p.push_back(std::exp(s / std::sqrt(double(c.head_dim))));
          total += p.back();
        }
        for (std::size_t j = 0; j < p.size(); ++j)
          for (index_t d = 0; d < c.head_dim; ++d)
            mixed[std::size_t(h * c.head_dim + d)] += p[j] / total * (*values[j])[std::size_t(g + d)];
      }
      const numbers o = m.product(at.o, mixed, c.hidden);
      for (std::size_t i = 0; i < o.size(); ++i) x[t][i] += o[i];
      const numbers b = m.norm(at.mlp_norm, x[t]);
      numbers gate = m.product(at.gate, b, c.intermediate_size);
      const numbers up = m.product(at.up, b, c.intermediate_size);
      for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
      const numbers d = m.product(at.down, gate, c.hidden);
      for (std::size_t i = 0; i < d.size(); ++i) x[t][i] += d[i];
    }
  }
  return normed;
}

// W + scale A B for every adapted matrix, through the names of the layouts.
inline model adapted(model m, const unroll::llama::lora_map& lora, unroll::params<const double> theta) {
  for (const auto& a : lora.names().blocks()) {
    const std::string prefix = "base_model.model.", ending = ".lora_A.weight";
    if (!a.name.ends_with(ending)) continue;
    const std::string name = a.name.substr(prefix.size(), a.name.size() - prefix.size() - ending.size());
    const auto& b = lora.names().at(prefix + name + ".lora_B.weight");
    const auto& w = m.map.names().at(name + ".weight");
    for (index_t o = 0; o < w.cols; ++o)
      for (index_t i = 0; i < w.rows; ++i)
        for (index_t r = 0; r < a.cols; ++r)
          m.w[std::size_t(w.offset + o * w.rows + i)] +=
              lora.scale() * theta[a.offset + r * w.rows + i] * theta[b.offset + o * a.cols + r];
  }
  return m;
}

struct memory_result {
  std::vector<numbers> memories;  // as the library lays them out
  std::vector<numbers> nll;       // by segment: -log p of each scored target
};

// Writes and reads a text as include/unroll/memory/memory_llama/model.hpp says.
inline memory_result with_memories(const unroll::llama::memory_llama<double>& model_,
                                   unroll::params<const double> theta,
                                   const std::vector<unroll::llama::segment>& text) {
  using namespace unroll::llama;
  const auto& o = model_.options();
  const auto& c = model_.shape();
  const index_t l = o.segment, M = l / o.ratio;
  const model base(c, model_.weights());
  const model encoder = adapted(base, model_.trainable().encoder(), model_.trainable().encoder_part(theta));
  const model head =
      adapted(base, model_.trainable().transfer_head(), model_.trainable().transfer_head_part(theta));
  const auto mem = model_.trainable().memory_part(theta);
  const auto embedding = [&](token id) {
    const auto first = base.w.begin() + base.map.embedding() + index_t(id) * c.hidden;
    return numbers(first, first + c.hidden);
  };

  memory_result r;
  seen past;
  past.k.resize(std::size_t(c.layers));
  past.v.resize(std::size_t(c.layers));
  for (std::size_t s = 0; s < text.size(); ++s) {
    const index_t start = index_t(s) * M;
    std::vector<numbers> x;
    std::vector<index_t> positions;
    for (const token id : text[s].tokens) {
      x.push_back(embedding(id));
      positions.push_back(start + index_t(positions.size()));
    }
    run(base, x, positions, c.layers, past, [](index_t, index_t) { return true; });
    r.nll.emplace_back();
    for (std::size_t i = 0; i < text[s].targets.size(); ++i)
      if (text[s].targets[i] >= 0)
        r.nll.back().push_back(
            nll(base.product(base.map.output(), base.norm(base.map.norm(), x[i]), c.vocabulary),
                text[s].targets[i]));
    if (index_t(text[s].tokens.size()) < l) break;

    x.clear();
    positions.clear();
    for (index_t i = 0; i < l + M; ++i) {
      const index_t j = i - l, column = o.separate_tokens ? j : 0;
      if (j < 0)
        x.push_back(embedding(text[s].tokens[std::size_t(i)]));
      else
        x.push_back(numbers(mem.begin() + column * c.hidden, mem.begin() + (column + 1) * c.hidden));
      positions.push_back((o.recurrent ? start : 0) +
                          (j < 0 || o.positions == memory_positions::following ? i : (j + 1) * o.ratio));
    }
    const auto normed =
        run(encoder, x, positions, c.layers - 1, o.recurrent ? past : seen{}, [&](index_t i, index_t j) {
          if (o.mask == memory_mask::causal || i < l) return true;
          return i == j || j < (i - l + 1) * o.ratio;
        });
    numbers m;
    for (index_t i = 0; i < c.layers; ++i) {
      std::vector<numbers> k, v;
      for (index_t j = 0; j < M; ++j) {
        const numbers& h = normed[std::size_t(i)][std::size_t(l + j)];
        k.push_back(head.rotated(head.product(head.map[i].k, h, c.kv_width()), double(start + j)));
        v.push_back(head.product(head.map[i].v, h, c.kv_width()));
      }
      for (const auto* columns : {&k, &v})
        for (const numbers& column : *columns) m.insert(m.end(), column.begin(), column.end());
      for (std::size_t j = 0; j < k.size(); ++j) {
        past.k[std::size_t(i)].push_back(k[j]);
        past.v[std::size_t(i)].push_back(v[j]);
      }
    }
    r.memories.push_back(m);
  }
  return r;
}

}  // namespace plain_llama
