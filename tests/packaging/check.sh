#!/usr/bin/env bash
# Builds and runs the small project of this folder against the library; cuda: that of cuda/, by nvcc, against the
# installed one, and that of cudnn/, where the headers of cuDNN and its frontend are.
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
  refused() { # refused FOLDER MESSAGE OPTION...: find_package in that folder fails and says so
    local folder=$1 message=$2
    shift 2
    rm -rf "$work/refused"
    if cmake -S "$folder" -B "$work/refused" -DCMAKE_PREFIX_PATH="$work/installed" "$@" >"$work/refused.log" 2>&1; then exit 1; fi
    tr -s ' \n' ' ' <"$work/refused.log" | grep -q "$message" || { cat "$work/refused.log"; exit 1; }
  }
  mkdir "$work/other"
  cp "$here/main.cpp" "$work/other/"
  sed 's/find_package(unroll 0.2 REQUIRED)/find_package(unroll 0.2 REQUIRED COMPONENTS hip)/' "$here/CMakeLists.txt" >"$work/other/CMakeLists.txt"
  refused "$work/other" "there is no component hip, only cuda and cudnn" -DWAY=find_package
  refused "$here/cudnn" "the component cudnn: cudnn_frontend.h was not found (CUDNN_FRONTEND_INCLUDE_DIR; pip install nvidia-cudnn-frontend)" \
    -DCUDNN_FRONTEND_INCLUDE_DIR=
  refused "$here/cudnn" "the component cudnn needs the CUDA toolkit, which was not found" -DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON
  . "$root/tests/cuda/find_cudnn.sh"
  if flags=$(cudnn_headers); then
    options=()
    for place in $flags; do
      [ -e "$place/cudnn_frontend.h" ] && options+=(-DCUDNN_FRONTEND_INCLUDE_DIR="$place")
      [ -e "$place/cudnn.h" ] && options+=(-DCUDNN_INCLUDE_DIR="$place")
    done
    cmake -S "$here/cudnn" -B "$work/cudnn" -DCMAKE_PREFIX_PATH="$work/installed" "${options[@]}"
    cmake --build "$work/cudnn"
    "$work/cudnn/consumer"
    echo "cudnn works"
  else
    echo "cudnn: not compiled, cudnn_frontend.h or cudnn.h was not found (UNROLL_CUDNN_HEADERS names their folders)"
  fi
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
