#!/usr/bin/env bash
# Runs every subcommand of memory_llama briefly on a text: results are complete, and an interrupted run that is resumed ends
# with the bits of one that was not.
# usage: memory_llama.sh PROGRAM FOLDER
set -euo pipefail
program=$1 out=$2
text=$(cd "$(dirname "$0")/../.." && pwd)/README.md
rm -rf "$out"
mkdir -p "$out"
cd "$out"

expect() {  # expect FILE WORD...: the JSON file holds every "word"
  local file=$1 word
  shift
  for word in "$@"; do
    grep -q "\"$word\"" "$file" || { echo "$file lacks \"$word\""; exit 1; }
  done
}
refused() {  # refused MESSAGE COMMAND...: fails, and says so
  local message=$1 said
  shift
  if said=$("$@" 2>&1); then echo "not refused: $*"; exit 1; fi
  case $said in *"$message"*) ;; *) echo "expected \"$message\", got: $said"; exit 1 ;; esac
}

shape="--hidden 16 --layers 2 --heads 2 --kv-heads 1 --mlp 32 --context 128"
"$program" pretrain --text "$text" $shape --length 32 --batch 4 --steps 6 --report 3 --held-out-windows 4 --out base --json base.json
expect base.json course held_out complete
test -e base/config.json && test -e base/model.safetensors

memory="--segment 16 --ratio 4 --lora-rank 2"
train() {
  "$program" train --model base --text "$text" $memory --segments 4 --documents 2 --steps 600 --report 100 --held-out-texts 2 \
    --policy reservoir:2 --rate 1e-2 "$@"
}
train --out whole --json whole.json
timeout -s INT 0.2 "$program" train --model base --text "$text" $memory --segments 4 --documents 2 --steps 600 --report 100 \
  --held-out-texts 2 --policy reservoir:2 --rate 1e-2 --checkpoint run.checkpoint >/dev/null || true
if [ -e run.checkpoint ]; then train --checkpoint run.checkpoint --resume --threads 1 --out resumed; else train --out resumed; fi
for file in encoder/adapter_model.safetensors head/adapter_model.safetensors memory_tokens.safetensors; do
  cmp "whole/$file" "resumed/$file"
done

trained="--model base --adapters whole --text $text"
"$program" plan --model base $memory --tokens 64,96 --json plan.json
expect plan.json rows
"$program" gradient $trained --segments 4 --replicas 20 --policy rematerialise,keep_all,window:1,reservoir:1,proportional:2 \
  --json gradient.json
expect gradient.json policy relative_bias relative_bias_low relative_bias_high cosine variance
"$program" eval $trained --segments 4 --per-document 1 --chunk 4 --json eval.json
expect eval.json method perplexity per_document
"$program" generate --model base --adapters whole --prompt "Gradients " --tokens 40 --json generate.json
"$program" autoencode $trained --json autoencode.json
expect autoencode.json bleu4 rouge_l
"$program" bench --model base $memory --segments 4 --windows 1,2 --lengths 64,96 --repeats 1 --json bench.json
expect bench.json measured_over_planned seconds

refused "does not divide" "$program" train --model base --text "$text" --segment 16 --ratio 5 --steps 1
: >empty.txt
refused "empty" "$program" gradient --model base --text empty.txt --segment 16 --ratio 4
refused "none of" "$program" gradient --model base --text "$text" --segment 16 --ratio 4 --policy windows:2
echo "every subcommand ran"
