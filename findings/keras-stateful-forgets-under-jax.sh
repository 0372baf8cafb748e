#!/usr/bin/env bash
# keras 3.15.1 with its JAX backend (jax 0.10.2, CPU): fit, evaluate and predict of a network with stateful=True begin every batch anew.
#
# Why it matters here: stateful=True is how Keras documents truncated backpropagation over a long sequence: the last state of a batch is the
# first of the next. Under JAX the compiled functions of fit, evaluate, predict, train_on_batch and their like do not return the states,
# which are not among the model's variables: every batch begins with the state that stood there when the function was compiled, zero as a
# rule. What was trained has seen no dependence longer than a batch, without a word. reset_state() does nothing either once it is compiled.
# The model called as a function, outside of these, does carry them.
#
# Guess, before it was run: states are carried, and padding moves them. Wrong (and masked steps leave them alone).
# Seen: a sequence in two batches, targets what the layer gives for the whole: train_on_batch has loss 0 and then more than 0.002 (0 would be
#       right), predict is more than 0.1 off in the second half, and the states are 0 behind both. Compiled behind a call as a function, predict
#       goes on from the state of that call, and still does after reset_state(). Called as a function twice: 0 off. LSTM, GRU, SimpleRNN.
#
# usage: keras-stateful-forgets-under-jax.sh [python]   the python of an environment with keras 3.15.1 and jax 0.10.2, else one is made,
#                                                       which needs python3 with venv; exits non-zero when the behaviour is another
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

xs = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
first, second = xs[:, :3], xs[:, 3:]
off = lambda a, b: float(abs(np.asarray(a) - np.asarray(b)).max())
as_seen = keras.__version__ == "3.15.1"
keras.utils.set_random_seed(0)


def stateful(kind):
    inputs = keras.Input(batch_shape=(2, 3, 3))
    layer = kind(4, stateful=True, return_sequences=True)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    plain = kind(4, return_sequences=True)
    plain.build((2, 6, 3))
    plain.set_weights(layer.get_weights())
    return layer, model, np.asarray(plain(xs))


for kind in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN):
    layer, model, whole = stateful(kind)
    model(first)
    called = off(model(second), whole[:, 3:])
    layer.reset_state()
    losses = [float(np.ravel(model.train_on_batch(x, y))[0]) for x, y in ((first, whole[:, :3]), (second, whole[:, 3:]))]
    model.predict(first, verbose=0)
    predicted = off(model.predict(second, verbose=0), whole[:, 3:])
    states = max(off(s, 0) for s in layer.states)

    layer, model, whole = stateful(kind)
    model(first)
    compiled = off(model.predict(second, verbose=0), whole[:, 3:])
    layer.reset_state()
    after_reset = off(model.predict(second, verbose=0), whole[:, 3:])
    print(f"{kind.__name__}: called {called:.1e} off, train_on_batch {losses}, predict {predicted:.2f} off and the states {states}; "
          f"compiled behind a call {compiled:.1e} off, after reset_state() {after_reset:.1e}")
    as_seen = as_seen and called < 1e-6 and losses[0] < 1e-9 and losses[1] > 1e-3 and predicted > 0.05 and states == 0
    as_seen = as_seen and compiled < 1e-6 and after_reset < 1e-6
sys.exit(not as_seen)
PY
