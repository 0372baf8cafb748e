#!/usr/bin/env bash
# CppAD 20250000.2 (cmeel-cppad 20250000.2): forward mode has NaN where reverse mode has 0, and pow(x, 2.0) has no curvature at 0.
#
# Why it matters here: a recurrent step written over a number type is differentiated both ways: backwards for a vjp, forwards for the tangents
# of RTRL, UORO and forward gradients, both ways in a Hessian-vector product. Reverse sweeps of CppAD multiply by "absolute zero" (0 times
# infinity is 0), forward ones do not: at a gate 1 / (1 + exp(-x)) whose exponential overflows, or at x sqrt(x) in the state 0, one is 0 and
# the other NaN, and Jacobian, which chooses between them by the numbers of rows and columns, is either. States start at 0: there
# pow(x, 2.0) has second derivative 0, pow(x, 2) and x * x have 2. 0.5 + 0.5 tanh(x / 2) is finite in both.
#
# Guess, before it was run: pow(x, 2.0) is NaN at negative x (it is not), a branch keeps the side on which it was recorded (it does).
# Seen: gate at -800: reverse 0, forward NaN, Jacobian of one row NaN, of two gates on one row of inputs 0. Hessian of pow(x, 2.0) at 0: 0.
#
# usage: cppad-forward-is-not-reverse.sh     needs g++ and python3 with pip; exits non-zero when the behaviour is another
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m pip -q download --no-deps -d . cmeel-cppad==20250000.2
python3 -m zipfile -e cmeel_cppad-*.whl .
cat >modes.cpp <<'CPP'
#include <cppad/cppad.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

using number = CppAD::AD<double>;
using values = std::vector<double>;

struct derivatives {
  double reverse, forward, jacobian, hessian;
};

/// Of the sum of f over `inputs` equal inputs x, by the first one.
template <class F>
derivatives at(const char* name, double x, std::size_t inputs, F f) {
  std::vector<number> in(inputs, number(1.0)), out(1, number(0.0));
  CppAD::Independent(in);
  for (const number& e : in) out[0] += f(e);
  CppAD::ADFun<double> tape(in, out);
  tape.check_for_nan(false);
  const values point(inputs, x);
  values along(inputs, 0.0);
  along[0] = 1;
  tape.Forward(0, point);
  const double forward = tape.Forward(1, along)[0];
  const double reverse = tape.Reverse(1, values(1, 1.0))[0];
  const derivatives d{reverse, forward, tape.Jacobian(point)[0], tape.Hessian(point, 0)[0]};
  std::printf("%-15s at %4g, %zu input(s): reverse %g, forward %g, Jacobian %g, Hessian %g\n", name, x, inputs, d.reverse, d.forward,
              d.jacobian, d.hessian);
  return d;
}

int main() {
  const auto gate = [](number x) { return 1.0 / (1.0 + exp(-x)); };
  const derivatives one = at("1/(1+exp(-x))", -800, 1, gate), two = at("1/(1+exp(-x))", -800, 2, gate);
  const derivatives root = at("x sqrt(x)", 0, 1, [](number x) { return x * sqrt(x); });
  const derivatives mild = at(".5+.5tanh(x/2)", -800, 1, [](number x) { return 0.5 + 0.5 * tanh(0.5 * x); });
  const derivatives real = at("pow(x, 2.0)", 0, 1, [](number x) { return pow(x, 2.0); });
  const derivatives whole = at("pow(x, 2)", 0, 1, [](number x) { return pow(x, 2); });
  const bool same = one.reverse == 0 && std::isnan(one.forward) && std::isnan(one.jacobian) && two.jacobian == 0 && root.reverse == 0 &&
                    std::isnan(root.forward) && mild.forward == 0 && mild.reverse == 0 && real.hessian == 0 && whole.hessian == 2 &&
                    real.reverse == 0 && real.forward == 0;
  return same ? EXIT_SUCCESS : EXIT_FAILURE;
}
CPP
prefix=$PWD/cmeel.prefix
g++ -O1 -w -isystem "$prefix/include" modes.cpp -o modes -L"$prefix/lib" -lcppad_lib -Wl,-rpath,"$prefix/lib"
./modes
