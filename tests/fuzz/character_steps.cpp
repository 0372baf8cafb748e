// A step that changes characters, and a text: no form makes more than eleven bytes of one, a second time
// changes nothing, and bytes that are in no UTF-8 stay. Nmt, which can join such bytes to a character, makes
// no text longer.
#include "unroll/text/character_steps.hpp"

#include <algorithm>

#include "tests/fuzz/target.hpp"

using namespace unroll::llama;

// First byte: the step. The rest is the text.
std::vector<std::string> seeds() {
  std::vector<std::string> all;
  for (int step = 0; step < (UNROLL_HAS_ICU ? 5 : 1); ++step)
    all.push_back(char(step) + std::string("e\u0301\u0323 \ufdfa\u1e9b\uac00\u11a8\u200b\t\u0007\xFF\xCC"));
  return all;
}

void parse(std::string_view bytes) {
  if (bytes.empty()) return;
  const auto step = character_step(static_cast<unsigned char>(bytes[0]) % 5);
  const character_steps steps({step}, "input");
  const std::string_view text = bytes.substr(1);
  const std::string changed = steps(text);
  const bool nmt = step == character_step::nmt;
  if (changed.size() > (nmt ? 1 : 11) * text.size()) std::abort();
  if (!nmt && steps(changed) != changed) std::abort();
  if (std::count(changed.begin(), changed.end(), '\xFF') != std::count(text.begin(), text.end(), '\xFF'))
    std::abort();
}
