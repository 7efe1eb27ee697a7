// Any bytes as the files of a checkpoint: safetensors, tokenizer.json, tokenizer.model, tiktoken.model.
#include "input_file.hpp"
#include "safetensors.hpp"
#include "sentencepiece.hpp"
#include "tiktoken.hpp"
#include "tokenizer_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const quantal::fuzz::input_file file(data, size);
  if (const auto tensors = quantal::hf::safetensors_file::open(file.path())) {
    std::size_t used = 0;
    for (const auto& t : tensors->tensors()) used += t.bytes.size();
    if (used > size) std::abort();
  }
  if (const auto d = quantal::hf::read_json_object(file.path())) {
    quantal::hf::is_byte_level(*d);
    if (const auto v = quantal::hf::read_tokenizer_json(*d, "tokenizer.json", 512);
        v && v->tokens.size() != 512)
      std::abort();
    if (const auto v = quantal::hf::add_to_pieces(*d, "tokenizer.json", quantal::hf::vocabulary(512));
        v && v->tokens.size() != 512)
      std::abort();
  }
  if (const auto v = quantal::hf::read_sentencepiece(file.path(), 512); v && v->scores.size() != 512)
    std::abort();
  if (const auto t = quantal::hf::read_tiktoken(file.path(), 512)) {
    std::size_t unreachable = 0;
    if (quantal::hf::merges_of(*t, unreachable).size() + unreachable > t->size()) std::abort();
  }
  return 0;
}
