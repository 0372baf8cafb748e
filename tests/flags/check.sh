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

# Kernels are chosen when the program runs, whatever -march a file is compiled with: on the best set of this
# machine two files of one program compiled for different processors compute the same bits, in either order of
# linking. Not on a lesser set: there the flags of the file count. Nor where g++ tunes for Zen, which it does on
# such a machine unless told otherwise: it then leaves sums in vectors of up to 256 bits unfused.
if [ "$(uname -m)" = x86_64 ]; then
  compile() {  # compile NAME OBJECT FLAG...
    "${CXX:-g++}" -std=c++20 -O2 -DNDEBUG "-DFILE_NAME=$1" "${@:3}" -I "$here/../../include" \
      -isystem "${EIGEN:-/usr/include/eigen3}" -c "$here/two_files.cpp" -o "$work/$2.o"
  }
  compile plain_file main -DMAIN
  compile other_file same
  compile other_file native -march=native -mtune=generic
  link() { "${CXX:-g++}" "${@:2}" -o "$work/$1"; }
  link both_plain "$work/main.o" "$work/same.o"
  link mixed "$work/main.o" "$work/native.o"
  link mixed_reversed "$work/native.o" "$work/main.o"
  # The kernels in one file have the bits of kernels in every file; the other file has none.
  compile plain_file here -DMAIN -DUNROLL_KERNELS_ELSEWHERE -DUNROLL_KERNELS_HERE
  compile other_file elsewhere -DUNROLL_KERNELS_ELSEWHERE
  link mixed_kernels "$work/elsewhere.o" "$work/here.o"
  nm -C "$work/elsewhere.o" >"$work/names"
  grep -q ' T other_file' "$work/names" || { echo "nm says no names"; exit 1; }
  if grep -E ' [TtWw] .*::call<unroll::(linalg|kernels)::' "$work/names"; then
    echo "kernels in a file that leaves them to another"
    exit 1
  fi
  want=$("$work/both_plain")
  for program in mixed mixed_reversed mixed_kernels; do
    got=$("$work/$program")
    [ "$got" = "$want" ] || { echo "$program: $got, files without -march: $want"; exit 1; }
  done

  # In a file without -march the instructions of a set stand in the functions of that set, or of a better one,
  # alone.
  objdump -dC --no-show-raw-insn "$work/same.o" | awk '
    /^[0-9a-f]+ <.*>:$/ { name = $0 }
    /%zmm|%k[1-7]/ && name !~ /avx512::call|UNROLL_DOT_PAIRS|pair_tile|pack_pairs|round_pairs|pair_gemm/ { print "AVX-512 in " name; exit 1 }
    /%ymm/ && name !~ /avx(2|512)::call|pair_tile|pack_pairs|round_pairs|pair_gemm/ { print "AVX in " name; exit 1 }
    /%zmm/ { wide = 1 }
    END { if (!wide) { print "no AVX-512 anywhere"; exit 1 } }'

  # Every lesser set of the machine runs in files without -march, and not all give the same bits; one that is
  # not there is refused by name.
  hashes=$want
  for set in baseline avx2; do
    if got=$(UNROLL_INSTRUCTIONS=$set "$work/both_plain" 2>&1); then
      hashes="$hashes"$'\n'"$got"
    else
      grep -q "UNROLL_INSTRUCTIONS: .* asks for $set, this machine has" <<<"$got" || { echo "$set: $got"; exit 1; }
    fi
  done
  if [ "$(sort -u <<<"$hashes" | wc -l)" -lt 2 ] && grep -q avx2 /proc/cpuinfo; then
    echo "UNROLL_INSTRUCTIONS changes nothing: $hashes"
    exit 1
  fi
  if said=$(UNROLL_INSTRUCTIONS=sse9 "$work/both_plain" 2>&1); then echo "sse9 is taken"; exit 1; fi
  grep -q 'is "sse9", must be baseline' <<<"$said" || { echo "$said"; exit 1; }
fi
echo "the flags keep the numbers, or are refused"
