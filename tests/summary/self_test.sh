#!/usr/bin/env bash
# Runs ctest on tests that pass, fail, crash, run too long and are skipped, and holds summary.awk to what it prints of them.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=${UNROLL_WORK:-$(mktemp -d)}
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
failed=0

summary() {  # summary TESTS: runs them, prints the summary
  printf '%s\n' "$1" >CTestTestfile.cmake
  ctest -N >names
  ctest --parallel 2 --verbose 2>&1 | awk -f "$here/summary.awk" names - >printed
  status=${PIPESTATUS[0]}
}
expect() {  # expect WHAT PATTERN: a line of the summary is like that
  if grep -qE "$2" printed; then echo "ok: $1"; else
    echo "FAILED: $1: no line is like \"$2\" in"
    sed 's/^/  /' printed
    failed=1
  fi
}
refuse() {  # refuse WHAT PATTERN: none is
  if grep -qE "$2" printed; then
    echo "FAILED: $1: a line is like \"$2\""
    failed=1
  else echo "ok: $1"; fi
}
last() {  # last WHAT LINE
  if [ "$(tail -1 printed)" = "$2" ]; then echo "ok: $1"; else
    echo "FAILED: $1: the last line is \"$(tail -1 printed)\""
    failed=1
  fi
}

summary 'add_test("core/views of 3. kinds" echo said by one that passes)
add_test(core/block true)
add_test(io/read sh -c "echo first line; echo 7/9 of it; exit 3")
add_test(io/npy sh -c "echo skipped: there is no xtensor")
set_tests_properties(io/npy PROPERTIES SKIP_REGULAR_EXPRESSION "skipped:")
add_test(io/json true)
add_test(text/crash sh -c "echo before it; kill -SEGV $$")
add_test(text/long sleep 20)
set_tests_properties(text/long PROPERTIES TIMEOUT 1)
add_test(tree/absent /no/such/program)'
expect 'an area whose tests pass' '^core +2 passed +[0-9.]+ s$'
expect 'an area of all kinds' '^io +1 passed, 1 skipped, 1 FAILED +[0-9.]+ s$'
expect 'a crash and a timeout' '^text +0 passed, 2 FAILED '
expect 'a program that is not there' '^tree +0 passed, 1 FAILED '
expect 'why a test was skipped' '^skipped +io/npy: there is no xtensor$'
expect 'which failed' '^FAILED +io/read \(Failed after [0-9.]+ s\)$'
expect 'all that a failure said' '^first line$'
expect 'what looks like a line of ctest' '^7/9 of it$'
expect 'what a crash said' '^before it$'
expect 'that one took too long' '^FAILED +text/long \(Timeout after [0-9.]+ s\)$'
refuse 'no word of what passes' 'said by one that passes'
last 'the closing line of ctest' '50% tests passed, 4 tests failed out of 8'
[ "$status" -ne 0 ] || { echo 'FAILED: ctest says that all is well'; failed=1; }

summary 'add_test(core/views true)
add_test(io/npy sh -c "echo skipped:")
set_tests_properties(io/npy PROPERTIES SKIP_REGULAR_EXPRESSION "skipped:")'
last 'the closing line where nothing failed' '100% tests passed, 0 tests failed out of 2'

summary ''
expect 'that there is no test' 'No tests were found'
exit $failed
