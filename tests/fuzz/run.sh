#!/usr/bin/env bash
# Builds every target beside it (libFuzzer with the address and undefined behaviour sanitizers), begins with
# the seeds that the target makes, and lets libFuzzer search. Ends with an error when one input crashes, hangs,
# leaks or allocates more than 8 MiB at once, a thousand times the inputs. That input is kept.
# usage: run.sh [-runs=N | -max_total_time=SECONDS | any option of libFuzzer]... [TARGET]...
#   CXX           clang++ unless set
#   UNROLL_WORK   where programs, inputs and failures lie; a temporary folder unless set
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cxx=${CXX:-clang++}
case $("$cxx" --version 2>/dev/null) in *clang*) ;; *) cxx=clang++ ;; esac

options=() targets=()
for argument in "$@"; do
  case $argument in
    -*) options+=("$argument") ;;
    *) targets+=("$argument") ;;
  esac
done
[ ${#options[@]} -eq 0 ] && options=(-runs=20000)
[ ${#targets[@]} -eq 0 ] && for source in "$here"/*.cpp; do targets+=("$(basename "$source" .cpp)"); done

if [ -n "${UNROLL_WORK:-}" ]; then
  work=$UNROLL_WORK
  mkdir -p "$work"
else
  work=$(mktemp -d)
fi
if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  "$cxx" -fsanitize=fuzzer,address,undefined -x c++ - -o "$work/probe" >/dev/null 2>&1; then
  echo "skipped: $cxx builds no programs with libFuzzer (Debian: clang libclang-rt-dev)"
  exit 0
fi

# check TARGET: builds it and searches; status 1 where it fails
check() {
  local target=$1
  rm -rf "${work:?}/$target"
  mkdir -p "$work/$target/inputs"
  if ! "$cxx" -std=c++20 -O0 -g1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
    -I"$root/include" -I"$root" -isystem "${EIGEN:-/usr/include/eigen3}" ${CXXFLAGS:-} \
    "$here/$target.cpp" -o "$work/$target/program" ${LDLIBS:-}; then
    echo "cannot be built"
    return 1
  fi
  if UNROLL_FUZZ_SEEDS="$work/$target/inputs" "$work/$target/program" -seed=1 -timeout=10 -malloc_limit_mb=8 \
    -rss_limit_mb=1024 -artifact_prefix="$work/$target/" -print_final_stats=0 -verbosity=0 "${options[@]}" \
    "$work/$target/inputs" >"$work/$target/log" 2>&1; then
    echo "no failure; $(find "$work/$target/inputs" -type f | wc -l) inputs of different effect"
  else
    tail -40 "$work/$target/log"
    echo "see $work/$target"
    return 1
  fi
}

# one target a core
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
for target in "${targets[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do wait -n; done
  touch "$work/$target.failed"
  { check "$target" && rm "$work/$target.failed"; } >"$work/$target.said" 2>&1 &
done
wait
failed=()
for target in "${targets[@]}"; do
  echo "== $target"
  cat "$work/$target.said"
  [ -e "$work/$target.failed" ] && failed+=("$target")
done

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
[ -n "${UNROLL_WORK:-}" ] || rm -rf "$work"
echo "${#targets[@]} targets, no failure"
