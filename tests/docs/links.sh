#!/usr/bin/env bash
# Every relative link of the pages leads to a file, docs/index.md leads to every page of docs/, and where a link to a test
# file is followed by a name in quotes, the file has a test case of that name.
# usage: links.sh [ROOT]
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 1
failed=0
for page in *.md $(find docs -name '*.md' | LC_ALL=C sort); do
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
while IFS=$'\t' read -r page file name; do
  if ! tr '\n' ' ' <"$(dirname "$page")/$file" | sed -E 's/" +"//g' | grep -qF "(\"$name\""; then
    echo "$page: $file has no test case \"$name\""
    failed=1
  fi
done < <(for page in *.md $(find docs -name '*.md'); do
  tr '\n' ' ' <"$page" | grep -oE '\]\([^) ]*tests/[^) ]+\.cpp\) +"[^"]+"' |
    sed -E "s|^\]\(([^)]+)\) +\"([^\"]+)\"|$page\t\1\t\2|"
done)
[ $failed -eq 0 ] && echo "all links lead somewhere"
exit $failed
