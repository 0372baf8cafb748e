#!/usr/bin/env bash
# Compiles for aarch64 with g++ and with clang, on a machine of another processor, and runs the tests under qemu's user
# emulation: headers without a warning, tests, the bits of the kernels, and what the inner loops of products issue.
# Needs Debian's g++-aarch64-linux-gnu and qemu-user; clang is left out, and said, where there is none.
# usage: check.sh [--only g++|clang++] [DIRECTORY or DIRECTORY/FILE.cpp of tests/, or "none"]...
# environment: UNROLL_WORK, the folder of the built files; JOBS, 1 unless set
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${UNROLL_WORK:-$root/build/aarch64}
compilers="g++ clang++"
if [ "${1:-}" = --only ]; then
  compilers=$2
  shift 2
fi
[ $# -gt 0 ] || set -- core kernels cells rng estimate/count_allocations.cpp estimate/bptt.cpp estimate/rtrl.cpp estimate/uoro.cpp io/half.cpp \
  io/json.cpp io/safetensors.cpp text/tokenizer_json.cpp
[ "$1" = none ] && shift

for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
  if ! command -v "$tool" >/dev/null; then
    echo "skipped: no $tool (Debian: apt-get install g++-aarch64-linux-gnu qemu-user); nothing was compiled for aarch64"
    exit 0
  fi
done

# Packages of headers by links of their own: all of /usr/include would bring this machine's libc.
mkdir -p "$work/packages"
for package in catch2 nlohmann eigen3/Eigen; do
  for folder in /usr/include /usr/local/include; do
    [ -e "$folder/$package" ] && ln -sfn "$folder/$package" "$work/packages/$(basename "$package")"
  done
done

compile() {  # compile COMPILER FLAG...
  local command=(clang++ --target=aarch64-linux-gnu)
  # -Wno-psabi: g++ says of every dual number that versions before 10.1 passed it otherwise
  [ "$1" = g++ ] && command=(aarch64-linux-gnu-g++ -Wno-psabi)
  "${command[@]}" -std=c++20 -I"$root" -I"$root/include" -isystem "$work/packages" "${@:2}"
}
compile_test() { compile "$1" -O1 -Wall -Wextra -Werror -c "$2" -o "$3"; }
run() { qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu "$@"; }
export -f compile compile_test
export root work

# In the functions of object $1 whose names contain $2, the innermost loop with the most fused multiply-adds: it may have
# $3 instructions for each, and none that touches the stack.
check_loop() {
  aarch64-linux-gnu-objdump -dC --no-show-raw-insn "$1" | awk -v name="$2" -v most="$3" '
    /^[0-9a-f]+ <.*>:$/ { inside = index($0, name); n = 0; delete at; delete back; next }
    !inside || !/^ *[0-9a-f]+:/ { next }
    {
      address = $1; sub(":", "", address)
      at[address] = ++n; what[n] = $2; line[n] = $0
      if ($2 !~ /^(b\.|cbn?z|tbn?z)/ || !match($0, /[0-9a-f]+ </)) next
      first = at[substr($0, RSTART, RLENGTH - 2)]
      if (!first) next
      back[n] = first
      fused = stack = 0
      for (i = first; i < n; ++i) if (back[i] >= first) next  # a loop inside
      for (i = first; i <= n; ++i) { fused += what[i] ~ /^(fmla|fmadd)$/; stack += line[i] ~ /\[sp/ }
      if (fused > best) { best = fused; count = n - first + 1; spilled = stack }
    }
    END {
      if (!best) { print "no loop of fused multiply-adds in " name; exit 1 }
      printf "   %.2f instructions a multiply-add: %s\n", count / best, name
      if (spilled) { print "the loop uses the stack " spilled " times"; exit 1 }
      if (count / best > most) { print "more than " most; exit 1 }
    }'
}

for compiler in $compilers; do
  if ! command -v "$compiler" >/dev/null; then
    echo "skipped: no $compiler"
    continue
  fi
  out=$work/$compiler
  mkdir -p "$out"

  echo "== $compiler: the headers under strict warnings"
  compile "$compiler" -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast \
    -Wdouble-promotion -Werror "$root/tests/warnings/everything.cpp"

  echo "== $compiler: the kernels have the same bits with and without what newer processors have"
  two_files() {  # two_files NAME FLAG...: && since set -e does not reach into $( )
    rm -f "$out/$1" "$out/$1_main.o" "$out/$1_other.o"
    compile "$compiler" -O2 -DNDEBUG -DMAIN -DFILE_NAME=plain_file "${@:2}" -c "$root/tests/flags/two_files.cpp" -o "$out/$1_main.o" &&
      compile "$compiler" -O2 -DNDEBUG -DFILE_NAME=other_file "${@:2}" -c "$root/tests/flags/two_files.cpp" -o "$out/$1_other.o" &&
      aarch64-linux-gnu-g++ "$out/$1_main.o" "$out/$1_other.o" -o "$out/$1" &&
      run "$out/$1"
  }
  newer=$(two_files newer -march=armv8.6-a+sve2)
  plain=$(two_files plain)
  echo "   $plain"
  [ "$newer" = "$plain" ] || { echo "with -march=armv8.6-a+sve2: $newer"; exit 1; }
  [ "${of_all:=$plain}" = "$plain" ] || { echo "the other compiler: $of_all"; exit 1; }
  check_loop "$out/plain_main.o" "tile<float, 4, 4, 5>" 1.7
  check_loop "$out/plain_main.o" "widened_gemv" 6.5
  if [ "$compiler" = g++ ] && [ "$(uname -m)" = x86_64 ] && command -v g++ >/dev/null; then
    echo "== unfused, they are those of SSE2"
    unfused=$(two_files unfused -ffp-contract=off)
    for file in "-DMAIN -DFILE_NAME=plain_file -o $out/sse2_main.o" "-DFILE_NAME=other_file -o $out/sse2_other.o"; do
      # shellcheck disable=SC2086  # several flags
      g++ -std=c++20 -O2 -DNDEBUG -DUNROLL_ONE_INSTRUCTION_SET -I"$root/include" -c "$root/tests/flags/two_files.cpp" $file
    done
    g++ "$out/sse2_main.o" "$out/sse2_other.o" -o "$out/sse2"
    sse2=$("$out/sse2")
    echo "   $unfused"
    [ "$sse2" = "$unfused" ] || { echo "SSE2: $sse2"; exit 1; }
  fi

  [ $# -gt 0 ] || continue
  [ -e "$out/test_main.o" ] || compile "$compiler" -O0 -c "$root/tests/support/main.cpp" -o "$out/test_main.o"
  for name in "$@"; do
    [ -d "$root/tests/$name" ] && name=$name/*.cpp
    for source in "$root"/tests/$name; do  # unquoted: a pattern
      directory=$(basename "$(dirname "$source")")
      mkdir -p "$out/$directory"
      echo "$source $out/$directory/$(basename "$source" .cpp).o"
    done
  done >"$out/list"
  echo "== $compiler: compiling $(wc -l <"$out/list") files of tests"
  # shellcheck disable=SC2016  # expanded by the inner shell
  xargs -P "${JOBS:-1}" -L 1 bash -c 'compile_test "$0" "$1" "$2"' "$compiler" <"$out/list"
  for directory in $(awk '{ print $2 }' "$out/list" | xargs -n 1 dirname | sort -u); do
    mapfile -t objects < <(awk -v d="$directory/" 'index($2, d) == 1 { print $2 }' "$out/list")
    aarch64-linux-gnu-g++ "$out/test_main.o" "${objects[@]}" -o "$directory/program"
    echo "== $compiler: running $(basename "$directory")"
    # every m, n: ten minutes of emulation; the other tests of products have the borders
    (cd "$root" && run "$directory/program" '~*for every m*')
  done
done
