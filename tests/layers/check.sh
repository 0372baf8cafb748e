#!/usr/bin/env bash
# Reads the tree as text and prints one line for everything that breaks a rule:
#   layers      no header includes a layer above its own, nor through others: what a folder may include may
#               include nothing that the folder may not
#   guarded     every header includes core/config.hpp, if only through others, which refuses wrong flags
#   banned      no header includes a standard header that is slow to compile or prints
#   umbrella    unroll.hpp, or llama.hpp for Llamas, includes every header of the CPU library
#   order       no matrix of Eigen, no array of xtensor leaves its order of elements to a macro
#   length      no header is longer than 450 lines
#   test names  no test case has ; [ or ] in its name, which ctest would take apart
#   references  every estimator cites keys of docs/references.bib and has a page in docs/math/
#   catalogue   and stands in a catalogue, estimate/catalogue.hpp with parts/forward_entries.hpp or policy.hpp, unless it wraps others
# usage: check.sh [ROOT]
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-$here/../..}
cd "$root" || exit 1
headers=$(find include/unroll -name '*.hpp' -o -name '*.cuh' -o -name '*.cu' | LC_ALL=C sort)

# What each row may include, besides itself. A row is a folder of include/unroll, or a part of one (row_of).
allowed() {
  local base="core rng" systems="core rng kernels exec system sample"
  local llamas="$systems xtensor io text llama memory memory_llama"
  case $1 in
    core | rng) echo "core rng" ;;
    kernels | xtensor) echo "$base" ;;
    exec | optim) echo "$base kernels exec" ;;
    system | sample) echo "$base kernels" ;;
    ad | memory) echo "$systems" ;;
    cells) echo "$systems ad" ;;
    data) echo "$systems ad cells" ;;
    ranks) echo "core rng" ;;
    influence) echo "$systems" ;;
    estimate) echo "$systems ad cells influence memory optim" ;;
    io) echo "$base xtensor" ;;
    text) echo "$base xtensor io" ;;
    llama) echo "$systems xtensor io text" ;;
    memory_llama) echo "$systems xtensor io text llama memory" ;;
    io_llama) echo "$llamas" ;;
    diagnose) echo "$systems ad cells data ranks xtensor io memory optim influence estimate" ;;
    train) echo "$llamas io_llama ad cells data ranks optim influence estimate diagnose" ;;
    testing) echo "$llamas io_llama ad cells data ranks optim influence estimate diagnose train" ;;
    cuda) echo "core rng kernels exec system ranks" ;;
    *) echo "" ;;
  esac
}

# row_of PATH: row becomes that of a path below include/unroll: its first folder; but the memory Llama stands above the
# bank, and Llamas' files above Llamas.
row_of() {
  case $1 in
    memory/memory_llama/*) row=memory_llama ;;
    io/llama_* | io/lora_* | io/adapter_* | io/base_adapter* | io/memory_* | io/rope_* | io/generation_* | io/weight_*) row=io_llama ;;
    *) row=${1%%/*} ;;
  esac
}

# found PATTERN FILE...: FILE:LINE:TEXT of what matches
found() { grep -nHE "$@"; }

report() {
  declare -A below
  for folder in $(sed -nE 's/^ *([a-z_ |]+)\) echo .*;;$/\1/p' "$here/check.sh" | tr '|' ' '); do
    below[$folder]=$(allowed "$folder")
  done
  for folder in "${!below[@]}"; do
    for one in ${below[$folder]}; do
      for reached in ${below[$one]}; do
        case " $folder ${below[$folder]} " in
          *" $reached "*) ;;
          *) echo "tests/layers/check.sh: $folder/ may include $one/, and so $reached/, which is not below $folder/" ;;
        esac
      done
    done
  done

  local rowed
  rowed=$(grep -vxE 'include/unroll/(unroll|llama|cuda)\.hpp' <<<"$headers")
  # shellcheck disable=SC2086  # several files, here and below
  grep -oHE '^ *# *include +["<]unroll/[a-z_0-9/.]+[">]' $rowed | sed -E 's|: *# *include +["<]unroll/| |; s|.$||' | {
    declare -A guarded
    while read -r file included; do
      guarded[$file]=1
      row_of "${file#include/unroll/}" && folder=$row
      row_of "$included"
      case " $folder ${below[$folder]-} " in
        *" $row "*) ;;
        *) echo "$file: includes $row/, which is not below $folder/" ;;
      esac
    done
    for file in $rowed; do
      [ "$file" = include/unroll/core/config.hpp ] || [ -n "${guarded[$file]-}" ] ||
        echo "$file: includes neither core/config.hpp nor a header that does"
    done
  }
  found '^ *# *include +["<]unroll/(unroll|llama|cuda)\.hpp' $rowed | sed 's|$|: a header may not include the umbrella|'
  found 'Eigen::(Matrix|Array)<' $rowed | grep -vE 'Eigen::(Col|Row)Major' | sed 's|$|: leaves its order to EIGEN_DEFAULT_TO_ROW_MAJOR|'
  found 'xt::(xarray|xtensor)<' $rowed | grep -vE 'layout_type::' | sed 's|$|: leaves its order to XTENSOR_DEFAULT_LAYOUT|'
  found 'Eigen|core/linalg' $rowed | grep '^include/unroll/cuda/' | sed 's|$|: cuda/ may not use Eigen|'
  # but eigenvectors and QR of base_adapter.hpp, regular expressions of module_pattern.hpp: in no umbrella
  found '# *include +<(Eigen|unsupported)/' $rowed | grep -v '/io/base_adapter\.hpp:' | sed 's|$|: no header includes Eigen|'
  found '# *include +<(ranges|random|iostream|functional|regex|format|source_location)>' $rowed |
    grep -vE '^include/unroll/io/module_pattern\.hpp:[0-9]+:#include <regex>' | sed 's|$|: banned header|'
  wc -l $rowed | awk '$1 > 450 && $2 != "total" { print $2 ": " $1 " lines, more than 450" }'

  local umbrellas
  umbrellas=$'\n'$(cat include/unroll/unroll.hpp include/unroll/llama.hpp 2>/dev/null)
  for file in $headers; do
    case $file in
      */unroll.hpp | */unroll/llama.hpp | */unroll/cuda.hpp | */xtensor/* | */testing/* | */cuda/* | */ad/bridge_* | */io/npy.hpp | */diagnose/json_sink.hpp) continue ;;
      */io/safetensors.hpp | */io/rnn_weights.hpp | */io/llama_bin.hpp | */io/adapter_config.hpp | */io/base_adapter.hpp | */io/module_pattern.hpp | */io/llama_checkpoint.hpp | */io/llama_pieces.hpp | */io/lora_file.hpp | */io/json.hpp) continue ;;
      */io/memory_file.hpp | */io/sealed_folder.hpp | */io/weight_hash.hpp) continue ;;
      */text/tokenizer_file.hpp | */text/tokenizer_json.hpp | */text/tokenizer_config.hpp | */text/tokenizer_steps.hpp | */text/tokenizer_model.hpp) continue ;;
      */io/generation_config.hpp | */io/rope_scaling.hpp | */train/run_file.hpp | */ranks/mpi.hpp) continue ;;
      */estimate/catalogue.hpp | */estimate/parts/*_entries.hpp | */estimate/parts/estimator_entry.hpp | */diagnose/measure_by_name.hpp) continue ;;
      */kernels/*body.hpp | */kernels/device_math.hpp | */kernels/flash_attention_parts.hpp | */kernels/panels.hpp | */cuda/wgmma.hpp | */exec/body_executor.hpp | */exec/sdpa*.hpp) continue ;;  # run by cuda/ and testing/simt/
    esac
    case $umbrellas in
      *$'\n'"#include \"${file#include/}\""*) ;;
      *) echo "neither unroll.hpp nor llama.hpp includes ${file#include/}" ;;
    esac
  done

  grep -rnE --include='*.?pp' 'TEST_CASE\("[^"]*[];[][^"]*"' tests 2>/dev/null | sed 's|$|: ctest cannot take ; [ ] in a name|'

  for file in $(grep -lE 'std::array references' include/unroll/estimate/*.hpp); do
    keys=$(tr '\n' ' ' <"$file" | grep -oE 'std::array references *\{[^}]*\}' | grep -oE '"[^"]+"' | tr -d '"' | sort -u)
    [ -z "$keys" ] && echo "$file: names no reference"
    for key in $keys; do
      grep -qE "^@[a-zA-Z]+\{ *$key *," docs/references.bib 2>/dev/null || echo "$file: \"$key\" is not in docs/references.bib"
    done
    page=docs/math/$(basename "$file" .hpp).md
    [ -f "$page" ] || echo "$file: has no page $page"
    case $file in */mean_of.hpp | */lane_parallel.hpp) continue ;; esac
    grep -qs "^#include \"${file#include/}\"" include/unroll/estimate/catalogue.hpp include/unroll/estimate/policy.hpp \
      include/unroll/estimate/parts/forward_entries.hpp ||
      echo "$file: stands in no catalogue (estimate/catalogue.hpp, policy.hpp)"
  done
}

broken=$(report)
if [ -n "$broken" ]; then
  echo "$broken"
  exit 1
fi
echo "$(echo "$headers" | wc -l) headers keep the rules"
