#!/usr/bin/env bash
# gguf 0.19.0: of a model in parts with an alignment of its own, the parts behind the first one are read as other numbers.
#
# Why it matters here: GGUFWriter writes a large model in parts (split_max_tensors, split_max_size), and add_custom_alignment sets where
# the data of each may begin. All parts are written so, but the key general.alignment stands in the first one alone. Readers take the
# default of 32 for the others: where their header does not end on a multiple of both, every tensor is read from 32 bytes too early.
# GGUFReader of the same package gives wrong numbers without a word, and so does llama.cpp (llama-cpp-python 0.3.36: logits of a
# Llama of two layers 13 apart), whose own splitting writes later parts by 32.
#
# Guess, before it was run: a model in parts is the model in one file. Wrong with alignment 64.
# Seen: alignment 64, tensors of 64 numbers: those of the first part are right, those of the second begin 8 numbers too early; without
#       add_custom_alignment all are right.
#
# usage: gguf-split-forgets-alignment.sh [python]   the python of an environment with gguf 0.19.0, else one is made, which needs
#                                                   python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install gguf==0.19.0
  python="$work/venv/bin/python"
fi
cat >"$work/parts.py" <<'PY'
import glob
import importlib.metadata
import sys

import gguf
import numpy as np


def read_back(name, alignment):
    """Where the 64 numbers of each tensor begin, as far as they are read: 0 where they should."""
    writer = gguf.GGUFWriter(f"{sys.argv[1]}/{name}.gguf", "llama", split_max_tensors=2)
    if alignment:
        writer.add_custom_alignment(alignment)
    for i in range(4):
        writer.add_tensor(f"blk.{i}.attn_q.weight", np.arange(1, 65, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(glob.glob(f"{sys.argv[1]}/{name}-*.gguf"))
    return [[float(t.data[-1]) - 64 for t in gguf.GGUFReader(part).tensors] for part in parts]


plain, aligned = read_back("plain", 0), read_back("aligned", 64)
print("gguf", importlib.metadata.version("gguf"), "numbers too early, by parts: without", plain, "with alignment 64", aligned)
assert plain == [[0, 0], [0, 0]], "parts of the usual alignment are read otherwise"
assert aligned == [[0, 0], [-8, -8]], "parts of alignment 64 are read otherwise"
PY
"$python" "$work/parts.py" "$work"
