#!/usr/bin/env python3
"""The table of options of docs/howto/use-an-estimator.md is what the headers say, and so is the comment behind every
constructor that takes options in braces, since compilers show that line where one is misspelt.

usage: options.py [--write] [PAGE]    compares; with --write, puts the table of the headers into the page
"""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parents[2]
headers = sorted((root / "include/unroll/estimate").glob("*.hpp"))
first, last = "<!-- options: from the headers -->", "<!-- end of options -->"


def stop(why):
    print(why)
    sys.exit(1)


def rows():
    """(options struct, header, option, default, what) of every member of every NAME_options."""
    for header in headers:
        text = header.read_text()
        for struct in re.finditer(r"^struct (\w+)_options {\n(.*?)^};", text, re.M | re.S):
            body = re.sub(r"\n\s*///< ", " ", struct.group(2))  # a comment that goes on
            body = re.sub(r"^\s*/// (.*)\n(.*;)$", r"\2  ///< \1", body, flags=re.M)  # or stands in front
            members = [line for line in body.splitlines() if not line.lstrip().startswith("//") and line.strip()]
            for line in members:
                member = re.fullmatch(r"\s*[\w:<>, ]+?\s(\w+)(?: = (.*?)|{(.*?)})?;\s*(?:///< (.*))?", line)
                if not member:
                    stop(f"{header}: cannot read \"{line.strip()}\" of {struct.group(1)}_options")
                name, given, braced, what = member.groups()
                if not what:
                    stop(f"{header}: {struct.group(1)}_options::{name} has no comment")
                yield struct.group(1), header.name, name, given or braced or "", what


def table():
    lines = ["| estimator | option | default | what |", "|---|---|---|---|"]
    before = None
    for estimator, header, name, default, what in rows():
        shown = f"[`{estimator}`](../../include/unroll/estimate/{header})" if estimator != before else ""
        before = estimator
        lines.append(f"| {shown} | `{name}` | {f'`{default}`' if default else ''} | {what.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def check_constructors():
    names = {}
    for estimator, header, name, _, _ in rows():
        names.setdefault((estimator, header), []).append(name)
    for (estimator, header), options in names.items():
        text = (root / "include/unroll/estimate" / header).read_text()
        right = "// options: " + ", ".join(options)
        lines = [line for line in text.splitlines() if re.match(rf"\s*(explicit )?{estimator}\(", line)]
        if not any(line.endswith("  " + right) for line in lines):
            stop(f"{header}: the constructor with {estimator}_options does not end with: {right}")


def main():
    arguments = sys.argv[1:]
    write = "--write" in arguments
    pages = [a for a in arguments if a != "--write"]
    page = pathlib.Path(pages[0]) if pages else root / "docs/howto/use-an-estimator.md"
    text = page.read_text()
    if first not in text or last not in text:
        stop(f"{page}: has no {first} ... {last}")
    front, rest = text.split(first, 1)
    now, back = rest.split(last, 1)
    right = f"\n{table()}\n"
    if write:
        page.write_text(front + first + right + last + back)
    elif now != right:
        for a in sorted(set(right.splitlines()) ^ set(now.splitlines())):
            print(("> " if a in right.splitlines() else "< ") + a)
        stop(f"{page}: < is not what the headers say: >   (python3 tests/docs/options.py --write)")
    check_constructors()
    print(f"{page.name} has the options of the headers")


main()
