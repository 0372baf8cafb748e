#!/usr/bin/env bash
# optax 0.2.8 (jax 0.10.2, CPU): a label below 0 is scored, as the class that many from the end; one beyond the classes has a gradient.
#
# Why it matters here: -100 is how transformers and torch mark a token without a label, and any label below 0 here. optax' cross entropy
# looks it up as an index: -1 is the last class and -100 the hundredth from the end, so that a network of more than 100 classes is taught to
# say that one wherever nothing was to be said, with a finite loss. With fewer classes the loss is NaN, and its gradient is finite all the
# same, the softmax with nothing subtracted: all classes of a step without a label are pushed down alike, and a check for gradients that are not
# finite (apply_if_finite) lets them through. where= leaves labels out.
#
# Guess, before it was run: -1 is the last class; beyond the classes loss and gradient are NaN. The second half was wrong.
# Seen: 200 classes, label -100: loss log 200, the gradient is that of class 100. 5 classes, labels -100 and 5: loss NaN, gradient 0.2 for each
#       class; with apply_if_finite(sgd) theta moves.
#
# usage: optax-labels-below-zero.sh [python]   the python of an environment with optax 0.2.8 and jax 0.10.2, else one is made, which
#                                              needs python3 with venv; exits non-zero when the behaviour is another
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
import math
import sys

import jax
import jax.numpy as jnp
import optax

as_seen = optax.__version__ == "0.2.8"


def scored(classes, label, where=None):
    loss = lambda z: optax.softmax_cross_entropy_with_integer_labels(z, jnp.array([label]), where=where).sum()
    value, g = jax.value_and_grad(loss)(jnp.zeros((1, classes)))
    return float(value), g[0]


for classes, label, taught in ((200, -100, 100), (5, -1, 4)):
    value, g = scored(classes, label)
    print(f"optax {optax.__version__}, {classes} classes, label {label}: loss {value:.3f}, the class taught is {int(g.argmin())}")
    as_seen = as_seen and abs(value - math.log(classes)) < 1e-5 and int(g.argmin()) == taught and float(g.min()) < -0.5
for label in (-100, 5):
    value, g = scored(5, label)
    optimiser = optax.apply_if_finite(optax.sgd(1.0), 3)
    moved, _ = optimiser.update(g, optimiser.init(g), g)
    print(f"5 classes, label {label}: loss {value}, gradient {g.tolist()}, apply_if_finite moves theta by {moved.tolist()}")
    as_seen = as_seen and math.isnan(value) and float(abs(g - 0.2).max()) < 1e-6 and float(abs(moved + 0.2).max()) < 1e-6
sys.exit(not as_seen)
PY
