#!/usr/bin/env bash
# equinox 0.13.8 (jax 0.10.2, CPU): its checkpointed scan recomputes up to 1.6 times what is needed, the length being known.
#
# Why it matters here: this loop is how diffrax differentiates (RecursiveCheckpointAdjoint) and how a long recurrence is had in the memory of
# a given number of states. It follows the online rule of Stumm and Walther, which is optimal up to (s + 1)(s + 2) / 2 steps for s states and
# made for lengths that are not known; a scan, whose length is known, is walked by it all the same. The schedule of Griewank and Walther
# needs fewer steps in the same memory; the gradient is the same.
#
# Guess, before it was run: the optimum for a scan, 20 % more for a while loop. Wrong: the two are alike.
# Seen: forward steps, the recorded ones counted, and the least possible number: 30 steps in 4 states 116, 99; 100 in 5: 460, 416; 50 in 2: 531,
#       335; 1000 in 10: 6469, 4636.
#
# usage: equinox-checkpoints-known-lengths.sh [python]   the python of an environment with equinox 0.13.8 and jax 0.10.2, else one is made,
#                                                        which needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install equinox==0.13.8 jax==0.10.2 jaxlib==0.10.2
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import functools
import sys

import equinox
import equinox.internal as loops
import jax
import jax.numpy as jnp

runs = 0


def count(h):
    global runs
    runs += 1
    return h


@jax.custom_jvp
def counted(h):
    return jax.pure_callback(count, jax.ShapeDtypeStruct(h.shape, h.dtype), h)


counted.defjvp(lambda primals, tangents: (counted(*primals), tangents[0]))


def steps_run(loop, steps, states):
    global runs
    runs = 0
    step = lambda h: jnp.tanh(0.7 * counted(h) + 0.1)

    def loss(h):
        if loop == "scan":
            return loops.scan(lambda h, _: (step(h), None), h, None, length=steps, kind="checkpointed", checkpoints=states)[0]
        turn = lambda c: (c[0] + 1, step(c[1]))
        return loops.while_loop(lambda c: c[0] < steps, turn, (0, h), kind="checkpointed", checkpoints=states)[1]

    jax.block_until_ready(jax.grad(loss)(1.0))
    return runs


@functools.lru_cache(None)
def advances(steps, states):
    """The least number of advances that reverse `steps` steps in `states` states, the first among them."""
    if steps <= 1:
        return 0
    if states == 1:
        return steps * (steps - 1) // 2
    return min(m + advances(m, states) + advances(steps - m, states - 1) for m in range(1, steps))


as_seen = equinox.__version__ == "0.13.8"
sys.setrecursionlimit(10000)
for steps, states, expected in ((30, 4, 116), (100, 5, 460), (50, 2, 531)):
    seen = [steps_run(loop, steps, states) for loop in ("scan", "while")]
    print(f"equinox {equinox.__version__}: {steps} steps in {states} states: scan {seen[0]}, while {seen[1]}, least {steps + advances(steps, states)}")
    as_seen = as_seen and seen == [expected, expected] and expected > 1.05 * (steps + advances(steps, states))
seen = steps_run("scan", 1000, 10)
print(f"1000 steps in 10 states: scan {seen}, least 4636 (closed form)")
sys.exit(not (as_seen and seen == 6469))
PY
