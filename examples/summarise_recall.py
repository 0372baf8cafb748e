#!/usr/bin/env python3
"""What memory_llama recall runs still tell, by lag, as a table and a figure.

Files are named recall-TASK-POLICY-SEED.json. Given are the shares of right tokens of the answer, means over seeds, and in
brackets the nats a token. `window`, `sinks` and `none` are the plain model. The figure needs gnuplot."""
import argparse
import json
import os
import subprocess


def load(names):
    """Shares and nats by method (a policy for memories) and lag, one of each a seed."""
    out = {}
    for name in names:
        policy = os.path.basename(name)[len("recall-"):-len(".json")].split("-", 1)[1].rsplit("-", 1)[0]
        with open(name) as file:
            for row in json.load(file)["rows"]:
                method = policy if row["method"] == "memory" else row["method"]
                out.setdefault(method, {}).setdefault(row["lag"], []).append((row["tokens_right"], row["nll"]))
    return out


def mean(values):
    return sum(values) / len(values)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--plot", help="SVG file to draw")
    ap.add_argument("files", nargs="+", metavar="recall-TASK-POLICY-SEED.json")
    options = ap.parse_args()
    methods = load(options.files)
    lags = sorted({lag for by_lag in methods.values() for lag in by_lag})
    print("| | " + " | ".join(f"{lag} segments ago" for lag in lags) + " |")
    print("|---|" + "---|" * len(lags))
    cell = lambda runs: f"{mean([r for r, _ in runs]):.3f} ({mean([n for _, n in runs]):.2f})" if runs else ""
    for method, by_lag in methods.items():
        print(f"| {method} | " + " | ".join(cell(by_lag.get(lag)) for lag in lags) + " |")
    if not options.plot:
        return
    blocks = ["\n".join(f"{lag} {mean([r for r, _ in runs])}" for lag, runs in sorted(m.items())) for m in methods.values()]
    script = "".join(f"$d{i} << END\n{block}\nEND\n" for i, block in enumerate(blocks))
    curves = [f"$d{i} using 1:2 with linespoints pt 7 ps 0.6 lw 2 title '{m}'" for i, m in enumerate(methods)]
    script += f"""set terminal svg noenhanced size 800,480 background 'white' font 'sans,12'
set output '{options.plot}'
set title 'What is still told of what stood some segments ago'
set xlabel 'segments'
set ylabel 'share of right tokens'
set logscale x 2
set yrange [0:1]
set grid
set key outside right
plot {", ".join(curves)}
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


if __name__ == "__main__":
    main()
