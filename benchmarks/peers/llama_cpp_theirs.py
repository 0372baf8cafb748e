"""One side of compare.py for a Llama: llama.cpp by llama-cpp-python. Commands as in llama_theirs.py; the last part of the
workload is the type of its weights: f32, f16 or bf16. Keys and values are f16, everything else as llama.cpp chooses.
Matrices are random bfloat16, so that all types hold the same numbers."""
import ctypes
import os
import sys
import time

import gguf
import llama_cpp
import numpy as np

SHAPES = {
    "stories15M": dict(d=288, mlp=768, layers=6, heads=6, tokens=256),
    "mid": dict(d=512, mlp=1376, layers=8, heads=8, tokens=512),
}
VOCABULARY, DECODED = 32000, 64
KINDS = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
}
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32}


def as_bf16(x):
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class Llama:
    def __init__(self, shape, kind, folder):
        s = SHAPES[shape]
        d, mlp, self.tokens = s["d"], s["mlp"], s["tokens"]
        rng = np.random.default_rng(0)
        normal = lambda *size: (as_bf16(0.05 * rng.standard_normal(size)).astype(np.uint32) << 16).view(np.float32)
        gain = lambda: (as_bf16(1 + 0.1 * rng.standard_normal(d)).astype(np.uint32) << 16).view(np.float32)
        self.tensors = [("token_embd", normal(VOCABULARY, d))]
        for i in range(s["layers"]):
            self.tensors += [(f"blk.{i}.attn_norm", gain())]
            self.tensors += [(f"blk.{i}.attn_{m}", normal(d, d)) for m in ("q", "k", "v", "output")]
            self.tensors += [(f"blk.{i}.ffn_norm", gain())]
            self.tensors += [(f"blk.{i}.ffn_{m}", normal(mlp, d)) for m in ("gate", "up")]
            self.tensors += [(f"blk.{i}.ffn_down", normal(d, mlp))]
        self.tensors += [("output_norm", gain())]
        path = os.path.join(folder, f"{kind}.gguf")
        self.write(path, s, kind)
        self.ids = [i * 7919 % VOCABULARY for i in range(self.tokens)]
        self.open(path)

    def write(self, path, s, kind):
        w = gguf.GGUFWriter(path, "llama")
        w.add_context_length(s["tokens"])
        w.add_embedding_length(s["d"])
        w.add_block_count(s["layers"])
        w.add_feed_forward_length(s["mlp"])
        w.add_head_count(s["heads"])
        w.add_head_count_kv(s["heads"])
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_dimension_count(s["d"] // s["heads"])
        w.add_vocab_size(VOCABULARY)
        w.add_tokenizer_model("no_vocab")
        w.add_file_type(FILE_TYPES[kind])
        for name, x in self.tensors:
            if x.ndim == 1 or kind == "f32":
                w.add_tensor(name + ".weight", x)
            elif kind == "f16":
                w.add_tensor(name + ".weight", x.astype(np.float16))
            else:
                w.add_tensor(name + ".weight", as_bf16(x).view(np.uint8), raw_dtype=KINDS[kind])
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()

    def open(self, path):
        self.quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp does not load {path}")
        p = llama_cpp.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = self.tokens, self.tokens, self.tokens
        p.n_threads = p.n_threads_batch = 1
        self.context = llama_cpp.llama_init_from_model(self.model, p)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.array = (llama_cpp.llama_token * self.tokens)(*self.ids)

    def decode_tokens(self, first, n):
        at = ctypes.cast(ctypes.byref(self.array, first * ctypes.sizeof(llama_cpp.llama_token)),
                         ctypes.POINTER(llama_cpp.llama_token))
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(at, n)) != 0:
            sys.exit("llama_decode failed")

    def prefill(self):
        llama_cpp.llama_memory_clear(self.memory, False)
        self.decode_tokens(0, self.tokens)

    def decode(self):
        llama_cpp.llama_memory_clear(self.memory, False)
        for i in range(DECODED):
            self.decode_tokens(i, 1)

    def logits(self):
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, -1), (VOCABULARY,)).copy()


def main():
    workload, shape, _, _, _, _, folder = sys.argv[1:]
    _, what, kind = workload.split("-")
    peer = Llama(shape, kind, folder)
    run = getattr(peer, what)
    for line in sys.stdin:
        command, *args = line.split()
        if command == "parameters":
            np.concatenate([x.ravel() for _, x in peer.tensors]).tofile(args[0])
            print("end", flush=True)
        elif command == "gradient":
            run()
            peer.logits().tofile(args[0])
            print("end", flush=True)
        elif command == "sample":
            n, start = int(args[0]), time.process_time()
            for _ in range(n):
                run()
            print((time.process_time() - start) / n, flush=True)


main()
