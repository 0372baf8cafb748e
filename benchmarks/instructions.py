#!/usr/bin/env python3
"""Instructions of every benchmark row beside those of another revision, counted by callgrind: compiles instructions.cpp
against the headers of both and prints a table, then the rows above --most.

usage: instructions.py REVISION [--rows PART_OF_A_NAME] [--most 1.03] [--json FILE] [--times]
--times: the least seconds of ten runs of each side in turn, without valgrind, instead of instructions.
Both sides are compiled with -O2 -march=x86-64-v3 and run on AVX2, because valgrind 3.19 knows no AVX-512. Minutes.
Needs valgrind and its headers; Eigen's folder is $EIGEN, by default /usr/include/eigen3; $CXX is the compiler."""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
OPTIONS = ["-std=c++20", "-O2", "-DNDEBUG", "-march=x86-64-v3"]


def start_compiler(tree, program):
    compiler = os.environ.get("CXX", "g++")
    eigen = os.environ.get("EIGEN", "/usr/include/eigen3")
    return subprocess.Popen([compiler, *OPTIONS, f"-I{tree}/include", "-isystem", eigen,
                             str(root / "benchmarks/instructions.cpp"), "-o", program, "-pthread"])


def start_counting(program, folder, rows):
    folder.mkdir()
    environment = dict(os.environ, UNROLL_INSTRUCTIONS="avx2")
    return subprocess.Popen(["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no",
                             f"--callgrind-out-file={folder}/out", program, rows],
                            env=environment)


def counts(folder):
    """{row: instructions}, in the order of the rows."""
    found = {}
    for path in sorted(folder.glob("out.*"), key=lambda p: int(p.suffix[1:])):
        text = path.read_text()
        row = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.M)
        if row:
            found[row[1]] = int(re.search(r"^totals: (\d+)", text, re.M)[1])
    return found


def least_times(programs, rows):
    """{row: nanoseconds} of each program."""
    found = [{}, {}]
    for _ in range(10):
        for program, least in zip(programs, found):
            lines = subprocess.run([program, rows, "times"], check=True, capture_output=True, text=True,
                                   env=dict(os.environ, UNROLL_INSTRUCTIONS="avx2")).stdout.splitlines()
            for seconds, row in (line.split(" ", 1) for line in lines):
                least[row] = min(least.get(row, 1e18), 1e9 * float(seconds))
    return found


def wait(*processes):
    if any([p.wait() for p in processes]):
        sys.exit("instructions.py: a side failed")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("revision")
parser.add_argument("--rows", default="")
parser.add_argument("--most", type=float, default=1.03)
parser.add_argument("--json")
parser.add_argument("--times", action="store_true")
a = parser.parse_args()
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    tree = folder / "tree"
    tree.mkdir()
    archive = subprocess.run(["git", "-C", str(root), "archive", a.revision, "include"], check=True, capture_output=True)
    subprocess.run(["tar", "x", "-C", str(tree)], input=archive.stdout, check=True)
    programs = [f"{folder}/before", f"{folder}/now"]
    wait(*map(start_compiler, (tree, root), programs))
    if a.times:
        before, now = least_times(programs, a.rows)
    else:
        counted = [folder / "counted_before", folder / "counted_now"]
        wait(*(start_counting(*side, a.rows) for side in zip(programs, counted)))
        before, now = map(counts, counted)

assert before and before.keys() == now.keys(), "the two sides counted other rows"
ratio = {row: now[row] / before[row] for row in now}
above = [row for row in now if ratio[row] > a.most]
print(f"| row | before, {'microseconds' if a.times else 'thousands of instructions'} | now | ratio |\n|---|---|---|---|")
for row in now:
    print(f"| {row} | {before[row] / 1e3:.6g} | {now[row] / 1e3:.6g} | {ratio[row]:.3f}{' **more**' if row in above else ''} |")
print(f"\nAgainst {a.revision}: {len(now) - len(above)} of {len(now)} rows are within {a.most:g}, the others:")
for row in sorted(above, key=ratio.get, reverse=True):
    print(f"  {ratio[row]:.3f}  {row}")
if a.json:
    rows = {row: dict(before=before[row], now=now[row]) for row in now}
    pathlib.Path(a.json).write_text(json.dumps(dict(revision=a.revision, options=OPTIONS, rows=rows), indent=1))
