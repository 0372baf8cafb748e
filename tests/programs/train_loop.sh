#!/usr/bin/env bash
# train_loop: a run that was cut and resumed ends with the files of one that was not, and the best state is kept beside the
# last one.
# usage: train_loop.sh PROGRAM FOLDER
. "$(dirname "$0")/common.sh"
"$program" whole >whole.txt
grep -q "right 100.0 %" whole.txt
"$program" cut 3 >cut.txt
"$program" cut 1 >>cut.txt
"$program" cut >>cut.txt
grep -q "goes on behind step 120" cut.txt
cmp <(grep "^step" whole.txt) <(grep "^step" cut.txt)
cmp whole/run.ckpt cut/run.ckpt
cmp whole/best.ckpt cut/best.ckpt
cmp <(cut -d, -f1-6 whole/course.csv) <(cut -d, -f1-6 cut/course.csv)
[ "$(wc -l <cut/course.jsonl)" = "$(grep -c ^step whole.txt)" ]
[ "$(find cut/events -name '*tfevents*' | wc -l)" = 3 ]
head -c 100 whole/run.ckpt >cut/run.ckpt
refused "load_checkpoint: \"cut/run.ckpt\": has 100 bytes" "$program" cut
echo "a run that was cut is the one that was not"
