#!/usr/bin/env bash
# Runs mutate.py on a tree of one header and one test, and asks that what it remembers is what the tests have shown; and
# that every change listed in headers.toml still has its one place in a header.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
python3 -c 'import tomllib' 2>/dev/null || { echo "skipped: needs Python 3.11"; exit 0; }
mkdir -p "$work"/{include/unroll,tests/{a,mutants,support,estimate}}
cd "$work" || exit 1
cp "$here/mutate.py" tests/mutants
touch tests/support/main.cpp tests/estimate/count_allocations.cpp
printf '#pragma once\ninline int f() { return 1; }\ninline int g() { return 2; }\n' >include/unroll/a.hpp
cat >tests/a/a.cpp <<'E2'
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "unroll/a.hpp"

int main() {
  if (std::getenv("FULL") && f() != 1) std::raise(SIGKILL);
  while (std::getenv("HANG") && f() != 1) std::this_thread::sleep_for(std::chrono::seconds(1));
  const bool right = !std::getenv("BROKEN") && (!std::getenv("STRICT") || f() == 1);
  if (!right) std::fputs("wrong\n", stderr);
  return right ? 0 : 1;
}
E2
cat >tests/mutants/headers.toml <<'E2'
[[mutant]]
header = "a.hpp"
old = "return 1"
new = "return 3"
tests = ["a/a.cpp"]

[[mutant]]
header = "a.hpp"
old = "return 2"
new = "return 4"
tests = ["a/a.cpp"]
allowed = "nobody calls it"
E2
expect() {  # expect STATUS LINE WHAT [ARGUMENT...]: the last line of what is printed
  local out status
  out=$(python3 tests/mutants/mutate.py "${@:4}" 2>said.txt)
  status=$?
  if [ $status -ne "$1" ] || [ "${out##*$'\n'}" != "$2" ]; then
    echo "FAILED: $3: status $status, said: $out $(cat said.txt)"
    failed=1
  else
    echo "ok: $3"
  fi
}

STRICT=1 expect 0 "2 mutants: 1 killed, 1 allowed" "a test kills one and not the other"
expect 0 "2 mutants: 1 killed, 1 allowed" "the same files are not run again" --markdown table.md
echo '// changed' >>tests/a/a.cpp
expect 0 "2 mutants: 2 not run" "nothing is known of another test" --known --markdown table.md
if grep -q "1 killed with earlier files, 1 allowed with earlier files" table.md; then
  echo "ok: the table tells allowed ones from killed ones"
else
  echo "FAILED: the table does not tell allowed ones from killed ones: $(cat table.md)"
  failed=1
fi
FULL=1 expect 0 "2 mutants: 1 killed, 1 allowed" "a test that somebody ends"
expect 1 "2 mutants: 1 allowed, 1 SURVIVED" "is run again"
echo '// twice' >>include/unroll/a.hpp
sed -i '0,/^tests = .*/s//&\nhangs_after = 2/' tests/mutants/headers.toml
HANG=1 expect 0 "2 mutants: 1 killed, 1 allowed" "a test that does not end"
expect 0 "2 mutants: 1 killed, 1 allowed" "is not run again where the mutant is known to hang"
echo '// once more' >>include/unroll/a.hpp
BROKEN=1 expect 1 "2 mutants: 2 FAILED" "a test that fails without a mutant kills none"
expect 1 "2 mutants: 1 allowed, 1 SURVIVED" "and nothing of it is remembered"
sed -i 's/return 1;/return 0 + 1;/' include/unroll/a.hpp
expect 1 "" "a change that finds no place" --known
if python3 "$here/mutate.py" --known >said.txt 2>&1; then
  echo "ok: every listed change finds its place"
else
  echo "FAILED: headers.toml: $(tail -n 20 said.txt)"
  failed=1
fi
exit $failed
