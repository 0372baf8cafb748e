"""PyTorch's scaled_dot_product_attention on the shapes of tests/cuda/attention.cu, and its product of 8192 x 8192.
Rows go to the standard output and, as JSON, to the file that UNROLL_ROWS names."""
import json
import os
import sys

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right
except ImportError as missing:
    print(f"skipped: torch: {missing}")
    sys.exit(77)
if not torch.cuda.is_available():
    print("skipped: torch: there is no CUDA device")
    sys.exit(77)


def row(name, ms=None, rate=None, note=""):
    print(f"torch: {name:54s}" + (f"  {ms:.3f} ms  {rate:.1f} TFLOP/s" if ms else "") + (f"  [{note}]" if note else ""), flush=True)
    if "UNROLL_ROWS" in os.environ:
        line = {"program": "torch", "name": name}
        if ms:
            line |= {"ms": round(ms, 5), "rate": round(rate, 2), "unit": "TFLOP/s"}
        if note:
            line["note"] = note
        line["pass"] = True
        with open(os.environ["UNROLL_ROWS"], "a") as rows:
            rows.write(json.dumps(line) + "\n")


def median_ms(f, repeats=20):
    for _ in range(3):
        f()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        f()
        end.record()
    torch.cuda.synchronize()
    return sorted(b.elapsed_time(e) for b, e in events)[repeats // 2]


def attention(name, head, queries, keys, mask, backend):
    heads, batch = 32, 1
    q, k, v = (torch.randn(batch, heads, n, head, device="cuda", dtype=torch.bfloat16, requires_grad=True) for n in (queries, keys, keys))
    pairs = queries * keys if mask is None else queries * (keys - queries) + queries * (queries + 1) / 2
    flop = 4 * head * pairs * heads

    def forward():
        if mask == "causal":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if mask == "lower right":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=causal_lower_right(queries, keys))
        return F.scaled_dot_product_attention(q, k, v)

    name = f"{name}, {backend.name if backend else 'chosen by PyTorch'}"
    try:
        with sdpa_kernel([backend]) if backend else torch.no_grad():
            with torch.no_grad():
                ms = median_ms(forward)
            row(name + ", forward", ms, flop / ms * 1e-9)
            with torch.enable_grad():
                out = forward()
            d = torch.randn_like(out)
            ms = median_ms(lambda: torch.autograd.grad(out, (q, k, v), d, retain_graph=True))
            row(name + ", backward", ms, 2.5 * flop / ms * 1e-9)
    except Exception as refused:  # a backend that does not take the shape
        row(name, note=f"not run: {str(refused).splitlines()[0][:120]}")


row("version", note=f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
ms = median_ms(lambda: a @ b.T)
row("product of 8192 x 8192 bf16, random", ms, 2 * 8192**3 / ms * 1e-9)
for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
    attention("32 heads of 128, 4096 causal", 128, 4096, 4096, "causal", backend)
    attention("32 heads of 128, 1024 x 4128, no mask", 128, 1024, 4128, None, backend)
    attention("32 heads of 64, 4096 causal", 64, 4096, 4096, "causal", backend)
attention("32 heads of 128, 1024 behind 3104 memories", 128, 1024, 4128, "lower right", None)
