#!/usr/bin/env bash
# Builds and runs the small project of this folder against the library; cuda: that of cuda/, by nvcc, against the
# installed one.
# usage: check.sh find_package|add_subdirectory|fetch_content|cuda
set -eu
way=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${UNROLL_WORK:-$(mktemp -d)}
rm -rf "$work" && mkdir -p "$work"
prefix=()

if [ "$way" = cuda ]; then
  nvcc=${CUDACXX:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)}
  [ -n "$nvcc" ] || { echo "skipped: there is no nvcc on this machine, nothing was compiled for CUDA"; exit 0; }
  export CUDACXX=$nvcc
  cmake -S "$root" -B "$work/library" -DUNROLL_TESTS=OFF -DUNROLL_EXAMPLES=OFF
  cmake --install "$work/library" --prefix "$work/installed" >/dev/null
  cmake -S "$here/cuda" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$work/installed" -DCMAKE_CUDA_ARCHITECTURES=80-real
  cmake --build "$work/consumer"
  "$work/consumer/consumer"
  mkdir "$work/other"
  cp "$here/main.cpp" "$work/other/"
  sed 's/find_package(unroll 0.2 REQUIRED)/find_package(unroll 0.2 REQUIRED COMPONENTS hip)/' "$here/CMakeLists.txt" >"$work/other/CMakeLists.txt"
  if cmake -S "$work/other" -B "$work/refused" -DWAY=find_package -DCMAKE_PREFIX_PATH="$work/installed" >"$work/refused.log" 2>&1
  then exit 1; fi
  tr -s ' \n' ' ' <"$work/refused.log" | grep -q "there is no component hip, only cuda"
  echo "cuda works"
  exit 0
fi
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
