#!/usr/bin/env bash
# mingru-pytorch 0.2.1 (torch 2.15.0, CPU, float32): the parallel form of minGRU, a scan in logarithms, loses the gradient with the length.
#
# Why it matters here: minGRU is trained by the parallel form and run step by step, and the paper gives the one in logarithms as the
# numerically stable one. It adds up the logarithms of the gates' complements, which grow with the length: at 16384 steps to about 12000, where
# a float has three digits behind the point. The outputs keep these, so that the loss is right; the gradient sums differences of such
# numbers over all steps. Step by step in the same float32 it has six digits.
#
# Guess, before it was run: outputs 1e-3 off at 65536 steps (so they are), gradients alike. Wrong: these are thousands of times worse.
# Seen: initial weights, 8 units, random targets, mean of squares: the gradient of the weights is 2e-4 off at 1024 steps (step by step 5e-7)
#       and 7e-3 at 16384, the loss right to 1e-6. With the loss a sum with random signs, 2e-2 at 4096.
#
# usage: log-space-scan-loses-the-gradient.sh [python]   the python of an environment with torch 2.15.0, einops and mingru-pytorch 0.2.1,
#                                                        else one is made, which needs python3 with venv; exits non-zero when the
#                                                        behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install torch==2.15.0 numpy mingru-pytorch==0.2.1
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import copy
import sys

import torch
from minGRU_pytorch import minGRU


def by_steps(net, xs):
    h, out = None, []
    for t in range(xs.shape[1]):
        h = net(xs[:, t : t + 1], prev_hidden=h)
        out.append(h)
    return torch.cat(out, 1)


def gradient(net, form, xs, loss):
    net.zero_grad()
    value = loss(form(net, xs))
    value.backward()
    return float(value.detach()), net.to_hidden_and_gate.weight.grad.double()


def compare(steps, forms, signs):
    torch.manual_seed(0)
    net, xs, other = minGRU(8, expansion_factor=1.0, proj_out=False), torch.randn(2, steps, 8), torch.randn(2, steps, 8)
    loss = lambda y: (y * other.to(y.dtype)).sum() if signs else (y - other.to(y.dtype)).pow(2).mean()
    value, exact = gradient(copy.deepcopy(net).double(), minGRU.__call__, xs.double(), loss)
    off = []
    for form in forms:
        v, g = gradient(net, form, xs, loss)
        off.append(float((g - exact).norm() / exact.norm()))
        print(f"torch {torch.__version__}, {steps} steps, {'signs' if signs else 'squares'}, {'by steps' if form is by_steps else 'parallel'}: "
              f"loss {abs(v / value - 1):.1e} off, gradient {off[-1]:.1e}")
    return off


short = compare(1024, (minGRU.__call__, by_steps), False)
(long,), (signs,) = compare(16384, (minGRU.__call__,), False), compare(4096, (minGRU.__call__,), True)
sys.exit(not (short[0] > 2e-5 and short[1] < 5e-6 and long > 1e-3 and signs > 3e-3))
PY
