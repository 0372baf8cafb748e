#!/usr/bin/env python3
"""The ids of this library against those of HuggingFace's tokenizers, 0.23.3 at the time of writing.

    g++ -std=c++20 -O2 -DUNROLL_WITH_ICU -Iinclude -I/usr/include/eigen3 benchmarks/peers/tokenizer_ours.cpp -o tokenizer_ours -licuuc
    python3 benchmarks/peers/tokenizer_compare.py tokenizer_ours [--files 300] [--seed 0] [--model FOLDER] [--gguf FILE]
        [--kinds WORD]

Every kind of tokenizer.json that is read (byte-level with the expressions of GPT-2, Llama 3, Qwen 2 and SmolLM2; Metaspace
with every prepend_scheme; the Llama kind; some behind normal forms of Unicode and Nmt), each trained on a book of UNROLL_DATA_DIR by the package's own trainer, or made of
the pieces and merges of a GGUF file of a byte-level model (--gguf, needs the package gguf), encodes three books, a C file, a
Markdown file and 10000 random texts: all ids must agree. A byte that a vocabulary lacks (SmolLM2's lacks some) is refused here
and left out by the package, so that its decoded text is another one: such texts are counted as refused. The rates are those of one book, the C and the Markdown file, in
processor time of one thread, the best of three runs of each. The rules that cut texts are compared with the package's on every code point.

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
import time

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Regex

MARK = "\u2581"


def added(id, content, **options):
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return dict(id=id, content=content, **(plain | options))


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def byte_level(*before, regex=False):
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    return pre_tokenizers.Sequence([*before, last]) if before else last


def by(expression):
    return pre_tokenizers.Split(Regex(expression), "isolated")


BYTE_LEVEL = {
    "gpt2": lambda: byte_level(regex=True),
    "llama3": lambda: byte_level(by(LLAMA3)),
    "qwen2": lambda: byte_level(by(QWEN2)),
    "smollm2": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True), regex=True),
}
METASPACE = {f"metaspace {scheme}{' split' if split else ''}": (scheme, split)
             for scheme in ("always", "first", "never") for split in (False, True)}
NORMALIZED = {
    "qwen2 of NFC": ["NFC"],
    "smollm2 of NFD": ["NFD"],
    "gpt2 of NFKD": ["NFKD"],
    "metaspace first of NFKC": ["NFKC"],
    "llama of Nmt and NFKC": ["Nmt", "NFKC"],
}


def normalized(kind, book):
    file = train(kind.split(" of ")[0], book)
    steps = [{"type": name} for name in NORMALIZED[kind]]
    then = file["normalizer"]["normalizers"] if file["normalizer"] else []
    file["normalizer"] = {"type": "Sequence", "normalizers": steps + then}
    return file


def train(kind, book, size=8000):
    """A tokenizer of this kind, trained on a book by the package."""
    if kind in BYTE_LEVEL:
        t = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
        t.pre_tokenizer, t.decoder = BYTE_LEVEL[kind](), decoders.ByteLevel()
        letters, marks = pre_tokenizers.ByteLevel.alphabet(), ["<|endoftext|>", "<|im_start|>"]
    else:
        t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        scheme, split = METASPACE.get(kind, ("never", True))
        t.pre_tokenizer = pre_tokenizers.Metaspace(MARK, scheme, True)
        letters, marks = [], ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    t.train_from_iterator(book.splitlines(keepends=True), trainers.BpeTrainer(
        vocab_size=size, special_tokens=marks, initial_alphabet=letters, show_progress=False))
    if kind in METASPACE:
        t.pre_tokenizer = pre_tokenizers.Metaspace(MARK, scheme, split)
    if kind == "llama":
        t.pre_tokenizer = None
        t.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    return json.loads(t.to_str())


def from_gguf(path, kind):
    """The pieces and merges of a GGUF file, cut as this kind does."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    text = lambda key: [bytes(fields[key].parts[i]).decode() for i in fields[key].data]
    pieces, kinds = text("tokenizer.ggml.tokens"), fields["tokenizer.ggml.token_type"]
    controls = [i for i, k in enumerate(kinds.data) if int(kinds.parts[k][0]) == 3]
    merges = [tuple(m.split(" ")) for m in text("tokenizer.ggml.merges")]
    t = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, ignore_merges=kind == "llama3"))
    t.pre_tokenizer, t.decoder = BYTE_LEVEL[kind](), decoders.ByteLevel()
    t.add_special_tokens([pieces[i] for i in controls])
    return json.loads(t.to_str())


def any_text(r, books):
    """What texts are made of: stretches of books, numbers, white space, any code points, names of marks."""
    bits = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "'s", "'LL", "'\u017f", "don't", "12345", "\u0661\u0662", "\u00b2", "x",
            "\u00a0", "\u3000", "\u2028", "...", "!?", "\u0301", "e\u0301", "\ufb01", "\uff21", "\u200b", "\u0007", "<s>", "</s>", "<|im_start|>", MARK, "\u4e2d\u6587", "\U0001f600"]

    def bit():
        kind = r.randrange(4)
        if kind == 0:
            book = r.choice(books)
            at = r.randrange(len(book))
            return book[at : at + r.randrange(1, 30)]
        if kind == 1:
            return chr(r.choice((r.randrange(0x250), r.randrange(0x3000), r.randrange(0xD800), r.randrange(0xE000, 0x110000))))
        return r.choice(bits)

    return "".join(bit() for _ in range(r.randrange(1, 16)))


def read(path):
    with open(path, newline="") as f:
        return f.read()


def data_texts():
    corpora = os.environ.get("UNROLL_DATA_DIR", "")
    folder = next((f for f in (corpora + "/corpora", corpora) if os.path.isdir(f + "/books")), None)
    if not folder:
        sys.exit("UNROLL_DATA_DIR names no folder with books")
    books = [folder + "/books/" + b for b in ("test/melville_moby-dick.txt", "test/saavedra_don-quixote.txt",
                                              "valid/hobbes_leviathan.txt")]
    here = os.path.dirname(os.path.abspath(__file__))
    others = [folder + "/code/test/stb_image.h.txt", here + "/../../docs/performance.md"]
    return read(folder + "/books/valid/austen_emma.txt"), [read(b) for b in books], [read(o) for o in others]


def run_ours(program, arguments, texts):
    run = subprocess.run([program, *arguments], input=json.dumps(texts), capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def fastest(tokenizer, text):
    """The least processor seconds of three runs, by the call of the package that keeps no offsets."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        tokenizer.encode_batch_fast([text], add_special_tokens=False)
        seconds.append(time.process_time() - start)
    return min(seconds)


def compare_kinds(program, gguf, count, word, differs):
    book, books, others = data_texts()
    r = random.Random(1)
    timed_texts, short = [books[0], *others], books[1:] + [any_text(r, books) for _ in range(count)]
    print(f"{'kind':24} {'ids':>9} {'differ':>6} {'refused':>7} {'ours MB/s':>10} {'theirs':>7} {'ratio':>6}")
    made = {k: lambda k=k: train(k, book) for k in (*BYTE_LEVEL, *METASPACE, "llama")}
    made |= {k: lambda k=k: normalized(k, book) for k in NORMALIZED}
    made |= {k + " of the GGUF": lambda k=k: from_gguf(gguf, k) for k in BYTE_LEVEL if gguf}
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/tokenizer.json"
        for kind, make_file in made.items():
            if word not in kind:
                continue
            with open(path, "w") as f:
                json.dump(make_file(), f)
            tokenizer, wrong, refused, ids = Tokenizer.from_file(path), 0, 0, 0
            answers, timed = run_ours(program, [path], short), run_ours(program, ["--time", path], timed_texts)
            if isinstance(answers, str):
                differs(f"{kind} is refused: {answers}")
                continue
            for text, answer in zip(short + timed_texts, answers + timed):
                right = tokenizer.encode(text, add_special_tokens=False).ids
                ids += len(right)
                if isinstance(answer, str) and "no piece" in answer and tokenizer.decode(right, False) != text:
                    refused += 1  # a byte that is no piece: the package leaves it out without a word
                elif isinstance(answer, str) or answer[0] != right:
                    wrong += 1
                    differs(f"{kind}: {text[:80]!r}: tokenizers {right[:40]}, ours {answer[:40] if isinstance(answer, str) else answer[0][:40]}")
            size = sum(len(t.encode()) for t in timed_texts) / 1e6
            ours_rate = size / sum(t[1] for t in timed)
            theirs_rate = size / sum(fastest(tokenizer, t) for t in timed_texts)
            print(f"{kind:24} {ids:9} {wrong:6} {refused:7} {ours_rate:10.1f} {theirs_rate:7.2f} {ours_rate / theirs_rate:6.1f}", flush=True)


def compare_cuts(program, differs):
    """Every code point between letters, digits, blanks, signs, and beside itself."""
    codes = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = ["".join(f"x{c}1{c}{c} {c}!{c}s\n{c}a'{c}" for c in codes[i : i + 64]) for i in range(0, len(codes), 64)]
    rules = {"gpt2": by(GPT2), "llama3": by(LLAMA3), "qwen2": by(QWEN2), "digits": pre_tokenizers.Digits(True),
             "digit_runs": pre_tokenizers.Digits(False)}
    for name, rule in rules.items():
        wrong = 0
        for text, answer in zip(texts, run_ours(program, ["--cut", name], texts)):
            if answer != [piece for piece, _ in rule.pre_tokenize_str(text)]:
                wrong += 1
                differs(f"{name} cuts {text[:8]!r}... otherwise")
        print(f"cut by {name}: {len(codes)} code points, {wrong} of {len(texts)} texts differ", flush=True)


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
        flags = {f: r.random() < 0.35 for f in ("lstrip", "rstrip", "normalized", "special", "single_word")}
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
    a.add_argument("--gguf")
    a.add_argument("--kinds", default="", help="only kinds whose name contains this")
    a.add_argument("--texts", type=int, default=10000)
    o = a.parse_args()
    program, compared, decoded, wrong = os.path.abspath(o.program), 0, 0, 0

    def differs(*what):
        nonlocal wrong
        wrong += 1
        if wrong <= 20:
            print(*what)

    compare_cuts(program, differs)
    compare_kinds(program, o.gguf, o.texts, o.kinds, differs)
    if o.model:
        from transformers import AutoTokenizer

        texts = ["Hé <s>", " a  b ", "\n", "日本</s>x", "Lily saw a big, red ball."]
        library, auto = Tokenizer.from_file(o.model + "/tokenizer.json"), AutoTokenizer.from_pretrained(o.model)
        for text, answer in zip(texts, run_ours(program, [o.model], texts)):
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
            tokenizer, answers = Tokenizer.from_file(path), run_ours(program, [path], texts)
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
