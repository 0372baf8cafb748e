#!/usr/bin/env bash
# Gives check.sh, catalogue.sh, links.sh, version.sh and, where there is Doxygen, reference.sh pages with mistakes and pages without.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
page=$(mktemp --suffix=.md)
UNROLL_WORK=$(mktemp -d)
export UNROLL_WORK
trap 'rm -rf "$page" "$UNROLL_WORK"' EXIT
failed=0

judge() {  # judge STATUS PATTERN WHAT SCRIPT ARGUMENT...: the script ends and speaks so
  local out status=0
  out=$(bash "${@:4}") || status=$?
  if [ "$status" -ne "$1" ] || ! grep -qE "$2" <<<"$out"; then
    echo "FAILED: $3: status $status, said: $out"
    failed=1
  else
    echo "ok: $3"
  fi
}

expect() {  # expect STATUS PATTERN WHAT, the page on standard input
  cat >"$page"
  judge "$@" "$here/check.sh" "$root" "$page"
}

expect 0 '^1 blocks' 'a program' <<'END'
```cpp
#include <unroll/core/view.hpp>
int main() {}
```
END
expect 0 '^1 blocks' 'a fragment with an include of its own' <<'END'
<!-- fragment -->
```cpp
#include <cstdio>
parameters<float> theta(3);
std::printf("%f", double(theta[0]));
```
END
expect 1 'does not compile' 'a program that does not compile' <<'END'
```cpp
int main() { return undeclared; }
```
END
expect 1 'does not compile' 'a fragment that does not compile' <<'END'
<!-- fragment -->

```cpp
no_such_type x;
```
END
expect 0 '^0 blocks' 'a block that stands in a file, with other spaces' <<'END'
<!-- from examples/hello.cpp -->
```cpp
  int
main() {
```
END
expect 1 'is not what stands in examples/hello.cpp' 'a block that stands in no file' <<'END'
<!-- from examples/hello.cpp -->
```cpp
int main(int) {
```
END
expect 1 'neither a program' 'a block that is neither' <<'END'
<!-- fragment -->
text in between
```cpp
parameters<float> theta(3);
```
END
expect 0 '^0 blocks' 'a block that is only read, and another language' <<'END'
<!-- not compiled -->
```cpp
struct options { ... };
```
```bash
exit 1
```
END

sed 's/^| `bptt` | exact |/| `bptt` | unbiased |/' "$root/docs/choose-an-estimator.md" >"$page"
judge 1 '^< \| `bptt` \| unbiased' 'a page that does not say what the catalogue does' "$here/catalogue.sh" "$page"

links() {  # links STATUS PATTERN WHAT
  judge "$@" "$here/links.sh" "$UNROLL_WORK/tree"
}
mkdir -p "$UNROLL_WORK/tree/docs/math"
cd "$UNROLL_WORK/tree" || exit 1
echo '[a](docs/index.md) [b](https://example.org)' >README.md
echo '[c](math/c.md)' >docs/index.md
echo '[up](../index.md#top)' >docs/math/c.md
links 0 'lead somewhere' 'links that lead somewhere'
touch docs/math/d.md
links 1 'does not list math/d.md' 'a page that the index lacks'
rm docs/math/d.md
echo '[e](e.md)' >>docs/math/c.md
links 1 'link to e.md' 'a dead link'
rm docs/math/c.md && echo >docs/math/c.md
mkdir -p tests && echo 'TEST_CASE("one "
          "name") {' >tests/t.cpp
printf '[t](../tests/t.cpp)\n"one name"' >>docs/index.md
links 0 'lead somewhere' 'a test that is there'
printf '\n[t](../tests/t.cpp) "another name"' >>docs/index.md
links 1 'no test case "another name"' 'a test that is not there'

version() {  # version STATUS PATTERN WHAT CHANGES PACKAGE: the header says 1.2.3
  mkdir -p include/unroll/core tests/packaging
  printf '#define UNROLL_VERSION_%s\n' 'MAJOR 1' 'MINOR 2' 'PATCH 3' >include/unroll/core/config.hpp
  printf '# Changes\n\n%s\n\n## 1.2.2 (2020-01-01)\n' "$4" >CHANGELOG.md
  echo "find_package(unroll $5 REQUIRED)" >docs/use.md
  judge "$1" "$2" "$3" "$here/version.sh" "$UNROLL_WORK/tree"
}
version 0 'is 1.2.3 everywhere' 'one version' '## 1.2.3 (unreleased)' 1.2
version 0 'is 1.2.3 everywhere' 'a version that is out' '## 1.2.3 (2020-02-29)' 1.2
version 1 'CHANGELOG.md: begins' 'no changes of this version' '## 1.2.4 (unreleased)' 1.2
version 1 'CHANGELOG.md: begins' 'changes without a date' '## 1.2.3' 1.2
version 1 'docs/use.md:1: ' 'a page that asks for another version' '## 1.2.3 (unreleased)' 1.1

reference() {  # reference STATUS PATTERN WHAT, a header on standard input
  { echo '/// \file'; cat; } >include/unroll/core/h.hpp
  judge "$1" "$2" "$3" "$here/reference.sh" "$UNROLL_WORK/reference" "$UNROLL_WORK/tree"
}
if command -v doxygen >/dev/null; then
  mkdir -p docs/reference include/unroll/core
  cp "$root/docs/reference/Doxyfile" docs/reference/
  printf '%s\n' '/// \mainpage' '/// <!-- begin concepts -->' '/// core/h.hpp' '/// <!-- end concepts -->' \
    '/// <!-- begin members -->' '/// `bytes`: the memory' '/// <!-- end members -->' '/// \namespace unroll' '/// All.' >docs/reference/main.dox
  documented='namespace unroll { /// One.
    struct s_options { int a, b; ///< both
    };
    /// Another.
    struct s { s(int); int bytes() const; ///< no word
      bool operator==(const s&) const; };
    namespace detail { int f(); } }'
  reference 0 'index.html' 'names that are documented' <<<"${documented/ \/\/\/< no word/}"
  reference 1 'Member f' 'a function without a comment' <<<"$documented namespace unroll { int f(); }"
  reference 1 'Compound .*t is' 'a struct without a comment' <<<"$documented namespace unroll { struct t { int x; }; }"
  reference 1 'concept c is' 'a concept without a comment' <<<"$documented
namespace unroll {
template <class T>
concept c = true;
}"
  reference 1 'lacks .namespace unroll::more$' 'a namespace that main.dox lacks' <<<"$documented
namespace unroll::more {
int f();
}  // namespace unroll::more"
  reference 1 'lacks .namespace unroll::inner$' 'a namespace inside another that main.dox lacks' <<<"$documented
namespace unroll {
namespace detail {
namespace hidden {
}  // namespace hidden
}  // namespace detail
namespace inner {
}  // namespace inner
}  // namespace unroll"
  reference 1 'no header has namespace unroll$' 'a namespace of main.dox that is gone' <<<''
  reference 1 'Member a' 'a field without a comment' <<<"${documented/ \/\/\/< both/}"
fi

table() {  # table STATUS PATTERN WHAT SED: the demo prints the table of the README, changed by SED
  sed "$4" README.md >printed
  judge "$1" "$2" "$3" "$here/demo_table.sh" printed README.md
}
cat >README.md <<'END'
```text
policy           bias   low  high  back  graphs    MB
rematerialise       0     0     0    15       1  0.77
window:2        0.288 0.288 0.288    15       2  0.96
window:8        0.080 0.080 0.080    15       8  2.30
reservoir:2     0.031     0 0.179  5.64       2  0.96
uncompensated   0.695 0.672 0.718  5.64       2  0.96
```
END
table 0 '5 rows' 'a table that was printed' ''
table 0 '5 rows' 'noise in a bias that cannot be told from 0' 's/0.031/0.002/'
table 1 'window:8: the bias is' 'a bias that moved by a quarter' 's/0.080 0/0.060 0/'
table 1 'window:8: graphs is 8' 'a count that moved' 's/     8  2/     7  2/'
table 1 'window:2: was not printed' 'a policy that is gone' '/window:2/d'
table 1 'reservoir:2: the interval' 'an unbiased row that became biased' 's/    0 0.179/0.020 0.179/'
table 1 'window:2 and uncompensated' 'another order' 's/0.288 0.288/0.701 0.701/'

options() {  # options STATUS PATTERN WHAT SED: the page of the options, changed by SED
  sed "$4" "$here/../../docs/howto/use-an-estimator.md" >page.md
  judge "$1" "$2" "$3" "$here/options.sh" page.md
}
options 0 "has the options|skipped" 'the page as it is' ''
if command -v python3 >/dev/null; then
  options 1 'is not what the headers say' 'another default' '/`k2`/s/`16`/`17`/'
  options 1 'is not what the headers say' 'an option that is gone' '/`reserve`/d'
  options 1 'has no <!-- options' 'a page without the table' '/<!-- options/d'
fi
exit $failed
