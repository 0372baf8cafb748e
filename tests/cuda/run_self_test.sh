#!/usr/bin/env bash
# run.sh without a device, and beside doubles of nvidia-smi, nvcc and the programs: what it says, writes and returns.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset UNROLL_CUBLASLT UNROLL_CUDNN UNROLL_CUDNN_HEADERS UNROLL_ROWS

run() { # run STATUS ARGS...: run.sh with the doubles of $doubles in front; its status and what it says
  local want=$1 status=0
  shift
  PATH="$doubles:$PATH" bash "$here/run.sh" "$@" >"$work/said" 2>&1 || status=$?
  [ "$status" = "$want" ] || { echo "run.sh $*: ended with $status, not $want:"; cat "$work/said"; exit 1; }
}
says() { grep -qE -- "$1" "$work/said" || { echo "run.sh does not say \"$1\":"; cat "$work/said"; exit 1; }; }

# without a device: skipped, which is no failure; what is asked for wrongly is one all the same
doubles="$work/none"
mkdir "$doubles"
printf '#!/bin/sh\nexit 9\n' >"$doubles/nvidia-smi"
chmod +x "$doubles/nvidia-smi"
run 0
says '^skipped: there is no CUDA device$'
[ "$(wc -l <"$work/said")" = 1 ]
run 2 --only nonsense
says '"nonsense" is no part'
run 2 --quickly
says '"--quickly" is none of'
run 0 --list
says '^million +500 bench_model train_million$'

# a device, as nvidia-smi shows it, and programs that write a row
doubles="$work/doubles"
prebuilt="$work/prebuilt"
mkdir "$doubles" "$prebuilt"
cat >"$doubles/nvidia-smi" <<'END'
#!/bin/sh
case "$*" in
  -L) echo "GPU 0: a device" ;;
  *query-gpu=name*) echo "NVIDIA Double" ;;
  *compute_cap*) echo "9.0" ;;
  *) echo "1" ;;
esac
END
cat >"$work/program" <<'END'
#!/bin/sh
program=$(basename "$0")
[ "$1" = '?' ] && exit 2
for check in "$@"; do
  pass=true
  [ "$program $check" = "executor float" ] && pass=false
  echo "{\"program\": \"$program\", \"name\": \"$check\", \"ms\": 2.5, \"rate\": 3.5, \"unit\": \"GB/s\", \"pass\": $pass}" >>"$UNROLL_ROWS"
  [ "$program $check" = "products bits" ] && exit 77
  [ "$program $check" = "tensor_core mma" ] && exec sleep 60
  [ $pass = true ] || exit 1
done
exit 0
END
chmod +x "$doubles/nvidia-smi" "$work/program"
for program in arithmetic tensor_core executor attention products model bench_model device_pointers cudnn; do
  cp "$work/program" "$prebuilt/$program"
done
run 0 --prebuilt "$prebuilt" --json "$work/good.json" --only rounding --only forward
says '^== 3 rows, 0 not as they must be; parts that failed: none; left out: none; '
says '^attention: forward  +2.500 ms +3.5 GB/s$'
python3 - "$work/good.json" <<'END'
import json, sys
said = json.load(open(sys.argv[1]))
assert said["device"] == "NVIDIA Double" and said["command"].startswith("./run device --prebuilt"), said
assert [r["name"] for r in said["rows"]] == ["rounding", "philox", "forward"], said
assert said["parts that failed or timed out"] == "" and len(said["date"]) == 10, said
END
# what fails, sees no device, or takes too long is named, and the rest runs
run 1 --prebuilt "$prebuilt" --json "$work/bad.json" --seconds 15 --only mma --only float --only bits
says 'parts that failed: mma\(time\)'
run 1 --prebuilt "$prebuilt" --json "$work/bad.json" --only rounding --only float --only bits
says 'parts that failed: float bits\(sees-no-device\); left out: none'
says '^program: executor, name: float,.* pass: false'
says '1 not as they must be'
run 0 --prebuilt "$prebuilt" --json "$work/late.json" --seconds 2 --only rounding
says 'left out: rounding'
# programs are built for what is asked for; by wgmma where that is 90a alone
cat >"$doubles/nvcc" <<END
#!/bin/sh
echo "nvcc \$*" >>"$work/built"
while [ "\$1" != -o ]; do shift; done
[ "\$2" = "\${UNBUILT:-}" ] || cp "$work/program" "\$2"
END
sed 's/^echo.*//' "$doubles/nvcc" >"$doubles/cxx"
chmod +x "$doubles/nvcc" "$doubles/cxx"
export CXX="$doubles/cxx"
run 0 --build "$work/made"
[ "$(grep -c 'gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a' "$work/built")" -ge 8 ]
grep -q -- '-Werror all-warnings .*bench_model.cu' "$work/built"
if grep -q UNROLL_WGMMA "$work/built"; then echo "wgmma for sm_80"; exit 1; fi
UNROLL_CUDA_ARCHITECTURES=90a run 0 --build "$work/made"
[ "$(grep -c 'sm_90a -DUNROLL_WGMMA' "$work/built")" -ge 8 ]
UNBUILT="$work/made/products" run 1 --build "$work/made"
says 'run.sh: products was not built'
echo "run_self_test: all pass"
