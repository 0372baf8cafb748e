#!/usr/bin/env bash
# Usage: check.sh COMPILER INCLUDE EIGEN FILE
# FILE must compile as it is, and must not compile with -DUNROLL_SHOULD_FAIL; the message must match the
# extended regular expression in each of its lines "// expect: REGEX". In a file with lines "// mistake: FLAGS"
# each of these is a mistake of its own, which must give exactly one error, and the lines behind it are its message.
set -u
if [ $# -ne 4 ]; then
  echo "usage: $0 COMPILER INCLUDE EIGEN FILE" >&2
  exit 2
fi
compiler=$1 include=$2 eigen=$3 file=$4
compile=("$compiler" -std=c++20 -fsyntax-only -I "$include" -isystem "$eigen")

if ! message=$("${compile[@]}" "$file" 2>&1); then
  echo "$file: does not compile without the mistake:"
  echo "$message"
  exit 1
fi

mapfile -t lines < <(sed -nE '\:^// (mistake|expect)\: :{s:^// ::;p}' "$file")
case ${lines[0]:-} in
  mistake*) ;;
  *) lines=("mistake: -DUNROLL_SHOULD_FAIL" "${lines[@]}") ;;
esac
if [ ${#lines[@]} -lt 2 ]; then
  echo "$file: has no line // expect: REGEX"
  exit 1
fi
for line in "${lines[@]}"; do
  text=${line#*: }
  if [[ $line = mistake* ]]; then
    # shellcheck disable=SC2086  # several flags
    if message=$("${compile[@]}" $text "$file" 2>&1); then
      echo "$file: compiles with $text"
      exit 1
    fi
    errors=$(grep -cE ':[0-9]+: (fatal )?error: ' <<<"$message")
    if [ "$text" != -DUNROLL_SHOULD_FAIL ] && [ "$errors" -ne 1 ]; then
      echo "$file: $errors errors with $text, expected 1"
      echo "$message"
      exit 1
    fi
  elif ! grep -Eq -- "$text" <<<"$message"; then
    echo "$file: the message does not match: $text"
    echo "$message"
    exit 1
  fi
done
