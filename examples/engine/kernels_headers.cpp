// The formats of this list, for the arch that the compiler was told to build for.
#include <quantal/runtime/variant.hpp>

#include "kernels.hpp"

using formats = quantal::format_list<quantal::bf16, quantal::q8_0, quantal::q4_K>;
using arch = quantal::simd::native;

const quantal::runtime::format_ops* kernels_of(std::uint32_t gguf_type) {
  const quantal::runtime::format_ops* found = nullptr;
  formats::for_each([&]<class F>() {
    if (F::gguf_id == gguf_type) found = &quantal::runtime::make_ops<F, arch>;
  });
  return found;
}
