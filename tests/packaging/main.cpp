#include <unroll/unroll.hpp>

int main() {
  unroll::parameters<double> theta(3);
  const unroll::params<const double> read = theta;
  return read.size() == 3 && unroll::version_major == 0 ? 0 : 1;
}
