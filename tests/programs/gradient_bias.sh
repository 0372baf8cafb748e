#!/usr/bin/env bash
# gradient_bias: what it prints and writes arrives, or it fails and says why; no output replaces an input or another output.
# usage: gradient_bias.sh PROGRAM FOLDER
. "$(dirname "$0")/common.sh"
for _ in $(seq 40); do printf 'the quick brown fox jumps over the lazy dog; '; done >book.txt
cp book.txt kept.txt
short=("$program" --hidden 4 --length 12 --train 1 --replicas 8)
run=("${short[@]}" --text book.txt --estimators bptt,uoro)

"${run[@]}" --csv rows.csv --json rows.json --horizon horizon.csv >table.txt
grep -q uoro table.txt
grep -q uoro rows.csv
head -1 rows.csv | grep -q "^estimator,estimand,relative_bias,"
expect rows.json complete=true "relative_bias=$number"
head -1 horizon.csv | grep -q "^lag,norm,tail,projection,"
"${run[@]}" --csv /dev/stdout >both.txt  # a descriptor is written to, behind the table
grep -q "relative bias is that" both.txt
grep -q "^uoro," both.txt
"${run[@]}" --csv /dev/null --json /dev/null >/dev/null
test -c /dev/null

check_output "${run[@]}"
check_figure figure "${run[@]}"
for option in --seed --replicas --threads --hidden; do check_numbers $option WHOLE "${run[@]}"; done
for option in --precision --confidence; do check_numbers $option REAL "${run[@]}"; done
"${run[@]}" --seed 18446744073709551615 >/dev/null

ln -s book.txt link.txt
ln book.txt hard.txt
mkdir folder
for file in book.txt ./book.txt link.txt hard.txt folder/../book.txt; do
  for option in --csv --json --horizon; do refused "is also --text" "${run[@]}" $option $file; done
done
refused "is also --json" "${run[@]}" --csv same --json ./same
refused "is also --json" "${run[@]}" --json same --horizon same
refused "is also the standard output" bash -c '"$@" --json table.txt >table.txt' - "${run[@]}"
refused "is a folder" "${run[@]}" --json folder
refused "cannot be opened" "${run[@]}" --json none/rows.json
cmp book.txt kept.txt
[ ! -e same ]

few=("$program" --length 12 --train 1 --replicas 8 --task adding --estimators tbptt:2,uoro)
many=("${few[@]}" --hidden 4,6 --seed 1..3)
"${many[@]}" --sweep sweep.json --threads 2 >sweep.txt
[ "$(grep -cE '^[46] +(tbptt:2|uoro) +3 +0 ' sweep.txt)" = 4 ]
head -1 sweep.txt | grep -q " exact_norm "  # without it nobody sees that there is no gradient left to measure
numbers() { grep -vE '"(seconds|variance_time)"' "$1"; }
"${few[@]}" --hidden 6 --seed 2 --json point.json >/dev/null
bias=$(sed -nE 's/.*"relative_bias": ([0-9.e-]+),/\1/p' point.json | tail -1)
grep -A 80 '"hidden 6, seed 2"' sweep.json | grep -q "\"relative_bias\": $bias,"
"${many[@]}" --sweep again.json --threads 1 >/dev/null
cmp <(numbers sweep.json) <(numbers again.json)
cp sweep.json kept.json
"${many[@]}" --sweep sweep.json >/dev/null  # all of it is there
cmp sweep.json kept.json
refused "holds another sweep" "${many[@]}" --lanes 2 --sweep sweep.json
refused "is of one run" "${many[@]}" --sweep new.json --plot figure.svg
cmp sweep.json kept.json

refused "--task" "${short[@]}" --text book.txt --task adding
refused "has no meaning" "${short[@]}" --system influence_balancing --task adding
refused "has no meaning" "${short[@]}" --system influence_balancing --estimators bptt
for name in es:nan es:inf es:1e999 es:0.1:1.5 es: es:0.1x uoro:0 uoro:-1 uoro:1e30 "" nothing; do
  refused "" "${short[@]}" --text book.txt --estimators "bptt,$name"
done
for name in es nres pes; do
  refused "sigma: is 1e-300, which is lost" "${short[@]}" --text book.txt --estimators $name:1e-300
done
refused '"absent.txt"' "${short[@]}" --text absent.txt
: >empty.txt
refused '"empty.txt"' "${short[@]}" --text empty.txt
echo "outputs, figures and refusals are right"
