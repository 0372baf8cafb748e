#!/usr/bin/env bash
# ncps 1.0.1 (torch 2.15.0, CPU): timespans of a batch go to units, not to sequences, where a layer has as many units as the batch sequences.
#
# Why it matters here: CfC and LTC are recurrent networks for data at uneven times, whose sampling intervals are given as timespans (B, L).
# Those of one step, B numbers, are multiplied with states (B, units) as they are: the interval of sequence i becomes that of unit i in every
# sequence. That works only for B = units (or B = 1, which is right), without a word; other sizes fail on shapes, and the size that is tried
# next may be this one. Every forward pass, loss and gradient is that of another network. timespans of shape (B, L, units) are right.
#
# Guess, before it was run: each sequence has its own intervals. Wrong.
# Seen: 4 units, 4 sequences: outputs more than 0.05 from those of the sequences one by one, and the intervals of a sequence change the outputs of the
#       others; the last 3 sequences as a batch: an error on shapes; timespans repeated for every unit: 0 off. CfC and LTC.
#
# usage: ncps-timespans-of-a-batch.sh [python]   the python of an environment with ncps 1.0.1 and torch 2.15.0, else one is made, which
#                                                needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install ncps==1.0.1 torch==2.15.0 numpy
  python="$work/venv/bin/python"
fi
"$python" - <<'PY'
import importlib.metadata
import sys

import torch
from ncps.torch import LTC, CfC

version = importlib.metadata.version("ncps")
as_seen = version == "1.0.1"
for kind in (CfC, LTC):
    torch.manual_seed(0)
    layer, xs, spans = kind(3, 4), torch.randn(4, 6, 3), 0.5 + torch.rand(4, 6)
    with torch.no_grad():
        together = layer(xs, timespans=spans)[0]
        apart = torch.cat([layer(xs[i : i + 1], timespans=spans[i : i + 1])[0] for i in range(4)])
        longer = spans.clone()
        longer[3] *= 2
        leak = float((layer(xs, timespans=longer)[0] - together)[:3].abs().max())
        repeated = layer(xs, timespans=spans.unsqueeze(2).expand(-1, -1, 4))[0]
        try:
            layer(xs[:3], timespans=spans[:3])
            other_sizes = "works"
        except RuntimeError:
            other_sizes = "an error on shapes"
    off, mended = float((together - apart).abs().max()), float((repeated - apart).abs().max())
    print(f"ncps {version}, {kind.__name__}: a batch of 4 is {off:.2f} from its sequences one by one, the intervals of one move the others by "
          f"{leak:.2f}; repeated for every unit {mended:.0e}; a batch of 3: {other_sizes}")
    as_seen = as_seen and off > 0.05 and leak > 0.01 and mended < 1e-6 and other_sizes != "works"
sys.exit(not as_seen)
PY
