#!/usr/bin/env python3
"""Writes include/unroll/text/unicode_categories.hpp from the categories of Unicode 16.0.

    pip install unicodedata2==16.0.0
    python3 tests/text/unicode_categories.py [--check]

16.0 is the version of the regular expressions of tokenizers 0.23.3; what later versions add to \\p{N}, and its rule for
digits knows already, stands here. benchmarks/peers/tokenizer_compare.py compares every code point with the package.
--check: ends with status 1 where the header is another one.
"""
import pathlib
import sys

import unicodedata2

HEADER = pathlib.Path(__file__).parents[2] / "include/unroll/text/unicode_categories.hpp"
VERSION = "16.0.0"
NUMBERS_OF_17 = [*range(0x11DE0, 0x11DEA), *range(0x16FF4, 0x16FF7)]
# Other_Alphabetic of category So, and Join_Control: characters of words without a category of them
CIRCLED = [*range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A), *range(0x1F170, 0x1F18A)]
JOINERS = [0x200C, 0x200D]

TEXT = """#pragma once

// Written by tests/text/unicode_categories.py.

#include <algorithm>
#include <iterator>

#include "unroll/core/config.hpp"

namespace unroll::llama::detail {{

/// The version of Unicode whose categories these are.
inline constexpr const char* unicode_version = "{version}";

// Each list: where a run of code points of the category begins, where it has ended, the next begin, ...
// clang-format off
inline constexpr char32_t letter_runs[] = {{{letters}}};  // \\p{{L}}
inline constexpr char32_t number_runs[] = {{{numbers}}};  // \\p{{N}}
inline constexpr char32_t later_number_runs[] = {{{later}}};  // \\p{{N}} of 17.0 that 16.0 lacks
inline constexpr char32_t word_runs[] = {{{words}}};  // \\w beside the letters
// clang-format on

/// Whether a list of runs has the code point, in O(log runs).
template <std::size_t n>
constexpr bool in_runs(const char32_t (&runs)[n], char32_t code) {{
  return (std::upper_bound(std::begin(runs), std::end(runs), code) - std::begin(runs)) % 2 == 1;
}}

}}  // namespace unroll::llama::detail
"""


def runs(codes):
    bounds = []
    for code in sorted(codes):
        if bounds and bounds[-1] == code:
            bounds[-1] = code + 1
        else:
            bounds += [code, code + 1]
    lines, line = [], "   "
    for b in bounds:
        if len(line) + 10 > 108:
            lines.append(line)
            line = "   "
        line += f" 0x{b:x},"
    return "\n" + "\n".join([*lines, line]).rstrip(",")


def main():
    if unicodedata2.unidata_version != VERSION:
        sys.exit(f"unicodedata2 is of Unicode {unicodedata2.unidata_version}, wanted {VERSION}")
    category = {c: unicodedata2.category(chr(c)) for c in range(0x110000)}
    of = lambda *kinds: [c for c, k in category.items() if k in kinds or k[0] in kinds]
    text = TEXT.format(version=VERSION, letters=runs(of("L")), numbers=runs(of("N")), later=runs(NUMBERS_OF_17),
                       words=runs(of("M", "Nd", "Nl", "Pc") + CIRCLED + JOINERS))
    if "--check" in sys.argv:
        sys.exit(HEADER.read_text() != text and f"{HEADER} is another one")
    HEADER.write_text(text)


if __name__ == "__main__":
    main()
