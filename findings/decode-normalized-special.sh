#!/usr/bin/env bash
# tokenizers 0.23.3: decode(skip_special_tokens=True) writes special tokens that are `normalized`, as those of some
# Llamas are; id_to_token names them with a blank in front.
#
# Why it matters here: whoever scores or prints what a Llama with a memory writes decodes ids between <s> and </s>. With a
# tokenizer.json whose marks have "normalized": true (valid, and what some conversions of Llamas wrote) the text now begins
# with "<s>" and ends with "</s>", so that exact comparisons, BLEU and ROUGE against the reference fall, without an error.
# Encoding, and decoding by transformers, which drops marks by their ids, are not affected. tokenizers 0.22.1 drops them.
#
# Seen: ids of <s> a b </s>, decoded by 0.22.1 to 'a b', by 0.23.3 to '<s> a b </s>'; id_to_token(2) is '</s>' and
#       '▁</s>', which token_to_id does not know. The same file with "normalized": false gives 'a b' in both.
#
# usage: decode-normalized-special.sh     needs python3 with venv; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/decode.py" <<'PY'
import json
import sys

import tokenizers

MARK, names = "\u2581", ["<unk>", "<s>", "</s>"]
pieces = names + [MARK, "a", "b", MARK + "a", MARK + "b"]
replace = lambda a, b: {"type": "Replace", "pattern": {"String": a}, "content": b}


def load(normalized):
    plain = dict(single_word=False, lstrip=False, rstrip=False, special=True)
    return tokenizers.Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "pre_tokenizer": None, "post_processor": None,
        "added_tokens": [dict(id=i, content=c, normalized=normalized, **plain) for i, c in enumerate(names)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, replace(" ", MARK)]},
        "decoder": {"type": "Sequence", "decoders": [replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                                                     {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {p: i for i, p in enumerate(pieces)}, "merges": [MARK + " a", MARK + " b"]}}))


seen = [(t.decode([1, 6, 7, 2], skip_special_tokens=True), t.id_to_token(2)) for t in (load(True), load(False))]
print("tokenizers", tokenizers.__version__, "normalized:", *seen[0], "| not:", *seen[1])
assert seen[0] == tuple(sys.argv[1:3]), "normalized special tokens are decoded differently"
assert seen[1] == ("a b", "</s>"), "special tokens are decoded differently"
PY
check() {  # check PACKAGE TEXT NAME
  python3 -m venv "$work/$1"
  "$work/$1/bin/pip" -q install "$1"
  "$work/$1/bin/python" "$work/decode.py" "$2" "$3"
}
check tokenizers==0.22.1 'a b' '</s>'
check tokenizers==0.23.3 '<s> a b </s>' '▁</s>'
