#!/usr/bin/env bash
# gguf 0.19.0: of a generation_config.json its Metadata keeps the temperature and drops repetition_penalty and do_sample.
#
# Why it matters here: a GGUF file is the whole model that gets memories, and general.sampling.* says how its texts are drawn.
# Metadata.load, with which llama.cpp's converters fill these keys, looks for "penalty_repeat", a name that no
# generation_config.json of transformers has; theirs is "repetition_penalty". "do_sample" is not
# looked at, so that a folder whose texts transformers writes greedily becomes a file that says how hot to draw, and "top_k" null,
# all tokens, is left out, for which llama.cpp takes 40. Texts of the folder and of the file differ, without a word.
#
# Seen: from {"temperature": 0.7, "top_p": 0.8, "top_k": null, "repetition_penalty": 1.05}, which does not say do_sample:
#       general.sampling.temp 0.7 and top_p 0.8, no penalty_repeat, no top_k; the same from a file with "do_sample": false.
#
# usage: gguf-drops-repetition-penalty.sh [python]   the python of an environment with gguf 0.19.0, else one is made, which needs
#                                                    python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install gguf==0.19.0
  python="$work/venv/bin/python"
fi
cat >"$work/convert.py" <<'PY'
import importlib.metadata
import json
import pathlib
import sys

import gguf


def sampling(config):
    folder = pathlib.Path(sys.argv[1]) / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "generation_config.json").write_text(json.dumps(config))
    file = str(folder / "model.gguf")
    writer = gguf.GGUFWriter(file, "llama")
    gguf.Metadata.load(None, folder).set_gguf_meta_model(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    fields = gguf.GGUFReader(file).fields.items()
    return {name: round(f.contents(), 4) for name, f in fields if name.startswith("general.sampling.")}


config = {"temperature": 0.7, "top_p": 0.8, "top_k": None, "repetition_penalty": 1.05}
expected = {"general.sampling.temp": 0.7, "general.sampling.top_p": 0.8}
print("gguf", importlib.metadata.version("gguf"), config, "becomes", sampling(config))
assert sampling(config) == expected, "the keys are others"
assert sampling({**config, "do_sample": False}) == expected, "do_sample is looked at"
assert sampling({**config, "penalty_repeat": 1.05})["general.sampling.penalty_repeat"] == 1.05
PY
"$python" "$work/convert.py" "$work"
