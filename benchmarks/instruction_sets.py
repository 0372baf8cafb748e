#!/usr/bin/env python3
"""How a program built without -march compares with the same one built with -march=native.

Builds benchmarks/instruction_sets.cpp both ways, runs the two in turn and prints a table of times and of their
ratios: 1 says that the flag gains nothing. UNROLL_INSTRUCTIONS applies to both.
usage: instruction_sets.py [--compiler g++] [--rounds 3] [--json FILE]
"""
import argparse, json, os, subprocess, tempfile

parser = argparse.ArgumentParser()
parser.add_argument("--compiler", default="g++")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--json")
options = parser.parse_args()
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
flags = {"without": [], "native": ["-march=native"]}
common = ["-std=c++20", "-O2", "-DNDEBUG", "-pthread", f"-I{root}/include"]
best = {way: {} for way in flags}
with tempfile.TemporaryDirectory() as folder:
    for way, more in flags.items():
        source = f"{root}/benchmarks/instruction_sets.cpp"
        subprocess.run([options.compiler, *common, *more, source, "-o", f"{folder}/{way}"], check=True)
    for _ in range(options.rounds):
        for way in flags:
            out = subprocess.run([f"{folder}/{way}"], check=True, capture_output=True, text=True).stdout
            for line in out.splitlines():
                name, seconds = line.rsplit(" ", 1)
                best[way][name] = min(float(seconds), best[way].get(name, float("inf")))

rows = [{"work": name, "without": seconds, "native": best["native"][name],
         "ratio": best["native"][name] / seconds} for name, seconds in best["without"].items()]
print("| work | without -march, µs | -march=native, µs | speed of the first over the second |\n|---|---|---|---|")
for r in rows:
    print(f"| {r['work']} | {r['without'] * 1e6:.4g} | {r['native'] * 1e6:.4g} | {r['ratio']:.2f} |")
if options.json:
    version = subprocess.run([options.compiler, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    with open("/proc/cpuinfo") as f:
        model = next((l.split(":")[1].strip() for l in f if l.startswith("model name")), "")
    with open(options.json, "w") as f:
        json.dump({"compiler": version, "flags": " ".join(common[:3]), "processor": model,
                   "instructions": os.environ.get("UNROLL_INSTRUCTIONS", "best"), "rows": rows}, f, indent=1)
