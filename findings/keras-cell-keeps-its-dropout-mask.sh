#!/usr/bin/env bash
# keras 3.15.1 (jax 0.10.2, CPU): a recurrent cell called in a loop of one's own draws its dropout mask once in its life.
#
# Why it matters here: truncated backpropagation over a stream, or a state that is kept between updates, means calling LSTMCell,
# GRUCell or SimpleRNNCell oneself. The mask is drawn at the first call with training=True and stays: every later step, sequence and
# update has it, so that half of the inputs (dropout) or of the states (recurrent_dropout) are never seen, and the other half is always
# there. The layers RNN, StackedRNNCells within it, and Bidirectional forget the mask after every call. A call with another number
# of sequences fails on shapes. cell.reset_dropout_mask() and cell.reset_recurrent_dropout_mask() draw anew.
#
# Seen: 50 calls of each cell, one output; after the reset another; keras.layers.RNN(cell): another output in every call.
#
# usage: keras-cell-keeps-its-dropout-mask.sh [python]   the python of an environment with keras 3.15.1 and jax 0.10.2, else one is made,
#                                                        which needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install keras==3.15.1 jax==0.10.2 jaxlib==0.10.2
  python="$work/venv/bin/python"
fi
KERAS_BACKEND=jax "$python" - <<'PY'
import sys

import keras
import numpy as np

as_seen = keras.__version__ == "3.15.1"
x = np.ones((2, 4), "float32")
for kind, states in ((keras.layers.LSTMCell, 2), (keras.layers.GRUCell, 1), (keras.layers.SimpleRNNCell, 1)):
    for option in ("dropout", "recurrent_dropout"):
        cell = kind(16, seed=3, **{option: 0.5})
        cell.build((2, 4))
        s = [np.ones((2, 16), "float32")] * states
        step = lambda: np.asarray(cell(x, s, training=True)[0])
        outputs = [step() for _ in range(50)]
        one = all(np.array_equal(y, outputs[0]) for y in outputs)
        cell.reset_dropout_mask()
        cell.reset_recurrent_dropout_mask()
        another = not np.array_equal(step(), outputs[0])
        print(f"{kind.__name__}({option}=0.5): 50 calls, one output: {one}; after the reset another: {another}")
        as_seen = as_seen and one and another
layer = keras.layers.RNN(keras.layers.LSTMCell(16, dropout=0.5, recurrent_dropout=0.5, seed=3))
sequence = np.ones((2, 7, 4), "float32")
outputs = [np.asarray(layer(sequence, training=True)) for _ in range(3)]
differ = not np.array_equal(outputs[0], outputs[1]) and not np.array_equal(outputs[1], outputs[2])
print(f"RNN(LSTMCell): every call another output: {differ}")
sys.exit(not (as_seen and differ))
PY
