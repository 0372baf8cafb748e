#!/usr/bin/env python3
"""Which estimators have the bits of another revision: compiles bits.cpp against the headers of both and compares.

usage: bits.py REVISION [COMPILER OPTION...]      default options: -std=c++20 -O2 -march=native
Prints a row for each cell and estimator whose numbers differ, with the largest difference over the largest magnitude,
then a count. Two minutes. Eigen's folder is $EIGEN, by default /usr/include/eigen3; $CXX is the compiler."""
import collections
import os
import pathlib
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
if len(sys.argv) < 2:
    sys.exit(__doc__)
revision, options = sys.argv[1], sys.argv[2:] or ["-std=c++20", "-O2", "-march=native"]


def gradients(include, program):
    subprocess.run([os.environ.get("CXX", "g++"), *options, f"-I{include}", "-isystem",
                    os.environ.get("EIGEN", "/usr/include/eigen3"), str(root / "benchmarks/bits.cpp"), "-o", program],
                   check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: numbers for name, *numbers in (line.split() for line in lines)}


with tempfile.TemporaryDirectory() as folder:
    tree = pathlib.Path(folder) / "before"
    tree.mkdir()
    archive = subprocess.run(["git", "-C", str(root), "archive", revision, "include"], check=True, capture_output=True)
    subprocess.run(["tar", "x", "-C", str(tree)], input=archive.stdout, check=True)
    before = gradients(tree / "include", f"{folder}/bits_before")
    now = gradients(root / "include", f"{folder}/bits_now")

assert before.keys() == now.keys()
equal, differing = 0, collections.defaultdict(list)
for name in now:
    if before[name] == now[name]:
        equal += 1
        continue
    a, b = ([float.fromhex(x) for x in side[name]] for side in (before, now))
    loss = abs(a[0] - b[0]) / abs(a[0])
    gradient = max(abs(x - y) for x, y in zip(a[1:], b[1:])) / max(map(abs, a[1:]))
    cell, estimator, hidden, lanes = name.split("/")
    differing[cell, estimator].append((f"{hidden}/{lanes}", max(loss, gradient)))
print(f"against {revision}, {' '.join(options)}: {equal} of {len(now)} cases have the same bits")
for (cell, estimator), cases in differing.items():
    print(f"{cell:14} {estimator:14} {max(error for _, error in cases):.1e}  units/lanes " +
          ", ".join(case for case, _ in cases))
