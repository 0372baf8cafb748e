#!/usr/bin/env python3
"""Tables and figures of gradient_bias runs, for gallery.sh.

usage: gallery.py course FIGURE.svg RUN.json...     relative bias of tbptt:K against K, a line a run, named after its updates
       gallery.py variance FIGURE.svg SWEEP.json    variance by |g|^2 against the state, a line an estimator, geometric mean of seeds
"""
import json
import math
import re
import subprocess
import sys

from collections import defaultdict


def draw(figure, lines, names, x, y):
    """lines: name -> [(x, y)], in the order of names."""
    script = "set terminal svg size 800,450 dynamic background 'white'\nset logscale xy\nset grid\nset key outside right noenhanced\n"
    script += f"set output '{figure}'\nset xlabel '{x}'\nset ylabel '{y}'\nset format y '10^{{%T}}'\nset yrange [1e-6:]\n"
    for i, name in enumerate(names):
        script += f"$d{i} << END\n" + "".join(f"{a} {b:.6g}\n" for a, b in lines[name] if b > 0) + "END\n"
    script += "plot " + ", ".join(f"$d{i} with linespoints lw 2 pt 7 title '{name}'" for i, name in enumerate(names)) + "\n"
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def table(first, columns, lines):
    print(f"| {first} | " + " | ".join(str(c) for c in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, points in lines.items():
        values = dict(points)
        print(f"| {name} | " + " | ".join(f"{values[c]:.2g}" if c in values else "" for c in columns) + " |")


def course(figure, files):
    lines = {}
    for file in files:
        updates = re.search(r"(\d+)\.json$", file).group(1)
        with open(file) as f:
            rows = json.load(f)["rows"]
        lines[f"{updates} updates"] = [(int(r["estimator"].split(":")[-1]), r["relative_bias"]) for r in rows]
    table("", [k for k, _ in next(iter(lines.values()))], lines)
    draw(figure, lines, list(lines), "window, steps", "relative bias of TBPTT")


def variance(figure, file):
    with open(file) as f:
        runs = json.load(f)["runs"]
    seeds = defaultdict(lambda: defaultdict(list))
    for name, run in runs.items():
        hidden = int(re.search(r"hidden (\d+)", name).group(1))
        for r in run["rows"]:
            seeds[r["estimator"]][hidden].append(math.log(r["variance"] / r["exact_norm"] ** 2))
    lines = {e: [(h, math.exp(sum(v) / len(v))) for h, v in sorted(by.items())] for e, by in seeds.items()}
    table("units", [h for h, _ in next(iter(lines.values()))], lines)
    draw(figure, lines, list(lines), "units", "variance / |g|^2")


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in ("course", "variance"):
        sys.exit(__doc__)
    if sys.argv[1] == "course":
        course(sys.argv[2], sys.argv[3:])
    else:
        variance(sys.argv[2], sys.argv[3])
