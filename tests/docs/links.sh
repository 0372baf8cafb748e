#!/usr/bin/env bash
# Every relative link of README.md and docs/ leads to a file, and docs/index.md leads to every page.
# usage: links.sh [ROOT]
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 1
failed=0
for page in README.md $(find docs -name '*.md' | LC_ALL=C sort); do
  for link in $(sed -e '/^```/,/^```/d' -e 's/`[^`]*`//g' "$page" | grep -oE '\]\([^)# ]+' | sed 's/^](//' | grep -vE '^[a-z]+:' | sort -u); do
    if [ ! -e "$(dirname "$page")/$link" ]; then
      echo "$page: link to $link, which is not there"
      failed=1
    fi
  done
done
for page in $(cd docs && find . -name '*.md' ! -path ./index.md | sed 's|^\./||' | LC_ALL=C sort); do
  if ! grep -qF "]($page)" docs/index.md; then
    echo "docs/index.md: does not list $page"
    failed=1
  fi
done
[ $failed -eq 0 ] && echo "all links lead somewhere"
exit $failed
