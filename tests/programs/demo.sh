#!/usr/bin/env bash
# The demo prints the table that the README shows.
# usage: demo.sh MEMORY_LLAMA FOLDER
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$2"
bash "$tree/examples/demo.sh" "$1" "$2"
bash "$tree/tests/docs/demo_table.sh" "$2/demo/printed.txt"
