# What the tests of programs share; begins in a new, empty folder.
# usage: . common.sh PROGRAM FOLDER
set -euo pipefail
program=$1 out=$2
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
rm -rf "$out"
mkdir -p "$out"
cd "$out"

refused() {  # refused MESSAGE COMMAND...: fails, and says so
  local message=$1 said status=0
  shift
  said=$("$@" 2>&1) || status=$?
  if [ $status -eq 0 ]; then echo "not refused: $*"; exit 1; fi
  if [ $status -ge 128 ]; then echo "ended by signal $((status - 128)): $*"; exit 1; fi
  case $said in *"$message"*) ;; *) echo "expected \"$message\", got: $said"; exit 1 ;; esac
}

number='-?[0-9.]+(e[+-]?[0-9]+)?'

expect() {  # expect FILE KEY[=VALUE]...: the JSON file has the key, and all its values match the regular expression
  local file=$1 wanted key values found  # found: grep's status, 1 for nothing; 2 for an expression that is none
  shift
  for wanted in "$@"; do
    key=${wanted%%=*}
    values=$(sed -nE "s/^ *\"$key\": (.*[^,]),?$/\1/p" "$file")
    [ -n "$values" ] || { echo "$file lacks \"$key\""; exit 1; }
    found=0
    if [ "$wanted" = "$key" ]; then
      grep -nxE 'null|""|\[\]|\{\}' <<<"$values" || found=$?
      [ $found -eq 1 ] || { echo "$file: a \"$key\" is empty"; exit 1; }
    else
      grep -nvxE -- "${wanted#*=}" <<<"$values" || found=$?
      [ $found -eq 1 ] || { echo "$file: \"$key\" is not all ${wanted#*=}"; exit 1; }
    fi
  done
}

check_numbers() {  # check_numbers OPTION WHOLE|REAL COMMAND...: what CLI11 itself misreads
  local option=$1 kind=$2 value
  shift 2
  for value in 1x nan 1e999 0x10 ""; do
    refused "$option" "$@" "$option=$value"
  done
  if [ "$kind" = REAL ]; then return; fi
  for value in 010 -1 1.5 18446744073709551616; do refused "$option" "$@" "$option=$value"; done
}

check_output() {  # check_output COMMAND...: what is printed and does not arrive is no success
  if [ -e /dev/full ]; then
    refused "standard output: cannot be written: No space left" bash -c '"$@" 2>&1 >/dev/full' - "$@"
  fi
  refused "standard output: cannot be written" bash -c '"$@" 2>&1 >&-' - "$@"
  rm -f reader
  mkfifo reader
  exec 8<>reader 9>reader 8<&-  # a pipe whose reader is gone
  refused "standard output: cannot be written: Broken pipe" bash -c '"$@" 2>&1 >&9' - "$@"
  exec 9>&-
}

check_figure() {  # check_figure NAME COMMAND...: with --plot FILE it draws NAME.ENDING, or fails and says why
  local name=$1
  shift
  rm -f figure*.svg figure*.png figure*.pdf
  mkdir -p empty broken interrupted failing
  printf '#!/bin/sh\necho "a broken gnuplot" >&2\nexit 3\n' >broken/gnuplot
  printf '#!/bin/sh\nkill -INT $$\n' >interrupted/gnuplot
  printf '#!/bin/sh\nread -r line\ncase $line in "set print"*) echo " svg "; exit 0 ;; esac\nexit 4\n' >failing/gnuplot
  chmod +x ./*/gnuplot
  refused "ends in none of .svg, .png, .pdf" "$@" --plot figure.jpg
  refused "is not installed" env PATH="$PWD/empty" "$@" --plot figure.svg
  refused "gnuplot ended with status 3" env PATH="$PWD/broken:$PATH" "$@" --plot figure.svg
  refused "a broken gnuplot" env PATH="$PWD/broken:$PATH" "$@" --plot figure.svg
  refused "ended by a signal: Interrupt" env PATH="$PWD/interrupted:$PATH" "$@" --plot figure.svg
  refused "which this gnuplot lacks" env PATH="$PWD/failing:$PATH" "$@" --plot figure.png
  refused "gnuplot ended with status 4" env PATH="$PWD/failing:$PATH" "$@" --plot figure.svg
  [ -z "$(ls -- figure* 2>/dev/null)" ] || { echo "a figure that was not drawn is there"; exit 1; }
  if ! command -v gnuplot >/dev/null; then return; fi
  "$@" --plot figure.svg >/dev/null
  grep -q "<svg" "$name.svg"
  "$@" --plot figure.png >/dev/null
  head -c 4 "$name.png" | grep -q PNG
  "$@" --plot figure.pdf >/dev/null
  head -c 4 "$name.pdf" | grep -q PDF
  [ "$(ls -- *.partial 2>/dev/null)" = "" ]
}
