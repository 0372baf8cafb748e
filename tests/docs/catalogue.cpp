// Prints the catalogues as the tables of docs/choose-an-estimator.md have them; run by catalogue.sh.
#include "unroll/estimate/catalogue.hpp"

#include <cstdio>

#include "unroll/estimate/policy.hpp"

namespace {

template <class Catalogue>
void print() {
  std::puts("| written | its gradient is | what it does |\n|---|---|---|");
  for (const unroll::catalogue_line& line : Catalogue::lines)
    std::printf("| `%.*s` | %.*s | %.*s |\n", int(line.form.size()), line.form.data(),
                int(name_of(line.gradient).size()), name_of(line.gradient).data(), int(line.what.size()),
                line.what.data());
}

}  // namespace

int main() {
  print<unroll::estimator_catalogue>();
  print<unroll::policy_catalogue>();
}
