"""One side of compare.py for a Llama: PyTorch, eager. Same workloads and commands as llama_ours.cpp; `parameters`
writes the weights as one flat file in the order of llama_ours."""
import math
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

SHAPES = {
    "stories15M": dict(d=288, mlp=768, layers=6, heads=6, tokens=256),
    "mid": dict(d=512, mlp=1376, layers=8, heads=8, tokens=512),
}
VOCABULARY, DECODED = 32000, 64


class Llama:
    """y = x W^T with W as torch.nn.Linear has it; rotary pairs are neighbours; the output matrix is the embedding."""

    def __init__(self, shape, sequences):
        s = SHAPES[shape]
        self.d, self.layers, self.heads, self.tokens = s["d"], s["layers"], s["heads"], s["tokens"]
        self.head = self.d // self.heads
        torch.manual_seed(0)
        gain = lambda: 1 + 0.1 * torch.randn(self.d)
        linear = lambda n_out, n_in: 0.05 * torch.randn(n_out, n_in)
        d, mlp = self.d, s["mlp"]
        weights = [linear(VOCABULARY, d)]
        for _ in range(self.layers):
            weights += [gain(), linear(d, d), linear(d, d), linear(d, d), linear(d, d), gain()]
            weights += [linear(mlp, d), linear(mlp, d), linear(d, mlp)]
        self.weights = [w.requires_grad_() for w in weights + [gain()]]
        n = sequences * self.tokens
        self.ids = (torch.arange(n) * 7919 % VOCABULARY).view(sequences, -1)
        self.targets = (torch.arange(1, n + 1) * 7919 % VOCABULARY).view(-1)
        angles = torch.outer(torch.arange(self.tokens), 10000.0 ** (-torch.arange(0, self.head, 2) / self.head))
        self.cos, self.sin = angles.cos()[:, None], angles.sin()[:, None]
        self.mask = torch.full((self.tokens, self.tokens), -math.inf).triu(1)

    def norm(self, x, gain):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * gain

    def rotate(self, x, first):
        a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        c, s = self.cos[first : first + x.shape[1]], self.sin[first : first + x.shape[1]]
        return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)

    def stack(self, ids, first=0, caches=None):
        b, t = ids.shape
        x = F.embedding(ids, self.weights[0])
        for i in range(self.layers):
            g1, wq, wk, wv, wo, g2, w_gate, w_up, w_down = self.weights[1 + 9 * i : 10 + 9 * i]
            a = self.norm(x, g1)
            q, k, v = (F.linear(a, w).view(b, t, self.heads, self.head) for w in (wq, wk, wv))
            q, k = self.rotate(q, first), self.rotate(k, first)
            if caches is not None:
                keys, values = caches[i]
                keys[:, first : first + t], values[:, first : first + t] = k, v
                k, v = keys[:, : first + t], values[:, : first + t]
            p = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / math.sqrt(self.head)
            if t > 1:
                p = p + self.mask[:t, :t]
            mixed = F.softmax(p, -1) @ v.transpose(1, 2)
            x = x + F.linear(mixed.transpose(1, 2).reshape(b, t, self.d), wo)
            h = self.norm(x, g2)
            x = x + F.linear(F.silu(F.linear(h, w_gate)) * F.linear(h, w_up), w_down)
        return x

    def logits(self, x):
        return F.linear(self.norm(x, self.weights[-1]), self.weights[0])

    @torch.no_grad()
    def forward(self):
        self.result = self.logits(self.stack(self.ids))[0, -16:]

    @torch.no_grad()
    def prefill(self):
        self.result = self.logits(self.stack(self.ids)[:, -1:])

    @torch.no_grad()
    def decode(self):
        room = lambda: torch.empty(1, DECODED, self.heads, self.head)
        caches = [(room(), room()) for _ in range(self.layers)]
        for i in range(DECODED):
            self.result = self.logits(self.stack(self.ids[:1, i : i + 1], i, caches))

    def gradient(self):
        for w in self.weights:
            w.grad = None
        logits = self.logits(self.stack(self.ids))
        F.cross_entropy(logits.view(-1, VOCABULARY), self.targets, reduction="sum").backward()


def main():
    workload, shape, _, sequences, _, kind, _ = sys.argv[1:]
    assert kind == "f32"
    two = workload.endswith("-2")
    torch.set_num_threads(2 if two else 1)
    peer = Llama(shape, int(sequences))
    run = getattr(peer, workload.split("-")[1])
    clock = time.perf_counter if two else time.process_time
    for line in sys.stdin:
        command, *args = line.split()
        if command == "parameters":
            np.concatenate([w.detach().numpy().ravel() for w in peer.weights]).tofile(args[0])
            print("end", flush=True)
        elif command == "gradient":
            run()
            results = [w.grad for w in peer.weights] if workload.startswith("llama-gradient") else [peer.result]
            np.concatenate([r.numpy().ravel() for r in results]).tofile(args[0])
            print("end", flush=True)
        elif command == "sample":
            n, start = int(args[0]), clock()
            for _ in range(n):
                run()
            print((clock() - start) / n, flush=True)


main()
