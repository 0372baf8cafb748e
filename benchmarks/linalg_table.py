#!/usr/bin/env python3
"""Markdown tables from the JSON output of benchmarks/linalg on standard input."""
import json
import re
import sys

group = None
for row in json.load(sys.stdin)["benchmarks"]:
    name, sizes = re.match(r"(.+?>)/([\d/]+)", row["name"]).groups()
    if name != group:
        group = name
        print(f"\n`{name}`\n\n| shape | ours | Eigen | ratio | share of peak |\n|---|---|---|---|---|")
    share = f"{row['share']:.0%}" if "share" in row else "–"
    shape = "×".join(sizes.strip("/").split("/"))
    print(f"| {shape} | {row['ours']:.3g} | {row['Eigen']:.3g} | {row['ratio']:.2f} | {share} |")
