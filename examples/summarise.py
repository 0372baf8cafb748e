#!/usr/bin/env python3
"""Means over seeds of the held-out bits per character of train_text runs, as a table.

usage: summarise.py BASELINE RUN.json...   A run counts by its estimator, rate and seed. +- is the half width of a 95 %
Student interval over seeds; differences are taken seed by seed, BASELINE minus the estimator at the same rate."""
import json
import math
import sys

T95 = dict(zip(range(1, 16), (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
                              2.160, 2.145, 2.131)))


def student(values):
    """The mean and the half width of its 95 % interval, which one value does not have: 0."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, 0
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, T95.get(n - 1, 2.13) * spread / math.sqrt(n)


def interval(values):
    mean, half = student(values)
    return f"{mean:.4f}" if len(values) < 2 else f"{mean:.4f} ± {half:.4f}"


def main():
    baseline, runs = sys.argv[1], {}
    for name in sys.argv[2:]:
        with open(name) as file:
            run = json.load(file)
        if run["complete"]:
            runs.setdefault((run["estimator"], run["rate"]), {})[run["seed"]] = run
    print("| estimator | rate | seeds | held-out bits a character | better than " + baseline + " by | seconds |")
    print("|---|---|---|---|---|---|")
    for estimator, rate in sorted(runs, key=lambda at: (at[0] == baseline, at)):
        own, other = runs[estimator, rate], runs.get((baseline, rate), {})
        bits = {seed: run["course"][-1]["held_out_bits"] for seed, run in own.items()}
        gains = [other[seed]["course"][-1]["held_out_bits"] - bits[seed] for seed in sorted(bits) if seed in other]
        gain = interval(gains) if gains and estimator != baseline else ""
        seconds = sum(run["cpu_seconds"] for run in own.values()) / len(own)
        print(f"| {estimator} | {rate:g} | {len(bits)} | {interval(list(bits.values()))} | {gain} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
