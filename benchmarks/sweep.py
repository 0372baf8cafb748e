#!/usr/bin/env python3
"""How much faster a sweep of 12 runs of train_text is on two cores than on one: pairs of sweeps, --threads 1 and
--threads 2, one behind the other and each first in turn, and the median of the quotients of their wall time. How
loaded the machine was beside them is said of every sweep, since a core that others use is none: at 0 % the numbers
are those of the program.

usage: sweep.py TRAIN_TEXT [PAIRS]    default 5 pairs; under `chrt -f 1` others wait meanwhile
"""
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time


def busy_seconds():
    """Of all processes and cores, since the machine began."""
    fields = [int(n) for n in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sweep(program, threads):
    """Wall seconds, processor seconds, and the share of the cores that others used meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--hidden", "32,48", "--seed", "1..6", "--sequences", "96", "--sweep", f"{folder}/sweep.json",
                   "--threads", str(threads)]
        busy, used, start = busy_seconds(), processor_seconds(), time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.monotonic() - start
        used = processor_seconds() - used
        others = max(0.0, busy_seconds() - busy - used) / (wall * len(os.sched_getaffinity(0)))
        return wall, used, others


def main():
    program, pairs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    quotients = []
    print(f"{len(os.sched_getaffinity(0))} cores; seconds of wall and processor, share of the cores that others used")
    for pair in range(pairs):
        order = (1, 2) if pair % 2 == 0 else (2, 1)
        found = {threads: sweep(program, threads) for threads in order}
        quotients.append(found[1][0] / found[2][0])
        print("   ".join(f"{threads} threads: {wall:6.2f} {used:6.2f} {100 * others:4.0f} %"
                         for threads, (wall, used, others) in sorted(found.items())), f"  {quotients[-1]:.2f} times")
    print(f"median of {pairs}: {statistics.median(quotients):.2f} times as fast, from {min(quotients):.2f} to {max(quotients):.2f}")


if __name__ == "__main__":
    main()
