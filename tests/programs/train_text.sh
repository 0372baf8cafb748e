#!/usr/bin/env bash
# Runs train_text briefly: an update waits for a gradient, the columns are means, a resumed run ends with the bits of one that
# was not interrupted, and another text is no text to resume on.
# usage: train_text.sh PROGRAM FOLDER
set -euo pipefail
program=$1 out=$2
rm -rf "$out"
mkdir -p "$out"
cd "$out"
refused() {  # refused MESSAGE COMMAND...: fails, and says so
  local message=$1 said
  shift
  if said=$("$@" 2>&1); then echo "not refused: $*"; exit 1; fi
  case $said in *"$message"*) ;; *) echo "expected \"$message\", got: $said"; exit 1 ;; esac
}
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
printf abc >book.txt
refused "of which a share of" "${train[@]}"
echo "trained, resumed and refused"
