// Any bytes as a GGUF file: an error or tensors whose bytes lie in the file.
#include "input_file.hpp"
#include "quantal/gguf/reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const quantal::fuzz::input_file file(data, size);
  const auto r = quantal::gguf::reader::open(file.path());
  if (!r) return r.error().message.empty() ? std::abort(), 0 : 0;
  for (const auto& t : r->tensors())
    if (const auto bytes = r->data(t); bytes && bytes->size() > size) std::abort();
  return 0;
}
