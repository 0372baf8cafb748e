#!/usr/bin/env bash
# Usage: check.sh COMPILER INCLUDE EIGEN FILE
# FILE must compile as it is, and must not compile with -DUNROLL_SHOULD_FAIL; the message must match the
# extended regular expression in each of its lines "// expect: REGEX".
set -u
if [ $# -ne 4 ]; then
  echo "usage: $0 COMPILER INCLUDE EIGEN FILE" >&2
  exit 2
fi
compiler=$1 include=$2 eigen=$3 file=$4
compile=("$compiler" -std=c++20 -fsyntax-only -I "$include" -isystem "$eigen")

if ! message=$("${compile[@]}" "$file" 2>&1); then
  echo "$file: does not compile without the mistake:"
  echo "$message"
  exit 1
fi
if message=$("${compile[@]}" -DUNROLL_SHOULD_FAIL "$file" 2>&1); then
  echo "$file: compiles with the mistake"
  exit 1
fi
mapfile -t expected < <(sed -n 's|^// expect: ||p' "$file")
if [ ${#expected[@]} -eq 0 ]; then
  echo "$file: has no line // expect: REGEX"
  exit 1
fi
for regex in "${expected[@]}"; do
  if ! grep -Eq -- "$regex" <<<"$message"; then
    echo "$file: the message does not match: $regex"
    echo "$message"
    exit 1
  fi
done
