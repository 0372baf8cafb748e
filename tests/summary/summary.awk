# Reads what `ctest --verbose` says and prints a line an area (what stands in front of the first / of a test's name) as
# soon as its last test has ended, what was skipped and why, the whole output of what failed, and ctest's closing line last.
# usage: awk -f summary.awk <(ctest -N) <(ctest --verbose)      the first to know how many tests an area has
function area_of(name) { sub(/\/.*/, "", name); return name }

function print_area(area, text) {
  text = sprintf("%-14s %4d passed", area, passed[area])
  if (skipped[area]) text = text sprintf(", %d skipped", skipped[area])
  if (failed[area]) text = text sprintf(", %d FAILED", failed[area])
  printf "%-46s %8.1f s\n", text, seconds[area]
  fflush()
}

# the lines of test n that are its own, not ctest's
function own(n, line) {
  sub(/^[0-9]+: ?/, "", line)
  if (line ~ /^ [A-Z_]+=/ && said[n] == "") return  # of its environment
  if (line !~ /^(Test command: |Working Directory: |Environment variables: |Test timeout computed to be: )/) said[n] = said[n] line "\n"
}

function reason(n, text) {  # what a skipped test said behind "skipped:"
  if (!match(said[n], /skipped:[^\n]*/)) return ""
  text = substr(said[n], RSTART + 8, RLENGTH - 8)
  sub(/^ */, "", text)
  return text
}

FNR == 1 { file++ }
{ sub(/\r$/, "") }

file == 1 {
  if ($0 ~ /^ *Test +#[0-9]+: /) {
    sub(/^ *Test +#[0-9]+: /, "")
    expected[area_of($0)]++
  }
  next
}

/^[0-9]+: / { own($1 + 0, $0); next }

/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: .* +[0-9.]+ sec *$/ {
  line = $0
  sub(/^[^#]*#/, "", line)
  n = line + 0
  sub(/^[0-9]+: /, "", line)
  name = line
  sub(/ [. ]*(\*\*\*| Passed).*$/, "", name)
  took = $(NF - 1)
  area = area_of(name)
  seconds[area] += took
  if (line ~ / +Passed +[0-9.]+ sec *$/) passed[area]++
  else if (line ~ /\*\*\*Skipped +[0-9.]+ sec *$/) {
    skipped[area]++
    skips[++skip_count] = sprintf("skipped  %s: %s", name, reason(n))
  } else {
    failed[area]++
    how = line
    sub(/^.*\*\*\*/, "", how)
    sub(/ *[0-9.]+ sec *$/, "", how)
    failures[++failure_count] = name
    printf "\nFAILED   %s (%s after %s s)\n%s\n", name, how, took, said[n]
  }
  delete said[n]
  if (--expected[area] == 0) print_area(area)
  next
}

/% tests passed, / { closing = $0; next }
!closing && /(CMake Error|CMake Warning|No tests were found|Unable to find|Could not find|Errors while)/ { print }

END {
  for (area in expected)
    if (expected[area] > 0) print_area(area " (incomplete)")
  for (i = 1; i <= skip_count; i++) print skips[i]
  for (i = 1; i <= failure_count; i++) print "failed   " failures[i]
  if (closing) print closing
}
