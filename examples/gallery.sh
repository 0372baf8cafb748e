#!/usr/bin/env bash
# The five experiments of docs/gallery.md.
#   examples/gallery.sh PROGRAMS OUT [PART...]
# PROGRAMS: the folder of the built examples. OUT: where numbers and figures go. PART: balancing horizon course variance adding
# (all of them without). They need gnuplot, and python3 for course and variance; half an hour on one core, most of it adding.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
programs=$1 out=$2
shift 2
mkdir -p "$out"

balancing() { "$programs"/influence_balancing --plot "$out/influence_balancing.svg" | tee "$out/balancing.txt"; }

horizon() { "$programs"/misleading_horizon --plot "$out/misleading_horizon.svg" | tee "$out/horizon.txt"; }

# the bias of a window, on the text of the examples, as one training goes on
course() {
  local updates
  for updates in 0 30 100 300 1000; do
    "$programs"/gradient_bias --hidden 32 --length 200 --train $updates --json "$out/course_$updates.json" \
      --estimators tbptt:2,tbptt:5,tbptt:10,tbptt:20,tbptt:50,tbptt:100
  done
  python3 "$here/gallery.py" course "$out/bias_course.svg" "$out"/course_{0,30,100,300,1000}.json | tee "$out/course.md"
}

# the noise of unbiased estimators, as the state grows
variance() {
  "$programs"/gradient_bias --hidden 4,8,16,32,64,128 --seed 1..3 --length 50 --train 0 --replicas 200 --sweep "$out/variance.json" \
    --estimators artbp:10,uoro,preuoro,nobacktrack,kf_rtrl,ok_rtrl,nres:0.01:1:50
  python3 "$here/gallery.py" variance "$out/variance_state.svg" "$out/variance.json" | tee "$out/variance.md"
}

adding() {
  "$programs"/adding_lags --json "$out/adding.json" --plot "$out/adding_lags.svg" | tee "$out/adding.txt"
  "$programs"/adding_lags --json "$out/adding_more.json" --lengths 10,30,100 \
    --estimators telescope:50,control_variate:50,adaptive_tbptt:0.1:50,dni:50,eprop,kf_rtrl,preuoro,forward_gradient,kernl,es:0.01:4,gpes:0.01:4:50,pes_a:0.01:4:50,artbp_fixed:50,telescope_single:50 |
    tee "$out/adding_more.txt"
  "$programs"/adding_lags --json "$out/adding_snap.json" --lengths 10,30,100 --estimators snap | tee "$out/adding_snap.txt"
  "$programs"/adding_lags --json "$out/adding_rflo.json" --lengths 10,30 --estimators rflo | tee "$out/adding_rflo.txt"
  # a step of these costs 100 times that of bptt and more
  "$programs"/adding_lags --json "$out/adding_dear.json" --lengths 10,30 --seeds 1 --updates 2000 --estimators bptt,ok_rtrl,random_path,bp_lambda |
    tee "$out/adding_dear.txt"
  "$programs"/adding_lags --json "$out/adding_300.json" --lengths 300 --seeds 1 \
    --estimators telescope:50,control_variate:50,artbp_fixed:50,telescope_single:50 | tee "$out/adding_300.txt"
}

for part in "${@:-balancing horizon course variance adding}"; do
  for name in $part; do
    case $name in
      balancing | horizon | course | variance | adding) "$name" ;;
      *) echo "gallery.sh: \"$name\" is none of balancing, horizon, course, variance, adding" >&2; exit 2 ;;
    esac
  done
done
