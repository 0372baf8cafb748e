#!/usr/bin/env bash
# optax 0.2.8 (jax 0.10.2, CPU, float32): clip_by_global_norm makes a finite gradient zero when its squares overflow.
#
# Why it matters here: gradients through time grow with the product of the Jacobians, so that an exploding one passes 1.8e19,
# beyond which the square of a float is infinite, long before it is itself infinite. Clipping is meant for exactly that
# case. The norm comes out as infinity, every entry is divided by it, and training goes on with updates of zero (Adam: with
# moments that decay) and without a word. In the other direction the norm of (3e-30, 4e-30) is 0 and nothing is clipped.
#
# Seen: (3e30, 4e30) clipped to norm 1 gives [0. 0.], expected [0.6 0.8]; global_norm says inf, expected 5e30.
#       (3e-30, 4e-30) clipped to norm 1e-30 stays [3e-30 4e-30], expected [6e-31 8e-31]; global_norm says 0.
#       In bfloat16 the squares of all arrays are added up in bfloat16: 600 arrays of norm 3.17 have norm 64 instead of 77.5, and what is
#       clipped to 1 has norm 1.21 (torch: 77.5, 1.00).
# torch.nn.utils.clip_grad_norm_ (2.15.0, CPU) makes both zero: the norms it reads are inf and 0, and it adds 1e-6 to the latter.
#
# usage: clip-by-global-norm.sh [python]   the python of an environment with optax 0.2.8 and jax 0.10.2, else one is made, which needs
#                                          python3 with venv; exits non-zero when the behaviour is another
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
import jax.numpy as jnp
import optax


def clipped(values, most):
    g = jnp.array(values, dtype=jnp.float32)
    clip = optax.clip_by_global_norm(most)
    return clip.update(g, clip.init(g))[0], float(optax.global_norm(g))


large, norm = clipped([3e30, 4e30], 1.0)
print("optax", optax.__version__, "(3e30, 4e30) to norm 1:", large, "global_norm", norm)
small, tiny = clipped([3e-30, 4e-30], 1e-30)
print("(3e-30, 4e-30) to norm 1e-30:", small, "global_norm", tiny)
arrays = [jnp.full(1000, 0.1, jnp.bfloat16)] * 600
clip = optax.clip_by_global_norm(1.0)
after = [u.astype(jnp.float32) for u in clip.update(arrays, clip.init(arrays))[0]]
low, true, left = (float(optax.global_norm(t)) for t in (arrays, [a.astype(jnp.float32) for a in arrays], after))
print("600 arrays in bfloat16: global_norm", low, "expected", true, "clipped to norm 1:", left)
assert low < 0.9 * true and left > 1.1, "squares are added up differently"
assert norm == float("inf") and not large.any(), "large gradients are clipped differently"
assert tiny == 0 and float(small[0]) > 2e-30, "small gradients are clipped differently"
PY
