#!/usr/bin/env bash
# braintrace 0.2.6 (brainstate 0.5.4, jax 0.10.2, CPU, float64): D_RTRL on its own dense tanh cell is the gradient with the
# state detached at every step.
#
# Why it matters here: D-RTRL is documented as carrying a trace with the diagonal of the recurrent Jacobian. One expects what
# SnAp-1 gives, which keeps the weight of a unit onto itself. The trace passes through elementwise paths alone; in
# h' = tanh(W [x; h] + b) the only path from state to state is the matrix product, so that nothing is carried: the result
# is truncated backpropagation with a window of one step, to the last bits. Where the recurrence is elementwise it is exact.
#
# Seen: 4 units, 20 steps, recurrent weights of standard deviation 0.6: |D_RTRL - detached| / |detached| 2.2e-16,
# cosine with the gradient through time 0.54.
#
# usage: dense-d-rtrl-detaches.sh     needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q install braintrace==0.2.6 brainstate==0.5.4 jax==0.10.2 jaxlib==0.10.2
"$work/venv/bin/python" - <<'PY'
import jax

jax.config.update("jax_enable_x64", True)
import brainstate
import braintrace
import jax.numpy as jnp
import numpy as np

brainstate.environ.set(precision=64)
draws = np.random.default_rng(0)
inputs, units, steps = 3, 4, 20
xs = jnp.array(draws.normal(size=(steps, inputs)))
weight = jnp.array(draws.normal(size=(inputs + units, units)) * 1.2 / np.sqrt(units))

cell = braintrace.nn.ValinaRNNCell(inputs, units, activation="tanh")
brainstate.nn.init_all_states(cell)
params = cell.states(brainstate.ParamState)
for p in params.values():
    p.value = {"weight": weight, "bias": jnp.zeros(units)}
learner = braintrace.D_RTRL(cell)
learner.compile_graph(xs[0])
online = sum(
    jax.tree.leaves({k: v["weight"] for k, v in g.items()})[0]
    for g in (brainstate.transform.grad(lambda x: (learner(x) ** 2).sum(), params)(x) for x in xs)
)


def loss(w, detach):
    h, total = jnp.zeros(units), 0.0
    for x in xs:
        h = jnp.tanh(jnp.concatenate([x, jax.lax.stop_gradient(h) if detach else h]) @ w)
        total = total + (h**2).sum()
    return total


exact, detached = (jax.grad(loss)(weight, d) for d in (False, True))
norm = jnp.linalg.norm
apart = float(norm(online - detached) / norm(detached))
cosine = float((online * exact).sum() / norm(online) / norm(exact))
print(f"braintrace {braintrace.__version__}: from the detached gradient {apart:.1e}, cosine with the gradient {cosine:.2f}")
assert apart < 1e-12, "D_RTRL carries something from step to step"
assert cosine < 0.95, "D_RTRL is near the gradient through time here"
PY
