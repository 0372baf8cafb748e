#!/usr/bin/env python3
"""The ids of this library against those of HuggingFace's tokenizers, 0.23.3 at the time of writing.

    g++ -std=c++20 -O1 -Iinclude -I/usr/include/eigen3 benchmarks/peers/tokenizer_ours.cpp -o tokenizer_ours
    python3 benchmarks/peers/tokenizer_compare.py tokenizer_ours [--files 300] [--seed 0] [--model FOLDER]

Random tokenizer.json files of the Llama kind (blank in front or not, byte fallback or unknowns, added tokens that are
new or repeat pieces, with lstrip, rstrip, normalized, special) and random texts made of their pieces; every id must
agree. Where neither a mark nor stripped white space is in a text and all of it has a piece, ours must decode to the
text. --model: a folder that memory_llama pretrain wrote, or any other; AutoTokenizer must give the ids of both.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

MARK = "\u2581"


def added(id, content, **options):
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return dict(id=id, content=content, **(plain | options))


def make(r):
    """A tokenizer.json as an object."""
    whole = r.random() < 0.6  # with pieces for all bytes
    pieces = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256) if whole]
    first = len(pieces)
    pieces += [c for c in ("a", "b", "c", "d", "é", "日", "\n", ",", MARK) if r.random() < 0.8] or ["a"]
    merges = []
    for _ in range(r.randrange(25)):
        left, right = r.choice(pieces[first:]), r.choice(pieces[first:])
        if left + right not in pieces and len(left + right) < 9:
            pieces.append(left + right)
            merges.append([left, right])
    r.shuffle(merges)
    vocabulary = {p: i for i, p in enumerate(pieces)}
    marks = [added(i, pieces[i], special=True, normalized=r.random() < 0.3) for i in range(3)]
    if whole and r.random() < 0.2:
        marks += [added(i, pieces[i], special=True) for i in range(3, 259)]
    known, new = {a["content"] for a in marks}, len(pieces)
    others = ["<x>", "<x><x>", "zebra", " ", "  ", "x", "a", "b", "ab", "abc", ", ", "\t", MARK, MARK + "a", "é"]
    others += ["<0x0A>"] + pieces[first:]
    seen = set()  # two that are looked for as the same text are refused
    for content in dict.fromkeys(r.sample(others, r.randrange(7))):
        if content in known or content.replace(" ", MARK) in seen:
            continue
        seen.add(content.replace(" ", MARK))
        id = vocabulary.get(content, new)
        new += id == new
        flags = {f: r.random() < 0.35 for f in ("lstrip", "rstrip", "normalized", "special")}
        marks.append(added(id, content, **flags))
    prefix = r.random() < 0.6
    steps = [{"type": "Prepend", "prepend": MARK}] if prefix else []
    if prefix or r.random() < 0.7:
        steps.append({"type": "Replace", "pattern": {"String": " "}, "content": MARK})
    unknown = "<unk>" if not whole or r.random() < 0.8 else None
    model = dict(type="BPE", dropout=None, unk_token=unknown, continuing_subword_prefix=None, end_of_word_suffix=None,
                 fuse_unk=r.random() < 0.5, byte_fallback=whole, ignore_merges=False, vocab=vocabulary, merges=merges)
    return dict(version="1.0", truncation=None, padding=None, added_tokens=marks,
                normalizer={"type": "Sequence", "normalizers": steps} if steps else None, pre_tokenizer=None,
                post_processor=None, decoder=None, model=model)


def make_text(r, file):
    bits = ["a", "b", "c", "d", "é", "日", "\n", ",", " ", "  ", " ", "\t", "z", "\u00a0", "\u3000", "<s>", "</s>", MARK,
            "zebra", "<x>", "<0x0A>"] + [a["content"] for a in file["added_tokens"][:12]] * 2
    return "".join(r.choice(bits) for _ in range(r.randrange(1, 14)))


def comes_back(file, text, ids):
    by_id = {a["id"]: a for a in file["added_tokens"]}
    vocabulary = file["model"]["vocab"]
    lossy = lambda a: a["special"] or a["lstrip"] or a["rstrip"] or a["content"] in vocabulary
    return (file["model"]["byte_fallback"] and (MARK in vocabulary or not file["normalizer"]) and MARK not in text
            and not any(lossy(by_id[i]) for i in ids if i in by_id))


def ours(program, path, texts):
    run = subprocess.run([program, path], input=json.dumps(texts), capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def theirs(tokenizer, text):
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    except BaseException as e:  # white space that one added token has taken and another asks for
        if type(e).__name__ != "PanicException":
            raise
        return None


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("program")
    a.add_argument("--files", type=int, default=300)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--model")
    o = a.parse_args()
    program, compared, decoded, wrong = os.path.abspath(o.program), 0, 0, 0

    def differs(*what):
        nonlocal wrong
        wrong += 1
        if wrong <= 20:
            print(*what)

    if o.model:
        from transformers import AutoTokenizer

        texts = ["Hé <s>", " a  b ", "\n", "日本</s>x", "Lily saw a big, red ball."]
        library, auto = Tokenizer.from_file(o.model + "/tokenizer.json"), AutoTokenizer.from_pretrained(o.model)
        for text, answer in zip(texts, ours(program, o.model, texts)):
            three = answer[0], theirs(library, text), auto.encode(text, add_special_tokens=False)
            if not three[0] == three[1] == three[2]:
                differs(repr(text), "ours, tokenizers, transformers:", *three)
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/tokenizer.json"
        for seed in range(o.seed, o.seed + o.files):
            r = random.Random(seed)
            file = make(r)
            texts = [make_text(r, file) for _ in range(60)]
            with open(path, "w") as f:
                json.dump(file, f)
            tokenizer, answers = Tokenizer.from_file(path), ours(program, path, texts)
            if isinstance(answers, str):
                differs(f"file {seed} is refused: {answers}")
                continue
            for text, answer in zip(texts, answers):
                ids = theirs(tokenizer, text)
                if ids is None:
                    continue
                compared += 1
                if isinstance(answer, str) or answer[0] != ids:
                    differs(f"file {seed}, {text!r}: tokenizers {ids}, ours {answer}")
                elif comes_back(file, text, ids):
                    decoded += 1
                    if answer[1] != text:
                        differs(f"file {seed}, {text!r}: ours decodes {ids} to {answer[1]!r}")
    print(f"{o.files} files, {compared} texts compared, {decoded} of them decoded: {wrong} differ")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
