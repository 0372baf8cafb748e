#pragma once

// Names that older headers lack, for programs that are compiled against two revisions.
namespace bench {

/// The widths of a head and of the hidden layer of a Llama.
template <class Config, class Index>
void set_widths(Config& c, Index head_dim, Index intermediate_size) {
  if constexpr (requires { c.head_dim; }) {
    c.head_dim = head_dim;
    c.intermediate_size = intermediate_size;
  } else {
    c.head = head_dim;
    c.mlp = intermediate_size;
  }
}

/// The adapters of the transfer head.
template <class Options>
auto& transfer_head_of(Options& o) {
  if constexpr (requires { o.transfer_head; })
    return o.transfer_head;
  else
    return o.head;
}

}  // namespace bench
