#!/usr/bin/env bash
# Compiles the headers as part of the program of a strict user, who finds Eigen by -I: not one line may be said.
# usage: check.sh (environment: CXX, EIGEN, UNROLL_WORK)
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=${UNROLL_WORK:-$(mktemp -d)}
mkdir -p "$work"
strict="-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wdouble-promotion"
# shellcheck disable=SC2086  # several flags
compile() { "${CXX:-g++}" -std=c++20 $strict "$@" -I "$here/../../include" -I "${EIGEN:-/usr/include/eigen3}"; }

{
  compile -fsyntax-only "$here/everything.cpp"
  compile -O3 -c "$here/texts.cpp" -o "$work/texts.o"  # what only the optimiser sees, as -Wrestrict
} >"$work/said" 2>&1
if [ -s "$work/said" ]; then
  cat "$work/said"
  exit 1
fi
echo "no warning"
