#!/usr/bin/env bash
# ADOL-C 2.7.2 (libadolc2 2.7.2-6 of Debian 12): tanh on a tape is (exp(2x) - 1) / (exp(2x) + 1), the sign of x chosen when the tape
# is recorded.
#
# Why it matters here: a recurrent step is recorded once and replayed at every time step and every theta, and its states start at 0.
# Near 0 the value has an absolute error of 1e-16, not a relative one: tanh(1e-12) is 2e-5 off, tanh(1e-17) is 0. The derivative is
# right. A tape recorded at a negative argument is NaN at an argument above 355, where exp(2x) overflows, and the return value (3,
# smooth) is that of a tape which may be replayed there. Recorded anew at each step, as a bridge can, nothing overflows.
# At 0 two more derivatives are neither side's: fmax(x, 0) has 0.5 there, with a warning on the error output, and sqrt has 0.
#
# Seen: "1e-12: 2.2e-05 off", "1e-17: 0", "recorded at -1, at 300: 1, at 400: -nan, returns 3", "fmax 0.5, sqrt 0".
#
# usage: adolc-tanh-on-a-tape.sh    needs g++, apt-get and dpkg of Debian 12; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq download libadolc-dev=2.7.2-6 libadolc2=2.7.2-6
for package in ./*.deb; do dpkg -x "$package" .; done
libraries=$(dirname "$(find . -name 'libadolc.so*' | head -n 1)")
cat >tanh.cpp <<'CPP'
#include <adolc/adolc.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

template <class F>
void record(short tag, double x, F f) {
  trace_on(tag);
  {
    adouble in, out;
    double value;
    in <<= x;
    out = f(in);
    out >>= value;
  }
  trace_off();
}
int value(short tag, double x, double& y) { return function(tag, 1, 1, &x, &y); }
double slope(short tag, double x) {
  double d;
  gradient(tag, 1, &x, &d);
  return d;
}

int main() {
  const auto f = [](const adouble& x) { return adouble(tanh(x)); };
  double y, z;
  record(1, 1e-12, f);
  value(1, 1e-12, y);
  const double off = std::abs(y / std::tanh(1e-12) - 1), d = slope(1, 1e-12);
  record(2, 1e-17, f);
  value(2, 1e-17, z);
  std::printf("1e-12: %.1e off, derivative %g; 1e-17: %g\n", off, d, z);
  bool same = off > 1e-5 && std::abs(d - 1) < 1e-12 && z == 0;
  record(3, -1, f);
  value(3, 300, y);
  const int returned = value(3, 400, z);
  std::printf("recorded at -1, at 300: %g, at 400: %g, returns %d\n", y, z, returned);
  same = same && y == 1 && std::isnan(z) && returned == 3;
  record(4, 0, [](const adouble& x) { return adouble(fmax(x, adouble(0.0))); });
  record(5, 0, [](const adouble& x) { return adouble(sqrt(x)); });
  std::printf("fmax %g, sqrt %g\n", slope(4, 0), slope(5, 0));
  same = same && slope(4, 0) == 0.5 && slope(5, 0) == 0;
  return same ? EXIT_SUCCESS : EXIT_FAILURE;
}
CPP
g++ -O1 -w -isystem usr/include tanh.cpp -o tanh -L"$libraries" -ladolc -Wl,-rpath-link,"$libraries"
LD_LIBRARY_PATH=$libraries ./tanh
