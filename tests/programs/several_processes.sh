#!/usr/bin/env bash
# memory_llama and gradient_bias under mpirun: 2 and 3 processes have the bits of one; an interrupted run, and one of which a
# process was killed, end soon and are resumed with the same bits; what cannot be several processes refuses to be.
# usage: several_processes.sh MEMORY_LLAMA FOLDER GRADIENT_BIAS TRAIN_TEXT [MPIRUN]    without MPIRUN: built without MPI
. "$(dirname "$0")/common.sh"
bias=$3 train_text=$4 mpirun=${5:-}
text=$project/examples/texts/the_lamp_on_orrel.txt
if [ -z "$mpirun" ]; then
  refused "this program was built without MPI" env PMI_SIZE=3 "$bias"
  echo "skipped: the examples are built without MPI (UNROLL_MPI)"
  exit
fi
# of Open MPI: as root, more processes than cores, in a container
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_btl_vader_single_copy_mechanism=none

"$program" pretrain --text "$text" --hidden 16 --layers 2 --heads 2 --kv-heads 1 --mlp 32 --context 128 --length 32 --batch 2 \
  --steps 10 --held-out-windows 2 --out base >/dev/null
train=("$program" train --model base --text "$text" --segment 16 --ratio 4 --lora-rank 2 --segments 4 --documents 5
  --report 2 --held-out-texts 3 --policy reservoir:1 --rate 1e-2 --threads 1)
same_adapters() {  # same_adapters FOLDER FOLDER
  local file
  for file in encoder/adapter_model.safetensors head/adapter_model.safetensors memory_tokens.safetensors memory.json; do
    cmp "$1/$file" "$2/$file"
  done
}

"${train[@]}" --steps 6 --checkpoint one.checkpoint --out one >/dev/null
for n in 2 3; do
  "$mpirun" -n $n "${train[@]}" --steps 6 --checkpoint $n.checkpoint --out $n --json $n.json >$n.txt
  cmp one.checkpoint $n.checkpoint
  same_adapters one $n
  expect $n.json complete=true ranks=$n
  [ "$(grep -c "a step of $n processes" $n.txt)" = 1 ]  # one of them prints
done

# on devices, of which each process has one: through memory of the hosts
there=("${train[@]}" --device simt --steps 2)
"${there[@]}" --checkpoint there.checkpoint >/dev/null
for n in 2 3; do
  "$mpirun" -n $n "${there[@]}" --checkpoint there.$n.checkpoint --json there.$n.json >/dev/null
  cmp there.checkpoint there.$n.checkpoint
  expect there.$n.json complete=true ranks=$n
done
refused "; on a device\", asked for" "${train[@]}" --steps 2 --checkpoint there.checkpoint --resume

# begun NAME: waits until the checkpoint of a run in the background, $run, is there
begun() {
  for _ in $(seq 6000); do
    if [ -e "$1" ] || ! kill -0 "$run" 2>/dev/null; then break; fi
    sleep 0.01
  done
  [ -e "$1" ]
}
ended() {  # ended WHAT: the run does, within ten seconds, and not well
  local status=0
  for _ in $(seq 1000); do
    kill -0 "$run" 2>/dev/null || break
    sleep 0.01
  done
  if kill -0 "$run" 2>/dev/null; then
    kill -9 "$run"
    echo "$1 did not end it"
    exit 1
  fi
  wait "$run" || status=$?
  [ $status != 0 ] || { echo "it had ended before: $1"; exit 1; }
}
"${train[@]}" --steps 300 --checkpoint whole.checkpoint --out whole >/dev/null
"$mpirun" -n 3 "${train[@]}" --steps 300 --checkpoint stopped.checkpoint --json stopped.json >/dev/null &
run=$!
begun stopped.checkpoint
kill -USR1 $run  # which mpirun passes on
ended SIGUSR1
expect stopped.json complete=false
"$mpirun" -n 2 "${train[@]}" --steps 300 --checkpoint stopped.checkpoint --resume --out resumed >/dev/null
cmp whole.checkpoint stopped.checkpoint
same_adapters whole resumed

"$mpirun" -n 3 bash -c 'echo $$ >"pid.$OMPI_COMM_WORLD_RANK$PMIX_RANK"; exec "$@"' - "${train[@]}" --steps 300 \
  --checkpoint killed.checkpoint >/dev/null 2>killed.txt &
run=$!
begun killed.checkpoint
kill -9 "$(cat pid.1*)"
ended "a killed process"
grep -q "rank 1 .*exited on signal 9" killed.txt
"$mpirun" -n 3 "${train[@]}" --steps 300 --checkpoint killed.checkpoint --resume --out after >/dev/null
cmp whole.checkpoint killed.checkpoint
same_adapters whole after

numbers() { grep -vE '"(seconds[a-z_]*|variance_time|ranks)"' "$1"; }
measured=("$bias" --hidden 4 --length 12 --train 1 --replicas 100 --estimators bptt,uoro,pes:0.01:2:4 --threads 2)
policies=("$program" gradient --model base --text "$text" --segment 8 --ratio 4 --lora-rank 2 --segments 4 --replicas 40
  --policy window:1,reservoir:1 --threads 1)
"${measured[@]}" --json bias.json --csv bias.csv >/dev/null
"${policies[@]}" --json policies.json >/dev/null
for n in 2 3; do
  "$mpirun" -n $n "${measured[@]}" --json bias$n.json --csv bias$n.csv >/dev/null
  cmp <(numbers bias.json) <(numbers bias$n.json)
  [ "$(wc -l <bias.csv)" = "$(wc -l <bias$n.csv)" ]
done
"$mpirun" -n 2 "${policies[@]}" --json policies2.json >/dev/null
cmp <(numbers policies.json) <(numbers policies2.json)

sweep=("$train_text" --text "$text" --lanes 2 --length 40 --held-out 100 --sequences 4 --hidden 4,8 --seed 1..5 --threads 2)
"${sweep[@]}" --sweep sweep.json >/dev/null
for n in 2 3; do  # rounds of 4 and 6 of 10 runs
  "$mpirun" -n $n "${sweep[@]}" --sweep sweep$n.json >/dev/null
  cmp sweep.json sweep$n.json
done
# ranks with unlike numbers of threads, other options, or other files; an mpirun of another MPI
by_rank() { "$mpirun" -n 2 --bind-to none bash -c 'rank=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}; '"$1" - "${sweep[@]}"; }
by_rank 'exec "${@:1:$#-1}" $((rank + 1)) --sweep unlike.json' >/dev/null
cmp sweep.json unlike.json
apart="what is left to do: of rank 1 is not that of rank 0"
refused "$apart" by_rank 'exec "$@" --clip $((rank + 1)) --sweep other.json'
cp sweep.json found.0.json
refused "$apart" by_rank 'exec "$@" --sweep "found.$rank.json"'
refused "mpirun: has started 3 processes, the MPI of this program knows 1" env PMI_SIZE=3 "$bias"
refused "train_text: one run: runs as one process" "$mpirun" -n 2 "$train_text"
refused "memory_llama: plan: runs as one process, mpirun has started 2" "$mpirun" -n 2 "$program" plan --model base
refused "the run: of rank 1 is not that of rank 0" "$mpirun" -n 1 "${train[@]}" --seed 1 : -n 1 "${train[@]}" --seed 2
"$mpirun" -n 3 "$bias" --estimators misspelt 2>misspelt.txt && exit 1
[ "$(grep -c '"misspelt" is none of' misspelt.txt)" = 1 ]  # told once
