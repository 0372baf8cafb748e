#!/usr/bin/env bash
# optax 0.2.8 (jax 0.10.2, CPU): for bfloat16 parameters the second moment of adam and rmsprop (0.999) forgets nothing, and ema stops half-way.
#
# Why it matters here: the moments have the type of the parameters. 0.999 is 1 in bfloat16 (the numbers next to it are 0.996 and 1.008), so that
# nothing decays: one exploding gradient, which is what estimators through time are feared for, divides every later step for good, and a mean
# of weights or losses stops where 0.001 times what is new is rounded away. mu_dtype=float32 mends the first moment alone. accumulators of MultiSteps
# are float32.
#
# Guess, before it was run: an average that lags. Wrong: one that stands still.
# Seen: a gradient of 100 and then 6000 of 1: the second moment is 10 and stays there (in float32 1.02), and the steps of adam and rmsprop are
#       0.32 times what they are in float32, with mu_dtype=float32 too. ema(0.999) of 6000 ones is 0.5, in float32 0.998.
#
# usage: bfloat16-moments-never-forget.sh [python]   the python of an environment with optax 0.2.8 and jax 0.10.2, else one is made,
#                                                    which needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import functools
import sys

import jax
import jax.numpy as jnp
import optax

as_seen = optax.__version__ == "0.2.8"


@functools.partial(jax.jit, static_argnums=0)
def last_of(optimiser, gs):
    theta = gs[0]
    step = lambda state, g: optimiser.update(g, state, theta)[::-1]
    state, updates = jax.lax.scan(step, optimiser.init(theta), gs)
    return updates[-1].astype(jnp.float32)


def both(name, optimiser, first):
    out = {}
    for kind in (jnp.float32, jnp.bfloat16):
        out[kind] = float(last_of(optimiser, jnp.ones(6001, kind).at[0].set(first)))
    print(f"optax {optax.__version__}, {name}: float32 {out[jnp.float32]:.5f}, bfloat16 {out[jnp.bfloat16]:.5f}")
    return out[jnp.bfloat16] / out[jnp.float32]


for name, optimiser in (
    ("adam", optax.adam(1e-3)),
    ("adam with mu_dtype=float32", optax.adam(1e-3, mu_dtype=jnp.float32)),
    ("rmsprop(0.999)", optax.rmsprop(1e-3, decay=0.999)),
):
    as_seen = as_seen and 0.3 < both(name + ", step behind a gradient of 100 and 6000 of 1", optimiser, 100.0) < 0.34
as_seen = as_seen and 0.49 < both("ema(0.999) of 6000 ones", optax.ema(0.999, debias=False), 1.0) < 0.51
sys.exit(not as_seen)
PY
