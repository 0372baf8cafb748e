#!/usr/bin/env bash
# Runs every subcommand of memory_llama briefly on a text: results are complete, and an interrupted run that is resumed ends
# with the bits of one that was not.
# usage: memory_llama.sh PROGRAM FOLDER
. "$(dirname "$0")/common.sh"
text=$project/examples/texts/the_lamp_on_orrel.txt

interrupted() {  # interrupted SIGNAL COMMAND...: sends it once run.checkpoint exists; the run stops, not finished
  local signal=$1 pid status=0
  shift
  rm -f run.checkpoint
  "$@" --checkpoint run.checkpoint --json interrupted.json >/dev/null &
  pid=$!
  for _ in $(seq 6000); do
    if [ -e run.checkpoint ] || ! kill -0 $pid 2>/dev/null; then break; fi
    sleep 0.01
  done
  kill -s "$signal" $pid || true
  wait $pid || status=$?
  [ $status = 130 ] || { echo "interrupted, the program ended with $status: $*"; exit 1; }
  grep -q '"complete": false' interrupted.json || { echo "finished before it was interrupted: $*"; exit 1; }
}

falls() {  # falls FILE KEY: its last value is less than its first
  sed -nE "s/^ *\"$2\": ($number),?$/\1/p" "$1" | awk -v key="$2" '
    NR == 1 { first = $1 }
    END { if (NR < 2 || $1 >= first) { print key " goes from " first " to " $1; exit 1 } }'
}

shape="--hidden 16 --layers 2 --heads 2 --kv-heads 1 --mlp 32 --context 128"
pretrain=("$program" pretrain --text "$text" $shape --length 32 --batch 4 --report 10 --held-out-windows 4)
"${pretrain[@]}" --steps 1000 --out base --json base.json
expect base.json course complete=true "training=$number" "held_out_bits_per_byte=$number"
falls base.json held_out_bits_per_byte
test -e base/config.json
interrupted TERM "${pretrain[@]}" --steps 1000
"${pretrain[@]}" --steps 1000 --checkpoint run.checkpoint --resume --threads 1 --out resumed_base >/dev/null
cmp base/model.safetensors resumed_base/model.safetensors

cp run.checkpoint kept.checkpoint
refused "--resume goes on from it" "${pretrain[@]}" --steps 1000 --checkpoint run.checkpoint
cmp run.checkpoint kept.checkpoint
for name in one two; do "${pretrain[@]}" --steps 12 --checkpoint $name.checkpoint >/dev/null; done
cmp one.checkpoint two.checkpoint

memory="--segment 16 --ratio 4 --lora-rank 2"
train=("$program" train --model base --text "$text" $memory --segments 4 --documents 2 --steps 1000 --report 10
  --held-out-texts 2 --policy reservoir:2 --rate 1e-2)
"${train[@]}" --out whole --json whole.json
expect whole.json complete=true
interrupted INT "${train[@]}"
"${train[@]}" --checkpoint run.checkpoint --resume --threads 1 --out resumed >/dev/null
for file in encoder/adapter_model.safetensors head/adapter_model.safetensors memory_tokens.safetensors memory.json; do
  cmp "whole/$file" "resumed/$file"
done

# steps of several gradients, cut between any two of them; without patience for a held-out loss that stands still
parts=("$program" train --model base --text "$text" $memory --segments 2 --documents 1 --accumulate 3 --clip-value 0.01 --steps 2000
  --report 10 --held-out-texts 2 --policy reservoir:1)
"${parts[@]}" --out parts --json parts.json >/dev/null
expect parts.json complete=true accumulate=3
interrupted INT "${parts[@]}"
"${parts[@]}" --checkpoint run.checkpoint --resume --out parts_resumed >/dev/null
cmp parts/encoder/adapter_model.safetensors parts_resumed/encoder/adapter_model.safetensors
"$program" train --model base --text "$text" $memory --segments 2 --documents 1 --steps 50 --report 1 --rate 1e-30 --patience 3 >early.txt
grep -q "no lower held-out loss for 3 reports; the best is that of step 1" early.txt

# interrupted in the scoring behind the last step a run is not complete; the resumed one reports that step
for _ in {1..55}; do cat "$text"; done >long.txt
last=("$program" train --model base --text long.txt $memory --segments 4 --documents 1 --steps 2 --report 1
  --held-out-texts 1000000 --policy reservoir:2)
interrupted INT "${last[@]}"
"${last[@]}" --checkpoint run.checkpoint --resume --json last.json >/dev/null
expect last.json complete=true 'step=[12]'

trained="--model base --adapters whole --text $text"
"$program" plan --model base $memory --tokens 64,96 --json plan.json
expect plan.json rows tokens="64|96" "reads=$number"
"$program" plan --model base $memory --tokens 64 --numbers bf16-weights --json plan.json
expect plan.json 'numbers="bf16-weights"'
"$program" gradient $trained --segments 4 --replicas 20 --json gradient.json \
  --policy rematerialise,keep_all,window:1,reservoir:1,proportional:2,proportional:2:random_order,proportional:2:independent,roulette:2
expect gradient.json complete=true policy 'status="ok"' "relative_bias=$number" "relative_bias_low=$number" \
  "relative_bias_high=$number" "cosine=$number" "variance=$number"
"$program" eval $trained --segments 4 --per-document 1 --chunk 4 --json eval.json
expect eval.json method "perplexity=$number" "per_document=$number"
refused "rounded to bf16" "$program" eval $trained --segments 4 --weights bf16
"$program" eval $trained --segments 4 --per-document 1 --methods memory --weights bf16 --other-base >/dev/null
"$program" generate --model base --adapters whole --prompt "Gradients " --tokens 40 --json generate.json >generated.txt
grep -q "^Gradients " generated.txt
expect generate.json ids tokens=40 'ended_by="tokens"'
printf 'Gradients ' >prompt.txt
"$program" generate --model base --adapters whole --text prompt.txt --tokens 40 | cmp - generated.txt
"$program" generate --model base --adapters whole --prompt "Gradients " --greedy --tokens 1000 --json full.json >/dev/null
expect full.json 'ended_by="no more positions"'
drawn=$(sed -n 's/^ "tokens": \([0-9]*\),$/\1/p' full.json)
"$program" generate --model base --adapters whole --prompt "Gradients " --greedy --tokens "$drawn" --json full.json >/dev/null
expect full.json 'ended_by="tokens"'

# a text ends at each id that generation_config.json names, else config.json
grep -q '"bos_token_id": 256' base/config.json
grep -q '"eos_token_id": 257' base/config.json
third=$(tr -d '\n' <full.json | sed 's/.*"ids": *\[\([^]]*\)\].*/\1/' | tr -d ' ' | cut -d, -f14)  # behind <s> and 10 bytes
cp -r base ends
sed -i "s/\"eos_token_id\": 257/\"eos_token_id\": $third/" ends/config.json
"$program" generate --model ends --adapters whole --prompt "Gradients " --greedy --tokens 20 --json ended.json >/dev/null
expect ended.json 'ended_by="end of text"'
printf '{"eos_token_id": [%s, 257]}' "$third" >ends/generation_config.json
cp base/config.json ends
"$program" generate --model ends --adapters whole --prompt "Gradients " --greedy --tokens 20 --json ended.json >/dev/null
expect ended.json 'ended_by="end of text"'
printf '{"num_beams": 4}' >ends/generation_config.json
refused "num_beams" "$program" generate --model ends --adapters whole --prompt "Gradients "
refused '"ends/generation_config.json" lies there' "${pretrain[@]}" --steps 1 --out ends
rm ends/generation_config.json

# rows of the embedding without a piece are said, and never written; many tell of another vocabulary
few() {  # few N: a tokenizer.json of the first N bytes
  local b vocabulary=
  for b in $(seq 0 $(($1 - 1))); do vocabulary+=$(printf '"<0x%02X>": %d,' "$b" "$b"); done
  printf '{"added_tokens": [], "model": {"type": "BPE", "byte_fallback": true, "merges": [], "vocab": {%s}}}' "${vocabulary%,}"
}
few 200 >ends/tokenizer.json
rm ends/tokenizer_config.json
"$program" generate --model ends --adapters whole --prompt "Gradients " --tokens 20 >written.txt 2>said.txt
grep -q "^Gradients " written.txt
grep -q "has 200 pieces, \"ends\" 258 rows of embedding" said.txt
few 129 >ends/tokenizer.json
refused "has 129 pieces, the model has a vocabulary of 258" "$program" generate --model ends --adapters whole --prompt "x"

# the vocabulary of the bytes, as tokenizers reads it
if python3 -c 'import tokenizers' 2>/dev/null; then
  python3 - base/tokenizer.json <<'PYTHON'
import sys, tokenizers
t = tokenizers.Tokenizer.from_file(sys.argv[1])
text = "Hé <s>\t日本 "
assert t.encode(text, add_special_tokens=False).ids == [72, 195, 169, 32, 256, 9, 230, 151, 165, 230, 156, 172, 32]
assert t.encode("a").ids == [256, 97]
assert t.decode(t.encode(text).ids) == "Hé \t日本 "
PYTHON
else
  echo "not compared with tokenizers: python3 has no such module"
fi
"$program" autoencode $trained --json autoencode.json
expect autoencode.json complete=true "bleu4=$number" "rouge_l=$number"
# what stood segments ago: with as many keys as the text has, a window and sinks see all of it
recall=("$program" recall --model base --text "$text" --segment 128 --positions linear:8 --texts 2)
"${recall[@]}" --ratio 16 --lags 1,3 --json recall.json >/dev/null
expect recall.json complete=true "lag=[13]" "tokens_right=$number" "all_right=$number" "nll=$number" 'method="(memory|window|sinks|none)"'
"${recall[@]}" --task repeat --ratio 1 --lags 2 --methods window,sinks --chunk 1 --json recall.json >/dev/null
[ "$(grep -c '"nll"' recall.json)" = 2 ]
[ "$(grep '"nll"' recall.json | sort -u | wc -l)" = 1 ]
refused '"passkey" is none of' "${recall[@]}" --methods passkey
refused '"x" is no whole number' "${recall[@]}" --lags 1,x
refused "segment: is 16, must be" "$program" recall --model base --text "$text" --segment 16 --ratio 4 --lags 1
refused "the longest text has" "${recall[@]}" --ratio 16 --lags 1,1000
"$program" bench --model base $memory --segments 4 --windows 1,2 --lengths 64,96 --repeats 1 --json bench.json
expect bench.json "measured_over_planned=(0\.[89]|1\.[012])[0-9]*" "seconds=$number"

# policies that a recurrent encoder does not have are no part of the lists by default
"$program" plan --model base $memory --recurrent --tokens 64 >/dev/null
"$program" gradient --model base --text "$text" $memory --recurrent --segments 3 --replicas 2 >/dev/null

# adapters keep their positions and know their base
tiny=("$program" train --model base $memory --segments 2 --documents 1 --held-out-texts 1)
"${tiny[@]}" --text "$text" --steps 1 --positions linear:2 --out stretched >/dev/null
evaluate="eval --adapters stretched --text $text --segments 60 --per-document 1 --methods memory"
"$program" $evaluate --model base >/dev/null
refused "the longest text has" "$program" $evaluate --model base --positions linear:1
"$program" $evaluate --model base --positions ntk:2 2>&1 >/dev/null | grep -q "trained with --positions linear:2"
"${pretrain[@]}" --steps 1 --seed 2 --out other >/dev/null
refused "were trained on another base than \"other\": its weights have hash" "$program" $evaluate --model other
"$program" $evaluate --model other --other-base 2>&1 >/dev/null | grep -q "its weights have hash"
# and every byte of themselves: a damaged key would otherwise be a default
sed -i 's/lora_alpha/lorA_alpha/' stretched/encoder/adapter_config.json
refused "adapter_config.json\": has hash" "$program" $evaluate --model base

for option in --out --json --checkpoint; do refused "$option" "${tiny[@]}" --text "$text" --steps 1 $option ""; done
# outputs are no inputs, and no other outputs
cp -r base kept_base
refused '"base" is also --model' "${pretrain[@]}" --steps 1 --model base --out base
refused '"base" is also --model' "${tiny[@]}" --text "$text" --steps 1 --out base
refused "is also --adapters" "${tiny[@]}" --text "$text" --adapters whole --steps 1 --out whole
refused "is also --model" "$program" plan --model base $memory --json base/config.json
refused "is also" "${tiny[@]}" --text "$text" --steps 1 --checkpoint same --json same
refused "is also" "${pretrain[@]}" --steps 1 --out other --json other/config.json
refused "is also --adapters" "$program" eval $trained --segments 4 --json whole/memory.json
diff -r base kept_base
mkdir foreign
cp base/tokenizer.json foreign/tokenizer_config.json
printf x >foreign/tokenizer.model
refused '"foreign/tokenizer.model"' "${pretrain[@]}" --steps 1 --out foreign

plan=("$program" plan --model base $memory --tokens 64)
check_output "${plan[@]}"
check_output "$program" generate --model base --adapters whole --prompt "Gradients " --tokens 4
check_figure figure "${plan[@]}"
check_figure figure_window "$program" bench --what window --windows 1 --segments 3 --repeats 1 --model base $memory
if command -v gnuplot >/dev/null; then
  "${tiny[@]}" --text "$text" --steps 2 --plot course.png >/dev/null
  "$program" eval $trained --segments 2 --per-document 1 --methods alone --plot perplexity.pdf >/dev/null
  "$program" gradient $trained --segments 2 --replicas 2 --policy keep_all,window:1 --plot policies.svg >/dev/null
  test -s course.png -a -s perplexity.pdf -a -s policies.svg
fi
for option in --seed --steps --documents; do check_numbers $option WHOLE "${tiny[@]}"; done
for option in --rate --clip --decay --autoencode; do check_numbers $option REAL "${tiny[@]}"; done
check_numbers --budget REAL "${plan[@]}"
refused "have addresses" "$program" plan --hidden 1048576 --mlp 1048576 --layers 1048576 --heads 524288
for positions in linear linear:0 linear:2:2 ntk:nan other:2 length:8; do refused "" "${plan[@]}" --positions $positions; done

# one text of many that the vocabulary cannot write is named
cat >words.json <<'END'
{"version": "1.0", "normalizer": null, "pre_tokenizer": null,
 "added_tokens": [{"id": 0, "content": "<s>", "special": true, "normalized": false}],
 "model": {"type": "BPE", "byte_fallback": false, "merges": [], "vocab": {"<s>": 0, "a": 1, "b": 2}}}
END
mkdir texts
for i in 1 2 3 4; do printf 'abab' >texts/$i.txt; done
printf 'abc' >texts/3.txt
refused "3.txt" "$program" pretrain --tokenizer words.json $shape --text texts --steps 1

refused "does not divide" "$program" train --model base --text "$text" --segment 16 --ratio 5 --steps 1
refused "cannot be made" "${tiny[@]}" --text "$text" --steps 1 --out base/config.json/folder
refused "cannot be made" "${pretrain[@]}" --steps 1 --out base/config.json/folder
refused "are ntk:2.0" "${pretrain[@]}" --steps 1 --positions ntk:2 --out stretched_base
test ! -e stretched_base
refused "held-out: loss after step 1 is not finite" "${pretrain[@]}" --steps 1 --rate 1e38
rm -f run.checkpoint
refused "is not finite" "${tiny[@]}" --text "$text" --steps 9 --rate 1e30 --checkpoint run.checkpoint
test -e run.checkpoint
refused "the longest text has" "$program" train $trained --segments 1000
refused "the longest text has" "$program" eval $trained --segments 1000
refused "the longest text has" "$program" gradient $trained --segments 1000
refused "none of" "$program" gradient --model base --text "$text" --segment 16 --ratio 4 --policy windows:2

: >blank.txt
refused "has 0 tokens" "$program" gradient --model base --text blank.txt --segment 16 --ratio 4
refused "\"blank.txt\" has no document of 2" "${tiny[@]}" --steps 1 --text blank.txt
refused "\"blank.txt\" has no document of 2" "$program" pretrain $shape --text blank.txt
refused "has no document of" "$program" eval --model base --adapters whole --text blank.txt
"$program" generate --model base --adapters whole --text blank.txt --tokens 4 >/dev/null

# documents too short to learn from: refused where there is no other, counted where there is
printf 'shorter' >short.txt
mkdir -p mixed none
for i in 1 2 3; do cp short.txt "mixed/$i.txt"; done
: >none/empty.txt
cp "$text" mixed/long.txt
refused "text: \"short.txt\" has no document of 18 tokens: none of their losses reads a memory (--segment); the longest of 1 has 8" \
  "${tiny[@]}" --text short.txt --held-out "$text" --steps 3 --out never
refused "no document of 16 tokens" "${tiny[@]}" --text short.txt --held-out "$text" --steps 3 --autoencode 1
test ! -e never
refused "--segments: Value 1 not in range" "${tiny[@]}" --text "$text" --segments 1 --steps 3
refused "held-out: \"short.txt\" has no document of 33 tokens: they are not scored (--segments times --segment); the longest of 1 has 8" \
  "${tiny[@]}" --text "$text" --held-out short.txt --steps 3
refused "held-out: \"none\" has no document of 33 tokens" "${pretrain[@]}" --held-out none --steps 3
"${tiny[@]}" --text mixed --held-out mixed --steps 3 --autoencode 1 >mixed.out  # none is read beyond its end
grep -q "3 of 4 documents of \"mixed\" have fewer than 16 tokens" mixed.out
grep -q "3 of 4 documents of \"mixed\" have fewer than 33 tokens: they are not scored" mixed.out
"$program" eval --model base --adapters whole --text mixed --segments 4 --methods memory | grep -q "3 of 4 documents of \"mixed\""

# the identity of a run is not cut
deep=$(printf 'a%.0s' $(seq 240))
mkdir -p "$deep/$deep/$deep/$deep"
cp -r base "$deep/$deep/$deep/$deep/base"
far=("$program" pretrain --model "$PWD/$deep/$deep/$deep/$deep/base" --text "$text" --length 16 --batch 2 --steps 2 --report 1 \
  --checkpoint far.checkpoint)
"${far[@]}" --seed 1 >/dev/null
refused "belongs to another run" "${far[@]}" --seed 2 --resume
rm -r "$deep"
refused "has no document of" "$program" eval --model base --adapters whole --text short.txt
refused "has no document of" "$program" autoencode --model base --adapters whole --text short.txt

for _ in $(seq 60); do printf 'caf\351 \377\200 \303'; done >latin.txt  # no UTF-8: bytes like all others
"${tiny[@]}" --steps 1 --text latin.txt >/dev/null
"$program" eval --model base --adapters whole --text latin.txt --segments 2 --chunk 4 --json latin.json >/dev/null
echo "every subcommand ran"
