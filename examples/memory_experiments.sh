#!/usr/bin/env bash
# The experiments on Llamas with memories of docs/experiments.md.
#   examples/memory_experiments.sh PROGRAMS OUT [PART...]
# PROGRAMS: the folder of the built llama, memory_llama and memory_recall. OUT: where results and trained models go.
# PART: own base train eval gradient recurrent designs cost recall (all of them without). All but recall need $UNROLL_DATA_DIR;
# train, eval and gradient need the parts before them. POLICIES, SEEDS (1 2 3), STEPS (1000) and REPLICAS (1000) can be set.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
programs=$1 out=$2
shift 2
[ "$*" = recall ] || : "${UNROLL_DATA_DIR:?names the folder of models and corpora}"
data=${UNROLL_DATA_DIR:-}
books=$data/corpora/books models=$data/models
policies=${POLICIES:-rematerialise window:4 window:1 reservoir:2 reservoir:2:uncompensated proportional:4}
mkdir -p "$out"

own() {  # trained checkpoints on their own domain: the first 100 stories, each a text of its own
  local model
  rm -rf "$out/stories" && mkdir -p "$out/stories"
  awk -v out="$out/stories" 'BEGIN { RS = "<\\|endoftext\\|>\n" } NR <= 100 { printf "%s", $0 > sprintf("%s/%03d.txt", out, NR) }' \
    "$data/corpora/tinystories/tinystories_train_prefix_2MiB.txt"
  for model in stories260K babyllama105; do
    for story in "$out"/stories/*.txt; do
      "$programs"/llama score --model "$models/$model/$model.bin" --text "$story"
    done | awk -v m=$model '/nats a token/ { tokens += $1; nats += $1 * $3 } END { print m ": " nats / tokens " nats a token over " tokens }'
  done | tee "$out/own.txt"
  "$programs"/llama generate --model "$models/stories260K/stories260K.bin" --greedy --tokens 70 | tee "$out/story.txt"
}

base() {  # a plain Llama learns the books
  rm -f "$out/base.checkpoint"
  "$programs"/memory_llama pretrain --model "$models/stories260K-hf" --tokenizer "$models/stories260K/tok512.bin" \
    --text "$books/train" --held-out "$books/valid" --length 512 --batch 8 --steps 4000 --rate 2e-3 --report 100 \
    --checkpoint "$out/base.checkpoint" --out "$out/base" --json "$out/base.json" --plot "$out/base.svg" | tee "$out/base.txt"
}

train() {  # the memory model on top of it, under each policy
  local policy seed
  for seed in ${SEEDS:-1 2 3}; do
    for policy in $policies; do
      "$programs"/memory_llama train --model "$out/base" --text "$books/train" --held-out "$books/valid" \
        --segment 32 --ratio 4 --lora-rank 32 --segments 32 --documents 4 --steps "${STEPS:-1000}" --rate 1e-3 --warm-up 20 \
        --held-out-texts 24 --report 100 --policy "$policy" --seed "$seed" --out "$out/memory-$policy-$seed" --json "$out/train-$policy-$seed.json" |
        tee "$out/train-$policy-$seed.txt"
    done
  done
}

evaluate() {  # held-out loss by length of the context
  local policy seed
  for seed in ${SEEDS:-1 2 3}; do
    for policy in $policies; do
      "$programs"/memory_llama eval --model "$out/base" --adapters "$out/memory-$policy-$seed" --text "$books/test" \
        --segments 60 --per-document 4 --json "$out/eval-$policy-$seed.json" >"$out/eval-$policy-$seed.txt"
    done
  done
  python3 "$here/summarise_memory.py" --plot "$out/memory_policies.svg" "$out"/eval-*.json | tee "$out/eval.md"
}

gradient() {  # the bias table at a trained checkpoint
  local all
  all=rematerialise,keep_all,window:1,window:2,window:4,window:8,reservoir:1,reservoir:2,reservoir:4,reservoir:8
  all=$all,reservoir:1:uncompensated,reservoir:2:uncompensated,reservoir:4:uncompensated,reservoir:8:uncompensated
  all=$all,proportional:2,proportional:4,proportional:8
  measure() {  # measure SEGMENTS [OPTION...]
    "$programs"/memory_llama gradient --model "$out/base" --adapters "$out/memory-rematerialise-1" --double \
      --text "$books/test/melville_moby-dick.txt" --start 20000 --segments "$1" --policy $all --replicas "${REPLICAS:-1000}" \
      --json "$out/gradient_$1.json" --plot "$out/memory_gradient_$1.svg" "${@:2}" | tee "$out/gradient_$1.txt"
  }
  measure 16
  measure 97 --positions ntk:2  # 97 segments need 800 positions, the base has 512
}

recurrent() {  # writes that read: an untrained memory model on the checkpoint
  "$programs"/memory_llama gradient --model "$models/stories260K-hf" --tokenizer "$models/stories260K/tok512.bin" --double \
    --recurrent --segment 32 --ratio 4 --text "$books/test/melville_moby-dick.txt" --start 20000 --segments 8 \
    --policy rematerialise,window:1,window:4,roulette:2,roulette:4,roulette:4:by_distance,roulette:4:constant \
    --replicas "${REPLICAS:-1000}" --threads 1 --confidence 0.999 --json "$out/recurrent.json" | tee "$out/recurrent.txt"
}

designs() {  # the three ways to draw the segments of proportional:B, on a book: neighbouring segments are alike
  local start segments count all=
  "$programs"/memory_llama train --model "$models/stories260K-hf" --tokenizer "$models/stories260K/tok512.bin" \
    --text "$data/corpora/tinystories/tinystories_train_prefix_2MiB.txt" --segment 32 --ratio 4 --lora-rank 8 --segments 12 \
    --documents 4 --steps 300 --rate 1e-3 --report 100 --out "$out/memory-stories"
  for count in 2 4 8; do all=$all,proportional:$count,proportional:$count:random_order,proportional:$count:independent; done
  for start in 20000 120000 220000; do
    for segments in 16 32; do
      "$programs"/memory_llama gradient --model "$models/stories260K-hf" --tokenizer "$models/stories260K/tok512.bin" \
        --adapters "$out/memory-stories" --text "$books/test/melville_moby-dick.txt" --start $start --segments $segments \
        --policy "${all#,}" --replicas "${REPLICAS:-1000}" --json "$out/designs_${start}_$segments.json"
    done
  done | tee "$out/designs.txt"
}

cost() {  # time and bytes against the window and the length
  "$programs"/memory_llama bench --what window --repeats 9 --json "$out/cost_window.json" --plot "$out/memory_cost.svg" |
    tee "$out/cost_window.txt"
  local segments
  for segments in 2 8 32 128 512; do
    "$programs"/memory_llama bench --what policy --segments $segments --repeats 9 --json "$out/cost_policy_$segments.json"
  done | tee "$out/cost_policy.txt"
  "$programs"/memory_llama bench --what length --segment 256 --ratio 16 --repeats 1 --json "$out/cost_length.json" \
    --plot "$out/memory_cost.svg" | tee "$out/cost_length.txt"
}

recall() {  # a task whose answer lies a number of segments back: two minutes of one core
  local distances=1,2,4,8,16 seeds=${RECALL_SEEDS:-20}
  "$programs"/memory_recall --distances $distances --seeds "$seeds" --json "$out/recall.json" \
    --plot "$out/memory_recall.svg" | tee "$out/recall.txt"
  "$programs"/memory_recall --distances 1,4,16 --seeds "$seeds" --recurrent --json "$out/recall_recurrent.json" \
    --policy rematerialise,window:1,window:4,roulette:4,roulette:4:by_distance,roulette:4:constant |
    tee "$out/recall_recurrent.txt"
}

for part in "${@:-own base train eval gradient recurrent designs cost recall}"; do
  for name in $part; do
    case $name in
      own | base | train | gradient | recurrent | designs | cost | recall) "$name" ;;
      eval) evaluate ;;
      *) echo "memory_experiments.sh: \"$name\" is none of own, base, train, eval, gradient, recurrent, designs, cost, recall" >&2; exit 2 ;;
    esac
  done
done
