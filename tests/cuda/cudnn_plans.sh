#!/usr/bin/env bash
# cuDNN's plans of attention for an H100, made without a device (cudnn_plans.cpp): a minute, most of it for the compiler.
# Says "skipped:" where cuDNN or its frontend is not there. The frontend, 12 MB of headers and a module of Python, is
# fetched from PyPI with --download; cuDNN itself, more than half a GB, never is.
# usage: cudnn_plans.sh [--download] (environment: CXX, UNROLL_WORK)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${UNROLL_WORK:-$(mktemp -d)}
mkdir -p "$work"
# shellcheck source=tests/cuda/find_cudnn.sh
. "$here/find_cudnn.sh"

library=${UNROLL_CUDNN:-$(cudnn_library)}
[ -n "$library" ] || { echo "skipped: there is no libcudnn.so.9 on this machine, no plan was made"; exit 0; }
if ! cudnn_headers >/dev/null && [ "${1:-}" = --download ]; then
  if python3 -m pip -q --retries 1 --timeout 20 download --no-deps --only-binary :all: -d "$work" nvidia-cudnn-frontend==1.32.0; then
    python3 -m zipfile -e "$work"/nvidia_cudnn_frontend-1.32.0-*.whl "$work/frontend"
  fi
  export UNROLL_CUDNN_HEADERS="$work/frontend/include"
fi
flags=$(cudnn_headers) || { echo "skipped: cudnn_frontend.h, cudnn.h or the headers of CUDA were not found, no plan was made"; exit 0; }

# shellcheck disable=SC2086  # several flags
compile() { "${CXX:-g++}" -std=c++20 -O0 -Wall -Wextra -Wconversion -Wshadow -Werror -I"$root" -I"$root/include" $flags "$@"; }
compile -c "$root/src/cudnn.cpp" -o "$work/cudnn.o"
compile "$here/cudnn_plans.cpp" "$work/cudnn.o" -ldl -o "$work/cudnn_plans"
compile -shared -fPIC -Wl,-soname,libcuda.so.1 "$here/cuda_driver_double.cpp" -o "$work/cuda_driver_double.so"
refused() { # refused FILE MESSAGE: what is said where UNROLL_CUDNN names that file
  local said
  said=$(UNROLL_CUDNN="$1" "$work/cudnn_plans")
  case $said in *"UNROLL_CUDNN names $1: "*"$2"*"; cuDNN 9.6 or later is needed") ;; *) echo "FAILED: $said"; exit 1 ;; esac
}
refused /there/is/no/libcudnn.so.9 "cuDNN was not found: /there/is/no/libcudnn.so.9: cannot open shared object file"
refused libdl.so.2 "libdl.so.2 is not cuDNN"
UNROLL_CUDNN="$library" "$work/cudnn_plans" "$work/cuda_driver_double.so" "$here/h100.json"
UNROLL_CUDNN="$library" "$work/cudnn_plans" "$work/cuda_driver_double.so" "$here/h100.json" "$work/cudnn.log"
