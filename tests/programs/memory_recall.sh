#!/usr/bin/env bash
# memory_recall: an answer within reach is learned, one beyond a window is not, and what it writes arrives.
# usage: memory_recall.sh PROGRAM FOLDER
. "$(dirname "$0")/common.sh"
run=("$program" --steps 40 --every 20 --seeds 2 --distances 1 --policy window:1)
"${run[@]}" --json runs.json | grep -q "window:1"
expect runs.json complete=true policy='"window:1"' distance=1 "encoders=31\.0" "encoders_back=31\.0" rows left
learned=$("$program" --steps 300 --seeds 1 --segments 12 --width 4 --rate 4e-3 --distances 4 --policy window:1,window:4,roulette:4)
grep -E "window:1 .* 0 of 1 runs" <<<"$learned"
grep -E "window:4 .* [0-9]+ \+- 0 " <<<"$learned"
grep -E "roulette:4 .* [0-9]+ \+- 0 " <<<"$learned"
check_output "${run[@]}"
check_figure figure "${run[@]}"
check_numbers --steps WHOLE "${run[@]}"
check_numbers --rate REAL "${run[@]}"
refused "is none of 1 .. 31" "$program" --distances 32
refused "is none of 1 .. 31" "$program" --distances 1,
refused "without --recurrent only" "$program" --recurrent --policy proportional:2
refused "none of rematerialise" "$program" --policy nothing
echo "outputs, figures and refusals are right"
