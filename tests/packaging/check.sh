#!/usr/bin/env bash
# Builds and runs the small project of this folder against the library.
# usage: check.sh find_package|add_subdirectory|fetch_content
set -eu
way=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${UNROLL_WORK:-$(mktemp -d)}
rm -rf "$work" && mkdir -p "$work"
prefix=()

if [ "$way" = find_package ]; then
  cmake -S "$root" -B "$work/library" -DUNROLL_TESTS=OFF -DUNROLL_EXAMPLES=OFF
  cmake --install "$work/library" --prefix "$work/installed"
  (cd "$root/include" && find . -type f | LC_ALL=C sort) >"$work/expected"
  (cd "$work/installed/include" && find . -type f | LC_ALL=C sort) >"$work/got"
  diff "$work/expected" "$work/got"  # every header is installed, and nothing else
  prefix=(-DCMAKE_PREFIX_PATH="$work/installed")
fi
cmake -S "$here" -B "$work/consumer" -DWAY="$way" -DLIBRARY_DIR="$root" "${prefix[@]}"
cmake --build "$work/consumer"
"$work/consumer/consumer"

if [ "$way" = find_package ]; then  # a version that does not match is refused
  sed 's/find_package(unroll 0.1 /find_package(unroll 7.0 /' "$here/CMakeLists.txt" >"$work/CMakeLists.txt"
  cp "$here/main.cpp" "$work/"
  if cmake -S "$work" -B "$work/refused" -DWAY="$way" "${prefix[@]}" >"$work/refused.log" 2>&1; then exit 1; fi
  grep -q 'requested version "7.0"' "$work/refused.log"

  # Eigen 5, whose package is compatible with no version below 5, is taken; one older than 3.4 is refused
  for version in 5.0.1 3.3.9; do
    mkdir -p "$work/eigen-$version"
    echo 'add_library(Eigen3::Eigen INTERFACE IMPORTED)' >"$work/eigen-$version/Eigen3Config.cmake"
    cat >"$work/eigen-$version/Eigen3ConfigVersion.cmake" <<END
set(PACKAGE_VERSION $version)
if(PACKAGE_FIND_VERSION_MAJOR EQUAL ${version%%.*})
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
END
    for source in "$root" "$here"; do
      rm -rf "$work/eigen-build"
      status=0
      cmake -S "$source" -B "$work/eigen-build" -DWAY="$way" -DUNROLL_TESTS=OFF -DUNROLL_EXAMPLES=OFF "${prefix[@]}" \
        -DEigen3_DIR="$work/eigen-$version" >"$work/eigen.log" 2>&1 || status=$?
      if [ "$version" = 5.0.1 ]; then
        [ "$status" -eq 0 ] || { cat "$work/eigen.log"; exit 1; }
      else
        [ "$status" -ne 0 ] && grep -q 'needs Eigen 3.4 or newer, found 3.3.9' "$work/eigen.log" || { cat "$work/eigen.log"; exit 1; }
      fi
    done
  done
fi
echo "$way works"
