#!/usr/bin/env bash
# jax 0.10.2 (CPU): tanh of a float is exactly 1 from just below 8, and its derivative exactly 0; sigmoid's derivative is 0 from 17.
#
# Why it matters here: the derivative of a saturated unit is small, not zero, and what a gradient through time is divided or scaled by: a
# slope of 0 stops every path through the unit for good, and a factor that is had by dividing by it is 0 / 0. tanh(8) is 1 - 2.3e-7, which
# a float holds; it becomes 1 near 9.01. XLA's rational function is cut off earlier, and what is left of 1 - y^2 near 7.5 has one digit.
#
# Guess, before it was run: 1 from 9.01 on, where a float must round it. Wrong by a whole unit.
# Seen: tanh is 1 from 7.999 on, eager and compiled, correctly rounded from 9.011 on; derivative of tanh at 8 and of sigmoid at 17: 0, by the formula
#       4.5e-7 and 4.1e-8.
#
# usage: xla-tanh-is-flat-from-eight.sh [python]   the python of an environment with jax 0.10.2, else one is made, which needs
#                                                  python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install jax==0.10.2 jaxlib==0.10.2
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np

as_seen = jax.__version__ == "0.10.2"
xs = np.linspace(7, 9.5, 2501, dtype=np.float32)
rounded = np.tanh(xs.astype(np.float64)).astype(np.float32)
for name, tanh in (("eager", jnp.tanh), ("jit", jax.jit(jnp.tanh))):
    y = np.asarray(tanh(jnp.asarray(xs)))
    first, right = float(xs[np.argmax(y == 1)]), float(xs[np.argmax(rounded == 1)])
    print(f"jax {jax.__version__}, {name}: tanh is 1 from {first:.3f} on, correctly rounded from {right:.3f}")
    as_seen = as_seen and 7.5 < first < 8.01 and right > 9
for name, f, x, slope in (("tanh", jnp.tanh, 8.0, 1 / np.cosh(8.0) ** 2), ("sigmoid", jax.nn.sigmoid, 17.0, 1 / (2 + 2 * np.cosh(17.0)))):
    seen = float(jax.grad(f)(x))
    print(f"derivative of {name} at {x}: {seen}, by its formula {slope:.2e}")
    as_seen = as_seen and seen == 0
sys.exit(not as_seen)
PY
