#!/usr/bin/env bash
# Every command of memory_llama and llama with --device simt, which is the code of a device and its kernels run by the host:
# the numbers are those of the host's own code; what does not fit is refused before it begins.
# usage: devices.sh MEMORY_LLAMA FOLDER LLAMA
llama=$3
. "$(dirname "$0")/common.sh"
text=$project/examples/texts/the_lamp_on_orrel.txt

values() {  # values FILE KEY: the numbers of a key, and of a list under it
  tr -d '\n' <"$1" | grep -oE "\"$2\": *(\[[^]]*\]|$number)" | sed -E 's/^"[^"]*": *//' | tr -d '[] ' | tr ',' '\n'
}
close() {  # close FILE FILE ERROR KEY...: as many numbers in both files, apart by ERROR of the largest at most
  local one=$1 other=$2 most=$3 key
  shift 3
  for key in "$@"; do
    paste <(values "$one" "$key") <(values "$other" "$key") | awk -v most="$most" -v what="$one and $other: $key" '
      function size(x) { return x < 0 ? -x : x }
      NF != 2 { print what " differ in length"; failed = 1; exit }
      { if (size($1) > largest) largest = size($1); if (size($1 - $2) > error) error = size($1 - $2) }
      END { if (failed || NR == 0 || !(error <= most * largest)) { print what ": apart by " error " of " largest; exit 1 } }'
  done
}
both() {  # both ERROR NAME KEY... -- COMMAND...: on the host and on simt
  local most=$1 name=$2 keys=()
  shift 2
  while [ "$1" != -- ]; do keys+=("$1"); shift; done
  shift
  "$@" --json "$name.host.json" >"$name.host.txt" 2>/dev/null
  "$@" --device simt --json "$name.simt.json" >"$name.simt.txt" 2>/dev/null
  grep -q '"device": "simt"' "$name.simt.json"
  close "$name.host.json" "$name.simt.json" "$most" "${keys[@]}"
}

shape="--hidden 16 --layers 2 --heads 2 --kv-heads 1 --mlp 32 --context 128"
"$program" pretrain --text "$text" $shape --length 16 --batch 4 --steps 30 --held-out-windows 2 --out base >/dev/null
both 1e-4 pretrain training held_out norm -- "$program" pretrain --text "$text" $shape --length 8 --batch 2 --accumulate 2 \
  --shares 1 --steps 3 --report 1 --held-out-windows 2

memory="--segment 8 --ratio 4 --lora-rank 2"
train=("$program" train --model base --text "$text" $memory --segments 3 --documents 2 --report 1 --held-out-texts 2 --rate 1e-2)
both 1e-4 train training held_out norm -- "${train[@]}" --steps 3 --policy rematerialise/2 --b-scale 0.05
both 1e-4 clipped training held_out norm -- "${train[@]}" --steps 3 --policy rematerialise/2 --b-scale 0.05 --accumulate 2 \
  --clip-value 1e-3 --clip 1e-2
"${train[@]}" --steps 3 --policy rematerialise/2 --b-scale 0.05 --device simt --memories-on-host --json kept.json >/dev/null
close train.simt.json kept.json 0 training held_out norm
refused "--memories-on-host: needs --device cuda or simt" "${train[@]}" --steps 1 --memories-on-host
"${train[@]}" --steps 3 --policy rematerialise/2 --b-scale 0.05 --device simt --capture --json captured.json >/dev/null
close train.simt.json captured.json 0 training held_out norm
refused "--capture: needs --device cuda or simt" "${train[@]}" --steps 1 --capture
refused "--capture: is of policies whose operations are the same" "${train[@]}" --steps 1 --device simt --capture \
  --policy reservoir:1
both 1e-4 reservoir training norm -- "${train[@]}" --steps 2 --policy reservoir:1 --b-scale 0.05
"${train[@]}" --steps 2 --weights bf16 --json half.host.json >/dev/null
"${train[@]}" --steps 2 --weights bf16 --device simt --json half.simt.json >/dev/null
close half.host.json half.simt.json 2e-2 training held_out

# so does one of all weights, whose file the host refuses, with both identities
pretrain=("$program" pretrain --text "$text" $shape --length 8 --batch 2 --steps 4 --report 2 --held-out-windows 2)
"${pretrain[@]}" --device simt --checkpoint all.checkpoint --out all >/dev/null
cp all.checkpoint all.first
"${pretrain[@]}" --device simt --checkpoint all.checkpoint --resume --out again >/dev/null
cmp all.first all.checkpoint
cmp all/model.safetensors again/model.safetensors
refused "; on a device\", asked for" "${pretrain[@]}" --checkpoint all.checkpoint --resume

# a run on a device that was interrupted resumes with the same bits, and its adapters know the base of the host
run=("${train[@]}" --steps 40 --device simt)
"${run[@]}" --out whole >/dev/null
"${run[@]}" --checkpoint cut.checkpoint --json cut.json >/dev/null &
pid=$!
while [ ! -e cut.checkpoint ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
kill -s INT $pid || true
wait $pid && { echo "finished before it was interrupted"; exit 1; }
grep -q '"complete": false' cut.json
"${run[@]}" --checkpoint cut.checkpoint --resume --out resumed >/dev/null
for file in encoder/adapter_model.safetensors head/adapter_model.safetensors memory_tokens.safetensors memory.json; do
  cmp "whole/$file" "resumed/$file"
done
refused "belongs to another run" "${train[@]}" --steps 40 --checkpoint cut.checkpoint --resume

trained="--model base --adapters whole --text $text"
both 1e-5 eval perplexity last_nll memory alone window sinks full -- "$program" eval $trained --segments 3 --per-document 1 --sinks 1 --chunk 2 \
  --methods memory,alone,window,sinks,full
both 1e-3 gradient relative_bias norm_ratio relative_variance write_vjps -- "$program" gradient $trained --segments 3 \
  --replicas 6 --policy rematerialise,window:1,reservoir:1
both 1e-6 autoencode bleu4_tokens tokens_in_place -- "$program" autoencode $trained --texts 2
both 0 generate ids memories -- "$program" generate --model base --adapters whole --prompt "Gradients of a lamp" --tokens 4 --greedy
cmp generate.host.txt generate.simt.txt
"$program" bench $shape $memory --device simt --segments 3 --lengths 24 --repeats 1 --batch 2 --json bench.json >/dev/null 2>&1
expect bench.json complete=true policy length "seconds=$number" 'method="(gradient, [a-z:/0-9]+|reading|a token behind it)"'

both 1e-5 score nll -- "$llama" score --model base --prompt "The lamp on Orrel" --window 8 --overlap 3
both 1e-4 norms norm mean_nll -- "$llama" gradient --model base --prompt "The lamp on Orrel" --window 8
both 0 continued ids -- "$llama" generate --model base --prompt "The lamp" --tokens 6 --greedy
refused "a device computes in float" "$llama" gradient --model base --prompt "The lamp" --double --device simt

# a vocabulary that puts nothing in front: texts begin as generation_config.json says, or need a prompt
cp -r base nobos
sed -zEi 's/"single": \[\s*\{\s*"SpecialToken": \{[^}]*\}\s*\},/"single": [/' nobos/tokenizer.json
refused "no token of this vocabulary begins texts" "$llama" generate --model nobos --tokens 2
printf '{"bos_token_id": 256}' >nobos/generation_config.json
"$llama" generate --model nobos --tokens 2 --greedy --json begun.json >/dev/null
expect begun.json prompt_tokens=1

# what does not fit is refused by its item, before anything is there
"$program" plan --model base $memory --tokens 24 --device simt --device-memory 1 --json plan.json >/dev/null
expect plan.json 'device="simt"' longest "bytes=$number"
"$program" plan --model base $memory --tokens 24 --policy rematerialise --device simt --memories-on-host --json kept.plan.json >/dev/null
expect kept.plan.json "host_bytes=1024(\.0)?"
refused "the weights of" "${train[@]}" --steps 1 --device simt --device-memory 0.00001
refused "trained parameters of 1.28e-06 GB" "${train[@]}" --steps 1 --device simt --device-memory 0.000036
refused "moments of the optimiser of 2.56e-06 GB" "${train[@]}" --steps 1 --device simt --device-memory 0.00004
refused "graphs of encoders of" "${train[@]}" --steps 1 --device simt --device-memory 0.000045
refused "their gradients of" "${pretrain[@]}" --device simt --device-memory 0.00007
expect plan.json theta_bytes=1280.0 gradient_bytes=2560.0 moment_bytes=2560.0
# the gradient fits, held-out texts beside it do not
"$program" plan --model base $memory --tokens 24 --policy rematerialise --device simt --device-memory 0.0001 --json fits.json >/dev/null
[ "$(values fits.json bytes | head -1 | cut -d. -f1)" -lt 100000 ]
refused "workspace of" "${train[@]}" --steps 1 --policy rematerialise --device simt --device-memory 0.0001
refused "the weights of" "$llama" score --model base --prompt "The lamp" --device simt --device-memory 0.00001
refused "--device-memory requires --device" "${train[@]}" --steps 1 --device-memory 1
refused "segments are encoded one by one" "$program" bench $shape $memory --batch 2
refused "--model excludes --config" "$program" plan --model base --config llama2-7b --tokens 24
refused "--config excludes --hidden" "$program" plan --hidden 16 --config llama2-7b --tokens 24
refused "is none of host, cuda, cuda:N, simt" "${train[@]}" --steps 1 --device cuda:x
if ! "${train[@]}" --steps 1 --device cuda >said.txt 2>&1; then
  grep -qE "was built with CUDA, and this one was not|cudaGetDeviceCount" said.txt
fi
