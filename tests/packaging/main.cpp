#include <unroll/unroll.hpp>

#include <cstdio>
#include <cstring>

int main() {
  unroll::parameters<double> theta(3);
  const unroll::params<const double> read = theta;
#ifdef PACKAGE_VERSION  // the package's version is that of its headers
  char version[32];
  std::snprintf(version, sizeof version, "%d.%d.%d", UNROLL_VERSION_MAJOR, UNROLL_VERSION_MINOR,
                UNROLL_VERSION_PATCH);
  if (std::strcmp(version, PACKAGE_VERSION) != 0) return 1;
#endif
  return read.size() == 3 ? 0 : 1;
}
