#!/usr/bin/env bash
# Runs llama score, generate and gradient on the checkpoints of $UNROLL_DATA_DIR: the story that the author of stories260K
# shows, the same numbers from every stored form, and refusals.
# usage: llama.sh PROGRAM FOLDER
. "$(dirname "$0")/common.sh"
refused "llama: this program: runs as one process, mpirun has started 2" env OMPI_COMM_WORLD_SIZE=2 "$program" --help
refused "does not exist" "$program" score --model absent.bin --prompt "Once"

# a model of zeros, whose every token is as probable as the five others, and its six pieces
mkdir model
{ printf '\4\0\0\0\4\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\6\0\0\0\10\0\0\0'; head -c 720 /dev/zero; } >model/model.bin
cat >model/tokenizer.json <<'END'
{"version": "1.0", "normalizer": null, "pre_tokenizer": null,
 "added_tokens": [{"id": 0, "content": "<s>", "special": true, "normalized": false},
                  {"id": 1, "content": "</s>", "special": true, "normalized": false}],
 "model": {"type": "BPE", "byte_fallback": false, "merges": ["a b"],
           "vocab": {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "ab": 4, " ": 5}}}
END
cp -r model kept
score=("$program" score --model model/model.bin --prompt "ab a b")
"${score[@]}" --json score.json | grep -q "perplexity 6.0000"
expect score.json "mean_nll=1\.791759[0-9]*" complete=true
"${score[@]}" --weights bf16 | grep -q "perplexity 6.0000"
"${score[@]}" --stream --sinks 1 --window 3 --json score.json | grep -q "perplexity 6.0000"
expect score.json complete=true "sinks=1" "chunk=1" "window=3"
refused "requires --stream" "${score[@]}" --sinks 1
refused "must be less than the window of 3" "${score[@]}" --stream --sinks 3 --window 3
refused "bf16" "$program" gradient --model model/model.bin --prompt "ab a" --weights bf16
refused "f16" "${score[@]}" --weights f16
refused "excludes" "${score[@]}" --weights bf16 --double
check_output "${score[@]}"
check_output "$program" generate --model model/model.bin --seed 3
check_output "$program" gradient --model model/model.bin --prompt "ab a"
for option in --window --overlap --threads; do check_numbers $option WHOLE "${score[@]}"; done
for option in --seed --tokens; do check_numbers $option WHOLE "$program" generate --model model/model.bin; done
for option in --temperature --top-p; do check_numbers $option REAL "$program" generate --model model/model.bin; done
for positions in linear linear:0 linear:x linear:2:2 ntk:nan ntk:-1 other:2 length:8; do refused "" "${score[@]}" --positions $positions; done
printf 'ab a' >text.txt
refused "is also --model" "${score[@]}" --json model/model.bin
refused "is also the tokenizer of --model" "${score[@]}" --json model/tokenizer.json
refused "is also --text" "$program" score --model model/model.bin --text text.txt --json text.txt
diff -r model kept

# an adapter of PEFT: beside the weights, merged, differentiated
mkdir adapter
printf '{"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ".*\\\\.up_proj"}' >adapter/adapter_config.json
up=base_model.model.model.layers.0.mlp.up_proj.lora_
header="{\"${up}A.weight\":{\"dtype\":\"F32\",\"shape\":[1,4],\"data_offsets\":[0,16]},\"${up}B.weight\":{\"dtype\":\"F32\",\"shape\":[4,1],\"data_offsets\":[16,32]}}"
{ printf "\\x$(printf %02x ${#header})\\0\\0\\0\\0\\0\\0\\0%s" "$header"; head -c 32 /dev/zero; } >adapter/adapter_model.safetensors
for merged in "" --merge; do
  "${score[@]}" --adapter adapter $merged --json score.json | grep -q "perplexity 6.0000"
  expect score.json 'adapter="adapter"' "merged=$([ -n "$merged" ] && echo true || echo false)"
  "$program" generate --model model/model.bin --adapter adapter $merged --seed 3 >/dev/null
done
"$program" gradient --model model/model.bin --adapter adapter --prompt "ab a" | grep -q "${up}B.weight"
! "$program" gradient --model model/model.bin --adapter adapter --merge --prompt "ab a" | grep -q "$up"
refused "requires --adapter" "${score[@]}" --merge
refused "is also --adapter" "${score[@]}" --adapter adapter --json adapter/adapter_config.json
printf '{"peft_type": "LORA", "r": 2, "target_modules": ["up_proj"]}' >adapter/adapter_config.json
refused "has shape [1, 4], the config needs [2, 4]" "${score[@]}" --adapter adapter
refused "does not exist" "${score[@]}" --adapter absent
for option in --top-k; do check_numbers $option WHOLE "$program" generate --model model/model.bin; done
printf 'ab z' >text.txt
refused '"text.txt"' "$program" score --model model/model.bin --text text.txt

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
"$program" score --model "$models/stories260K-hf" --text stories.txt --weights bf16 --json bf16.json
close "$(number bf16.json mean_nll)" "$(number bin.json mean_nll)" 1e-2
"$program" generate --model "$models/stories260K-hf" --greedy --tokens 20 --weights bf16 | grep -q "Once upon a time, there was a little girl named Lily."

"$program" gradient --model "$models/stories260K-hf" --text stories.txt --json float_gradient.json
"$program" gradient --model "$models/stories260K-hf" --text stories.txt --double --json double_gradient.json
for name in model.embed_tokens.weight model.layers.0.self_attn.q_proj.weight model.norm.weight; do
  norm=$(number double_gradient.json "$name")
  close "$(number float_gradient.json "$name")" "$norm" "$(awk -v n="$norm" 'BEGIN { print 1e-3 * n }')"
done
refused "vocabulary" "$program" score --model "$models/stories260K/stories260K.bin" --tokenizer "$models/babyllama105/tok105.bin" --text stories.txt
echo "scores, the story and the gradients agree"
