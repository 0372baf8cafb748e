#!/usr/bin/env python3
"""Adapters of this library against peft 0.21.2 (transformers 5.24.0, torch 2.15.0): logits of a small Llama, both ways.

    g++ -std=c++20 -O1 -Iinclude -I/usr/include/eigen3 benchmarks/peers/peft_ours.cpp -o peft_ours
    python3 benchmarks/peers/peft_compare.py ./peft_ours

PEFT makes adapters of every kind that is read here, with numbers that are far from their initial ones, saves them and
loads them again onto a fresh base; ours computes with the same folder, the adapter beside the weights and merged. Ours
trains adapters; PEFT loads them. Printed is the largest difference of a logit (ours in double, theirs in float32) and
how far the adapter moves one. Kinds that PEFT's own reload cannot repeat, or that are not implemented, must be refused
by the name of their key. Ends with 1 where anything differs."""
import json
import os
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
ours = os.path.abspath(sys.argv[1])
ids = [(7 * i + 3) % 60 for i in range(24)]
tolerance = 2e-4
failed = False


def make_base(folder, tied):
    torch.manual_seed(3)
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                         vocab_size=60, max_position_embeddings=64, tie_word_embeddings=tied, rope_theta=5000.0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * (0.25 if p.dim() > 1 else 0.1) + (0 if p.dim() > 1 else 1))
    model.save_pretrained(folder)


def base(folder):
    return LlamaForCausalLM.from_pretrained(folder).eval()


@torch.no_grad()
def logits(model):
    return model(torch.tensor([ids])).logits[0].double()


def run(*arguments):
    done = subprocess.run([ours, *arguments], input=json.dumps(ids), capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr.strip()


def our_logits(*arguments):
    code, out, err = run("logits", *arguments)
    return torch.tensor(json.loads(out), dtype=torch.float64) if code == 0 else err


def row(name, *cells):
    print(f"{name:<34}" + "".join(f"{c:>14}" for c in cells))


def compare(name, theirs, plain, *answers):
    global failed
    cells = [f"{(theirs - plain).abs().max():.3f}"]
    for answer in answers:
        if isinstance(answer, str):
            cells.append(answer)
            failed = True
        else:
            difference = float((answer - theirs).abs().max())
            failed |= not difference < tolerance
            cells.append(f"{difference:.1e}")
    row(name, *cells)


print(f"peft {__import__('peft').__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
work = tempfile.mkdtemp()
attention = ["q_proj", "v_proj"]
kinds = {
    "q_proj and v_proj": dict(target_modules=attention),
    "all-linear, rslora": dict(target_modules="all-linear", use_rslora=True),
    "regular expression": dict(target_modules=r"model\.layers\.[02]\.(self_attn\.[qk]|mlp\.up)_proj"),
    "exclude_modules": dict(target_modules="all-linear", exclude_modules=r".*\.1\..*"),
    "layers_to_transform": dict(target_modules=attention, layers_to_transform=[0, 2]),
    "rank and alpha patterns": dict(target_modules="all-linear", rank_pattern={r"layers\.1\..*": 5, "q_proj": 2},
                                    alpha_pattern={r".*mlp\.up_proj": 20, "v_proj": 3}),
    "patterns that overlap": dict(target_modules="all-linear", alpha_pattern={"v_proj": 3, ".*": 12}),
    "DoRA": dict(target_modules="all-linear", use_dora=True),
    "lora_bias": dict(target_modules="all-linear", lora_bias=True),
    "PiSSA": dict(target_modules="all-linear", init_lora_weights="pissa"),
    "OLoRA": dict(target_modules="all-linear", init_lora_weights="olora"),
    "PiSSA, DoRA": dict(target_modules=attention, init_lora_weights="pissa", use_dora=True),
}
refused = {
    "pissa_niter_2": ("init_lora_weights", dict(target_modules=attention, init_lora_weights="pissa_niter_2")),
    "modules_to_save": ("modules_to_save", dict(target_modules=attention, modules_to_save=["lm_head"])),
    "alora": ("alora_invocation_tokens", dict(target_modules=attention, alora_invocation_tokens=[3], task_type="CAUSAL_LM")),
    "lm_head": ("target_modules", dict(target_modules=attention + ["lm_head"])),
    "lookbehind": ("target_modules", dict(target_modules=r".*(?<=q)_proj")),
}
for tied in (True, False):
    folder = os.path.join(work, f"base-{tied}")
    make_base(folder, tied)
    plain = logits(base(folder))
    print()
    row("tied" if tied else "untied", "moved by", "beside", "merged")
    compare("no adapter (saved by transformers)", plain, plain, our_logits(folder, "-", "beside"))
    for number, (name, options) in enumerate(kinds.items()):
        torch.manual_seed(number)
        model = get_peft_model(base(folder), LoraConfig(r=3, lora_alpha=6, **options))
        with torch.no_grad():
            for key, p in model.named_parameters():
                if "lora_magnitude_vector" in key:
                    p.mul_(1 + 0.3 * torch.randn_like(p))
                elif "lora_" in key:
                    p.add_(torch.randn_like(p) * 0.15)
        adapter = os.path.join(work, f"adapter-{tied}-{number}")
        model.save_pretrained(adapter)
        theirs = logits(PeftModel.from_pretrained(base(folder), adapter).eval())
        if (logits(model.eval()) - theirs).abs().max() > tolerance:
            name += " (*)"
        merged = our_logits(folder, adapter, "merge")
        if name == "lora_bias":  # which PEFT does not merge either
            failed |= "lora_bias" not in str(merged)
            compare(name + " (merging is refused)", theirs, plain, our_logits(folder, adapter, "beside"))
        else:
            compare(name, theirs, plain, our_logits(folder, adapter, "beside"), merged)
    for kind in ("uniform", "one_by_one", "biased"):
        adapter = os.path.join(work, f"ours-{tied}-{kind}")
        code, out, err = run("train", folder, adapter, kind)
        if code != 0:
            failed = True
            print(err)
            continue
        before, after = map(float, out.split())
        failed |= not after < before - 0.1
        theirs = logits(PeftModel.from_pretrained(base(folder), adapter).eval())
        compare(f"trained here, {kind} ({before:.2f} to {after:.2f})", theirs, plain, our_logits(folder, adapter, "beside"))
print("\n(*) PEFT sorts patterns when it saves, and is another model when it loads them: ours is that one\n")
for name, (key, options) in refused.items():
    adapter = os.path.join(work, "refused-" + name)
    get_peft_model(base(os.path.join(work, "base-False")), LoraConfig(r=3, lora_alpha=6, **options)).save_pretrained(adapter)
    answer = our_logits(os.path.join(work, "base-False"), adapter, "beside")
    good = isinstance(answer, str) and f'"{key}"' in answer
    failed |= not good
    print(f"{name}: refused by {key}" if good else f"{name}: NOT refused by {key}: {answer}")
sys.exit(failed)
