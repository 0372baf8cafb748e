#!/usr/bin/env python3
"""Folders that save_llama writes, opened by transformers 5.24.0 (torch 2.15.0).

    g++ -std=c++20 -O1 -Iinclude -I/usr/include/eigen3 benchmarks/peers/peft_ours.cpp -o peft_ours
    python3 benchmarks/peers/save_compare.py ./peft_ours [SmolLM2-135M-Instruct.Q4_1.gguf]

transformers saves small random Llamas (tied or not, heads of their own size, every kind of rotary positions, bfloat16); this
library loads each and saves it again; transformers opens both folders: weights and logits must be equal in every bit, and the
logits that this library computes in double at most 2e-4 away. With a GGUF file, what transformers reads of it itself is compared with what
this library makes of it, opened by transformers. Ends with 1 where anything differs."""
import json
import os
import subprocess
import sys
import tempfile

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
ours = os.path.abspath(sys.argv[1])
ids = [(7 * i + 3) % 60 for i in range(48)]
short = ids[:16]  # longrope is read for texts of the original length
tolerance, failed = 2e-4, False

ROPES = {
    "default": {"rope_type": "default", "rope_theta": 5000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 16},
    "longrope": {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "short_factor": [1.0, 1.1, 1.2, 1.3],
                 "long_factor": [1.0, 2.0, 3.0, 4.0], "original_max_position_embeddings": 16},
}


def make(folder, dtype=torch.float32, **options):
    torch.manual_seed(3)
    config = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                  vocab_size=60, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(LlamaConfig(**(config | options)))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * (0.25 if p.dim() > 1 else 0.1) + (0 if p.dim() > 1 else 1))
    model.to(dtype).save_pretrained(folder)


def run(*arguments, ids=ids):
    done = subprocess.run([ours, *arguments], input=json.dumps(ids), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{arguments}: {done.stderr}")
    return done.stdout


@torch.no_grad()
def logits(model, ids):
    return model(torch.tensor([ids])).logits[0].double()


def compare(name, path, first, second):
    """`first`: of `path` by transformers; `second`: of what this library saved."""
    global failed
    weights, again = first.state_dict(), second.state_dict()
    differ = sum(int((weights[k].float() != again[k].float()).sum()) for k in weights) if set(weights) == set(again) else -1
    tokens = short if "longrope" in name else ids
    a, b = logits(first, tokens), logits(second, tokens)
    own = torch.tensor(json.loads(run("logits", path, "-", "beside", ids=tokens)), dtype=torch.float64)
    bits, near = float((a - b).abs().max()), float((own - b).abs().max())
    print(f"{name:<38}{sum(w.numel() for w in weights.values()):>12}{differ:>10}{bits:>12.1e}{near:>12.1e}", flush=True)
    failed |= differ != 0 or bits != 0 or not near < tolerance


def load(folder, **options):
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


def main():
    print(f"transformers {transformers.__version__}, torch {torch.__version__}\n")
    print(f"{'saved by save_llama':<38}{'weights':>12}{'differ':>10}{'logits':>12}{'ours':>12}")
    kinds = {f"positions {name}": dict(rope_parameters=rope) for name, rope in ROPES.items()}
    kinds |= {"tied": dict(tie_word_embeddings=True), "heads of 12, one of keys and values": dict(head_dim=12, num_key_value_heads=1),
              "from bfloat16": dict(dtype=torch.bfloat16), "norms with epsilon 1e-3": dict(rms_norm_eps=1e-3)}
    for name, options in kinds.items():
        with tempfile.TemporaryDirectory() as at:
            make(at + "/first", **options)
            run("save", at + "/first", at + "/second", "-")
            compare(name, at + "/first", load(at + "/first"), load(at + "/second"))
    for file in sys.argv[2:]:
        with tempfile.TemporaryDirectory() as at:
            run("save", file, at + "/second", "-")
            folder, name = os.path.split(os.path.abspath(file))
            compare(name, file, load(folder, gguf_file=name), load(at + "/second"))
    sys.exit(failed)


main()
