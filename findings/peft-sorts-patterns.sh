#!/usr/bin/env bash
# peft 0.21.2 (transformers 5.24.0, torch 2.15.0, CPU): an adapter whose patterns overlap is another one after it was saved.
#
# Why it matters here: of rank_pattern and alpha_pattern the first key that matches a module counts, in the order in which they
# were written. save_pretrained sorts the keys of adapter_config.json, so that another key may be the first when the folder is
# loaded: with alpha_pattern the model is silently another one, with rank_pattern the folder cannot be loaded at all. Whoever
# reads such a folder has the sorted order only.
#
# Seen: alpha_pattern {"v_proj": 3, ".*": 12}, r 3, lora_alpha 6: v_proj is scaled by 1 before and by 4 after. rank_pattern
#       {"q_proj": 2, "layers\.1\..*": 5}: loading what was saved ends with "size mismatch".
#
# usage: peft-sorts-patterns.sh     needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q install peft==0.21.2 transformers==5.24.0 torch==2.15.0
"$work/venv/bin/python" - "$work" <<'PY'
import sys

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

work = sys.argv[1]


def base():
    return LlamaForCausalLM(LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=8))


def scale(model):
    return model.base_model.model.model.layers[0].self_attn.v_proj.scaling["default"]


alphas = get_peft_model(base(), LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", alpha_pattern={"v_proj": 3, ".*": 12}))
alphas.save_pretrained(work + "/alphas")
before, after = scale(alphas), scale(PeftModel.from_pretrained(base(), work + "/alphas"))
print("scale of v_proj:", before, "saved and loaded:", after)
assert (before, after) == (1, 4), "the order of patterns survives"
ranks = get_peft_model(base(), LoraConfig(r=3, target_modules="all-linear", rank_pattern={"q_proj": 2, r"layers\.1\..*": 5}))
ranks.save_pretrained(work + "/ranks")
try:
    PeftModel.from_pretrained(base(), work + "/ranks")
except RuntimeError as e:
    print(str(e).splitlines()[1].strip())
    assert "size mismatch" in str(e)
else:
    raise AssertionError("loads what it saved")
PY
