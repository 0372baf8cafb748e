#!/usr/bin/env bash
# Compiles and links device code by nvcc, warnings being errors, for sm_80, sm_90a and the newest architecture that nvcc knows, and
# compares what became of the kernels with machine_code.txt. Says "skipped:" where there is no nvcc.
# usage: compile.sh FOLDER [--all] [--write]
#   --all    every program for a device, by CMake, in FOLDER/all; else every kernel in bfloat16 and a program that has them
#            (80 s of one processor)
#   --write  writes the table
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=$1
shift
mkdir -p "$folder"
nvcc=${CUDACXX:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)}
[ -n "$nvcc" ] || { echo "skipped: there is no nvcc on this machine, nothing was compiled for CUDA"; exit 0; }
newest=$("$nvcc" --list-gpu-arch | sort -t_ -k2 -n | tail -1)
newest=${newest#compute_}

if [ "${1:-}" = --all ]; then
  # shellcheck source=tests/cuda/find_cudnn.sh
  . "$here/find_cudnn.sh"
  options=()
  if flags=$(cudnn_headers); then
    options=(-DUNROLL_CUDNN=ON)
    for place in $flags; do
      [ -e "$place/cudnn_frontend.h" ] && options+=(-DCUDNN_FRONTEND_INCLUDE_DIR="$place")
      [ -e "$place/cudnn.h" ] && options+=(-DCUDNN_INCLUDE_DIR="$place")
    done
  else
    echo "without cuDNN: cudnn_frontend.h or cudnn.h was not found (UNROLL_CUDNN_HEADERS names their folders)"
  fi
  cmake -S "$root" -B "$folder/all" -DUNROLL_CUDA=ON -DUNROLL_TESTS=OFF -DUNROLL_WERROR=ON -DCMAKE_CUDA_COMPILER="$nvcc" \
    -DCMAKE_CUDA_ARCHITECTURES="80-real;90a-real;$newest-real" "${options[@]}"
  cmake --build "$folder/all"
  exit
fi

flags=(-std=c++20 --expt-relaxed-constexpr -Werror all-warnings -I"$root" -I"$root/include")
targets=()
for architecture in 80 90a "$newest"; do
  targets+=(-gencode "arch=compute_$architecture,code=sm_$architecture")
done
"$nvcc" "${flags[@]}" -arch=sm_80 -c "$here/core_headers.cu" -o "$folder/core_headers.o"
"$nvcc" "${flags[@]}" -fmad=false -DUNROLL_QUICK "${targets[@]}" -c "$here/kernels.cu" -o "$folder/kernels.o"
echo 'void every_kernel(); int main() { every_kernel(); }' >"$folder/program.cpp"
"$nvcc" "${targets[@]}" "$folder/program.cpp" "$folder/kernels.o" "$folder/core_headers.o" -ldl -o "$folder/program"
echo "compiled and linked for sm_80, sm_90a and sm_$newest by $("$nvcc" --version | grep release)"
if command -v python3 >/dev/null; then
  python3 "$here/machine_code.py" "$folder/program" --nvcc "$nvcc" --table "$here/machine_code.txt" "$@"
fi
