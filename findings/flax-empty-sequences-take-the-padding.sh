#!/usr/bin/env bash
# flax 0.12.8 (jax 0.10.2, CPU): the final state of a sequence of length 0 is the one behind all of its padding.
#
# Why it matters here: nn.RNN and nnx.RNN take seq_lengths and, with return_carry=True, give the state behind the last valid step of each
# sequence. It is looked up at seq_lengths - 1, which for a sequence of no steps is -1, the last place of the padded batch. Empty sequences
# are what is left of a document in the windows behind its end: its state, which should stand still, walks on through the padding, is handed
# to the next window, and the gradient goes through all of that. keras.layers.LSTM with the same steps masked gives the initial state.
#
# Guess, before it was run: the initial state. Wrong in both modules.
# Seen: a batch of three in 5 steps, seq_lengths 5, 3, 0, an initial state of 0.5: the last state of the third is that of all 5 steps to the
#       last bit, and what its 5 padded inputs do to it has a gradient that is not 0; the padding of the second has none.
#
# usage: flax-empty-sequences-take-the-padding.sh [python]   the python of an environment with flax 0.12.8 and jax 0.10.2, else one is made,
#                                                            which needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install flax==0.12.8 jax==0.10.2 jaxlib==0.10.2
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import sys

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

xs = jax.random.normal(jax.random.key(0), (3, 5, 2))
start = jnp.full((3, 4), 0.5)
lengths = jnp.array([5, 3, 0])
as_seen = flax.__version__ == "0.12.8"

linen = nn.RNN(nn.SimpleCell(4), return_carry=True)
weights = linen.init(jax.random.key(1), xs)
module = nnx.RNN(nnx.SimpleCell(2, 4, rngs=nnx.Rngs(1)), return_carry=True, rngs=nnx.Rngs(2))
for name, last_state in (
    ("linen.RNN", lambda m, x, n: linen.apply(weights, x, initial_carry=start, seq_lengths=n)[0]),
    ("nnx.RNN", lambda m, x, n: m(x, initial_carry=start, seq_lengths=n)[0]),
):
    last, whole = last_state(module, xs, lengths), last_state(module, xs, None)
    reached = jnp.abs(nnx.grad(lambda m, x: last_state(m, x, lengths).sum(), argnums=1)(module, xs)).sum(-1)
    print(f"flax {flax.__version__}, {name}: the state behind no steps is {float(abs(last[2] - start[2]).max()):.2f} from the initial one and "
          f"{float(abs(last[2] - whole[2]).max())} from the one behind the padding; gradient in the padding of length 0: "
          f"{reached[2].tolist()}, of length 3: {reached[1, 3:].tolist()}")
    as_seen = as_seen and float(abs(last[2] - start[2]).max()) > 0.05 and bool((last[2] == whole[2]).all())
    as_seen = as_seen and bool((reached[2] > 0).all()) and bool((reached[1, 3:] == 0).all())
sys.exit(not as_seen)
PY
