#!/usr/bin/env bash
# The options of docs/howto/use-an-estimator.md are those of the headers. usage: options.sh [PAGE]
command -v python3 >/dev/null || { echo "skipped: there is no python3"; exit 0; }
exec python3 "$(dirname "$0")/options.py" "$@"
