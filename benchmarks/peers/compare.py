#!/usr/bin/env python3
"""This library against PyTorch and, in rows X, compiled JAX, in alternating pairs on one core.

    ./run bench peers [the arguments that follow BINARY]
    python3 compare.py --ours BINARY --llama BINARY --memory BINARY [--pairs 9] [--only R1,T3] [--type f32] [--json FILE] [--markdown FILE]

Both sides get the same data and the same parameters; their gradients are compared first. Then samples alternate
(ours, theirs, ours, theirs, ...), each at least --sample seconds of CPU time; a row reports the median of the pair
ratios, theirs / ours, with their minimum and maximum. The PyTorch process runs with one thread and with malloc told
to keep large blocks, which is worth a factor of up to 2 to it. Rows R are recurrent nets (ours.cpp, theirs.py), X the
same against jax_theirs.py and, in X3, jax_estimators.py, left out where --python has no jax, rows T and M Llamas (llama_ours.cpp, llama_theirs.py); M runs two threads, not pinned, by the wall clock: on an idle machine only.
Rows G are the exact gradient of a Llama with memories (memory_ours.cpp, memory_theirs.py), left out where torch lacks
scaled_dot_product_attention or rms_norm.
Rows L, which run where --only names them, are Llamas with bfloat16 weights against llama.cpp (llama_cpp_theirs.py) with
weights of 16 bits, for a --python that has llama-cpp-python and gguf: their logits differ by what llama.cpp rounds, keys,
values and activations among it.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
CELLS = ("elman", "gru", "lstm")
STACKS = ("lstm-2",)
ESTIMATORS = (  # of jax_estimators.py
    *((w, "elman") for w in ("tbptt-10", "sliding-10", "artbp-10", "uoro", "preuoro", "nobacktrack", "kf-rtrl", "random-path",
                             "snap-1", "eprop", "forward-gradient", "es", "pes-10")),
    ("rflo", "leaky"), ("diagonal-rtrl", "lru"), ("uoro", "gru"), ("uoro", "lstm"),
)
DRAWN = ("es", "pes-10")  # JAX draws its own normal numbers; where its name ends in -given it reads ours from memory
LLAMAS = (("stories15M", 288, 256), ("mid", 512, 512))


def rows(kind):
    """(id, workload, their workload, cell, hidden, lanes, steps, goal). Goals: docs/performance.md."""
    for name, hidden, lanes, target in (
        ("R1", 16, 1, {"*": 100}),
        ("R2", 64, 1, {"*": 20, "elman": 30}),
        ("R3", 256, 1, {"*": 3.5}),
        ("R4", 1024, 1, {"*": 5}),
        ("R5", 16, 32, {"*": 8}),
        ("R6", 64, 32, {"*": 2}),
        ("R7", 256, 32, {"*": 1.15}),
        ("R7", 1024, 32, {"*": 1.2}),
    ):
        for cell in CELLS:
            for workload in ("bptt", "tbptt-10", "tbptt-20"):
                yield name, workload, workload, cell, hidden, lanes, 100, target.get(cell, target["*"])
    for cell in STACKS:  # two layers of 64
        for workload in ("bptt", "tbptt-20"):
            yield "R8", workload, workload, cell, 64, 32, 100, 1.2
    if kind == "f32":
        for hidden, by_hand, generic in ((16, 100, 200), (64, 20, 40), (128, 8, 15)):
            yield "R11", "uoro", "uoro", "elman", hidden, 1, 200, by_hand
            yield "R12", "uoro", "autograd-uoro", "elman", hidden, 1, 200, generic
        for hidden, target in ((16, 3), (32, 1.2), (64, 1.1), (128, 1.3)):
            yield "R13", "rtrl", "rtrl", "elman", hidden, 1, 40 if hidden == 128 else 100, target
        for hidden, target in ((16, 30), (64, 3)):
            yield "R14", "generic-rtrl", "autograd-rtrl", "elman", hidden, 1, 10, target
    for hidden, lanes in ((16, 1), (64, 1), (64, 32)):
        for cell in CELLS:
            yield "X1", "bptt", "jax-bptt", cell, hidden, lanes, 100, 1
    for hidden, target in ((16, 1.3), (32, 1.2), (64, 1.2)):
        yield "X2", "rtrl", "jax-rtrl", "elman", hidden, 1, 100, target
    for hidden in 16, 64:
        for workload, cell in ESTIMATORS:
            theirs = "jax-" + ("chunked-10" if workload == "tbptt-10" else workload)
            yield "X3", workload, theirs, cell, hidden, 1, 100, 3 if workload == "diagonal-rtrl" else 2
            if workload in DRAWN:
                yield "X3", workload, theirs + "-given", cell, hidden, 1, 100, 1


def llama_rows():
    """The same of the Llamas; steps are tokens, lanes sequences."""
    for name, workload, lanes, targets in (
        ("T1", "forward", 1, (1.05, 1.05)),
        ("T2", "prefill", 1, (1.25, 1.1)),
        ("T3", "gradient", 1, (1.1, 1.1)),
        ("T5", "decode", 1, (3.5, 3.5)),
        ("M2", "gradient-2", 2, (1.3, 1.3)),
    ):
        for (shape, hidden, tokens), target in zip(LLAMAS, targets):
            workload_ = f"llama-{workload}"
            yield name, workload_, workload_, shape, hidden, lanes, 64 if name == "T5" else tokens, target


def memory_rows():
    """The same of Llamas with memories; lanes are segments. G2 is ours by batches of 8 segments, G3 a plainer peer."""
    for name, ours, theirs in (("G1", "", ""), ("G2", "-8", ""), ("G3", "", "-plain")):
        for shape, hidden, segments, tokens, target in (("3-layers", 64, 16, 512, 11), ("6-layers", 256, 32, 2048, 3.4)):
            yield name, f"memory-gradient{ours}", f"memory-gradient{theirs}", shape, hidden, segments, tokens, target


def llama_cpp_rows():
    """The same against llama.cpp: ours has bfloat16 weights, theirs what the end of its workload says."""
    for name, workload, kinds, target in (("L1", "prefill", ("bf16",), 1.25), ("L2", "decode", ("bf16", "f16"), 1.3)):
        for shape, hidden, tokens in LLAMAS:
            for kind in kinds:
                theirs = f"llama-{workload}-{kind}"
                yield name, f"llama-{workload}-bf16", theirs, shape, hidden, 1, 64 if name == "L2" else tokens, target


class Side:
    def __init__(self, command, environment, core):
        pin = ["taskset", "-c", str(core)] if sys.platform == "linux" and core is not None else []
        self.process = subprocess.Popen(
            pin + command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"a side stopped at `{line}`")
        return answer

    def sample(self, n):
        return float(self.ask(f"sample {n}"))

    def repetitions(self, seconds):
        once = self.sample(1)
        once = min(once, self.sample(1))
        return max(1, min(100_000, round(seconds / max(once, 1e-7))))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def exchange(ours, theirs, folder, dtype, drawn=False):
    """Gives ours the parameters of theirs and, where `drawn`, theirs the draws of ours; returns the relative difference of
    the two gradients."""
    names = []
    line = ours.ask("layout")
    while line != "end":
        name, offset, rows_, cols = line.split()
        names.append((name, int(offset), int(rows_), int(cols)))
        line = ours.process.stdout.readline().strip()
    theirs.ask(f"parameters {folder}/theta.npz")
    values = np.load(f"{folder}/theta.npz")
    flat = np.concatenate([np.asarray(values[n], dtype).reshape(r, c).ravel(order="F") for n, _, r, c in names])
    flat.tofile(f"{folder}/theta.bin")
    ours.ask(f"gradient {folder}/theta.bin {folder}/ours.bin")
    if drawn:
        ours.ask(f"noise {folder}/noise.bin")
        theirs.ask(f"noise {folder}/noise.bin")
    theirs.ask(f"gradient {folder}/theirs.npz")
    mine = np.fromfile(f"{folder}/ours.bin", dtype).astype(np.float64)
    other = np.load(f"{folder}/theirs.npz")
    other = np.concatenate([np.asarray(other[n], np.float64).reshape(r, c).ravel(order="F") for n, _, r, c in names])
    return float(np.linalg.norm(mine - other) / np.linalg.norm(other))


class Estimators:
    """Rows X3: one process of JAX for all of them, as it takes seconds to start, and a check in double in front of the first
    time of a formula, where two right ones agree to the last digits."""

    def __init__(self, a, setting):
        self.a, self.setting, self.theirs, self.checked = a, setting, None, set()

    def row(self, workload, theirs, sizes):
        """The process of JAX, at this row."""
        if not self.theirs:
            self.theirs = Side([self.a.python, f"{HERE}/jax_estimators.py", theirs] + sizes, *self.setting)
        else:
            self.theirs.ask("row " + " ".join([theirs] + sizes))
        return self.theirs

    def check(self, workload, theirs, cell):
        if (workload, cell) in self.checked:
            return
        self.checked.add((workload, cell))
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng(1)
            for f in "xy":
                rng.standard_normal(1600).tofile(f"{folder}/{f}.bin")
            sizes = [cell, "16", "1", "100", "f64", folder]
            ours = Side([self.a.ours, workload] + sizes, *self.setting)
            difference = exchange(ours, self.row(workload, theirs, sizes), folder, np.float64, True)
            ours.close()
        print(f"X3   {workload:12} {cell:5} in double: estimates differ by {difference:.1e}", flush=True)
        if not difference < 1e-9:
            sys.exit("which is too much")


def exchange_llama(ours, theirs, folder, loss=0):
    """The same for a Llama: weights and results are flat files; theirs must be as long as ours. The first `loss` numbers
    of the results are compared on their own."""
    theirs.ask(f"parameters {folder}/theta.bin")
    if os.path.getsize(f"{folder}/theta.bin") != 4 * int(ours.ask("size")):
        raise RuntimeError("the two models have different numbers of weights")
    ours.ask(f"gradient {folder}/theta.bin {folder}/ours.bin")
    theirs.ask(f"gradient {folder}/theirs.bin")
    mine, other = (np.fromfile(f"{folder}/{side}.bin", np.float32).astype(np.float64) for side in ("ours", "theirs"))
    difference = lambda part: float(np.linalg.norm((mine - other)[part]) / np.linalg.norm(other[part]))
    return max(difference(slice(0, loss)), difference(slice(loss, None))) if loss else difference(slice(None))


def key(r):
    return r["row"], r["workload"], r["peer"], r["cell"], r["hidden"], r["lanes"], r["type"]


def load(paths):
    rows_ = []
    for path in paths:
        with open(path) as f:
            rows_ += json.load(f)["rows"]
    return rows_


def write_summary(f, results):
    f.write("| row | measured | median ratios, lowest to highest | goal | met by |\n|---|---|---|---|---|\n")
    groups = {}
    for r in results:
        groups.setdefault((r["row"], r["hidden"], r["lanes"]), []).append(r)
    for (row, hidden, lanes), g in sorted(groups.items(), key=lambda x: ("RXTMGL".index(x[0][0][0]), int(x[0][0][1:]), x[0][1])):
        ratios, targets = [r["ratio"] for r in g], sorted({r["target"] for r in g})
        f.write(
            f"| {row} | {', '.join(sorted({r['workload'] for r in g}))} against {', '.join(sorted({r['peer'] for r in g}))}, "
            f"{g[0]['type']}, H = {hidden}, B = {lanes} | {min(ratios):.3g} to {max(ratios):.3g} "
            f"| {' / '.join(f'{t:g}' for t in targets)} | {sum(r['met'] for r in g)} of {len(g)} |\n"
        )
    f.write("\n")


def write_markdown(path, results, earlier):
    shown = lambda r: f"{r['ratio']:.3g} [{r['ratio_min']:.3g}, {r['ratio_max']:.3g}]"
    with open(path, "w") as f:
        write_summary(f, results)
        f.write("| row | workload | peer | cell | H | B | type | ours, us a step | theirs | ratio [min, max] |")
        f.write(" earlier run |" if earlier else "")
        f.write(" goal |\n|---|---|---|---|---|---|---|---|---|---|" + ("---|" if earlier else "") + "---|\n")
        for r in results:
            f.write(
                f"| {r['row']} | {r['workload']} | {r['peer']} | {r['cell']} | {r['hidden']} | {r['lanes']} | {r['type']} "
                f"| {r['ours_us']:.3g} | {r['theirs_us']:.4g} | {shown(r)} |"
            )
            if earlier:
                f.write(f" {shown(earlier[key(r)])} |" if key(r) in earlier else " |")
            f.write(f" {r['target']:g}{'' if r['met'] else ', **missed**'} |\n")


def machine():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(python):
    """Versions of what `python` has of the peers."""
    ask = "import importlib.metadata as m\nfor n in 'torch', 'jax':\n try: print(n, m.version(n))\n except m.PackageNotFoundError: pass"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True).stdout
    return dict(line.split() for line in answer.splitlines())


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ours", help="the built ours.cpp")
    ap.add_argument("--llama", help="the built llama_ours.cpp; without it rows T and M are left out")
    ap.add_argument("--memory", help="the built memory_ours.cpp; without it rows G are left out")
    ap.add_argument("--from", dest="runs", nargs="+", default=[], help="run nothing, show these --json files")
    ap.add_argument("--python", default=sys.executable, help="an interpreter that has numpy and torch or jax")
    ap.add_argument("--pairs", type=int, default=9)
    ap.add_argument("--sample", type=float, default=0.02, help="CPU seconds of one sample")
    ap.add_argument("--core", type=int, default=0)
    ap.add_argument("--only", default="", help="rows, e.g. R1,R11")
    ap.add_argument("--estimators", default="", help="of rows X3, e.g. uoro,snap-1")
    ap.add_argument("--cells", default=",".join(CELLS + STACKS))
    ap.add_argument("--shapes", default=",".join(name for name, _, _ in LLAMAS))
    ap.add_argument("--type", default="f32", choices=("f32", "f64"))
    ap.add_argument("--scale", type=float, default=1, help="factor on the goals, e.g. 0.85 for untuned flags")
    ap.add_argument("--label", default="", help="the compiler flags of ours, kept in the result")
    ap.add_argument("--json", default="")
    ap.add_argument("--markdown", default="", help="write the table to this file")
    ap.add_argument("--also", nargs="+", default=[], help="--json files of an earlier run, shown beside in --markdown")
    a = ap.parse_args()
    environment = dict(
        os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MALLOC_MMAP_THRESHOLD_="4000000000",
        MALLOC_TRIM_THRESHOLD_="8000000000", MALLOC_TOP_PAD_="268435456",
    )
    scale = a.scale * (0.9 if a.type == "f64" else 1)
    dtype = np.float64 if a.type == "f64" else np.float32
    tolerance = 1e-10 if a.type == "f64" else 1e-4
    results = load(a.runs)
    unknown = set(filter(None, a.estimators.split(","))) - {workload for workload, _ in ESTIMATORS}
    if unknown:
        ap.error("--estimators " + ",".join(sorted(unknown)) + ": known are " + ",".join(dict(ESTIMATORS)))
    if not a.runs and not a.ours and not a.llama and not a.memory:
        ap.error("needs --ours BINARY, --llama BINARY, --memory BINARY or --from FILE")
    todo = list(rows(a.type)) if a.ours and not a.runs else []
    if todo and subprocess.run([a.python, "-c", "import jax"], stderr=subprocess.DEVNULL).returncode != 0:
        print("rows X are left out: no jax", file=sys.stderr)
        todo = [r for r in todo if r[0][0] != "X"]
    if a.llama and not a.runs and a.type == "f32":
        todo += llama_rows()
        todo += [row for row in llama_cpp_rows() if row[0] in a.only.split(",")]
    if a.memory and not a.runs and a.type == "f32":
        ask = "import torch.nn.functional as F; F.scaled_dot_product_attention; F.rms_norm"
        if subprocess.run([a.python, "-c", ask], stderr=subprocess.DEVNULL).returncode == 0:
            todo += memory_rows()
        else:
            print("rows G are left out: no torch that has scaled_dot_product_attention and rms_norm", file=sys.stderr)
    estimators = None
    for name, workload, their_workload, cell, hidden, lanes, steps, target in todo:
        memory = workload.startswith("memory")
        llama = workload.startswith("llama") or memory
        if (a.only and name not in a.only.split(",")) or (
            cell not in (a.shapes if llama else a.cells).split(",") and not memory and name != "X3"
        ):
            continue
        if name == "X3" and a.estimators and workload not in a.estimators.split(","):
            continue
        target *= scale
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng(1)
            for f in ("x", "y") if not llama else ():
                rng.standard_normal(steps * lanes * hidden).astype(dtype).tofile(f"{folder}/{f}.bin")
            sizes = [cell, str(hidden), str(lanes), str(steps), a.type, folder]
            two = dict(environment, OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
            setting = (two, None) if workload == "llama-gradient-2" else (environment, a.core)
            ours = Side([a.memory if memory else a.llama if llama else a.ours, workload] + sizes, *setting)
            other = name[0] == "L"
            side = "llama_cpp_" if other else "memory_" if memory else "llama_" if llama else "jax_" if their_workload.startswith("jax") else ""
            if name == "X3":
                estimators = estimators or Estimators(a, setting)
                estimators.check(workload, their_workload, cell)
                theirs = estimators.row(workload, their_workload, sizes)
            else:
                theirs = Side([a.python, f"{HERE}/{side}theirs.py", their_workload] + sizes, *setting)
            difference = exchange_llama(ours, theirs, folder, int(memory)) if llama else exchange(ours, theirs, folder, dtype, name == "X3")
            random = workload == "uoro" and name != "X3"  # two streams of signs: only the cost can be compared
            if not random and not difference <= (0.05 if other or name == "X3" and a.type == "f32" else tolerance):
                sys.exit(f"{name} {workload} {cell} H={hidden} B={lanes}: gradients differ by {difference:.2e}")
            if workload in DRAWN and not their_workload.endswith("-given"):
                theirs.ask("key 1")
            n_ours, n_theirs = ours.repetitions(a.sample), theirs.repetitions(a.sample)
            pairs = [(ours.sample(n_ours), theirs.sample(n_theirs)) for _ in range(a.pairs)]
            planned, held = map(int, ours.ask("bytes").split()) if memory else (None, None)
            ours.close()
            if name != "X3":
                theirs.close()
        ratios = sorted(t / o for o, t in pairs)
        row = dict(
            row=name, workload=workload, peer=their_workload, cell=cell, hidden=hidden, lanes=lanes, steps=steps,
            type=a.type, ours_us=statistics.median(o for o, _ in pairs) / steps * 1e6,
            theirs_us=statistics.median(t for _, t in pairs) / steps * 1e6, ratio=statistics.median(ratios),
            ratio_min=ratios[0], ratio_max=ratios[-1], target=target, met=statistics.median(ratios) >= target,
            ratio_of_minima=min(t for _, t in pairs) / min(o for o, _ in pairs),
            difference=None if random else difference, flags=a.label,
        )
        if memory:
            row |= dict(bytes_planned=planned, bytes=held)
        results.append(row)
        print(
            f"{name:4} {workload:12} {cell:5} H={hidden:<5} B={lanes:<3} ours {row['ours_us']:10.3f} us  theirs "
            f"{row['theirs_us']:10.1f} us  ratio {row['ratio']:7.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}], of minima {row['ratio_of_minima']:.2f}  goal {target:g}"
            f"{'' if row['met'] else '  MISSED'}",
            flush=True,
        )
    if a.json:
        with open(a.json, "w") as f:
            json.dump(dict(machine=machine(), peers=versions(a.python), rows=results), f, indent=1)
    if a.markdown:
        write_markdown(a.markdown, results, {key(r): r for r in load(a.also)})


main()
