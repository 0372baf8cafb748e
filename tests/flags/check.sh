#!/usr/bin/env bash
# Compiles products.cpp under macros and flags that change the meaning of code in headers: it must be right, or end
# with a message. What is refused at compile time is in compile_fail/flags.cpp.
# usage: check.sh (environment: CXX, EIGEN, UNROLL_WORK)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${UNROLL_WORK:-$(mktemp -d)}
mkdir -p "$work"
build() { "${CXX:-g++}" -std=c++20 -O1 "$@" -I "$here/../../include" -isystem "${EIGEN:-/usr/include/eigen3}" "$here/products.cpp" -o "$work/products"; }

build -DEIGEN_DEFAULT_TO_ROW_MAJOR
"$work/products"

# sums that may be reordered, as by a compiler that has no macro for it
build -funsafe-math-optimizations -U__ASSOCIATIVE_MATH__
if "$work/products" >"$work/said" 2>&1; then
  echo "a program whose sums are reordered runs"
  exit 1
fi
grep -q 'unroll: compiler flags: sums are reordered' "$work/said"
echo "the flags keep the numbers, or are refused"
