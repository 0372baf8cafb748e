#!/usr/bin/env python3
"""Writes a text with one dependence of length 8: lines "[x]", five random letters, "[x]", letters from a to j.

Six letters of the twelve characters of a line are free: log2(10) / 2 = 1.660964 bits a character; who cannot remember
x across the five letters pays seven, 1.937791.  usage: brackets.py LINES SEED > FILE"""
import random
import sys

lines, seed = int(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
for _ in range(lines):
    x = draw.choice("abcdefghij")
    noise = "".join(draw.choice("abcdefghij") for _ in range(5))
    print(f"[{x}]{noise}[{x}]")
