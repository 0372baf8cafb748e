#!/usr/bin/env bash
# The demo prints the table that the README shows, whose bits are those of the baseline of x86-64.
# usage: demo.sh MEMORY_LLAMA FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$2"
export UNROLL_INSTRUCTIONS=baseline
bash "$tree/examples/demo.sh" "$1" "$2"
bash "$tree/tests/docs/demo_table.sh" "$2/demo/printed.txt"
