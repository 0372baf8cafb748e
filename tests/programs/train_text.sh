#!/usr/bin/env bash
# Runs train_text briefly: an update waits for a gradient, the columns are means, a resumed run ends with the bits of one that
# was not interrupted, and another text is no text to resume on. Equal runs have equal checkpoints, and none is replaced by
# another run; what is printed and written arrives, or the program fails and says why.
# usage: train_text.sh PROGRAM FOLDER
. "$(dirname "$0")/common.sh"
column() { awk -v n="$2" '$1 ~ /^[0-9]+$/ && NF == 3 { print $n }' "$1"; }  # column FILE NUMBER: of the course

for _ in $(seq 2000); do printf abcdefghij; done >book.txt
train=("$program" --text book.txt --hidden 8 --lanes 2 --length 40 --report 5 --held-out 500)

# a gradient that comes once in a sequence, or a window, is one update whatever --every asks for
for estimator in bptt chunked:100 es:0.1; do
  "${train[@]}" --estimator $estimator --sequences 10 --every 40 >whole.out
  "${train[@]}" --estimator $estimator --sequences 10 --every 7 >often.out
  grep -q "an update every 40 steps (it has no gradient more often)" often.out
  cmp <(column whole.out 3) <(column often.out 3)
done
"${train[@]}" --estimator chunked:20 --sequences 10 --every 20 >whole.out
"${train[@]}" --estimator chunked:20 --sequences 10 --every 7 >often.out
cmp <(column whole.out 3) <(column often.out 3)

# two gradients of 20 steps are that of 40, but for rounding; an update that waits for a sequence of the next process is resumed
"${train[@]}" --estimator chunked:20 --sequences 10 --every 20 --accumulate 2 >summed.out
grep -q "a gradient every 20 steps, an update of 2" summed.out
"${train[@]}" --estimator chunked:20 --sequences 10 --every 40 >once.out
paste <(column summed.out 3) <(column once.out 3) <(column whole.out 3) |
  awk '{ d = $1 - $2; e = $1 - $3; if (d * d > 1e-6 || e * e < 1e-6) { print; exit 1 } } END { exit NR != 2 }'
four=("${train[@]}" --estimator bptt --every 40 --accumulate)
"${four[@]}" 4 --sequences 15 --checkpoint whole.ckpt >/dev/null
"${four[@]}" 4 --sequences 10 --checkpoint run.ckpt >/dev/null
refused "belongs to another run" "${four[@]}" 3 --sequences 15 --checkpoint run.ckpt --resume
"${four[@]}" 4 --sequences 15 --checkpoint run.ckpt --resume >/dev/null
cmp whole.ckpt run.ckpt
rm whole.ckpt run.ckpt

# a run ends after so many reports without a lower held-out loss, and a resumed one remembers them
still=("${train[@]}" --sequences 100 --patience)
"${still[@]}" 2 --rate 1e-30 --checkpoint still.ckpt --json still.json >still.out
[ "$(column still.out 1 | tail -1)" = 15 ]
grep -q "ended early: no lower held-out loss in 2 reports" still.out
expect still.json ended_early=true complete=true
"${still[@]}" 2 --rate 1e-30 --checkpoint still.ckpt --resume >still.out
[ -z "$(column still.out 1)" ]
"${still[@]}" 3 --rate 1e-30 --checkpoint still.ckpt --resume >still.out
[ "$(column still.out 1)" = 20 ]
"${train[@]}" --patience 2 --rate 1e-30 --sequences 7 --checkpoint stopped.ckpt >/dev/null  # a report that is not due
"${still[@]}" 2 --rate 1e-30 --checkpoint stopped.ckpt --resume >still.out
[ "$(column still.out 1 | tail -1)" = 15 ]
"${still[@]}" 1 --rate 3e-3,1e-30 --sweep still_sweep.json >still.out
grep -q "after at most 100 sequences" still.out
grep -A 9 'rate 1e-30' still_sweep.json | grep -q '"sequence": 10'

# while the parameters stand still, the mean loss of training is that of the held-out text, from the first report on
"${train[@]}" --rate 1e-30 --sequences 15 >still.out
paste <(column still.out 2) <(column still.out 3) |
  awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 0.05) { print "training " $1 ", held out " $2; exit 1 } } END { exit NR != 3 }'

"${train[@]}" --sequences 15 --checkpoint whole.ckpt >/dev/null
"${train[@]}" --sequences 10 --checkpoint run.ckpt >/dev/null
"${train[@]}" --sequences 15 --checkpoint run.ckpt --resume >/dev/null
cmp whole.ckpt run.ckpt
for _ in $(seq 2000); do printf klmnopqrst; done >book.txt
refused "belongs to another run" "${train[@]}" --sequences 20 --checkpoint run.ckpt --resume
refused "is not finite; try a smaller --rate" "${train[@]}" --rate 1e30 --sequences 5
refused "held-out: loss after sequence 1 is not finite" "${train[@]}" --rate 1e38 --sequences 1 --every 40 --checkpoint no.ckpt
test ! -e no.ckpt
printf abc >book.txt
refused "of which a share of" "${train[@]}"

for _ in $(seq 200); do printf 'the quick brown fox jumps over the lazy dog; '; done >book.txt
cp book.txt kept.txt
run=("$program" --text book.txt --hidden 4 --lanes 2 --length 40 --held-out 100)

"${run[@]}" --sequences 6 --report 2 --checkpoint whole --json whole.json >/dev/null
expect whole.json "held_out_bits=$number" complete=true
"${run[@]}" --sequences 6 --report 2 --checkpoint again >/dev/null
cmp whole again

refused "--resume goes on from it" "${run[@]}" --sequences 6 --report 2 --checkpoint whole
cmp whole again
refused "does not exist" "${run[@]}" --checkpoint absent --resume
refused "--checkpoint" "${run[@]}" --resume
ln -s book.txt link.txt
ln book.txt hard.txt
for file in book.txt link.txt hard.txt; do refused "is also --text" "${run[@]}" --checkpoint $file; done
refused "is also --checkpoint" "${run[@]}" --checkpoint run --json run
cmp book.txt kept.txt
[ ! -e run ]
refused "--task" "${run[@]}" --task anbn
ln -s far link  # a link to a checkpoint that is not there yet stays one
"${run[@]}" --sequences 2 --checkpoint link >/dev/null
test -L link
test -f far

# two runs that name one file at the same time do not disturb each other
"${run[@]}" --sequences 60 --report 1 --json both.json >/dev/null &
"${run[@]}" --sequences 60 --report 1 --json both.json >/dev/null
wait $!
expect both.json complete=true

check_output "${run[@]}" --sequences 2
for option in --seed --sequences --held-out; do check_numbers $option WHOLE "${run[@]}" --sequences 2; done
for option in --rate --clip; do check_numbers $option REAL "${run[@]}" --sequences 2; done

# a reader that goes away ends the run as Ctrl-C does, with a checkpoint
status=0
"${run[@]}" --sequences 100000000 --report 1 --checkpoint closed 2>said.txt | head -1 >/dev/null || status=$?
[ $status = 1 ]
grep -q "Broken pipe" said.txt
"${run[@]}" --sequences 2 --checkpoint closed --resume >/dev/null

# a sweep: the runs are those that the program makes one by one, whatever the threads; it goes on where it was cut off
many=("${run[@]}" --sequences 6 --report 3 --cell gru,elman --rate 3e-3,1e-2 --seed 1..3)
refused "must name the file for the results of 12 runs" "${many[@]}"
"${many[@]}" --sweep sweep.json --threads 1 >sweep.txt
[ "$(grep -cE '^(gru|elman) ' sweep.txt)" = 4 ]
"${many[@]}" --sweep again.json --threads 3 >/dev/null
cmp sweep.json again.json
"${run[@]}" --sequences 6 --report 3 --cell elman --rate 1e-2 --seed 2 --json point.json >/dev/null
bits=$(sed -nE 's/.*"held_out_bits": ([0-9.]+).*/\1/p' point.json | tail -1)
grep -A 20 'cell elman.*rate 1e-2, seed 2"' sweep.json | grep -q "$bits"
# the mean of three seeds and its interval by hand: 4.303 is Student's quantile at two degrees of freedom
for seed in 1 2 3; do
  "${run[@]}" --sequences 6 --report 3 --cell gru --rate 3e-3 --seed $seed | column /dev/stdin 3 | tail -1
done | awk '{ s += $1; q += $1 * $1; n++ } END { m = s / n; v = (q - n * m * m) / (n - 1); h = 4.3027 * sqrt(v / n); print m, m - h, m + h }' >by_hand
grep -E "^gru .* 3e-3 " sweep.txt | awk '{ print $7, $8, $9 }' | paste - by_hand |
  awk '{ for (i = 1; i <= 3; i++) { d = $i - $(i + 3); if (d < 0) d = -d; if (d > 0.002) { print; exit 1 } } }'
"${run[@]}" --sequences 6 --report 3 --cell gru,elman --rate 3e-3,1e-2 --seed 1..4 --sweep again.json >/dev/null  # four more
[ "$(grep -c '"cell ' again.json)" = 16 ]
cp sweep.json kept.json
refused "holds another sweep" "${many[@]}" --clip 2 --sweep sweep.json
refused "is there and holds no sweep" "${many[@]}" --sweep point.json
refused "damaged JSON" "${many[@]}" --sweep kept.txt
refused "is also --text" "${many[@]}" --sweep book.txt
cmp sweep.json kept.json
refused "is of one run" "${many[@]}" --sweep new.json --json one.json
refused "--seed: 3..1 ends before it begins" "${many[@]}" --seed 3..1
refused "--seed: has 1 twice" "${run[@]}" --seed 1,1..2 --sweep new.json
refused '"misspelt" is none of' "${run[@]}" --estimator tbptt:5,misspelt --sweep new.json
refused '"misspelt" is none of' "${run[@]}" --cell gru,misspelt --sweep new.json
[ ! -e new.json ]
"${run[@]}" --sequences 6 --rate 1e30,1e-3 --sweep failed.json | grep -qE " 1e30 +1 +1 "  # a run that fails is a result
long=("${run[@]}" --sequences 300 --seed 1..20 --threads 1)
"${long[@]}" --sweep cut.json >/dev/null &
pid=$!
for _ in $(seq 3000); do if grep -qs 'seed 2"' cut.json; then break; fi; sleep 0.01; done
kill -INT $pid
status=0
wait $pid || status=$?
[ $status = 130 ]
runs=$(grep -c 'seed [0-9]*"' cut.json)
[ "$runs" -lt 20 ]
"${long[@]}" --sweep cut.json >/dev/null
"${run[@]}" --sequences 300 --seed 1..20 --threads 2 --sweep uncut.json >/dev/null
cmp cut.json uncut.json
"${run[@]}" --sequences 300 --seed 1..50 --threads 1 --sweep two.json >/dev/null 2>two.txt &
pid=$!
for _ in $(seq 3000); do if [ -e two.json ]; then break; fi; sleep 0.01; done
echo '{"sweep": "of somebody else", "runs": {}}' >two.json  # never overwritten
status=0
wait $pid || status=$?
[ $status = 1 ]
grep -q "was changed by another program meanwhile" two.txt
grep -q "of somebody else" two.json

# a combination that no run can have is a row; what may be over tomorrow ends the sweep, which goes on another day
few=("${run[@]}" --sequences 6 --report 3 --threads 2)
"${few[@]}" --cell lru,gru --estimator diagonal_rtrl --sweep none.json >none.txt
grep -qE "^gru +diagonal_rtrl .* 1 +1 " none.txt
grep -qE "^lru +diagonal_rtrl .* 1 +0 " none.txt
grep -q "^cell gru, .*: diagonal_rtrl: system: has units that listen to each other" none.txt
small=(bash -c 'trap "" XFSZ; ulimit -f 4; exec "$@"' -)  # no file may have more than 4 KiB
refused '"full.json": cannot be written: File too large' "${small[@]}" "${few[@]}" --seed 1..50 --sweep full.json
runs=$(grep -c 'seed [0-9]*"' full.json)
[ "$runs" -gt 3 ]
[ "$runs" -lt 50 ]
"${few[@]}" --seed 1..50 --sweep full.json >/dev/null
"${few[@]}" --seed 1..50 --sweep roomy.json >/dev/null
cmp full.json roomy.json
for change in 'cp kept.txt other.txt; echo x >>other.txt; mv other.txt book.txt' 'rm book.txt' ': >book.txt'; do
  "${run[@]}" --sequences 60 --seed 1..50 --threads 1 --sweep moved.json >/dev/null 2>moved.txt &
  pid=$!
  for _ in $(seq 3000); do if grep -qs 'seed 2"' moved.json; then break; fi; sleep 0.01; done
  eval "$change"
  status=0
  wait $pid || status=$?
  [ $status = 1 ]
  grep -qE '"book.txt"( is another one than when the sweep began|: does not exist)' moved.txt
  if grep -q error moved.json; then echo "a text that is gone is no result"; exit 1; fi
  cp kept.txt book.txt
  rm moved.json
done

# files of events: a new one for every process, none written over
"${run[@]}" --sequences 4 --report 2 --checkpoint cut.ckpt --tensorboard events >/dev/null
"${run[@]}" --sequences 8 --report 2 --checkpoint cut.ckpt --resume --tensorboard events >/dev/null
[ "$(find events -name 'events.out.tfevents.*' | wc -l)" = 2 ]
refused "has events of another run" "${run[@]}" --sequences 2 --tensorboard events
refused "cannot be made a folder" "${run[@]}" --sequences 2 --tensorboard book.txt
refused "is of one run" "${many[@]}" --sweep new.json --tensorboard new
smaller=(bash -c 'trap "" XFSZ; ulimit -f 1; exec "$@"' -)
refused "cannot be written: File too large; its first" "${smaller[@]}" "${run[@]}" --sequences 60 --report 1 --tensorboard full
head -c 40 "$(find full -name 'events.out.tfevents.*')" | grep -q "brain.Event:2"

if [ -n "$(ls -- *.partial 2>/dev/null)" ]; then echo "files that were not finished are there"; exit 1; fi
echo "trained, resumed and refused"
