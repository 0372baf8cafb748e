#!/usr/bin/env python3
"""From a GGUF file to the first token: this library against llama.cpp (llama-cpp-python 0.3.36), each in a process of its own,
one thread.

    g++ -std=c++20 -O3 -march=native -mtune=icelake-server -DNDEBUG -Iinclude -I/usr/include/eigen3 benchmarks/peers/gguf_ours.cpp -o gguf_ours
    python3 benchmarks/peers/gguf_load.py ./gguf_ours FILE.gguf [--runs 15] [--touch 1024] [--json RUNS.json]

Printed are the medians of the runs' processor seconds, taken in turn: from the start of the program, or behind the imports of Python,
until weights and vocabulary are there, and until the token behind five ids is chosen; the ratio of the latter to llama.cpp's; and the
largest resident memory, without what Python itself has. llama.cpp maps the file and multiplies quantised weights; ours are dequantised
to float or bfloat16 as they are loaded. Before each run another process touches --touch MiB of private large pages, which is what weights
lie in, and ends: in a virtual machine whose host takes freed pages back, the host's time for pages would otherwise be part of it."""
import argparse
import json
import os
import statistics
import subprocess
import sys

import numpy as np

IDS = [504, 3575, 282, 4649, 314]  # SmolLM2: The capital of France is
THEIRS = r"""
import ctypes, resource, sys, time
import llama_cpp, numpy as np
quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, start = peak(), time.process_time()
llama_cpp.llama_backend_init()
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), llama_cpp.llama_model_default_params())
p = llama_cpp.llama_context_default_params()
p.n_ctx, p.n_batch, p.n_ubatch, p.n_threads, p.n_threads_batch = 512, 512, 512, 1, 1
context = llama_cpp.llama_init_from_model(model, p)
loaded = time.process_time() - start
ids = [int(i) for i in sys.argv[2].split(",")]
tokens = (llama_cpp.llama_token * len(ids))(*ids)
if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(ids))) != 0:
    sys.exit("llama_decode failed")
size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
best = int(np.argmax(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (size,))))
print(best, loaded, time.process_time() - start, (peak() - before) / 1024)
"""


TOUCH = r"""
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
for at in range(0, len(memory), 4096):
    memory[at] = 1
"""


def run(command, touch, given=None):
    """The words that it prints, and its largest resident memory in MiB."""
    if touch > 0:
        subprocess.run([sys.executable, "-c", TOUCH, str(touch)], check=True)
    read, write = os.pipe()
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=write)
    os.close(write)
    child.stdin.write(given or b"")
    child.stdin.close()
    with os.fdopen(read) as out:
        words = out.read().split()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]} ended with {child.returncode}")
    return words, used.ru_maxrss / 1024


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("program")
    a.add_argument("file")
    a.add_argument("--runs", type=int, default=15)
    a.add_argument("--touch", type=int, default=1024)
    a.add_argument("--json", help="every run, into this file")
    o = a.parse_args()
    program, ids, seen = os.path.abspath(o.program), np.array(IDS, np.int32).tobytes(), {}
    for _ in range(o.runs):
        for kind in ("float", "bf16"):
            words, peak = run([program, "first", o.file, kind], o.touch, ids)
            seen.setdefault("ours, " + kind, []).append((words[0], float(words[1]), float(words[2]), peak))
        words, _ = run([sys.executable, "-c", THEIRS, o.file, ",".join(map(str, IDS))], o.touch)
        seen.setdefault("llama.cpp", []).append((words[0], *map(float, words[1:])))
    if o.json:
        with open(o.json, "w") as file:
            json.dump({name: [dict(zip(("token", "loaded", "first", "MiB"), r)) for r in rows] for name, rows in seen.items()}, file, indent=0)
    median = {name: (rows[0][0], *(statistics.median(r[i] for r in rows) for i in (1, 2, 3))) for name, rows in seen.items()}
    print(f"{os.path.basename(o.file)}, {os.path.getsize(o.file) / 2**20:.0f} MiB; {o.runs} runs, load {os.getloadavg()[0]:.0f}\n")
    print("| | loaded, s | first token, s | to llama.cpp | MiB | the token |")
    print("|---|---|---|---|---|---|")
    for name, (token, loaded, first, peak) in median.items():
        print(f"| {name} | {loaded:.3f} | {first:.3f} | {first / median['llama.cpp'][2]:.2f} | {peak:.0f} | {token} |")


main()
