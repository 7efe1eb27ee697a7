// Any bytes as an importance matrix, in either form: an error, or statistics that resolve.
#include "input_file.hpp"
#include "quantal/imatrix/io.hpp"
#include "quantal/imatrix/lookup.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const quantal::fuzz::input_file file(data, size);
  const auto s = quantal::imatrix::load(file.path());
  if (!s) return 0;
  for (const auto& [name, e] : s->entries) {
    const auto found = quantal::imatrix::resolve(*s, {name, e.cols, 4, e.slices});
    if (found && *found && found->weights.empty()) std::abort();
  }
  return 0;
}
