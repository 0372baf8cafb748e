#!/usr/bin/env bash
# Runs llama score, generate and gradient on the checkpoints of $UNROLL_DATA_DIR: the story that the author of stories260K
# shows, the same numbers from every stored form, and refusals.
# usage: llama.sh PROGRAM FOLDER
set -euo pipefail
program=$1 out=$2
rm -rf "$out"
mkdir -p "$out"
cd "$out"
refused() {  # refused MESSAGE COMMAND...
  local message=$1 said
  shift
  if said=$("$@" 2>&1); then echo "not refused: $*"; exit 1; fi
  case $said in *"$message"*) ;; *) echo "expected \"$message\", got: $said"; exit 1 ;; esac
}
refused "does not exist" "$program" score --model absent.bin --prompt "Once"
if [ -z "${UNROLL_DATA_DIR:-}" ]; then
  echo "skipped: UNROLL_DATA_DIR is not set"
  exit 0
fi

models=$UNROLL_DATA_DIR/models
number() { grep -o "\"$2\": *[-0-9.e]*" "$1" | head -1 | sed 's/.*: *//'; }
close() { awk -v a="$1" -v b="$2" -v e="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(d <= e) }' || { echo "$1 is not $2"; exit 1; }; }

"$program" generate --model "$models/stories260K/stories260K.bin" --greedy --tokens 70 >story.txt
grep -q "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high." story.txt

head -c 6000 "$UNROLL_DATA_DIR/corpora/tinystories/tinystories_train_prefix_2MiB.txt" >stories.txt
"$program" score --model "$models/stories260K/stories260K.bin" --text stories.txt --json bin.json
"$program" score --model "$models/stories260K-hf" --text stories.txt --json hf.json
"$program" score --model "$models/stories260K-hf-f16-sharded" --text stories.txt --json f16.json
"$program" score --model "$models/stories260K-hf" --text stories.txt --double --json double.json
close "$(number hf.json mean_nll)" "$(number bin.json mean_nll)" 1e-5
close "$(number f16.json mean_nll)" "$(number bin.json mean_nll)" 1e-2
close "$(number double.json mean_nll)" "$(number bin.json mean_nll)" 1e-4

"$program" gradient --model "$models/stories260K-hf" --text stories.txt --json float_gradient.json
"$program" gradient --model "$models/stories260K-hf" --text stories.txt --double --json double_gradient.json
for name in model.embed_tokens.weight model.layers.0.self_attn.q_proj.weight model.norm.weight; do
  norm=$(number double_gradient.json "$name")
  close "$(number float_gradient.json "$name")" "$norm" "$(awk -v n="$norm" 'BEGIN { print 1e-3 * n }')"
done
refused "vocabulary" "$program" score --model "$models/stories260K/stories260K.bin" --tokenizer "$models/babyllama105/tok105.bin" --text stories.txt
echo "scores, the story and the gradients agree"
