#!/usr/bin/env bash
# braintrace 0.2.6 (jax 0.10.2, CPU): D_RTRL gives the readout of its own LRUCell no gradient at all.
#
# Why it matters here: a linear recurrent unit is the case for which traces are exact, and there D_RTRL is: the gradients of its decays, phases, scales
# and input weights are those of backpropagation to rounding. The matrices C and the skip D behind the state are "treated as a non-temporal
# parameter", says a warning, and their gradient is exactly 0: they stay at what they were drawn as. The loss falls all the same, as far as a
# random readout lets it.
#
# Guess, before it was run: exact for all parameters, or one-step truncation for those that are not weights of a product. Wrong.
# Seen: 5 steps in double: nu, theta, gamma, B 1e-15 from backpropagation through time; C_re, C_im, D: 0 where it has a norm above 1.
#
# usage: braintrace-lru-readout-stands-still.sh [python]   the python of an environment with braintrace 0.2.6, brainstate 0.5.4 and jax 0.10.2, else
#                                                          one is made, which needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install braintrace==0.2.6 brainstate==0.5.4 jax==0.10.2 jaxlib==0.10.2
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import warnings

import jax

jax.config.update("jax_enable_x64", True)
warnings.simplefilter("ignore")
import brainstate
import braintrace
import jax.numpy as jnp
import numpy as np

brainstate.environ.set(precision=64)
xs = jnp.array(np.random.default_rng(0).normal(size=(5, 2)))


def cell():
    brainstate.random.seed(0)
    made = braintrace.nn.LRUCell(2, 3)
    brainstate.nn.init_all_states(made)
    return made, made.states(brainstate.ParamState)


model, params = cell()
exact = brainstate.transform.grad(lambda: sum((model(x) ** 2).sum() for x in xs), params)()
model, params = cell()
learner = braintrace.D_RTRL(model)
learner.compile_graph(xs[0])
online = None
for x in xs:
    g = brainstate.transform.grad(lambda x: (learner(x) ** 2).sum(), params)(x)
    online = g if online is None else jax.tree.map(jnp.add, online, g)
still = {}
for name in exact:
    g, e = (np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree[name])]) for tree in (online, exact))
    print(f"braintrace {braintrace.__version__}, {name[0]}: norm {np.linalg.norm(g):.3f}, of the gradient {np.linalg.norm(e):.3f}, "
          f"{np.linalg.norm(g - e) / np.linalg.norm(e):.0e} apart")
    still[name[0]] = bool((g == 0).all())
    assert still[name[0]] or np.linalg.norm(g - e) < 1e-12 * np.linalg.norm(e), "a trace is not exact"
assert braintrace.__version__ == "0.2.6"
assert sorted(name for name, zero in still.items() if zero) == ["C_im", "C_re", "D"], "the readout learns"
PY
