// Any text as --custom-q rules.
#include "rules.hpp"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 4096) return 0;
  std::vector<quantal::plan::rule> rules;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)quantal::plan::parse_rules(text, "fuzz", true, rules);
  return 0;
}
