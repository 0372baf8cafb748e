#!/usr/bin/env bash
# transformers 5.24.0 (tokenizers 0.23.3, torch 2.15.0, CPU): of a GGUF file of a Llama 3 kind it cuts marks and whole words into pieces
# that the file, and llama.cpp, have whole; the id that begins texts may be none of the model's.
#
# Why it matters here: what a model with memories reads and is asked are texts with such marks. (1) A control piece counts only where all
# its characters are those of the byte-level spelling. "<|eot_id|>" is; the marks of Llamas that were taught by DeepSeek R1, with U+FF5C
# and U+2581, are not: they are cut into a dozen bytes each, and where one of them begins texts, a new id behind the vocabulary is made
# for it, a row that the embedding does not have. (2) tokenizer.ggml.pre "llama-bpe" brings the expression of Llama 3 but not its
# ignore_merges: a word that is a piece and that no merge makes becomes several. All without a word.
#
# Guess from its code, before it was run: a mark with U+FF5C is cut, its begin id lies outside; abc, a piece without a merge, is two pieces. As it came out.
# Seen: vocabulary of 262; the begin 261 becomes 263; "<User>" in these characters 12 ids instead of 260; abc 256 99 instead of 257.
#       llama.cpp (llama-cpp-python 0.3.36) gives 261, 260 and 257.
#
# usage: gguf-tokenizer-marks.sh [python]   the python of an environment with transformers 5.24.0, torch 2.15.0 and gguf 0.19.0, else one
#                                           is made (gigabytes), which needs python3 with venv; compares with llama.cpp where
#                                           llama-cpp-python is there; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${1:-}
if [ -z "$python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" -q install transformers==5.24.0 torch==2.15.0 gguf==0.19.0
  python="$work/venv/bin/python"
fi
cat >"$work/marks.py" <<'PY'
import ctypes
import sys

import gguf
import numpy as np
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

USER, BEGIN = "<\uff5cUser\uff5c>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
marks = ["<|begin_of_text|>", "<|eot_id|>", USER, BEGIN]
pieces = [bytes_to_unicode()[byte] for byte in range(256)] + ["ab", "abc"] + marks
path, width, count = sys.argv[1] + "/model.gguf", 32, len(pieces)
w = gguf.GGUFWriter(path, "llama")
for add, value in ((w.add_context_length, 64), (w.add_embedding_length, width), (w.add_block_count, 0), (w.add_vocab_size, count),
                   (w.add_feed_forward_length, width), (w.add_head_count, 4), (w.add_layer_norm_rms_eps, 1e-5),
                   (w.add_tokenizer_model, "gpt2"), (w.add_tokenizer_pre, "llama-bpe"), (w.add_token_list, pieces),
                   (w.add_token_types, [1] * 258 + [3] * 4), (w.add_token_merges, ["a b"]), (w.add_bos_token_id, 261),
                   (w.add_eos_token_id, 259), (w.add_add_bos_token, True)):
    add(value)
for name, shape in (("token_embd.weight", (count, width)), ("output_norm.weight", (width,))):
    w.add_tensor(name, np.ones(shape, np.float32))
w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()

words = transformers.AutoTokenizer.from_pretrained(sys.argv[1], gguf_file="model.gguf")
begins, texts = words.encode("a")[0], ["<|eot_id|>", USER, "abc"]
theirs = [words.encode(t, add_special_tokens=False) for t in texts]
print("transformers", transformers.__version__, "of", count, "begins with", begins, *zip(texts, theirs))
try:
    import llama_cpp
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    vocab = llama_cpp.llama_model_get_vocab(llama_cpp.llama_model_load_from_file(path.encode(), params))
    out = (llama_cpp.llama_token * 64)()
    encode = lambda t, begin: out[: llama_cpp.llama_tokenize(vocab, t.encode(), len(t.encode()), out, 64, begin, True)]
    right = [encode("a", True)[0]] + [encode(t, False) for t in texts]
    print("llama.cpp", *right)
    assert right == [261, [259], [260], [257]], "llama.cpp reads the file otherwise"
except ImportError:
    pass
assert theirs[0] == [259], "marks of one byte a character are cut too"
assert begins >= count, "the begin is in the vocabulary"
assert len(theirs[1]) == 12 and theirs[2] == [256, 99], "marks or words stay whole"
PY
"$python" "$work/marks.py" "$work"
