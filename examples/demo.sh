#!/usr/bin/env bash
# What ./run demo shows, with the memory_llama that is given: a small Llama learns a text, then to read beyond its segments,
# then every way to that gradient is measured. OUT/demo/printed.txt is the table.
# usage: demo.sh MEMORY_LLAMA OUT [OPTION of memory_llama gradient...]
set -euo pipefail
program=$1 out=$2
shift 2
text=$(dirname "$0")/texts/the_lamp_on_orrel.txt
figure=()
if command -v gnuplot >/dev/null; then figure=(--plot "$out/memory_gradient.svg"); fi
rm -rf "$out/demo"
mkdir -p "$out/demo"
echo "== 1 of 3: a small Llama learns the bytes of a short book"
"$program" pretrain --text "$text" --hidden 64 --layers 3 --heads 4 --kv-heads 2 --context 256 \
  --length 128 --batch 8 --steps 400 --rate 4e-3 --report 100 --out "$out/demo/base"
echo
echo "== 2 of 3: it learns to read beyond its segments through memories, by exact gradients"
"$program" train --model "$out/demo/base" --text "$text" --segment 32 --ratio 8 --segments 12 --documents 4 \
  --steps 80 --rate 4e-3 --report 20 --out "$out/demo/memories"
echo
echo "== 3 of 3: what every way to that gradient is worth"
"$program" gradient --model "$out/demo/base" --adapters "$out/demo/memories" --text "$text" --segments 16 \
  --replicas 200 ${figure[@]+"${figure[@]}"} --json "$out/memory_gradient.json" "$@" | tee "$out/demo/printed.txt"
if [ ${#figure[@]} -gt 0 ]; then echo "The figure is $out/memory_gradient.svg"; fi
