// Any text as a gate file, in both syntaxes, and as a gate.
#include "gates.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace quantal::validate;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_gate_file(text, gate_syntax::json, "fuzz");
  (void)parse_gate_file(text, gate_syntax::yaml, "fuzz");
  if (size <= 400) (void)parse_gate(text, "fuzz");
  return 0;
}
