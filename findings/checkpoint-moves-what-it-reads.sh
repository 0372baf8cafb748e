#!/usr/bin/env bash
# torch 2.15.0, spikingjelly 2.0.0 (CPU): recomputing a chunk of steps that draws from a torch.Generator of its own, or whose neurons keep
# their state, gives the gradient of another run, without a word.
#
# Why it matters here: torch.utils.checkpoint keeps and restores the state of the global generators, so that dropout is the same when a
# chunk is run again. A Generator object, which is what makes noise in the states reproducible, goes on: the second run draws other masks
# than the first. Likewise a neuron layer that keeps its membrane potential is run again from the potential at the end of the sequence. The
# loss is that of the first run; shapes, all that the default check compares, are the same. use_reentrant=True does the same.
#
# Guess, before it was run: as seen. How far off was not guessed.
# Seen: GRU cell with masks of 0.7 on the state, 40 steps in chunks of 10: global generator 0 off, an own one 0.32; LIF neurons 0.04 off.
#
# usage: checkpoint-moves-what-it-reads.sh [python]   the python of an environment with torch 2.15.0 and spikingjelly 2.0.0, else one is
#                                                     made, which needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install torch==2.15.0 numpy
  "$work/venv/bin/pip" -q install --no-deps spikingjelly==2.0.0 loguru==0.7.3
  python="$work/venv/bin/python"
fi
cat >"$work/moves.py" <<'PY'
import sys
import warnings

import torch
from spikingjelly.activation_based import functional, neuron
from torch.utils.checkpoint import checkpoint

warnings.simplefilter("ignore")
torch.manual_seed(0)
xs = torch.rand(40, 2, 6) * 1.5
cell = torch.nn.GRUCell(6, 8)
inputs = torch.nn.Linear(6, 8)


def masked(own):
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)

    def chunk(h, xs):
        for x in xs:
            mask = torch.rand(h.shape, generator=generator if own else None) < 0.7
            h = cell(x, h * mask / 0.7)
        return h

    return cell, chunk


def spiking():
    neurons = neuron.LIFNode(tau=4.0, v_threshold=0.5)
    functional.reset_net(neurons)

    def chunk(spikes, xs):
        for x in xs:
            spikes = spikes + neurons(inputs(x))
        return spikes

    return inputs, chunk


def gradient(make, recompute):
    net, chunk = make()
    net.zero_grad()
    h, loss = torch.zeros(2, 8), 0.0
    for t in range(0, 40, 10):
        h = checkpoint(chunk, h, xs[t : t + 10], use_reentrant=False) if recompute else chunk(h, xs[t : t + 10])
        loss = loss + (h**2).sum()
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in net.parameters()])


def off(make):
    (loss, exact), (again, g) = gradient(make, False), gradient(make, True)
    assert loss == again, "the losses differ"
    return float((g - exact).norm() / exact.norm())


seen = [off(m) for m in (lambda: masked(False), lambda: masked(True), spiking)]
print(f"torch {torch.__version__}: global generator {seen[0]:.3f} off, own generator {seen[1]:.3f}, neurons that keep their state {seen[2]:.3f}")
sys.exit(not (seen[0] < 1e-6 and seen[1] > 0.1 and seen[2] > 0.005))
PY
cd "$work" && "$python" moves.py
