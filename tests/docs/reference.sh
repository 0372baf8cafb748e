#!/usr/bin/env bash
# Writes the API reference with Doxygen to OUT, and fails where it warns, where a public name has no comment, and where the
# namespaces of the headers are not those of main.dox: of free functions in one that is not, Doxygen says nothing. No comment
# of its own needs what docs/reference/main.dox excuses:
#   - a member whose name stands in one of the concepts, or in the list of members that mean the same everywhere;
#   - constructors, operators, friends and the struct X_options of an X (its fields do);
#   - members of kernels' bodies (*_body.hpp, *_parts.hpp), which the comment of the struct explains in one formula;
#   - a declarator that shares its line and so its comment: `index_t rows, cols;  ///< ...`.
# usage: reference.sh OUT [ROOT]
set -u
out=$1
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "${2:-$(dirname "$0")/../..}" || exit 1
main=docs/reference/main.dox
concepts=$(sed -n '/begin concepts/,/end concepts/p' $main | grep -oE '[a-z_]+/[a-z_]+\.hpp' | sed 's|^|include/unroll/|')
for file in $concepts; do [ -e "$file" ] || { echo "$main: $file is not there"; exit 1; }; done
part() { sed -nE "s/^#define UNROLL_VERSION_$1 ([0-9]+)$/\1/p" include/unroll/core/config.hpp; }
{
  cat docs/reference/Doxyfile
  echo "PROJECT_NUMBER = $(part MAJOR).$(part MINOR).$(part PATCH)"
  echo "OUTPUT_DIRECTORY = \"$out\""
  echo "WARN_LOGFILE = \"$out/warnings\""
} | doxygen - || exit 1
{
  # shellcheck disable=SC2086  # several files
  grep -ohE '((\.|::|template )[a-z][a-z_0-9]*|[a-z][a-z_0-9]*[(<])' $concepts | sed -E 's/^(\.|::|template )//; s/[(<]$//'
  sed -n '/begin members/,/end members/p' $main | grep -oE '`[A-Za-z_]+`' | tr -d '`'
} | LC_ALL=C sort -u >"$out/known"

awk '
  FILENAME == ARGV[1] { known[$1] = 1; next }
  !/ is not documented\.$/ { print; next }
  {
    split($0, place, ":")
    file = place[1]; line = place[2]
    what = $0
    sub(/^[^ ]* warning: /, "", what); sub(/ is not documented\.$/, "", what)
    kind = what ~ /^Compound/ ? "compound" : "member"
    sub(/^[A-Za-z]+ /, "", what)
    if (kind == "compound") {
      if (what ~ /_options$/) next
    } else {
      owner = what; sub(/.* of [a-z]+ /, "", owner)
      if (what ~ /\(friend\) of /) next
      name = what
      sub(/ \((function|variable|typedef|enumeration|enumvalue|macro definition)\) of .*$/, "", name)
      if (name ~ /^operator/) next
      sub(/[(\[<].*$/, "", name)
      inside = owner; sub(/<.*$/, "", inside); sub(/.*::/, "", inside)
      if (name == inside || name == "~" inside) next
      if (name == "function" && what ~ /function\) of/) next  # a class named like its guide
      if (name in known && what !~ / of namespace /) next
      if (file ~ /_(body|parts)\.hpp$/) next
      if (what ~ /\(variable\)/ && shares(file, line)) next
    }
    print
  }
  function shares(file, line,    text, k) {
    if (!(file in read)) { read[file] = 1; while ((getline text < file) > 0) source[file, ++k] = text }
    return source[file, line] ~ /\/\/\/</ || (source[file, line] ~ /, / && source[file, line - 1] ~ /^ *\/\/\/ /)
  }' "$out/known" "$out/warnings" | sed "s|^$PWD/||" >"$out/missing"
# of concepts Doxygen says nothing
find include/unroll -name '*.hpp' -exec awk '
  /^namespace .*detail \{/ { inside = 1 }
  /^\} .*namespace .*detail$/ { inside = 0 }
  /^ *concept [a-z_]+ *=/ && !inside && before !~ /^ *\/\/\// { print FILENAME ":" FNR ": warning: " $1 " " $2 " is not documented." }
  !/^ *template/ { before = $0 }' {} + >>"$out/missing"
# namespaces: "unroll..." is a whole name, another one stands inside the one that is open
find include/unroll \( -name '*.hpp' -o -name '*.cuh' \) -exec cat {} + | awk '
  /^namespace unroll/ { open = $2 }
  /^namespace [a-z_]+ \{/ && !/^namespace unroll/ { open = open "::" $2 }
  /^namespace / && open !~ /(^|::)detail(::|$)/ { print open }
  /^\}.*\/\/ namespace / && $NF !~ /^unroll/ { sub(/::[a-z_]+$/, "", open) }' | LC_ALL=C sort -u >"$out/namespaces"
sed -nE 's|^/// \\namespace ([a-z_:]+)$|\1|p' $main | LC_ALL=C sort -u >"$out/known_namespaces"
LC_ALL=C comm -23 "$out/namespaces" "$out/known_namespaces" | sed "s|.*|$main: lacks \\\\namespace &|" >>"$out/missing"
LC_ALL=C comm -13 "$out/namespaces" "$out/known_namespaces" | sed "s|.*|$main: no header has namespace &|" >>"$out/missing"
if [ -s "$out/missing" ]; then
  cat "$out/missing"
  echo "$(wc -l <"$out/missing") faults of the reference"
  exit 1
fi
echo "$out/html/index.html"
