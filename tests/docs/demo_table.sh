#!/usr/bin/env bash
# The README's table of the demo is what the demo printed: the same policies, in the same order by bias, biases within 20 %
# and equal columns of what is counted. Rows whose interval reaches down to 0 have no order among each other.
# usage: demo_table.sh PRINTED [README]
set -euo pipefail
printed=$1 readme=${2:-$(dirname "$0")/../../README.md}
awk '
  function say(message) { print message; wrong = 1 }
  FNR == 1 { file++ }
  $1 == "policy" { delete column; for (i = 1; i <= NF; i++) column[$i] = i; inside = 1; next }
  inside && (NF == 0 || /^```/) { inside = 0 }
  !inside { next }
  file == 1 { for (name in column) there[$1, name] = $column[name]; known[$1] = 1; next }
  {
    rows++
    if (!($1 in known)) { say($1 ": was not printed"); next }
    for (name in column)
      if ((name == "back" || name == "graphs" || name == "MB") && $column[name] != there[$1, name])
        say($1 ": " name " is " $column[name] ", " there[$1, name] " was printed")
    bias = $column["bias"]; other = there[$1, "bias"]
    biased = $column["low"] > 0
    if (biased != (there[$1, "low"] > 0))
      say($1 ": the interval begins at " $column["low"] ", at " there[$1, "low"] " was printed")
    else if (biased && (other < 0.8 * bias || other > 1.2 * bias))
      say($1 ": the bias is " bias ", " other " was printed")
    if (biased) { n++; policy[n] = $1; here[n] = bias; printed[n] = other }
  }
  END {
    if (rows < 5) say("only " rows + 0 " rows of the table were found")
    for (i = 1; i <= n; i++)
      for (j = i + 1; j <= n; j++)
        if ((here[i] < here[j]) != (printed[i] < printed[j]))
          say(policy[i] " and " policy[j] " have the biases " here[i] " and " here[j] ", " printed[i] " and " printed[j] " were printed")
    if (!wrong) print rows " rows of the table agree with what was printed"
    exit wrong
  }' "$printed" "$readme"
