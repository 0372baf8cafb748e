#!/usr/bin/env bash
# influence_balancing: what it prints and writes arrives, or it fails and says why.
# usage: influence_balancing.sh PROGRAM FOLDER
. "$(dirname "$0")/common.sh"
run=("$program" --updates 1000)
"${run[@]}" --json runs.json | grep -q "artbp(16,6)"
expect runs.json "optimum=$number" complete=true path
check_output "${run[@]}"
check_figure figure "${run[@]}"
check_numbers --updates WHOLE "${run[@]}"
check_numbers --seed WHOLE "${run[@]}"
refused "is also --json" "${run[@]}" --json same.svg --plot same.svg
[ ! -e same.svg ]
echo "outputs, figures and refusals are right"
