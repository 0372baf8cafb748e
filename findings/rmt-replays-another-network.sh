#!/usr/bin/env bash
# recurrent-memory-transformer-pytorch 0.7.0 (torch 2.15.0, CPU): memory_replay_backprop differentiates another network than the forward pass runs.
#
# Why it matters here: replay of segments from kept memories, backwards, one graph at a time, is the exact gradient of a memory model in little
# memory, as rematerialise has it. What is replayed must be what ran. By default the layers also hand the keys and values of a segment to the
# next one (use_xl_memories=True). The wrapper's forward pass collects these and does not pass them on; its replay passes them. So a network that is
# trained with replay reads what it does not get in evaluation or without replay, neither loss nor gradient is that of the forward pass,
# and without replay the option does nothing. use_xl_memories=False makes both agree. labels= of the wrapper is overwritten.
#
# Guess, before it was run: the two gradients agree to rounding. Wrong with the defaults.
# Seen: 4 segments of 4 tokens in double: losses 5e-3 apart, gradients more than 0.1; a loop of one's own without the keys and values has the bits of
#       the forward pass. With use_xl_memories=False loss and gradient agree to 1e-12. Other labels: the same loss.
#
# usage: rmt-replays-another-network.sh [python]   the python of an environment with recurrent-memory-transformer-pytorch 0.7.0 and torch 2.15.0,
#                                                  else one is made, which needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install recurrent-memory-transformer-pytorch==0.7.0 hyper-connections==0.4.11 torch==2.15.0 numpy
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import importlib.metadata
import sys

import torch
from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer, RecurrentMemoryTransformerWrapper

version = importlib.metadata.version("recurrent-memory-transformer-pytorch")
as_seen = version == "0.7.0"
for shared in (True, False):
    torch.manual_seed(0)
    net = RecurrentMemoryTransformer(num_tokens=11, num_memory_tokens=2, dim=16, depth=2, causal=True, dim_head=8, heads=2,
                                     seq_len=4, use_flash_attn=False, use_xl_memories=shared)
    wrapper = RecurrentMemoryTransformerWrapper(net).double()
    ids = torch.randint(0, 11, (1, 17))

    def gradient(run):
        wrapper.zero_grad()
        loss = run()
        return float(loss.detach()), torch.cat([torch.zeros(0).double() if p.grad is None else p.grad.flatten() for p in wrapper.parameters()])

    def plain():
        loss = wrapper(ids, return_loss=True)[0]
        loss.backward()
        return loss

    def loop():
        memories, loss = None, 0.0
        for t in range(0, 16, 4):
            one, memories, _ = net(ids[:, t : t + 4], memories, labels=ids[:, t + 1 : t + 5])
            loss = loss + one / 4
        loss.backward()
        return loss

    (loss, g), (own_loss, own), (replayed_loss, replayed) = map(gradient, (
        plain, loop, lambda: wrapper(ids, return_loss=True, memory_replay_backprop=True)))
    relabelled = float(wrapper(ids, return_loss=True, labels=torch.zeros_like(ids))[0])
    off = float((replayed - g).norm() / g.norm())
    without = float((own - g).norm() / g.norm())
    print(f"rmt {version}, use_xl_memories={shared}: loss {loss:.6f}, replayed {replayed_loss:.6f}, gradients {off:.1e} apart; "
          f"a loop without the keys and values {without:.0e}; other labels: loss {relabelled:.6f}")
    as_seen = as_seen and without < 1e-12 and relabelled == loss
    as_seen = as_seen and (off > 0.1 and abs(replayed_loss - loss) > 1e-4 if shared else off < 1e-12 and abs(replayed_loss - loss) < 1e-12)
sys.exit(not as_seen)
PY
