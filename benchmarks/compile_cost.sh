#!/usr/bin/env bash
# What the headers cost the compiler: CPU seconds and peak memory of units that only include, and of one that trains
# an LSTM, by itself and with the kernels in a file of their own; least of three runs each. Eigen/Core is a header to
# compare with.
#   compile_cost.sh [COMPILER]        default g++; EIGEN names Eigen's folder, OTHER the include folder of another
#                                     revision to compare with, in turn; UNITS which of them; needs GNU time
set -euo pipefail
cd "$(dirname "$0")/.."
compiler=${1:-g++}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

echo '#include <Eigen/Core>' >"$folder/eigen.cpp"
echo '#include <unroll/unroll.hpp>' >"$folder/umbrella.cpp"
echo '#include <unroll/llama.hpp>' >"$folder/llama.cpp"
echo '#include <unroll/cells/lstm.hpp>' >"$folder/one_cell.cpp"
cat >"$folder/lstm.cpp" <<'CPP'
#include <cstdio>
#include <unroll/unroll.hpp>
int main() {
  using namespace unroll;
  const cells::lstm<float> cell({.in = 1, .hidden = 32, .out = 1});
  parameters<float> theta(cell.size().params);
  cell.init(theta, key{1});
  gradient<float> g(theta.size());
  bptt estimator(cell, {.max_steps = 100});
  adam<float> optimiser(theta.size(), {.rate = 1e-3});
  for (std::uint64_t sequence = 0; sequence < 100; ++sequence) {
    const auto task = data::delay<float>({.steps = 100, .lag = 2}, key{sequence});
    g.zero();
    estimator.reset(key{2});
    const double loss = estimator.advance(theta, task.inputs(), g).loss;
    estimator.finish(theta, g);
    if (optimiser.step(theta, g) != status::ok) return 1;
    std::printf("%g\n", loss);
  }
}
CPP
{ echo '#define UNROLL_KERNELS_ELSEWHERE' && cat "$folder/lstm.cpp"; } >"$folder/elsewhere.cpp"
printf '#define UNROLL_KERNELS_HERE\n#include <unroll/unroll.hpp>\n' >"$folder/kernels.cpp"

echo "$("$compiler" --version | head -1), -std=c++20 -O2"
printf '%-10s %8s %8s%s\n' unit seconds MiB "${OTHER:+   other    ratio}"
for unit in ${UNITS:-eigen umbrella llama one_cell lstm elsewhere kernels}; do
  for _ in 1 2 3; do
    for include in include ${OTHER:+"$OTHER"}; do
      command time -f '%U %S %M' -o "$folder/cost" "$compiler" -std=c++20 -O2 -I"$include" \
        -I"${EIGEN:-/usr/include/eigen3}" -c "$folder/$unit.cpp" -o "$folder/out.o"
      echo "$include $(cat "$folder/cost")"
    done
  done | awk -v unit="$unit" -v other="${OTHER:-}" '
    !($1 in seconds) || $2 + $3 < seconds[$1] { seconds[$1] = $2 + $3 }
    !($1 in kilobytes) || $4 < kilobytes[$1] { kilobytes[$1] = $4 }
    END {
      if (!("include" in seconds)) exit
      printf "%-10s %8.2f %8.0f", unit, seconds["include"], kilobytes["include"] / 1024
      if (other) printf " %8.2f %8.2f", seconds[other], seconds["include"] / seconds[other]
      printf "\n"
    }'
done
