#!/usr/bin/env bash
# torch 2.15.0 (CPU): torch.no_grad() stops torch.func.grad, vjp and jacrev, and not jvp or jacfwd.
#
# Why it matters here: a burn-in under no_grad, as recurrent agents have it, or a state that is made without a graph, truncates the gradient
# through time. Estimators that go forward (RTRL, UORO, forward gradients) take jvp of the same program, and the tangent of the state passes
# the border as if it were not there: a forward gradient averages to another gradient than backward() gives, and jacfwd of a function is not
# its jacrev. The page of no_grad says that it does not apply to forward mode; those of grad and vjp say that it is respected, those of
# jvp, jacfwd and linearize nothing. detach() stops both.
#
# Guess, before it was run: both stop.
# Seen: 6 steps, the first 3 under no_grad: derivative along a direction -0.8842 by grad, vjp, jacrev and backward, -0.8653 by jvp,
#       jacfwd, linearize and forward_ad, which is that of all 6 steps; with detach() -0.8842 in all of them.
#
# usage: no-grad-keeps-tangents.sh [python]   the python of an environment with torch 2.15.0, else one is made, which needs
#                                             python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install torch==2.15.0 numpy
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import contextlib
import sys
import warnings

import torch
import torch.autograd.forward_ad as forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, linearize, vjp

warnings.simplefilter("ignore")  # of what linearize itself uses
torch.manual_seed(0)
weights, along = (torch.randn(4, 4, dtype=torch.float64) * 0.5 for _ in range(2))
xs = torch.randn(6, 4, dtype=torch.float64)


def network(border):
    def loss(w):
        h = torch.zeros(4, dtype=w.dtype)
        with torch.no_grad() if border == "no_grad" else contextlib.nullcontext():
            for x in xs[:3]:
                h = torch.tanh(w @ h + x)
        h = h.detach() if border == "detach" else h
        for x in xs[3:]:
            h = torch.tanh(w @ h + x)
        return h.sum()

    return loss


def backward(f):
    w = weights.clone().requires_grad_()
    f(w).backward()
    return w.grad


def dual(f):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(weights, along))).tangent


dot = lambda g: (g * along).sum()
reverse = {"backward": lambda f: dot(backward(f)), "grad": lambda f: dot(grad(f)(weights)),
           "vjp": lambda f: dot(vjp(f, weights)[1](torch.tensor(1.0, dtype=torch.float64))[0]), "jacrev": lambda f: dot(jacrev(f)(weights))}
forward = {"jvp": lambda f: jvp(f, (weights,), (along,))[1], "jacfwd": lambda f: dot(jacfwd(f)(weights)),
           "linearize": lambda f: linearize(f, weights)[1](along), "forward_ad": dual}
seen = {b: {n: float(d(network(b))) for n, d in (reverse | forward).items()} for b in ("nothing", "no_grad", "detach")}
for border, row in seen.items():
    print(f"torch {torch.__version__}, {border}:", *(f"{n} {v:.4f}" for n, v in row.items()))
near = lambda a, b: abs(a - b) < 1e-12
whole, cut = seen["nothing"]["backward"], seen["detach"]["backward"]
as_seen = not near(whole, cut) and all(near(v, cut) for v in seen["detach"].values()) and all(near(v, whole) for v in seen["nothing"].values())
as_seen = as_seen and all(near(v, cut if n in reverse else whole) for n, v in seen["no_grad"].items())
sys.exit(not as_seen)
PY
