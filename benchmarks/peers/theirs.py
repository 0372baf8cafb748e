"""One side of compare.py: PyTorch. Same workloads, same commands as ours.cpp, plus the parameters in its own names."""
import sys
import time

import numpy as np
import torch


def read(path, n, dtype):
    return np.fromfile(path, dtype=dtype, count=n)


class Recurrent:
    """torch.nn.RNN, GRU or LSTM under the loss 1/2 ||h - y||^2; full, forward only, or cut every `window` steps."""

    def __init__(self, workload, cell, hidden, lanes, steps, dtype, folder):
        n = steps * lanes * hidden
        cell, _, layers = cell.partition("-")  # lstm-2: two layers
        self.layers = int(layers or 1)
        kind = {"elman": "RNN", "gru": "GRU", "lstm": "LSTM"}[cell]
        torch.manual_seed(0)
        self.module = getattr(torch.nn, kind)(hidden, hidden, self.layers).to(torch.float64 if dtype is np.float64 else torch.float32)
        self.x = torch.from_numpy(read(f"{folder}/x.bin", n, dtype)).view(steps, lanes, hidden)
        self.y = torch.from_numpy(read(f"{folder}/y.bin", n, dtype)).view(steps, lanes, hidden)
        self.window = int(workload[6:]) if workload.startswith("tbptt-") else steps
        self.forward_only = workload == "forward"
        self.cell, self.steps = cell, steps

    def run(self):
        if self.forward_only:
            with torch.no_grad():
                return self.module(self.x)
        for p in self.module.parameters():
            p.grad = None
        state = None
        for t in range(0, self.steps, self.window):
            out, state = self.module(self.x[t : t + self.window], state)
            out.backward(out.detach() - self.y[t : t + self.window])
            state = tuple(s.detach() for s in state) if self.cell == "lstm" else state.detach()

    def _named(self, w_h, w_x, b_h, b_x):
        named = {"w_h": w_h, "w_x": w_x}
        if self.cell == "gru":  # the candidate's recurrent bias stays inside the reset gate
            h = w_h.shape[1]
            named["b"] = np.concatenate([b_x[: 2 * h] + b_h[: 2 * h], b_x[2 * h :]])
            named["b_hn"] = b_h[2 * h :]
        else:
            named["b"] = b_x + b_h
        return named

    def _layers(self, name):
        p = [q.detach().numpy() if name is None else q.grad.numpy() for q in self.module.parameters()]
        for k in range(self.layers):  # w_ih, w_hh, b_ih, b_hh
            prefix = f"l{k}." if self.layers > 1 else ""
            w_x, w_h, b_x, b_h = p[4 * k : 4 * k + 4]
            named = self._named(w_h, w_x, b_h, b_x)
            if name == "gradient":
                named["b"] = b_x  # both biases receive the same gradient
            yield from ((prefix + n, v) for n, v in named.items())

    def parameters(self):
        return dict(self._layers(None))

    def gradient(self):
        return dict(self._layers("gradient"))


class Online:
    """UORO and RTRL of a tanh network, the formulas written in torch operations (`uoro`, `rtrl`) or for any cell through
    autograd (`autograd-uoro`, `autograd-rtrl`). Loss 1/2 ||h - y||^2, batch 1."""

    def __init__(self, workload, cell, hidden, lanes, steps, dtype, folder):
        assert cell == "elman" and lanes == 1, "the online workloads are those of a tanh network at batch 1"
        self.dtype = torch.float64 if dtype is np.float64 else torch.float32
        self.h, self.steps, self.workload = hidden, steps, workload
        self.x = torch.from_numpy(read(f"{folder}/x.bin", steps * hidden, dtype)).view(steps, hidden)
        self.y = torch.from_numpy(read(f"{folder}/y.bin", steps * hidden, dtype)).view(steps, hidden)
        torch.manual_seed(0)
        self.w = torch.randn(hidden, 2 * hidden + 1, dtype=self.dtype) / (2 * hidden) ** 0.5  # columns x, h, 1
        self.grad = torch.zeros_like(self.w)

    def _named(self, w):
        h = self.h
        return {"w_x": w[:, :h].numpy(), "w_h": w[:, h : 2 * h].numpy(), "b": w[:, 2 * h].numpy()}

    def parameters(self):
        return self._named(self.w)

    def gradient(self):
        return self._named(self.grad.view_as(self.w))

    def _input(self, t, h):
        return torch.cat([self.x[t], h, torch.ones(1, dtype=self.dtype)])

    def _cell(self, w, t, h):
        return torch.tanh(w.view(self.h, -1) @ self._input(t, h))

    def run(self):
        if self.workload.startswith("autograd"):
            getattr(self, self.workload.replace("-", "_"))()
        else:
            with torch.no_grad():
                getattr(self, self.workload)()

    def rtrl(self):
        n, c = self.w.shape
        h, m = torch.zeros(n, dtype=self.dtype), torch.zeros(n, n * c, dtype=self.dtype)
        grad = torch.zeros(n * c, dtype=self.dtype)
        w_h, rows = self.w[:, n : 2 * n], torch.arange(n)
        for t in range(self.steps):
            z = self._input(t, h)
            h = torch.tanh(self.w @ z)
            m = w_h @ m
            m.view(n, n, c)[rows, rows] += z
            m *= (1 - h * h)[:, None]
            grad += (h - self.y[t]) @ m
        self.grad = grad

    def autograd_rtrl(self):
        n, c = self.w.shape
        h, m = torch.zeros(n, dtype=self.dtype), torch.zeros(n, n * c, dtype=self.dtype)
        grad = torch.zeros(n * c, dtype=self.dtype)
        w = self.w.reshape(-1).clone().requires_grad_()
        for t in range(self.steps):
            before = h.detach().requires_grad_()
            after = self._cell(w, t, before)
            rows_h, rows_w = [], []
            for i in range(n):
                gw, gh = torch.autograd.grad(after[i], (w, before), retain_graph=True)
                rows_h.append(gh)
                rows_w.append(gw)
            m = torch.stack(rows_h) @ m + torch.stack(rows_w)
            h = after.detach()
            grad += (h - self.y[t]) @ m
        self.grad = grad

    def _mix(self, j, b, nu, s, theta):
        norm = lambda v: v.norm() + 1e-7
        r0, r1 = (norm(theta) / norm(j)).sqrt(), (norm(b) / norm(nu)).sqrt()
        return r0 * j + r1 * nu, theta / r0 + b / r1

    def _signs(self):
        return torch.randint(0, 2, (self.h,)).to(self.dtype) * 2 - 1

    def uoro(self):
        n, c = self.w.shape
        h, s = torch.zeros(n, dtype=self.dtype), torch.zeros(n, dtype=self.dtype)
        theta, grad = torch.zeros(n, c, dtype=self.dtype), torch.zeros(n, c, dtype=self.dtype)
        w_h = self.w[:, n : 2 * n]
        for t in range(self.steps):
            z = self._input(t, h)
            h = torch.tanh(self.w @ z)
            d, nu = 1 - h * h, self._signs()
            s, theta = self._mix(d * (w_h @ s), torch.outer(nu * d, z), nu, s, theta)
            grad += ((h - self.y[t]) @ s) * theta
        self.grad = grad

    def autograd_uoro(self):
        n, c = self.w.shape
        h, s = torch.zeros(n, dtype=self.dtype), torch.zeros(n, dtype=self.dtype)
        theta, grad = torch.zeros(n * c, dtype=self.dtype), torch.zeros(n * c, dtype=self.dtype)
        w = self.w.reshape(-1).clone().requires_grad_()
        for t in range(self.steps):
            before = h.detach().requires_grad_()
            after = self._cell(w, t, before)
            nu, v = self._signs(), torch.zeros(n, dtype=self.dtype, requires_grad=True)
            (gh,) = torch.autograd.grad(after, before, v, create_graph=True)
            (j,) = torch.autograd.grad(gh, v, s, retain_graph=True)
            (b,) = torch.autograd.grad(after, w, nu)
            h = after.detach()
            s, theta = self._mix(j, b, nu, s, theta)
            grad += ((h - self.y[t]) @ s) * theta
        self.grad = grad


def main():
    workload, cell, hidden, lanes, steps, kind, folder = sys.argv[1:]
    torch.set_num_threads(1)
    dtype = np.float64 if kind == "f64" else np.float32
    online = workload.split("-")[-1] in ("uoro", "rtrl")
    peer = (Online if online else Recurrent)(workload, cell, int(hidden), int(lanes), int(steps), dtype, folder)
    for line in sys.stdin:
        command, *args = line.split()
        if command == "parameters":
            np.savez(args[0], **peer.parameters())
            print("end", flush=True)
        elif command == "gradient":
            peer.run()
            np.savez(args[0], **peer.gradient())
            print("end", flush=True)
        elif command == "sample":
            n, start = int(args[0]), time.process_time()
            for _ in range(n):
                peer.run()
            print((time.process_time() - start) / n, flush=True)


main()
