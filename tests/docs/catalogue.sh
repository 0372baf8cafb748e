#!/usr/bin/env bash
# The two tables under "By name" of docs/choose-an-estimator.md are what the catalogues say
# (include/unroll/estimate/catalogue.hpp, policy.hpp).
# usage: catalogue.sh [PAGE]     CXX and EIGEN name the compiler and Eigen's include folder
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
page=${1:-$root/docs/choose-an-estimator.md}
work=${UNROLL_WORK:-$(mktemp -d)}
mkdir -p "$work"
"${CXX:-c++}" -std=c++20 -O0 -I"$root/include" -isystem "${EIGEN:-/usr/include/eigen3}" "$root/tests/docs/catalogue.cpp" -o "$work/catalogue" || exit 1
if ! diff <(sed -n '/^## By name/,/^## /p' "$page" | grep '^|') <("$work/catalogue"); then
  echo "$page: < does not say under \"By name\" what the catalogues do: >"
  exit 1
fi
echo "the page and the catalogues agree"
