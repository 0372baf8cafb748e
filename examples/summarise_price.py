#!/usr/bin/env python3
"""The price of unbiased estimates by system and size, from gradient_bias --json files, as a table and a figure.

usage: summarise_price.py [--plot FIGURE.svg] RUN.json...   A run counts by its system, hidden units and seed. The price is
relative variance x milliseconds a sequence: what one estimate costs whose error is as large as the gradient. Means over seeds
are geometric, "x/ f" is the factor of their 95 % Student interval. The figure needs gnuplot."""
import argparse
import json
import math
import subprocess

from summarise import student

COLOURS = "#0072b2 #0072b2 #e69f00 #e69f00 #009e73 #009e73".split()


def load(names):
    """(price, relative variance, heavy tails) of each seed, by estimator and (system, hidden)."""
    runs, columns = {}, []
    for name in names:
        with open(name) as file:
            run = json.load(file)
        if not run["complete"]:
            continue
        column = run["system"], run["hidden"]
        if column not in columns:
            columns.append(column)
        for row in run["rows"]:
            square = row["exact_norm"] ** 2
            seeds = runs.setdefault(row["estimator"], {}).setdefault(column, {})
            if run["seed"] in seeds:
                raise SystemExit(f"summarise_price.py: {name}: seed {run['seed']} of {row['estimator']} is there twice")
            seeds[run["seed"]] = (1000 * row["variance_time"] / square, row["variance"] / square, row["heavy_tails"])
    return runs, columns


def means(seeds):
    """Geometric mean of the price, the factor of its interval, that of the variance, and whether a seed had heavy tails."""
    values = list(seeds.values())
    mean, half = student([math.log(v[0]) for v in values])
    return math.exp(mean), math.exp(half), math.exp(student([math.log(v[1]) for v in values])[0]), any(v[2] for v in values)


def print_table(table, columns):
    best = {c: min(row[c][0] for row in table.values() if c in row) for c in columns}
    print("| estimator | " + " | ".join(f"{system} {hidden}" for system, hidden in columns) + " |")
    print("|---|" + "---|" * len(columns))
    for estimator, row in table.items():
        cells = []
        for c in columns:
            if c not in row:
                cells.append("")
                continue
            price, factor, variance, heavy = row[c]
            text = f"{price:.3g}" if price > best[c] else f"**{price:.3g}**"
            cells.append(f"{text} ×/ {factor:.2g} ({variance:.2g}){'*' if heavy else ''}")
        print(f"| {estimator} | " + " | ".join(cells) + " |")


def draw(table, columns, plot):
    names = list(table)
    blocks, curves = [], []
    for i, c in enumerate(columns):
        lines = []
        for y, estimator in enumerate(names):
            if c in table[estimator]:
                price, factor, _, _ = table[estimator][c]
                lines.append(f"{price} {price / factor} {price * factor} {len(names) - y + 0.3 - 0.12 * i}")
        blocks.append("\n".join(lines))
        colour, point = COLOURS[i % 6], 6 + i % 2
        curves.append(f"using 1:4:2:3 with xerrorbars pt {point} ps 0.6 lc rgb '{colour}' title '{c[0]} {c[1]}'")
    script = "".join(f"$d{i} << END\n{block}\nEND\n" for i, block in enumerate(blocks))
    ticks = ", ".join(f"'{name}' {len(names) - y}" for y, name in enumerate(names))
    script += f"""set terminal svg noenhanced size 900,{140 + 34 * len(names)} background 'white' font 'sans,12'
set output '{plot}'
set title 'What unbiased estimates cost'
set xlabel 'relative variance x milliseconds a sequence'
set logscale x 10
set format x '%g'
set yrange [0.3:{len(names) + 0.7}]
set ytics ({ticks})
set grid
set key outside right
plot {", ".join(f"$d{i} {curve}" for i, curve in enumerate(curves))}
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--plot", help="SVG file to draw")
    ap.add_argument("files", nargs="+", metavar="RUN.json")
    options = ap.parse_args()
    runs, columns = load(options.files)
    table = {estimator: {c: means(seeds) for c, seeds in row.items()} for estimator, row in runs.items()}
    print_table(table, columns)
    if options.plot:
        draw(table, columns, options.plot)


if __name__ == "__main__":
    main()
