// Any text as a gate file and as a gate.
#include "gates.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)quantal::validate::parse_gate_file(text, "fuzz");
  if (size <= 400) (void)quantal::validate::parse_gate(text, "fuzz");
  return 0;
}
