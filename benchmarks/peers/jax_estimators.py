"""One side of compare.py: estimators of gradients through time in JAX, compiled, each the formula of its paper as one jitted
function of a whole sequence at batch 1. What is random is read from the other side, so that both estimates must agree, and JAX
is spared the time of drawing it; the evolution strategies, which draw a normal number for every parameter, draw their own by
jax.random once both agree."""
from jax_theirs import cell, parameters, serve  # sets up JAX

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

EPSILON = 1e-7  # of the scales
SIGMA = 0.1
norm = jnp.linalg.norm


def balance(left, right):
    """Factor and divisor that give two sides of a product one norm; a product with a side of zero is dropped."""
    by = jnp.sqrt(right / (left + EPSILON)) + EPSILON
    zero = (left == 0) | (right == 0)
    return jnp.where(zero, 0, by), jnp.where(zero, 0, 1 / by)


# --- forward in time, a tanh network: s' = (1 - alpha) s + alpha tanh(W a), a = [s; x; 1] ---------------------
def forward(move, start, draws=0, alpha=1):
    """g += what move() says of the past + dl/dtheta. move(W_h, M, a, d, p, z): the next M, and p M, with M the influence,
    d = ds'/dz, p = dl/ds of the state before, z the `draws` numbers of the step. start(n): M of the first step."""

    def run(w, x, y, noise):
        full = jnp.concatenate([w["w_h"], w["w_x"], w["b"][:, None]], axis=1)
        n, steps = x.shape[-1], len(x)

        def step(carry, now):
            s, m, g = carry
            x, y, z = now
            a = jnp.concatenate([s, x[0], jnp.ones(1, s.dtype)])
            f = jnp.tanh(full @ a)
            d = 1 - f * f if alpha == 1 else alpha * (1 - f * f)
            s = f if alpha == 1 else (1 - alpha) * s + alpha * f
            q = s - y[0]
            p = (q * d) @ w["w_h"] + (0 if alpha == 1 else (1 - alpha) * q)
            m, owed = move(w["w_h"], m, a, d, p, z)
            return (s, m, g + owed + jnp.outer(q * d, a)), None

        zero = lambda shape: jnp.zeros(shape, y.dtype)
        m = jax.tree.map(zero, start(n), is_leaf=lambda v: isinstance(v, tuple) and isinstance(v[0], int))
        z = noise[: steps * draws(n)].reshape(steps, -1) if draws else zero((steps, 0))
        (_, _, g), _ = jax.lax.scan(step, (zero((n,)), m, zero(full.shape)), (x, y, z))
        return {"w_h": g[:, :n], "w_x": g[:, n : 2 * n], "b": g[:, 2 * n]}

    return run


def uoro(w_h, m, a, d, p, nu):
    s, theta = m
    js, f = d * (w_h @ s), jnp.outer(nu * d, a)
    (r0, i0), (r1, i1) = balance(norm(js), norm(theta)), balance(len(s) ** 0.5, norm(f))
    return (r0 * js + r1 * nu, i0 * theta + i1 * f), (p @ s) * theta


def preuoro(w_h, m, a, d, p, nu):
    s, theta = m
    js = d * (w_h @ s)
    (r0, i0), (r1, i1) = balance(norm(js), norm(theta)), balance(norm(d * nu), len(s) ** 0.5 * norm(a))
    return (r0 * js + r1 * d * nu, i0 * theta + i1 * jnp.outer(nu, a)), (p @ s) * theta


def nobacktrack(w_h, m, a, d, p, nu):
    s, theta = m
    js = d * (w_h @ s)
    (r0, i0), (r, i) = balance(norm(js), norm(theta)), balance(1, jnp.abs(d) * norm(a))
    return (r0 * js + r * nu, i0 * theta + jnp.outer(i * nu * d, a)), (p @ s) * theta


def kf_rtrl(w_h, m, a, d, p, c):
    b, u = m
    jb = d[:, None] * (w_h @ b)
    (p1, i1), (p2, i2) = balance(norm(u), norm(jb)), balance(norm(a), norm(d))
    return (i1 * jb + jnp.diag(c * i2 * d), p1 * u + c * p2 * a), jnp.outer(p @ b, u)


def random_path(w_h, m, a, d, p, kept):
    n = len(d)
    j = d[:, None] * w_h * kept.reshape(n, n).T / 0.5
    f = jnp.zeros((n, n, len(a)), a.dtype).at[jnp.arange(n), jnp.arange(n)].set(jnp.outer(d, a))
    return jnp.tensordot(j, m, 1) + f, jnp.tensordot(p, m, 1)


def snap_1(w_h, m, a, d, p, _):
    return (d * jnp.diag(w_h))[:, None] * m + jnp.outer(d, a), p[:, None] * m


def eprop(w_h, m, a, d, p, _):
    m, filtered = m
    m_next = (d * jnp.diag(w_h))[:, None] * m + jnp.outer(d, a)
    return (m_next, 0.5 * filtered + m_next), p[:, None] * filtered


def rflo(w_h, m, a, d, p, _):
    return 0.5 * m + jnp.outer(d, a), p[:, None] * m


# --- any cell: derivatives by JAX ----------------------------------------------------------------------------
def any_uoro(kind):
    """uoro with the derivatives of any cell."""

    def run(w, x, y, noise):
        start = jnp.zeros_like(y[0])
        start = (start, start) if kind == "lstm" else start
        flat, unflatten = ravel_pytree(start)
        theta, named = ravel_pytree(w)
        n = len(flat)

        def step(carry, now):
            h, s, t, g = carry
            x, y, nu = now
            f = lambda v, h: ravel_pytree(
                cell(kind, named(v), unflatten(h), x @ named(v)["w_x"].T + named(v)["b"])
            )[0]
            new, back = jax.vjp(f, theta, h)
            _, js = jax.jvp(lambda h: f(theta, h), (h,), (s,))
            q = new.at[: y.size].add(-y[0]).at[y.size :].set(0)
            (direct, p), (b, _) = back(q), back(nu)
            g += (p @ s) * t + direct
            (r0, i0), (r1, i1) = balance(norm(js), norm(t)), balance(n**0.5, norm(b))
            return (new, r0 * js + r1 * nu, i0 * t + i1 * b, g), None

        zero = jnp.zeros_like(theta)
        z = noise[: len(x) * n].reshape(len(x), n)
        return named(jax.lax.scan(step, (flat, jnp.zeros_like(flat), zero, zero), (x, y, z))[0][3])

    return run


# --- the linear recurrent unit: one complex trace of every weight of B -----------------------------------------
def diagonal_rtrl(w, x, y, _):
    n = x.shape[-1]
    b = jax.lax.complex(jnp.c_[w["w_x"], w["b"]][:n], jnp.c_[w["w_x"], w["b"]][n:])
    e_nu, e_phi = jnp.exp(w["nu"]), jnp.exp(w["phi"])
    decay = jnp.exp(jax.lax.complex(-e_nu, e_phi))
    r2 = jnp.exp(-2 * e_nu)
    gamma = jnp.sqrt(-jnp.expm1(-2 * e_nu))

    def step(carry, now):
        h, traces, nu, phi, g = carry
        x, y = now
        a = jnp.append(x[0], 1)
        z = b @ a
        nu = decay * nu - e_nu * decay * h + e_nu * r2 / gamma * z
        phi = decay * phi + 1j * e_phi * decay * h
        traces = decay[:, None] * traces + gamma[:, None] * a
        h = decay * h + gamma * z
        q = h.real - y[0]
        owed = q[:, None] * traces.real, -q[:, None] * traces.imag, q * nu.real, q * phi.real
        return (h, traces, nu, phi, jax.tree.map(jnp.add, g, owed)), None

    zero, none = jnp.zeros(n, b.dtype), jnp.zeros(n, y.dtype)
    g = (jnp.zeros(b.shape, y.dtype), jnp.zeros(b.shape, y.dtype), none, none)
    (*_, (re, im, nu, phi)), _ = jax.lax.scan(step, (zero, jnp.zeros_like(b), zero, zero, g), (x, y))
    return {"w_x": jnp.r_[re, im][:, :-1], "b": jnp.r_[re, im][:, -1], "nu": nu, "phi": phi}


# --- reverse mode with cuts, a tanh network ------------------------------------------------------------------
def losses(w, h, x, y, carry=None):
    """The last state and the sum of 1/2 ||h - y||^2; carry: weights of a gradient across each step, else 1."""

    def step(h, now):
        z, y, c = now
        if carry is not None:
            h = c * h + jax.lax.stop_gradient((1 - c) * h)
        h = cell("elman", w, h, z)
        return h, 0.5 * jnp.sum((h - y) ** 2)

    h, l = jax.lax.scan(step, h, (x @ w["w_x"].T + w["b"], y, jnp.ones(len(x)) if carry is None else carry))
    return h, jnp.sum(l)


def chunked(w, x, y, _, window=10):
    def step(carry, now):
        h, g = carry
        own, h = jax.grad(lambda w: losses(w, h, *now)[::-1], has_aux=True)(w)
        return (h, jax.tree.map(jnp.add, g, own)), None

    cut = lambda v: v.reshape(-1, window, *v.shape[1:])
    return jax.lax.scan(step, (jnp.zeros_like(y[0]), jax.tree.map(jnp.zeros_like, w)), (cut(x), cut(y)))[0][1]


def sliding(w, x, y, _, window=10):
    """Every loss through the last steps; in front of the first one nothing moves."""
    n = x.shape[-1]
    z = jnp.concatenate([jnp.zeros((window - 1, 1, n), x.dtype), x])
    live = jnp.arange(1 - window, len(x)) >= 0

    def newest(w, h, x, live):
        move = lambda h, now: (jnp.where(now[1], cell("elman", w, h, now[0]), h), None)
        return jax.lax.scan(move, h, (x @ w["w_x"].T + w["b"], live))[0]

    def step(carry, now):
        h, g = carry  # h: in front of the window
        t, y = now
        part, on = (jax.lax.dynamic_slice_in_dim(v, t, window) for v in (z, live))
        own = jax.grad(lambda w: 0.5 * jnp.sum((newest(w, h, part, on) - y) ** 2))(w)
        return (newest(w, h, part[:1], on[:1]), jax.tree.map(jnp.add, g, own)), None

    start = jnp.zeros_like(y[0]), jax.tree.map(jnp.zeros_like, w)
    return jax.lax.scan(step, start, (jnp.arange(len(x)), y))[0][1]


def artbp(w, x, y, coins):
    """Cut after step k of a run with probability 3 / (20 + k), else 1 / (1 - that): the polynomial law of mean 10."""

    def law(k, cut):
        return jnp.where(cut == 1, 1, k + 1), jnp.where(cut == 1, 0, 1 / (1 - 3 / (20 + k)))

    carry = jax.lax.scan(law, jnp.ones((), y.dtype), coins[: len(x) - 1])[1]
    carry = jnp.concatenate([jnp.ones(1, y.dtype), carry])
    return jax.grad(lambda w: losses(w, jnp.zeros_like(y[0]), x, y, carry)[1])(w)


# --- directions in the space of parameters -------------------------------------------------------------------
def in_columns(w, v):
    """A flat vector as the parameters, in the order of the other side: matrices column by column."""
    n = len(w["b"])
    return {"w_h": v[: n * n].reshape(n, n).T, "w_x": v[n * n : 2 * n * n].reshape(n, n).T, "b": v[2 * n * n :]}


def total(w, x, y):
    return losses(w, jnp.zeros_like(y[0]), x, y)[1]


def forward_gradient(w, x, y, noise):
    """A row of the orthonormal cosine basis with random signs."""
    count = sum(v.size for v in w.values())
    signs, row = noise[:count], noise[count].astype(int)
    angle = jnp.pi / (2 * count) * ((2 * jnp.arange(count) + 1) * row % (4 * count)).astype(y.dtype)
    v = in_columns(w, signs * jnp.where(row == 0, 1, 2**0.5) / count**0.5 * jnp.cos(angle))
    change = jax.jvp(lambda w: total(w, x, y), (w,), (v,))[1]
    return jax.tree.map(lambda v: count * change * v, v)


def moved(w, z, sign):
    return jax.tree.map(lambda w, z: w + sign * SIGMA * z, w, z)


def perturbation(w, noise):
    """One normal number for every parameter: those of the other side, or drawn from a key."""
    if not jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
        return in_columns(w, noise)
    return {n: jax.random.normal(k, w[n].shape, w[n].dtype) for n, k in zip(w, jax.random.split(noise, len(w)))}


def es(w, x, y, noise):
    z = perturbation(w, noise)
    change = (total(moved(w, z, 1), x, y) - total(moved(w, z, -1), x, y)) / (2 * SIGMA)
    return jax.tree.map(lambda z: change * z, z)


def pes(w, x, y, noise, window=10):
    def step(carry, now):
        up, down, xi, g = carry
        x, y, z = now
        z = perturbation(w, z)
        xi = jax.tree.map(jnp.add, xi, z)
        up, above = losses(moved(w, z, 1), up, x, y)
        down, below = losses(moved(w, z, -1), down, x, y)
        g = jax.tree.map(lambda g, xi: g + (above - below) / (2 * SIGMA) * xi, g, xi)
        return (up, down, xi, g), None

    cut = lambda v: v.reshape(-1, window, *v.shape[1:])
    zero, none, windows = jnp.zeros_like(y[0]), jax.tree.map(jnp.zeros_like, w), len(x) // window
    draws = noise.reshape(windows, -1) if noise.ndim else jax.random.split(noise, windows)
    return jax.lax.scan(step, (zero, zero, none, none), (cut(x), cut(y), draws))[0][3]


def prepare(workload, kind, h, dtype):
    wide = lambda n: (n, 2 * n + 1)
    pair = lambda n: ((n,), wide(n))
    each = lambda n: n
    formulas = {
        "jax-uoro": any_uoro(kind) if kind != "elman" else forward(uoro, pair, each),
        "jax-preuoro": forward(preuoro, pair, each),
        "jax-nobacktrack": forward(nobacktrack, pair, each),
        "jax-kf-rtrl": forward(kf_rtrl, lambda n: ((n, n), (2 * n + 1,)), lambda n: 1),
        "jax-random-path": None,
        "jax-snap-1": forward(snap_1, wide),
        "jax-eprop": forward(eprop, lambda n: (wide(n), wide(n))),
        "jax-rflo": forward(rflo, wide, alpha=0.5),
        "jax-diagonal-rtrl": diagonal_rtrl,
        "jax-chunked-10": chunked,
        "jax-sliding-10": sliding,
        "jax-artbp-10": artbp,
        "jax-forward-gradient": forward_gradient,
        "jax-es": es,
        "jax-es-given": es,
        "jax-pes-10": pes,
        "jax-pes-10-given": pes,
    }
    formula = formulas[workload]
    if workload == "jax-random-path":  # the first step draws nothing
        run = forward(random_path, lambda n: (n, n, 2 * n + 1), lambda n: n * n)
        formula = lambda w, x, y, noise: run(w, x, y, jnp.concatenate([jnp.ones(h * h, noise.dtype), noise]))
    w = parameters(kind, h, dtype)
    if kind == "lru":
        rng = np.random.default_rng(0)
        w = {"w_x": rng.uniform(-1, 1, (2 * h, h)) / h**0.5, "b": rng.uniform(-1, 1, 2 * h) / h**0.5,
             "nu": np.log(-0.5 * np.log(rng.uniform(0.3, 0.99, h))), "phi": np.log(rng.uniform(0.01, 6.28, h))}
        w = {k: jnp.asarray(v, dtype) for k, v in w.items()}
    return w, formula


if __name__ == "__main__":
    serve(prepare)
