#!/usr/bin/env bash
# flax 0.12.8, nnx.GRUCell (jax 0.10.2, CPU): its documentation has a bias b_hn inside of the reset product, the module has none.
#
# Why it matters here: the GRU of PyTorch, Keras, equinox and flax.linen computes n = tanh(W_in x + b_in + r (W_hn h + b_hn)).
# nnx.GRUCell's docstring has the same equation. Weights of the others, b_hn included, have no place to go: a network that is
# converted from linen to nnx by the equation computes another function, without a word.
#
# Seen: parameters dense_i.kernel, dense_i.bias, dense_h.kernel; the step equals the equation with b_hn = 0. linen's GRUCell of
# the same version has hn.bias.
#
# usage: nnx-gru-documents-a-bias.sh     needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q install flax==0.12.8 jax==0.10.2 jaxlib==0.10.2
"$work/venv/bin/python" - <<'PY'
import flax
import flax.linen as linen
import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

cell = nnx.GRUCell(2, 3, rngs=nnx.Rngs(0))
names = sorted(".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(cell, nnx.Param)))
print("flax", flax.__version__, "nnx.GRUCell has", names)
print("its documentation:", next(l.strip() for l in nnx.GRUCell.__doc__.splitlines() if "b_{hn}" in l))
carry = linen.GRUCell(features=3).initialize_carry(jax.random.key(0), (1, 2))
flat = traverse_util.flatten_dict(linen.GRUCell(features=3).init(jax.random.key(0), carry, jnp.zeros((1, 2)))["params"], sep=".")
print("linen.GRUCell has", sorted(n for n in flat if n.endswith("bias")))
x, h = jnp.array([[0.5, -1.0]]), jnp.array([[0.3, -0.2, 0.9]])
u, v = x @ cell.dense_i.kernel.get_value() + cell.dense_i.bias.get_value(), h @ cell.dense_h.kernel.get_value()
r, z = jax.nn.sigmoid(u[:, :3] + v[:, :3]), jax.nn.sigmoid(u[:, 3:6] + v[:, 3:6])
expected = (1 - z) * jnp.tanh(u[:, 6:] + r * v[:, 6:]) + z * h
print("largest difference from the equation with b_hn = 0:", float(abs(cell(h, x)[0] - expected).max()))
assert "b_{hn}" in nnx.GRUCell.__doc__, "the documentation has changed"
assert names == ["dense_h.kernel", "dense_i.bias", "dense_i.kernel"], "the parameters have changed"
assert "hn.bias" in flat and float(abs(cell(h, x)[0] - expected).max()) < 1e-6
PY
