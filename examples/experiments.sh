#!/usr/bin/env bash
# The experiments of docs/experiments.md.
#   examples/experiments.sh PROGRAMS OUT [PART...]
# PROGRAMS: the folder of the built gradient_bias, train_text, influence_balancing and temporal_credit. OUT: where the results go.
# PART: bias others rules course gated price balancing credit anbn brackets book (all of them without). Those but balancing, credit, anbn and brackets
# read a book of $UNROLL_DATA_DIR.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
programs=$1 out=$2
shift 2
book=${UNROLL_DATA_DIR:-.}/corpora/books/test/melville_moby-dick.txt
mkdir -p "$out"

bias() {
  "$programs"/gradient_bias --text "$book" --hidden 64 --length 200 --replicas 10000 --threads 1 \
    --estimators bptt,checkpointed,rtrl,tbptt:10,tbptt:20,tbptt:50,chunked:20,artbp:10,artbp:20,uoro,uoro:20,nobacktrack \
    --json "$out/bias.json" --horizon "$out/lags.csv" --plot "$out/gradient_bias.svg" | tee "$out/bias.txt"
}

others() {  # forward, learned and adaptive ones
  "$programs"/gradient_bias --text "$book" --hidden 64 --length 200 --threads 1 --confidence 0.999 --replicas 5360 \
    --estimators ok_rtrl,kernl,sk_rtrl,adaptive_tbptt,tbptt:1,chunked:10,chunked:20,dni:10,dni:20,bp_lambda:0,bp_lambda --json "$out/others.json" | tee "$out/others.txt"
}

rules() {  # traces, and PreUORO with its Q
  local on=("$programs"/gradient_bias --text "$book" --hidden 64 --length 200 --threads 1 --confidence 0.999 --replicas 2000)
  "${on[@]}" --estimators bptt,rtrl,snap,rflo:1,rflo,eprop,preuoro,preuoro:0.5:20 --json "$out/rules.json" | tee "$out/rules.txt"
  "${on[@]}" --system lru --estimators bptt,diagonal_rtrl,snap,rflo,eprop --json "$out/rules_lru.json" | tee "$out/rules_lru.txt"
}

course() {
  local updates
  for updates in 0 30 100 300 1000; do
    "$programs"/gradient_bias --text "$book" --hidden 64 --length 200 --train $updates --estimators tbptt:10,tbptt:20,tbptt:50 |
      tee "$out/course_$updates.txt"
  done
}

gated() {
  local cell
  for cell in gru lstm; do
    "$programs"/gradient_bias --text "$book" --system $cell --hidden 64 --length 200 --replicas 4000 --threads 1 \
      --estimators bptt,checkpointed,tbptt:10,tbptt:20,tbptt:50,chunked:20,artbp:10,artbp:20,uoro:20 \
      --json "$out/bias_$cell.json" --horizon "$out/lags_$cell.csv" | tee "$out/bias_$cell.txt"
  done
}

# price: every unbiased estimator, those that take longest drawn less often; SEEDS, LENGTH and REPLICAS may be other ones
price() {
  local cell hidden seed
  for cell in elman lru lstm; do
    for hidden in 16 64; do
      for seed in ${SEEDS:-1 2 3 4 5}; do
        measure() {
          "$programs"/gradient_bias --text "$book" --system $cell --hidden $hidden --length "${LENGTH:-100}" --train 100 --seed $seed \
            --threads 1 --no-batches --replicas "$1" --estimators "$2" --json "$out/price-$cell-$hidden-$seed-$3.json" >/dev/null
        }
        measure "${REPLICAS:-200}" telescope:10,telescope_single:10,control_variate:10,artbp:20,uoro,uoro:10,preuoro,nobacktrack,forward_gradient,forward_gradient:16,es:0.01,gpes:0.01:1:10:3,pes:0.01,pes_a:0.01 quick
        measure $((${REPLICAS:-200} / 10)) kf_rtrl,ok_rtrl:2,random_path:0.5,preuoro:0.9:25 slow
      done
    done
  done
  python3 "$here/summarise_price.py" --plot "$out/price.svg" "$out"/price-{elman,lru,lstm}-{16,64}-*-{quick,slow}.json | tee "$out/price.md"
}

balancing() {
  "$programs"/influence_balancing --json "$out/balancing.json" --plot "$out/influence_balancing.svg" |
    tee "$out/balancing.txt"
}

credit() {
  "$programs"/temporal_credit --steps 20000 --json "$out/credit.json" --plot "$out/temporal_credit.svg" | tee "$out/credit.txt"
}

# grid NAME ESTIMATORS OPTION...: every estimator with every rate and seed
grid() {
  local name=$1 estimators=$2 estimator rate seed
  shift 2
  for seed in 1 2 3 4 5 6; do
    for rate in 0.001 0.003 0.01; do
      for estimator in $estimators; do
        "$programs"/train_text --cell gru --hidden 32 --lanes 8 --sequences 2000 --report 2000 --rate $rate \
          --seed $seed --estimator "$estimator" "$@" --json "$out/$name-$estimator-$rate-$seed.json" >/dev/null
      done
    done
  done
  python3 "$here/summarise.py" tbptt:1 "$out/$name"-*.json | tee "$out/$name.md"
}

anbn() { grid anbn 'bptt tbptt:10:60 artbp:20 tbptt:1' --task anbn --length 200 --every 200; }

brackets() {
  python3 "$here/brackets.py" 20000 1 >"$out/brackets.txt"
  grid brackets 'bptt tbptt:6:24 artbp:12 tbptt:1' --text "$out/brackets.txt" --length 96 --every 96
}

book() {
  "$programs"/train_text --text "$book" --cell gru --hidden 128 --lanes 16 --length 200 --every 20 --estimator tbptt:20:40 \
    --rate 0.002 --sequences 5000 --report 1000 --json "$out/book.json" | tee "$out/book.txt"
}

for part in "${@:-bias others rules course gated price balancing credit anbn brackets book}"; do
  for name in $part; do
    case $name in
      bias | others | rules | course | gated | price | balancing | credit | anbn | brackets | book) "$name" ;;
      *) echo "experiments.sh: \"$name\" is none of bias, others, rules, course, gated, price, balancing, credit, anbn, brackets, book" >&2; exit 2 ;;
    esac
  done
done
