#!/usr/bin/env bash
# torch 2.15.0 (CPU): checkpoint(lstm, x, (h, c)) with use_reentrant=True or not given is truncated backpropagation.
#
# Why it matters here: recomputing an LSTM chunk by chunk is how its gradient through a long sequence is had in little memory,
# and (h, c) is how nn.LSTM takes and returns its state. The reentrant form looks for tensors among the arguments and results
# alone: a tuple within them loses its graph, in both directions, and the loss is right to the last bit. Left out, the option
# warns and means True. What comes out is the gradient with the state detached at the border of each chunk. Flattened to
# (y, h, c), or with use_reentrant=False, the gradient is right.
#
# Seen: 4 chunks of 5 steps, |g - g_exact| / |g_exact| 0.19 and |g - g_detached| / |g_detached| 4e-8 where nested,
# 0 with use_reentrant=False, 4e-8 where flattened.
#
# usage: checkpoint-nested-state.sh [python]   the python of an environment with torch 2.15.0, else one is made, which needs
#                                              python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install torch==2.15.0 numpy
  python="$work/venv/bin/python"
fi
cat >"$work/nested.py" <<'PY'
import warnings

import torch
from torch.utils.checkpoint import checkpoint

warnings.simplefilter("ignore")


def gradient(call):
    torch.manual_seed(1)
    lstm = torch.nn.LSTM(3, 5)
    x = torch.randn(20, 1, 3)
    h = c = torch.zeros(1, 1, 5)
    loss = 0.0
    for t in range(0, 20, 5):
        y, (h, c) = call(lstm, x[t : t + 5].requires_grad_(), h, c)
        loss = loss + (y**2).sum()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in lstm.parameters()])


def flat(lstm, x, h, c):
    def chunk(x, h, c):
        y, (h, c) = lstm(x, (h, c))
        return y, h, c

    y, h, c = checkpoint(chunk, x, h, c, use_reentrant=True)
    return y, (h, c)


def apart(a, b):
    return float((a - b).norm() / b.norm())


exact = gradient(lambda lstm, x, h, c: lstm(x, (h, c)))
detached = gradient(lambda lstm, x, h, c: lstm(x, (h.detach(), c.detach())))
for name, options in (("not given", {}), ("True", {"use_reentrant": True}), ("False", {"use_reentrant": False})):
    g = gradient(lambda lstm, x, h, c: checkpoint(lstm, x, (h, c), **options))
    print(f"torch {torch.__version__}, use_reentrant {name}: from the gradient {apart(g, exact):.1e}, "
          f"from the detached one {apart(g, detached):.1e}")
    truncated = apart(g, detached) < 1e-6 and apart(g, exact) > 0.05
    assert truncated == (name != "False"), "a nested state is treated otherwise"
g = gradient(flat)
print(f"flattened, use_reentrant True: from the gradient {apart(g, exact):.1e}")
assert apart(g, exact) < 1e-6, "the flattened form is not the gradient"
PY
cd "$work" && "$python" nested.py
