#!/usr/bin/env python3
"""The exact gradient of a Llama with memories by batches of segments against an older revision, one by one.

Builds benchmarks/exact_gradient.cpp against the headers of REVISION and against these, runs the programs in turn and
prints one JSON object: seconds, the least of all runs, and how often as fast as the revision.
usage: memory_batches.py REVISION [HIDDEN LAYERS SEGMENTS LENGTH] [-- FLAGS OF THE COMPILER]
"""
import json, os, subprocess, sys, tempfile

arguments, flags = sys.argv[1:], ["-O3", "-march=native"]
if "--" in arguments:
    arguments, flags = arguments[:arguments.index("--")], arguments[arguments.index("--") + 1:]
if len(arguments) not in (1, 5):
    sys.exit(__doc__)
revision, shape = arguments[0], arguments[1:] or ["64", "3", "64", "32"]
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
source = f"{root}/benchmarks/exact_gradient.cpp"
with tempfile.TemporaryDirectory() as folder:
    archive = subprocess.run(["git", "-C", root, "archive", revision, "include"], check=True, capture_output=True)
    subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
    build = ["g++", "-std=c++20", "-DNDEBUG", *flags, source, "-o"]
    subprocess.run([*build, f"{folder}/before", f"-I{folder}/include", "-I/usr/include/eigen3"], check=True)
    programs = {"before": f"{folder}/before"}
    for batch in (1, 4, 8, 16):
        programs[batch] = f"{folder}/{batch}"
        subprocess.run([*build, programs[batch], f"-DBATCH={batch}", f"-I{root}/include"], check=True)
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(8):
        for name, program in programs.items():
            run = subprocess.run([program, "3", *shape], check=True, capture_output=True, text=True)
            best[name] = min(best[name], float(run.stdout))
print(json.dumps({
    "revision": revision, "flags": " ".join(flags), "shape": [int(n) for n in shape], "load": os.getloadavg()[0],
    "seconds_before": best["before"],
    "batches": [{"batch": b, "seconds": s, "speed": round(best["before"] / s, 3)}
                for b, s in best.items() if b != "before"]}, indent=1))
