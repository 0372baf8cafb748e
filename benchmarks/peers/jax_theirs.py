"""One side of compare.py: JAX, compiled. The workloads and commands of theirs.py, each as one jitted function of a whole
sequence: `jax-bptt` is reverse mode through lax.scan, `jax-rtrl` the formulas of real-time recurrent learning, for a
tanh network at any number of lanes and at batch 1."""
import os
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
import jax
import jax.numpy as jnp
import numpy as np


def cell(kind, w, h, x):
    """One step of torch.nn's cells; the state of an LSTM is (h, c)."""
    if kind == "elman":
        return jnp.tanh(x + h @ w["w_h"].T)
    if kind == "gru":
        u = h @ w["w_h"].T
        n = u.shape[-1] // 3
        r, z = jax.nn.sigmoid(x[..., :n] + u[..., :n]), jax.nn.sigmoid(x[..., n : 2 * n] + u[..., n : 2 * n])
        c = jnp.tanh(x[..., 2 * n :] + r * (u[..., 2 * n :] + w["b_hn"]))
        return (1 - z) * c + z * h
    h, c = h
    i, f, g, o = jnp.split(x + h @ w["w_h"].T, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def bptt(kind):
    """Gradient of the sum of 1/2 ||h - y||^2."""

    def loss(w, x, y):
        start = jnp.zeros_like(y[0])
        start = (start, start) if kind == "lstm" else start

        def step(state, z):
            state = cell(kind, w, state, z)
            return state, state[0] if kind == "lstm" else state

        _, h = jax.lax.scan(step, start, x @ w["w_x"].T + w["b"])
        return 0.5 * jnp.sum((h - y) ** 2)

    return jax.grad(loss)


def rtrl(w, x, y):
    """M <- d (W_h M + F), g += (h - y) M, with M of n x n x (2n + 1) numbers: row i, then W(k, j)."""
    n = y.shape[-1]
    full = jnp.concatenate([w["w_x"], w["w_h"], w["b"][:, None]], axis=1)
    rows, m = jnp.arange(n), jnp.zeros((n, n * (2 * n + 1)), y.dtype)

    def step(carry, xy):
        h, m, g = carry
        z = jnp.concatenate([xy[0][0], h, jnp.ones(1, h.dtype)])
        h = jnp.tanh(full @ z)
        m = (w["w_h"] @ m).reshape(n, n, -1).at[rows, rows].add(z).reshape(n, -1) * (1 - h * h)[:, None]
        return (h, m, g + (h - xy[1][0]) @ m), None

    (_, _, g), _ = jax.lax.scan(step, (jnp.zeros(n, y.dtype), m, jnp.zeros(m.shape[1], y.dtype)), (x, y))
    g = g.reshape(n, -1)
    return {"w_x": g[:, :n], "w_h": g[:, n : 2 * n], "b": g[:, 2 * n]}


def parameters(kind, h, dtype):
    gates, rng = {"gru": 3, "lstm": 4}.get(kind, 1), np.random.default_rng(0)
    shapes = {"w_h": (gates * h, h), "w_x": (gates * h, h), "b": (gates * h,)}
    if kind == "gru":
        shapes["b_hn"] = (h,)
    return {k: jnp.asarray(rng.uniform(-1, 1, s) / h**0.5, dtype) for k, s in shapes.items()}


class Peer:
    """The formula of a row, jitted, with what it is fed."""

    def __init__(self, prepare, workload, kind, hidden, lanes, steps, number, folder):
        jax.config.update("jax_enable_x64", number == "f64")
        self.dtype = np.float64 if number == "f64" else np.float32
        shape = int(steps), int(lanes), int(hidden)
        self.x, self.y = (jnp.asarray(np.fromfile(f"{folder}/{f}.bin", self.dtype, np.prod(shape)).reshape(shape)) for f in "xy")
        self.w, formula = prepare(workload, kind, int(hidden), self.dtype)
        self.jitted, self.noise = jax.jit(formula), None

    def run(self):
        return jax.block_until_ready(self.jitted(self.w, self.x, self.y, self.noise))


def serve(prepare):
    """Answers commands; `row` and arguments go on to another row. prepare(workload, kind, hidden, dtype): the parameters, and
    what is jitted of them, x, y and the noise."""
    peer = Peer(prepare, *sys.argv[1:])
    for line in sys.stdin:
        command, *args = line.split()
        if command == "row":
            peer = Peer(prepare, *args)
            print("end", flush=True)
        elif command == "parameters":
            np.savez(args[0], **peer.w)
            print("end", flush=True)
        elif command == "noise":
            peer.noise = jnp.asarray(np.fromfile(args[0]), peer.dtype)
            print("end", flush=True)
        elif command == "key":  # in place of noise: what is random is drawn by JAX
            peer.noise = jax.random.key(int(args[0]))
            print("end", flush=True)
        elif command == "gradient":
            np.savez(args[0], **peer.run())
            print("end", flush=True)
        elif command == "sample":
            n, start = int(args[0]), time.process_time()
            for _ in range(n):
                peer.run()
            print((time.process_time() - start) / n, flush=True)


def prepare(workload, kind, h, dtype):
    formula = rtrl if workload == "jax-rtrl" else bptt(kind)
    return parameters(kind, h, dtype), lambda w, x, y, noise: formula(w, x, y)


if __name__ == "__main__":
    serve(prepare)
