#!/usr/bin/env bash
# torch 2.15.0 (CPU): nn.LSTM has a forward derivative in float64 and none in float32.
#
# Why it matters here: UORO, NoBackTrack, forward gradients and RTRL by columns need jvp, and are checked in double first. There
# torch.func.jvp works; the same lines raise NotImplementedError in float32 and bfloat16, since nn.LSTM then runs in oneDNN as
# mkldnn_rnn_layer. nn.RNN, nn.GRU and all three cells have it in both. torch.backends.mkldnn.flags(enabled=False) gives the plain
# implementation, whose jvp is right. Reverse mode over reverse mode works in all of them.
#
# Seen: float32 "NotImplementedError ... mkldnn_rnn_layer", float64 and float32 without oneDNN a tangent within 1e-3 of a difference
# quotient.
#
# usage: lstm-forward-mode-float32.sh [python]   the python of an environment with torch 2.15.0, else one is made, which needs
#                                                python3 with venv; exits non-zero when the behaviour is another
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
import sys
import warnings

import torch
from torch.func import functional_call, jvp

warnings.simplefilter("ignore")


def apart(kind, dtype):
    """The distance of the tangent from a difference quotient, or the error's name and the operator it speaks of."""
    torch.manual_seed(1)
    net = kind(4, 8).to(dtype)
    x = torch.randn(*((12, 3, 4) if kind in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM) else (3, 4)), dtype=dtype)
    theta = {k: v.detach() for k, v in net.named_parameters()}
    along = {k: torch.randn_like(v) for k, v in theta.items()}

    def run(p):
        y = functional_call(net, p, (x,))
        return y[0] if isinstance(y, tuple) else y

    try:
        tangent = jvp(run, (theta,), (along,))[1]
    except NotImplementedError as e:
        return "NotImplementedError, " + ("mkldnn_rnn_layer" if "mkldnn_rnn_layer" in str(e) else str(e)[:80])
    h = 1e-3
    shifted = [run({k: v + s * h * along[k] for k, v in theta.items()}) for s in (1, -1)]
    quotient = (shifted[0] - shifted[1]) / (2 * h)
    return float((tangent - quotient).norm() / quotient.norm())


nn = torch.nn
as_seen = torch.__version__.split("+")[0] == "2.15.0"
for kind in (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell):
    for dtype in (torch.float64, torch.float32):
        seen = apart(kind, dtype)
        print(kind.__name__, dtype, seen)
        missing = kind is nn.LSTM and dtype == torch.float32
        as_seen &= seen == "NotImplementedError, mkldnn_rnn_layer" if missing else isinstance(seen, float) and seen < 1e-3
with torch.backends.mkldnn.flags(enabled=False):
    seen = apart(nn.LSTM, torch.float32)
print("LSTM torch.float32 without oneDNN", seen)
sys.exit(not (as_seen and isinstance(seen, float) and seen < 1e-3))
PY
