#!/usr/bin/env bash
# Builds and runs the small project of this folder against the library.
# usage: check.sh find_package|add_subdirectory|fetch_content
set -eu
way=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${UNROLL_WORK:-$(mktemp -d)}
rm -rf "$work" && mkdir -p "$work"
prefix=()

if [ "$way" = find_package ]; then
  cmake -S "$root" -B "$work/library" -DUNROLL_TESTS=OFF -DUNROLL_EXAMPLES=OFF
  cmake --install "$work/library" --prefix "$work/installed"
  (cd "$root/include" && find . -type f | LC_ALL=C sort) >"$work/expected"
  (cd "$work/installed/include" && find . -type f | LC_ALL=C sort) >"$work/got"
  diff "$work/expected" "$work/got"  # every header is installed, and nothing else
  prefix=(-DCMAKE_PREFIX_PATH="$work/installed")
fi
cmake -S "$here" -B "$work/consumer" -DWAY="$way" -DLIBRARY_DIR="$root" "${prefix[@]}"
cmake --build "$work/consumer"
"$work/consumer/consumer"

if [ "$way" = find_package ]; then  # a version that does not match is refused
  sed 's/find_package(unroll 0.2 /find_package(unroll 7.0 /' "$here/CMakeLists.txt" >"$work/CMakeLists.txt"
  cp "$here/main.cpp" "$work/"
  if cmake -S "$work" -B "$work/refused" -DWAY="$way" "${prefix[@]}" >"$work/refused.log" 2>&1; then exit 1; fi
  grep -q 'requested version "7.0"' "$work/refused.log"
fi
echo "$way works"
