#!/usr/bin/env python3
"""Writes rnn_golden.hpp: what the recurrent layers of other libraries make of given weights.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 keras==3.15.1 jax==0.10.2 flax==0.12.8 equinox==0.13.8 dm-haiku==0.0.17
    venv/bin/python tests/io/rnn_golden.py > tests/io/rnn_golden.hpp

Number i of array k of a layer is ((7 i + 5 k + 3) mod 17 - 8) / 16, input j of step t ((3 t + 5 j) mod 7 - 3) / 4: exact
in float. 2 inputs, 3 units, 4 steps, one sequence, a state of zero.
"""
import os

os.environ["KERAS_BACKEND"] = "jax"
import equinox as eqx
import flax.linen as linen
import haiku as hk
import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from flax import nnx, traverse_util

IN, HIDDEN, STEPS = 2, 3, 4
X = np.array([[((3 * t + 5 * j) % 7 - 3) / 4 for j in range(IN)] for t in range(STEPS)], np.float32)


def value(k, shape):
    i = np.arange(int(np.prod(shape)))
    return ((((7 * i + 5 * k + 3) % 17) - 8) / 16).astype(np.float32).reshape(shape)


def of_torch(name, layers=1):
    module = getattr(torch.nn, name)(IN, HIDDEN, layers)
    arrays = [(n, tuple(p.shape)) for n, p in module.named_parameters()]
    with torch.no_grad():
        for k, (n, p) in enumerate(module.named_parameters()):
            p.copy_(torch.from_numpy(value(k, p.shape)))
        return arrays, module(torch.from_numpy(X)[:, None])[0][:, 0].numpy()


def of_keras(name, **options):
    layer = getattr(keras.layers, name)(HIDDEN, return_sequences=True, **options)
    layer.build((1, STEPS, IN))
    arrays = [(w.path.split("/")[-1], tuple(w.shape)) for w in layer.weights]
    layer.set_weights([value(k, shape) for k, (_, shape) in enumerate(arrays)])
    return arrays, np.asarray(layer(X[None]))[0]


def of_linen(name):
    cell = getattr(linen, name)(features=HIDDEN)
    carry = cell.initialize_carry(jax.random.key(0), (1, IN))
    flat = traverse_util.flatten_dict(cell.init(jax.random.key(0), carry, X[:1])["params"], sep=".")
    arrays = [(n, p.shape) for n, p in flat.items()]
    params = {n: jnp.asarray(value(k, shape)) for k, (n, shape) in enumerate(arrays)}
    out = []
    for x in X:
        carry, y = cell.apply({"params": traverse_util.unflatten_dict(params, sep=".")}, carry, x[None])
        out.append(np.asarray(y)[0])
    return arrays, np.array(out)


def of_nnx(name):
    cell = getattr(nnx, name)(IN, HIDDEN, rngs=nnx.Rngs(0))
    state = list(nnx.to_flat_state(nnx.state(cell, nnx.Param)))
    arrays = [(".".join(map(str, path)), v.get_value().shape) for path, v in state]
    for k, (path, v) in enumerate(state):
        at = cell
        for part in path:
            at = getattr(at, part)
        at.set_value(jnp.asarray(value(k, v.get_value().shape)))
    carry, out = cell.initialize_carry((1, IN), nnx.Rngs(0)), []
    for x in X:
        carry, y = cell(carry, x[None])
        out.append(np.asarray(y)[0])
    return arrays, np.array(out)


def of_equinox(name):
    cell = getattr(eqx.nn, name)(IN, HIDDEN, key=jax.random.key(0))
    arrays = [(n, v.shape) for n, v in vars(cell).items() if hasattr(v, "shape")]
    for k, (n, shape) in enumerate(arrays):
        cell = eqx.tree_at(lambda c: getattr(c, n), cell, jnp.asarray(value(k, shape)))
    carry = (jnp.zeros(HIDDEN), jnp.zeros(HIDDEN)) if name == "LSTMCell" else jnp.zeros(HIDDEN)
    out = []
    for x in X:
        carry = cell(jnp.asarray(x), carry)
        out.append(np.asarray(carry[0] if name == "LSTMCell" else carry))
    return arrays, np.array(out)


def of_haiku(name):
    def unroll(xs):
        core = getattr(hk, name)(HIDDEN, name="core")
        return hk.dynamic_unroll(core, xs, core.initial_state(1))[0]

    f = hk.without_apply_rng(hk.transform(unroll))
    params = f.init(jax.random.key(0), X[:, None])
    names = [(m, n, v.shape) for m, d in params.items() for n, v in d.items()]
    arrays = [((m + "/" + n)[len("core/"):].replace("/", "."), shape) for m, n, shape in names]
    for k, (m, n, shape) in enumerate(names):
        params[m][n] = jnp.asarray(value(k, shape))
    return arrays, np.asarray(f.apply(params, X[:, None]))[:, 0]


ROWS = [("torch", f"nn.{n}", of_torch(n)) for n in ("LSTM", "GRU", "RNN")]
ROWS += [("keras", n, of_keras(n)) for n in ("LSTM", "GRU", "SimpleRNN")]
ROWS += [("keras", "GRU, reset_after=False", of_keras("GRU", reset_after=False))]
ROWS += [("linen", n, of_linen(n)) for n in ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell")]
ROWS += [("nnx", n, of_nnx(n)) for n in ("OptimizedLSTMCell", "LSTMCell", "GRUCell", "SimpleCell")]
ROWS += [("equinox", n, of_equinox(n)) for n in ("LSTMCell", "GRUCell")]
ROWS += [("haiku", n, of_haiku(n)) for n in ("LSTM", "GRU", "VanillaRNN")]
TWO = [("torch", f"nn.{n}", of_torch(n, 2)) for n in ("LSTM", "GRU")]


def written(row):
    source, layer, (arrays, out) = row
    listed = ", ".join(f'{{"{n}", {{{", ".join(map(str, shape))}}}}}' for n, shape in arrays)
    numbers = ", ".join(f"{v:.9g}" for v in np.asarray(out, np.float64).ravel())
    return f'    {{rnn_source::{source}, "{layer}", {{{listed}}}, {{{numbers}}}}},'


versions = f"torch {torch.__version__.split('+')[0]}, keras {keras.__version__}, flax {__import__('flax').__version__}, equinox {eqx.__version__}, dm-haiku {hk.__version__}"
print("#pragma once\n\n#include <string>\n#include <utility>\n#include <vector>\n\n#include \"unroll/io/rnn_conventions.hpp\"\n")
print(f"// Written by rnn_golden.py with {versions}.\n// clang-format off\nnamespace golden {{\n\nusing unroll::rnn_source;\n")
print("/// A layer with its arrays, as the library lists them, and its h after every step.\nstruct rnn_row {\n  rnn_source source;\n  const char* layer;\n  std::vector<std::pair<std::string, std::vector<unroll::index_t>>> arrays;\n  std::vector<double> h;\n};\n")
for name, rows in (("rnn_rows", ROWS), ("two_layers", TWO)):
    print(f"inline const std::vector<rnn_row> {name}{{")
    print("\n".join(map(written, rows)))
    print("};")
print("\n// clang-format on\n}  // namespace golden")
