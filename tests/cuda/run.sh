#!/usr/bin/env bash
# Runs what there is for a CUDA device: tests first, then benchmarks, PyTorch beside them where it is installed; a
# table last. Changes no setting of the device and needs no network.
# usage: run.sh [--prebuilt FOLDER] [--only PART]... [--json FILE] [--seconds N] [--list]
#   --prebuilt FOLDER  the programs, built elsewhere by `run.sh --build FOLDER`; else they are built into build/device
#   --build FOLDER     only build them there, for UNROLL_CUDA_ARCHITECTURES ("80 90a")
#   --only PART        a part of the list that --list prints; several times for several. `million`, 1,000,448 tokens, runs by
#                      its name alone, with --seconds 500; it takes 44 GB of the device and 50 GB of the host
#   --json FILE        the results; benchmarks/results/<device>.json by default, where all parts were run
#   --seconds N        time for everything, 300 by default; what does not fit is left out and said
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
programs="arithmetic tensor_core executor attention products model bench_model device_pointers"
# shellcheck source=tests/cuda/find_cudnn.sh
. "$here/find_cudnn.sh"
eigen=${UNROLL_EIGEN:-/usr/include/eigen3}  # for what runs on the host beside a device

# name, limit in seconds, command
parts() {
  cat <<'PARTS'
rounding    20 arithmetic rounding philox
functions   60 arithmetic functions
mma         40 tensor_core mma
wgmma       40 tensor_core wgmma
bf16        60 executor bf16
float       60 executor float bf16_weights
borders     60 attention borders
vjp_borders 60 attention vjp_borders
model_bf16  60 model bf16
model_float 60 model float
pointers    30 device_pointers
trial       30 bench_model trial
read_4      60 bench_model read_32_by_4
read_32     60 bench_model read_32
profile_r   40 bench_model profile_reading
profile_t   40 bench_model profile_training
train_32    70 bench_model train_32
train_4     60 bench_model train_32_by_4
train_host  60 bench_model train_on_host
read_8      60 bench_model read_8
ceilings    40 products ceilings
products    60 products right
forward     60 attention forward
backward    60 attention backward
bits        60 products bits
column      20 products column
parts       20 products parts
bandwidth   20 products bandwidth
cudnn       90 cudnn right
cudnn_speed 90 cudnn speed
torch       60 python3 benchmarks/peers/torch_attention.py
memcheck    60 compute-sanitizer --tool memcheck --error-exitcode 1 attention borders
racecheck   60 compute-sanitizer --tool racecheck --error-exitcode 1 executor bf16
million    500 bench_model train_million
PARTS
}

build() {  # build FOLDER ARCHITECTURE...: one program a file, here or an example, and PROGRAM_host.cpp where there is one
  local folder=$1 program architecture host source targets=
  shift
  for architecture in "$@"; do
    targets="$targets -gencode arch=compute_$architecture,code=sm_$architecture"
  done
  [ "$*" = 90a ] && targets="$targets -DUNROLL_WGMMA"
  mkdir -p "$folder"
  for program in $programs cudnn; do rm -f "$folder/$program"; done
  local library="" flags
  if flags=$(cudnn_headers); then  # compiled by g++, without the flags of device code
    # shellcheck disable=SC2086  # several flags
    ${CXX:-g++} -std=c++20 -O1 -I"$root/include" $flags -c "$root/src/cudnn.cpp" -o "$folder/cudnn_library.o" || return 1
    library="$folder/cudnn_library.o" programs="$programs cudnn"
  else
    echo "== cudnn: left out, cudnn_frontend.h or cudnn.h was not found (UNROLL_CUDNN_HEADERS names their folders)"
  fi
  for program in $programs; do
    host=
    [ "$program" = cudnn ] && host=$library
    [ -e "$here/${program}_host.cpp" ] && host="$here/${program}_host.cpp"
    source="$here/$program.cu"
    [ -e "$source" ] || source="$root/examples/$program.cu"
    # the bodies are instantiated with the host's context as well, hence the suppressed warnings
    echo "nvcc -std=c++20 --expt-relaxed-constexpr -Werror all-warnings -diag-suppress 20011,20012,20014 -fmad=false -O3 \
      -Xcompiler -O2,-ffp-contract=off,-static-libstdc++,-static-libgcc -Xfatbin -compress-all $targets -I$root -I$root/include -I$eigen \
      $source $host -ldl -o $folder/$program"
  done | xargs -P "$(nproc)" -I{} sh -c '{}' || { echo "run.sh: a program does not compile" >&2; return 1; }
  for program in $programs; do [ -x "$folder/$program" ] || { echo "run.sh: $program was not built" >&2; return 1; }; done
}

invoked="./run device${*:+ $*}"
folder="" json="" seconds=300 only=""
while [ $# -gt 0 ]; do
  case $1 in
    --prebuilt) folder=$2; shift ;;
    --build)
      # shellcheck disable=SC2086  # several words
      build "$2" ${UNROLL_CUDA_ARCHITECTURES:-80 90a}
      exit ;;
    --only) only="$only $2 "; shift ;;
    --json) json=$2; shift ;;
    --seconds) seconds=$2; shift ;;
    --list) parts; exit ;;
    *) echo "run.sh: \"$1\" is none of --prebuilt, --build, --only, --json, --seconds, --list" >&2; exit 2 ;;
  esac
  shift
done
for part in $only; do
  parts | grep -q "^$part " || { echo "run.sh: \"$part\" is no part; --list names them" >&2; exit 2; }
done

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
  echo "skipped: there is no CUDA device"
  exit 0
fi
ask() { nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader | head -1; }
device=$(ask name)
began=$(date +%s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export UNROLL_ROWS="$work/rows"
: >"$UNROLL_ROWS"

if [ -n "$folder" ]; then  # do they run here? 2: no such check
  "$folder/arithmetic" '?' >/dev/null 2>&1
  [ $? -eq 2 ] || { echo "== the programs in $folder do not run here"; folder=; }
fi
if [ -z "$folder" ]; then
  folder="$root/build/device"
  capability=$(ask compute_cap | tr -d .)
  [ "$capability" = 90 ] && capability=90a
  echo "== building for sm_$capability into $folder"
  build "$folder" "$capability" || exit 1
fi
folder=$(cd "$folder" && pwd) || exit 1

# cuBLASLt, where the loader does not find it: in the packages of python3
if [ -z "${UNROLL_CUBLASLT:-}" ] && ! ldconfig -p 2>/dev/null | grep -q 'libcublasLt\.so\.13'; then
  for place in $(python3 -c 'import sys; print("\n".join(p for p in sys.path if p))' 2>/dev/null) /usr/local/cuda/lib64; do
    for file in "$place"/nvidia/*/lib/libcublasLt.so.1[23] "$place"/libcublasLt.so.1[23]; do
      [ -e "$file" ] && [ -z "${UNROLL_CUBLASLT:-}" ] && export UNROLL_CUBLASLT="$file"
    done
  done
fi

# and cuDNN
if [ -z "${UNROLL_CUDNN:-}" ]; then
  found=$(cudnn_library)
  [ "${found:-libcudnn.so.9}" = libcudnn.so.9 ] || export UNROLL_CUDNN="$found"
fi

clocks() { ask clocks.sm,clocks.mem,temperature.gpu,power.draw; }
clocks_before=$(clocks)
echo "== $device, driver $(ask driver_version), clocks, temperature and power before: $clocks_before"
echo "== cuBLASLt: ${UNROLL_CUBLASLT:-by the loader}"
failed="" left_out=""
while read -r name limit command; do
  [ -n "$only" ] && case $only in *" $name "*) ;; *) continue ;; esac
  [ -z "$only" ] && [ "$name" = million ] && continue  # by its name alone
  remaining=$((seconds - ($(date +%s) - began)))
  if [ "$remaining" -lt 5 ]; then
    left_out="$left_out $name"
    continue
  fi
  [ "$limit" -gt "$remaining" ] && limit=$remaining
  tool=
  case $command in
    compute-sanitizer*)
      command -v compute-sanitizer >/dev/null || { echo "== $name: skipped: there is no compute-sanitizer"; left_out="$left_out $name(no-compute-sanitizer)"; continue; }
      tool=${command% * *}
      command=${command#"$tool "} ;;
  esac
  case $command in
    cudnn\ *) [ -x "$folder/cudnn" ] || { echo "== $name: skipped: the programs were built without cuDNN's frontend"; left_out="$left_out $name(no-cudnn-frontend)"; continue; } ;;
  esac
  case $command in
    python3*) run="$command" ;;
    *) run="$folder/$command" ;;
  esac
  echo "== $name"
  start=$(date +%s)
  if [ -n "$tool" ]; then
    # its rows are those of other parts
    # shellcheck disable=SC2086  # several words
    (cd "$root" && UNROLL_ROWS="$work/ignored" timeout --kill-after=5 "$limit" $tool $run) >"$work/said" 2>&1 </dev/null
    status=$?
    tail -3 "$work/said"
    pass=$([ $status -eq 0 ] && echo true || echo false)
    echo "{\"program\": \"$name\", \"name\": \"$command\", \"note\": \"$(tail -1 "$work/said" | tr -d '"\134')\", \"pass\": $pass}" >>"$UNROLL_ROWS"
  else
    # shellcheck disable=SC2086
    (cd "$root" && timeout --kill-after=5 "$limit" $run) </dev/null
    status=$?
  fi
  case $status in
    0) ;;
    77) case $command in  # there is a device: only what stands beside it may be missing
      python3* | cudnn\ *) left_out="$left_out $name(skipped)" ;;
      *) failed="$failed $name(sees-no-device)" ;;
    esac ;;
    124 | 137) failed="$failed $name(time)" ;;
    *) failed="$failed $name" ;;
  esac
  echo "== $name: $(($(date +%s) - start)) s"
done < <(parts)
clocks_after=$(clocks)

if [ -z "$json" ] && [ -z "$only" ]; then
  json="$root/benchmarks/results/$(echo "$device" | tr 'A-Z ' 'a-z-').json"
fi
if [ -n "$json" ]; then
  mkdir -p "$(dirname "$json")"
  {
    echo '{'
    echo "  \"device\": \"$device\", \"driver\": \"$(ask driver_version)\","
    echo "  \"clocks, temperature, power before\": \"$clocks_before\","
    echo "  \"clocks, temperature, power after\": \"$clocks_after\","
    echo "  \"parts that failed or timed out\": \"${failed# }\", \"parts left out\": \"${left_out# }\","
    echo "  \"date\": \"$(date -u +%Y-%m-%d)\", \"command\": \"$invoked\","
    echo '  "rows": ['
    sed -e 's/^/    /' -e '$!s/$/,/' "$UNROLL_ROWS"
    echo '  ]'
    echo '}'
  } >"$json"
fi

echo
echo "== what differs or failed"
grep '"pass": false' "$UNROLL_ROWS" | sed -E 's/[{}"]//g' | cut -c1-220
echo "== speed"
grep '"rate"' "$UNROLL_ROWS" |
  sed -E 's/.*"program": "([^"]*)", "name": "([^"]*)".*"ms": ([0-9.e+-]+).*"rate": ([0-9.e+-]+), "unit": "([^"]*)".*/\1: \2|\3|\4|\5/' |
  awk -F'|' '{ printf "%-72s %10.3f ms %9.1f %s\n", $1, $2, $3, $4 }'
total=$(wc -l <"$UNROLL_ROWS")
bad=$(grep -c '"pass": false' "$UNROLL_ROWS")
echo "== $total rows, $bad not as they must be; parts that failed:${failed:- none}; left out:${left_out:- none}; $(($(date +%s) - began)) s; clocks after: $clocks_after"
[ -n "$json" ] && echo "== written: $json"
[ "$bad" -eq 0 ] && [ -z "$failed" ]
