#!/usr/bin/env python3
"""Held-out loss of memory_llama eval runs by length of the context, means over seeds, as a table and a figure.

Files are named eval-POLICY-SEED.json. Nats a token; +- is the half width of a 95 % Student interval over seeds; differences
are taken seed by seed, the baseline minus the policy. `alone`, `window` and `sinks` are the plain model on segments alone
and with as many keys, which no seed changes, on texts as long or shorter. The figure shows what a token's loss gains over
`alone`; it needs gnuplot."""
import argparse
import json
import os
import statistics
import subprocess

from summarise import interval, student

POLICIES = "rematerialise window:4 window:1 reservoir:2 reservoir:2:uncompensated proportional:4".split()
COLOURS = "#9400d3 #009e73 #56b4e9 #e69f00 #d55e00 #0072b2".split()


def load(names):
    """Losses by policy, length and seed, and those of the plain methods by method and length."""
    runs, plain = {}, {}
    for name in names:
        policy, seed = os.path.basename(name)[len("eval-"):-len(".json")].rsplit("-", 1)
        with open(name) as file:
            for row in json.load(file)["rows"]:
                if row["method"] == "memory":
                    runs.setdefault(policy, {}).setdefault(row["tokens"], {})[seed] = row["nll"]
                else:
                    plain.setdefault(row["method"], {})[row["tokens"]] = row["nll"]
    return runs, plain


def print_table(runs, plain, baseline, at):
    lengths = sorted(next(iter(runs.values())))
    print("| | " + " | ".join(f"{n} tokens" for n in lengths) + f" | better than {baseline} at {at} by |")
    print("|---|" + "---|" * (len(lengths) + 1))
    for method, loss in sorted(plain.items()):
        print(f"| plain, {method} | " + " | ".join(f"{loss[n]:.4f}" if n in loss else "" for n in lengths) + " | |")
    for policy, by_length in runs.items():
        other, own = runs[baseline][at], by_length[at]
        gain = interval([other[s] - own[s] for s in sorted(own) if s in other]) if policy != baseline else ""
        print(f"| {policy} | " + " | ".join(interval(list(by_length[n].values())) for n in lengths) + f" | {gain} |")


def by_segment(names):
    """Mean loss of each segment of a text, over texts and seeds, by policy or plain method."""
    losses = {}
    for name in names:
        policy = os.path.basename(name)[len("eval-"):-len(".json")].rsplit("-", 1)[0]
        with open(name) as file:
            for method, row in json.load(file)["segment_nll"].items():
                losses.setdefault(policy if method == "memory" else "plain, " + method, []).append(row)
    return {policy: [statistics.mean(column) for column in zip(*rows)] for policy, rows in losses.items()}


def print_segments(losses, baseline):
    """The baseline minus each other, segment by segment; +- is of the segments of a column."""
    segments = len(losses[baseline])
    ends = [n for n in (1, 8, 32, 64, 128, 256, 512, 1024) if n < segments] + [segments]
    columns = list(zip([0] + ends, ends))
    print(f"\n| nats below {baseline} in segments | " + " | ".join(f"{a + 1} to {b}" if b - a > 1 else f"{b}" for a, b in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for policy, own in losses.items():
        if policy == baseline:
            continue
        gains = [other - x for other, x in zip(losses[baseline], own)]
        print(f"| {policy} | " + " | ".join(interval(gains[a:b]) if gains[a:b] else "" for a, b in columns) + " |")


def draw(runs, plain, plot):
    alone = plain.pop("alone")
    blocks, curves = [], []
    for policy, by_length in runs.items():
        lines = []
        for length, losses in sorted(by_length.items()):
            mean, half = student([alone[length] - v for v in losses.values()])
            # curves stand a little beside each other, so that their bars can be told apart
            lines.append(f"{length * (1 + 0.02 * (len(curves) - len(runs) / 2))} {mean} {half}")
        blocks.append("\n".join(lines))
        curves.append(f"using 1:2:3 with yerrorlines pt 7 ps 0.5 lw 2 lc rgb '{COLOURS[len(curves) % 6]}' title '{policy}'")
    for method, loss in sorted(plain.items()):
        blocks.append("\n".join(f"{n} {alone[n] - v}" for n, v in sorted(loss.items())))
        curves.append(f"using 1:2 with lines dt 2 lw 2 lc rgb 'gray{40 + 30 * (method == 'sinks')}' title 'plain, {method}'")
    script = "".join(f"$d{i} << END\n{block}\nEND\n" for i, block in enumerate(blocks))
    script += f"""set terminal svg noenhanced size 800,480 background 'white' font 'sans,12'
set output '{plot}'
set title 'What memories are worth, by the gradient that trained them'
set xlabel 'tokens of the text'
set ylabel 'nats a token below the segments alone'
set logscale x 2
set xrange [{min(alone) * 0.875}:{max(alone) * 1.15}]
set grid
set key outside right
plot {", ".join(f"$d{i} {curve}" for i, curve in enumerate(curves))}
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--baseline", default="window:1", help="policy that the others are compared with")
    ap.add_argument("--at", type=int, default=1024, help="length of that comparison, tokens")
    ap.add_argument("--segments", action="store_true", help="also the difference to the baseline by segments of the text")
    ap.add_argument("--plot", help="SVG file to draw")
    ap.add_argument("files", nargs="+", metavar="eval-POLICY-SEED.json")
    options = ap.parse_args()
    runs, plain = load(options.files)
    runs = dict(sorted(runs.items(), key=lambda p: POLICIES.index(p[0]) if p[0] in POLICIES else len(POLICIES)))
    print_table(runs, plain, options.baseline, options.at)
    if options.segments:
        print_segments(by_segment(options.files), options.baseline)
    if options.plot:
        draw(runs, plain, options.plot)


if __name__ == "__main__":
    main()
