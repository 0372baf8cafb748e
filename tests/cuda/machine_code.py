#!/usr/bin/env python3
"""What nvcc has made of the kernels in an object file: registers, bytes of stack, instructions, and those of the tensor
cores. Reads the file alone, no tool of CUDA is needed.

usage: machine_code.py OBJECT [--table FILE] [--write]

Ends with 1 where a kernel has been dropped (nvcc only warns of a host function that device code calls, and leaves a kernel
that returns at once), where one that is made for tensor cores has no instruction of theirs, and where one has more stack (what
registers do not hold) or 8 registers more than the table says that the same version of nvcc has made. Kernels that only one of
the two has are named. --write: writes the table."""
import argparse
import re
import struct
import subprocess
import sys

CUDA = 190  # e_machine
NOP = 0x918
TENSOR = {0x23C: "mma", 0x1F0: "wgmma", 0x9F0: "wgmma", 0xDF0: "wgmma"}  # HMMA, HGMMA: the lowest 12 bits
needs_tensor_cores = re.compile(r"gemm_mma_body|flash_(attention|dkv|dq)_body")


def images(data):
    """The ELF files of devices in a file, one behind another."""
    at = data.find(b"\x7fELF", 0)
    while at >= 0:
        if struct.unpack_from("<H", data, at + 18)[0] == CUDA:
            yield memoryview(data)[at:]
        at = data.find(b"\x7fELF", at + 4)


def kernels(elf):
    """(architecture, name): (registers, bytes of stack, instructions, of tensor cores)"""
    flags, = struct.unpack_from("<I", elf, 48)
    architecture = f"sm_{(flags >> 8 if elf[8] >= 8 else flags) & 0xFF}"
    sections_at, = struct.unpack_from("<Q", elf, 40)
    size, count, names_in = struct.unpack_from("<HHH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, sections_at + i * size) for i in range(count)]

    def text(section, offset):
        start = sections[section][4] + offset
        return bytes(elf[start:start + 4096]).split(b"\0")[0].decode()

    by_name = {text(names_in, s[0]): (i, s) for i, s in enumerate(sections)}
    symbols = by_name[".symtab"][1]
    symbol_of = {}
    for i in range(symbols[5] // 24):
        name, = struct.unpack_from("<I", elf, symbols[4] + 24 * i)
        symbol_of[i] = text(symbols[6], name)
    stack, registers = {}, {}
    info = by_name.get(".nv.info", (0, None))[1]
    at, end = (info[4], info[4] + info[5]) if info else (0, 0)
    while at < end:  # attributes: kind, number, and 2 bytes, or a length and so many
        kind, number, length = struct.unpack_from("<BBH", elf, at)
        if kind == 4:
            if number in (0x11, 0x2F):  # the size of a function's frame; its registers
                symbol, value = struct.unpack_from("<II", elf, at + 4)
                (stack if number == 0x11 else registers)[symbol_of[symbol]] = value
            at += length
        at += 4
    found = {}
    for name, (_, s) in by_name.items():
        if not name.startswith(".text."):
            continue
        code = [struct.unpack_from("<Q", elf, a)[0] & 0xFFF for a in range(s[4], s[4] + s[5], 16)]
        tensor = sum(op in TENSOR for op in code)
        found[architecture, name[6:]] = (registers.get(name[6:], 0), stack.get(name[6:], 0), sum(op != NOP for op in code), tensor)
    return found


def plain(names):
    """The kernel bodies' names, without namespaces."""
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    for name in out.splitlines():
        inner = re.match(r"void unroll::cuda::(?:\(anonymous namespace\)::)?run_body<(.*)>\(.*\)$", name)
        yield re.sub(r"\b(?:unroll|kernels|cuda)::", "", inner.group(1) if inner else name).strip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("object")
    parser.add_argument("--table")
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--write", action="store_true")
    a = parser.parse_args()
    with open(a.object, "rb") as f:
        data = f.read()
    found = {}
    for elf in images(data):
        found.update(kernels(elf))
    if not found:
        sys.exit(f"machine_code.py: {a.object}: has no kernel (its images may be compressed)")
    names = zip((architecture for architecture, _ in found), plain(name for _, name in found))
    rows = {" ".join(key): row for key, row in sorted(zip(names, found.values()))}
    architectures = {key.split()[0] for key in rows}
    wrong = []
    for name, (registers, stack, instructions, tensor) in rows.items():
        if instructions < 8:
            wrong.append(f"{name}: has {instructions} instructions: it was dropped")
        if needs_tensor_cores.search(name) and tensor == 0:
            wrong.append(f"{name}: has no instruction of tensor cores")
    version = re.search(r"release ([\d.]+), V([\d.]+)", subprocess.run([a.nvcc, "--version"], capture_output=True, text=True).stdout)
    version = version.group(2) if version else "?"
    lines = [f"nvcc {version}: registers, bytes of stack, instructions of tensor cores, architecture and kernel"]
    lines += [f"{r:4} {s:5} {t:5}  {name}" for name, (r, s, i, t) in rows.items()]
    if a.write:
        with open(a.table, "w") as f:
            f.write("\n".join(lines) + "\n")
    elif a.table:
        with open(a.table) as f:
            want = f.read().splitlines()
        if want[0] != lines[0]:
            print(f"the table is of another version ({want[0].split(':')[0]}, here {version}): not compared")
        else:
            table = {name: (int(r), int(s)) for r, s, _, name in (x.split(None, 3) for x in want[1:])
                     if name.split()[0] in architectures}
            for name in sorted(table.keys() ^ rows.keys()):
                print(f"only {'in the table' if name in table else 'here'}: {name} (--write writes it anew)")
            for name in table.keys() & rows.keys():
                before, now = table[name], rows[name][:2]
                if now[0] > before[0] + 8 or now[1] > before[1]:
                    wrong.append(f"{name}: has {now[0]} registers and {now[1]} bytes of stack, the table {before[0]} and {before[1]}")
    for w in wrong:
        print(w)
    print(f"{', '.join(sorted(architectures))}: {len(rows)} kernels, {sum(t > 0 for _, _, _, t in rows.values())} of them with instructions of tensor cores, at most "
          f"{max(r for r, _, _, _ in rows.values())} registers and {max(s for _, s, _, _ in rows.values())} bytes of stack")
    sys.exit(1 if wrong else 0)


main()
