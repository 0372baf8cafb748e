#!/usr/bin/env bash
# The version of core/config.hpp, which CMake reads, is that of the newest changes, and the one that README, docs and the
# packaging test ask find_package for. No other file names it.
# usage: version.sh [ROOT]
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 1
part() { sed -nE "s/^#define UNROLL_VERSION_$1 ([0-9]+)$/\1/p" include/unroll/core/config.hpp; }
minor="$(part MAJOR).$(part MINOR)"
version="$minor.$(part PATCH)"
failed=0
changes=$(grep -m1 '^## ' CHANGELOG.md)
if ! grep -qxE "## ${version//./[.]} \((unreleased|[0-9]{4}-[0-9]{2}-[0-9]{2})\)" <<<"$changes"; then
  echo "CHANGELOG.md: begins with \"$changes\", the version is $version"
  failed=1
fi
while IFS=: read -r file line text; do
  [[ $text == *"find_package(unroll $minor "* ]] && continue
  echo "$file:$line: \"$text\", the version is $version"
  failed=1
done < <(grep -rnE 'find_package\(unroll [0-9]' README.md docs tests/packaging --include='*.md' --include='*.txt')
[ $failed -eq 0 ] && echo "the version is $version everywhere"
exit $failed
