#!/usr/bin/env bash
# Breaks each rule once in a small tree and asks check.sh to notice, and to stay silent where nothing is wrong.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fresh() {
  rm -rf "$work/tree"
  mkdir -p "$work"/tree/include/unroll/{core,system,estimate,cuda,testing} "$work"/tree/docs/math
  cd "$work/tree" || exit 1
  echo '#pragma once' >include/unroll/core/config.hpp
  echo '#include "unroll/core/config.hpp"' >include/unroll/core/a.hpp
  printf '#include "unroll/core/a.hpp"\n' >include/unroll/system/b.hpp
  printf '#include "unroll/system/b.hpp"\nstatic constexpr std::array references{"one2000",\n "two2001"};\n' >include/unroll/estimate/c.hpp
  printf '#include "unroll/%s"\n' core/config.hpp core/a.hpp system/b.hpp estimate/c.hpp estimate/catalogue.hpp >include/unroll/unroll.hpp
  echo '#include "unroll/estimate/c.hpp"' >include/unroll/estimate/catalogue.hpp
  printf '@article{one2000,\n}\n@misc{two2001,\n}\n' >docs/references.bib
  touch docs/math/c.md
}
expect() {  # expect STATUS PATTERN WHAT
  local out status
  out=$(bash "$here/check.sh" "$work/tree")
  status=$?
  if [ "$status" -ne "$1" ] || ! grep -qE "$2" <<<"$out"; then
    echo "FAILED: $3: status $status, said: $out"
    failed=1
  else
    echo "ok: $3"
  fi
}

fresh; expect 0 'keep the rules' 'a tree without mistakes'
fresh; echo '#include "unroll/system/b.hpp"' >>include/unroll/core/a.hpp; expect 1 'not below core' 'an upward include'
fresh; echo '# include <unroll/estimate/c.hpp>' >>include/unroll/system/b.hpp; expect 1 'not below system' 'an upward include in angle brackets'
fresh; echo '#include "unroll/testing/d.hpp"' >>include/unroll/estimate/c.hpp; expect 1 'not below estimate' 'a library header that includes testing/'
fresh; echo '#include "unroll/unroll.hpp"' >>include/unroll/core/a.hpp; expect 1 'umbrella' 'a header that includes the umbrella'
fresh; echo '#include "unroll/estimate/c.hpp"' >include/unroll/cuda/d.cuh; expect 1 'not below cuda' 'cuda/ above its layer'
fresh; echo '#include "unroll/core/linalg.hpp"' >include/unroll/cuda/d.cuh; expect 1 'may not use Eigen' 'Eigen in cuda/'
fresh; echo '#include <Eigen/Core>' >>include/unroll/system/b.hpp; expect 1 'no header includes Eigen' 'Eigen in a header'
fresh; echo '#include <random>' >>include/unroll/system/b.hpp; expect 1 'banned' 'a banned header'
fresh; echo '#pragma once' >include/unroll/core/a.hpp; expect 1 'neither core/config.hpp' 'a header without the guards'
fresh; echo 'Eigen::Matrix<T, 3, 3> m;' >>include/unroll/core/a.hpp; expect 1 'DEFAULT_TO_ROW_MAJOR' 'a matrix of Eigen without an order'
fresh; echo 'xt::xarray<T> m;' >>include/unroll/core/a.hpp; expect 1 'XTENSOR_DEFAULT_LAYOUT' 'an array of xtensor without an order'
fresh; touch include/unroll/core/e.hpp; expect 1 'neither .* includes unroll/core/e.hpp' 'a header the umbrella lacks'
fresh; echo '#include "unroll/core/config.hpp"' >include/unroll/core/e.hpp; echo '#include "unroll/core/e.hpp"' >include/unroll/llama.hpp; expect 0 '' 'a header of the other umbrella'
fresh; touch include/unroll/llama.hpp; echo '#include <unroll/llama.hpp>' >>include/unroll/core/a.hpp; expect 1 'umbrella' 'a header that includes the other umbrella'
fresh; yes '//' | head -460 >>include/unroll/system/b.hpp; expect 1 'more than 450' 'a long header'
fresh; echo '@misc{one2000,' >docs/references.bib; expect 1 'two2001.*not in docs/references' 'a reference without an entry'
fresh; rm docs/math/c.md; expect 1 'has no page' 'an estimator without a page'
fresh; echo '#include "unroll/core/a.hpp"' >include/unroll/estimate/catalogue.hpp; expect 1 'in no catalogue' 'an estimator without a name'
fresh; mkdir tests; echo 'TEST_CASE("one; two") {}' >tests/f.cpp; expect 1 'ctest cannot' 'a test name that ctest would take apart'
exit $failed
