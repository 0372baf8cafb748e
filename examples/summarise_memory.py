#!/usr/bin/env python3
"""Held-out loss of memory_llama eval runs by length of the context, means over seeds, as a table.

usage: summarise_memory.py BASELINE eval-POLICY-SEED.json...   nats a token. +- is the half width of a 95 % Student interval
over seeds; differences are taken seed by seed, BASELINE minus the policy at the same length. `alone`, `window` and
`sinks` are the plain model on segments alone and with as many keys, which no seed changes."""
import json
import os
import sys

from summarise import interval

baseline, runs, plain = sys.argv[1], {}, {}
for name in sys.argv[2:]:
    policy, seed = os.path.basename(name)[len("eval-"):-len(".json")].rsplit("-", 1)
    with open(name) as file:
        for row in json.load(file)["rows"]:
            if row["method"] == "memory":
                runs.setdefault(policy, {}).setdefault(row["tokens"], {})[seed] = row["nll"]
            else:
                plain.setdefault(row["method"], {})[row["tokens"]] = row["nll"]
lengths = sorted(next(iter(runs.values())))
print("| | " + " | ".join(f"{n} tokens" for n in lengths) + f" | better than {baseline} at {lengths[-1]} by |")
print("|---|" + "---|" * (len(lengths) + 1))
for method, loss in sorted(plain.items()):
    print(f"| plain, {method} | " + " | ".join(f"{loss[n]:.4f}" for n in lengths) + " | |")
for policy, by_length in sorted(runs.items(), key=lambda at: (at[0] == baseline, at[0])):
    other, own = runs[baseline][lengths[-1]], by_length[lengths[-1]]
    gain = interval([other[s] - own[s] for s in sorted(own) if s in other]) if policy != baseline else ""
    print(f"| {policy} | " + " | ".join(interval(list(by_length[n].values())) for n in lengths) + f" | {gain} |")
