#!/usr/bin/env bash
# Compiles every ```cpp block of README.md and docs/**/*.md. A block with `int main` is a whole program; a block
# behind the line <!-- fragment --> becomes the body of a function behind `#include <unroll/unroll.hpp>` and
# `using namespace unroll;` (its own #include lines move to the top); a block behind <!-- from FILE --> stands in that
# file, but for its spaces; a block behind <!-- not compiled --> is only read. Any other block is an error: it must say
# which of the four it is.
# usage: check.sh [ROOT] [FILE...]     CXX and EIGEN name the compiler and Eigen's include folder
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../..}
root=$(cd "$root" && pwd)
shift $(($# > 0 ? 1 : 0))
cxx=${CXX:-c++}
eigen=${EIGEN:-/usr/include/eigen3}
work=${UNROLL_WORK:-$(mktemp -d)}
rm -rf "$work" && mkdir -p "$work"
cd "$root" || exit 1
if [ $# -gt 0 ]; then files=("$@"); else mapfile -t files < <(find README.md docs -name '*.md' | LC_ALL=C sort); fi

# One file a block: NAME.<line>.<kind>.block
for file in "${files[@]}"; do
  awk -v out="$work/$(echo "$file" | tr '/' '_')" '
    /^```cpp/ { block = sprintf("%s.%04d.%s.block", out, NR, mark == "" ? "program" : mark); mark = ""; inside = 1
                printf "" > block; if (from != "") print from > (block ".from"); from = ""; next }
    /^```/    { if (inside) close(block); inside = 0; next }
    inside    { print > block; next }
    /^<!-- fragment -->/     { mark = "fragment"; next }
    /^<!-- not compiled -->/ { mark = "skip"; next }
    /^<!-- from .* -->/      { mark = "from"; from = $3; next }
    NF        { mark = "" }' "$file"
done

compiles() {  # compiles NAME
  "$cxx" -std=c++20 -fsyntax-only -Wall -Wextra -Iinclude -I. -isystem "$eigen" "$work/$1.cpp" 2>"$work/$1.log"
}
must_compile() {
  compiles "$1" && return
  echo "$1 does not compile:"
  head -20 "$work/$1.log"
  failed=1
}
as_function() { printf 'void %s();\nvoid %s() {\n%s\n}\n' "$1" "$1" "$(grep -vE '^ *# *include' "$2")"; }

blocks=0
failed=0
declare -A alike  # fragments with the same includes: one file, to read the library once
shopt -s nullglob
for block in "$work"/*.block; do
  name=$(basename "$block" .block)
  case $name in
    *.skip) continue ;;
    *.from)
      source=$(cat "$block.from")
      if ! tr -d ' \n' <"$source" | grep -qF -- "$(tr -d ' \n' <"$block")"; then
        echo "$name: is not what stands in $source"
        failed=1
      fi
      continue
      ;;
    *.fragment)
      blocks=$((blocks + 1))
      includes=$(echo '#include <unroll/unroll.hpp>'; grep -E '^ *# *include' "$block" | LC_ALL=C sort -u; echo 'using namespace unroll;')
      { echo "$includes"; as_function fragment "$block"; } >"$work/$name.cpp"
      alike[$includes]+="$name "
      ;;
    *)
      if ! grep -q 'int main' "$block"; then
        echo "$name: neither a program nor marked <!-- fragment -->, <!-- from FILE --> or <!-- not compiled -->"
        failed=1
        continue
      fi
      blocks=$((blocks + 1))
      cp "$block" "$work/$name.cpp"
      must_compile "$name"
      ;;
  esac
done
for includes in "${!alike[@]}"; do
  {
    echo "$includes"
    i=0
    for name in ${alike[$includes]}; do as_function "fragment_$((++i))" "$work/$name.block"; done
  } >"$work/fragments.cpp"
  compiles fragments || for name in ${alike[$includes]}; do must_compile "$name"; done
done
echo "$blocks blocks of ${#files[@]} pages compiled"
exit $failed
