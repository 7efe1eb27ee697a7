// Any bytes as a GGUF file whose metadata describes a tokenizer; a tokenizer that loads encodes.
#include "tokenizer.hpp"

#include "input_file.hpp"
#include "quantal/gguf/reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const quantal::fuzz::input_file file(data, size);
  const auto r = quantal::gguf::reader::open(file.path());
  if (!r) return 0;
  const auto t = quantal::mla::tokenizer::from_gguf(r->meta());
  if (t) (void)t->encode("Fuzzing finds 12345 of them, na\xc3\xafve.", true);
  return 0;
}
