"""One side of compare.py for the exact gradient of a Llama with memories: PyTorch, eager. Commands as in memory_ours.cpp;
`parameters` writes frozen weights and trainable parameters as one flat file in its order.

The schedule is that of rematerialise: the encoder writes all memories without a graph, every segment is read behind the
memories in front of it and leaves its adjoints with them, and then, the last one first, each segment is encoded once
more, with a graph, and its adjoint sent back. Only one graph is alive. In `memory-gradient` memories and adjoints lie side
by side, so that a read has one leaf a layer, and the encoder's last layer computes the memory tokens alone, as in the
library. `memory-gradient-plain` is what one writes first: every memory is a leaf, a read joins them with `cat`, and the
encoder's last layer computes all tokens."""
import math
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

VOCABULARY, RATIO, RANK, SCALE = 256, 8, 8, 2.0


class MemoryLlama:
    """y = x W^T with W as torch.nn.Linear has it; rotary pairs are half a head apart."""

    def __init__(self, layers, hidden, segments, tokens, plain):
        self.plain = plain
        self.layers, self.d, self.segments, self.length = layers, hidden, segments, tokens // segments
        self.heads = 4 if hidden < 128 else 8
        self.head, self.memories, mlp = hidden // self.heads, self.length // RATIO, hidden * 8 // 3 // 4 * 4
        torch.manual_seed(0)
        gain = lambda: 1 + 0.1 * torch.randn(hidden)
        linear = lambda n_out, n_in: torch.randn(n_out, n_in) / math.sqrt(n_in)
        self.embedding = linear(VOCABULARY, hidden)
        self.frozen = []
        for _ in range(layers):
            square = [linear(hidden, hidden) for _ in range(4)]
            self.frozen.append([gain(), *square, gain(), linear(mlp, hidden), linear(mlp, hidden), linear(hidden, mlp)])
        self.gain = gain()
        self.weights = [self.embedding, *(w for layer in self.frozen for w in layer), self.gain]
        adapters = lambda: [(linear(RANK, hidden), 0.1 * linear(hidden, RANK)) for _ in range(2)]
        self.encoder = [adapters() for _ in range(layers - 1)]  # on q and v
        self.transfer = [adapters() for _ in range(layers)]  # on k and v
        self.token = 0.1 * torch.randn(hidden)
        flat = lambda sets: [w for layer in sets for pair in layer for w in pair]
        self.trained = [*flat(self.encoder), self.token, *flat(self.transfer)]
        for w in self.trained:
            w.requires_grad_()

        i = torch.arange(tokens + 1)
        ids = 31 * (i * i + 7 * i) % VOCABULARY
        self.ids, self.targets = ids[:-1].view(segments, -1), ids[1:].view(segments, -1)
        angles = torch.outer(torch.arange(tokens + 1), 10000.0 ** (-torch.arange(0, self.head, 2) / self.head))
        angles = torch.cat([angles, angles], -1)
        self.cos, self.sin = angles.cos(), angles.sin()
        # memory token j sees the tokens in front of (j + 1) RATIO, where it stands, and itself
        n, m = self.length, self.memories
        stands = torch.cat([torch.arange(n), (1 + torch.arange(m)) * RATIO])
        seen = torch.arange(n) < stands[:, None] + (torch.arange(n + m) < n)[:, None]
        seen = torch.cat([seen, torch.cat([torch.zeros(n, m, dtype=torch.bool), torch.eye(m, dtype=torch.bool)])], 1)
        self.encoder_turn = self.cos[stands], self.sin[stands]
        self.encoder_mask = torch.zeros(n + m, n + m).masked_fill(~seen, -math.inf)
        causal = torch.full((n, n), -math.inf).triu(1)
        self.decoder_mask = torch.cat([torch.zeros(n, (segments - 1) * m), causal], 1)
        room = lambda: torch.zeros(layers, 2, self.heads, (segments - 1) * m, self.head)
        self.memory, self.adjoint = room(), room()

    def norm(self, x, gain):
        return F.rms_norm(x, (self.d,), gain, 1e-5)

    def split(self, x):
        return x.view(-1, self.heads, self.head).transpose(0, 1)

    def rotate(self, x, turn):
        half = self.head // 2
        return x * turn[0] + torch.cat([-x[..., half:], x[..., :half]], -1) * turn[1]

    def adapted(self, x, weight, adapter):
        return torch.addmm(F.linear(x, weight), F.linear(x, adapter[0]), adapter[1].T, alpha=SCALE)

    def rest(self, x, q, k, v, mask, layer):
        """What follows the queries, keys and values of a layer."""
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask)[0]
        x = x + F.linear(mixed.transpose(0, 1).reshape(-1, self.d), layer[4])
        h = self.norm(x, layer[5])
        return x + F.linear(F.silu(F.linear(h, layer[6])) * F.linear(h, layer[7]), layer[8])

    def between(self, s):
        return slice(s * self.memories, (s + 1) * self.memories)

    def write(self, s):
        """The keys and values of all layers: layers x 2 x heads x memories x head."""
        x = torch.cat([F.embedding(self.ids[s], self.embedding), self.token.expand(self.memories, -1)])
        turn = self.cos[self.between(s)], self.sin[self.between(s)]
        written = []
        for i, layer in enumerate(self.frozen):
            a = self.norm(x, layer[0])
            to_k, to_v = self.transfer[i]
            seen = a[-self.memories :]
            k, v = self.adapted(seen, layer[2], to_k), self.adapted(seen, layer[3], to_v)
            written += [self.rotate(self.split(k), turn), self.split(v)]
            if i == self.layers - 1:
                return torch.stack(written).view(self.layers, 2, self.heads, self.memories, self.head)
            # nobody reads other outputs of the last layer that runs
            first = self.length if i == self.layers - 2 and not self.plain else 0
            q = self.split(self.adapted(a[first:], layer[1], self.encoder[i][0]))
            k, v = self.split(F.linear(a, layer[2])), self.split(self.adapted(a, layer[3], self.encoder[i][1]))
            q = self.rotate(q, (self.encoder_turn[0][first:], self.encoder_turn[1][first:]))
            x = self.rest(x[first:], q, self.rotate(k, self.encoder_turn), v, self.encoder_mask[first:], layer)

    def read(self, t, memory):
        """The loss of segment t behind `memory`, one tensor a layer."""
        first = t * self.memories
        turn = self.cos[first : first + self.length], self.sin[first : first + self.length]
        mask = self.decoder_mask[:, (self.segments - 1) * self.memories - first :]
        x = F.embedding(self.ids[t], self.embedding)
        for layer, m in zip(self.frozen, memory):
            a = self.norm(x, layer[0])
            q, k, v = (self.split(F.linear(a, w)) for w in layer[1:4])
            k = torch.cat([m[0], self.rotate(k, turn)], 1)
            x = self.rest(x, self.rotate(q, turn), k, torch.cat([m[1], v], 1), mask, layer)
        return F.cross_entropy(F.linear(self.norm(x, self.gain), self.embedding), self.targets[t], reduction="sum")

    def gradient_plain(self):
        for w in self.trained:
            w.grad = None
        with torch.no_grad():
            memories = [self.write(s) for s in range(self.segments - 1)]
            loss = float(self.read(0, self.memory[..., :0, :]))
        for m in memories:
            m.requires_grad_()
        for t in range(1, self.segments):
            joined = [torch.cat([m[i] for m in memories[:t]], 2) for i in range(self.layers)]
            of_segment = self.read(t, joined)
            of_segment.backward()
            loss += float(of_segment.detach())
        for s in reversed(range(self.segments - 1)):
            self.write(s).backward(memories[s].grad)
        self.loss = loss

    def gradient(self):
        if self.plain:
            return self.gradient_plain()
        for w in self.trained:
            w.grad = None
        with torch.no_grad():
            for s in range(self.segments - 1):
                self.memory[..., self.between(s), :] = self.write(s)
            self.adjoint.zero_()
            loss = float(self.read(0, self.memory[..., :0, :]))
        for t in range(1, self.segments):
            seen = slice(0, t * self.memories)
            leaves = [m[..., seen, :].detach().requires_grad_() for m in self.memory]
            of_segment = self.read(t, leaves)
            of_segment.backward()
            loss += float(of_segment.detach())
            for a, m in zip(self.adjoint, leaves):
                a[..., seen, :] += m.grad
        for s in reversed(range(self.segments - 1)):
            self.write(s).backward(self.adjoint[..., self.between(s), :])
        self.loss = loss


def main():
    workload, shape, hidden, segments, tokens, kind, _ = sys.argv[1:]
    assert kind == "f32"
    torch.set_num_threads(1)
    layers = int(shape.split("-")[0])
    peer = MemoryLlama(layers, int(hidden), int(segments), int(tokens), workload.endswith("-plain"))
    for line in sys.stdin:
        command, *args = line.split()
        if command == "parameters":
            np.concatenate([w.detach().numpy().ravel() for w in peer.weights + peer.trained]).tofile(args[0])
            print("end", flush=True)
        elif command == "gradient":
            peer.gradient()
            result = [np.float32([peer.loss])] + [w.grad.numpy().ravel() for w in peer.trained]
            np.concatenate(result).tofile(args[0])
            print("end", flush=True)
        elif command == "sample":
            n, start = int(args[0]), time.process_time()
            for _ in range(n):
                peer.gradient()
            print((time.process_time() - start) / n, flush=True)


main()
