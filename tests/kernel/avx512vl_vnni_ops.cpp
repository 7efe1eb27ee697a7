// Compiled for AVX-512 VNNI in 256 bits, and therefore without GoogleTest, whose inline functions the test
// shares.
#include "avx2_vnni_ops.hpp"
#include "quantal/runtime/variant.hpp"

namespace quantal::test {

static_assert(std::derived_from<simd::avx512vl_vnni, simd::avx2_vnni> && simd::avx512vl_vnni::is_built());

const runtime::format_ops* avx512vl_vnni_ops(std::string_view format) noexcept {
  const runtime::format_ops* found = nullptr;
  const auto look = [&]<class F>() {
    if (format == F::name) found = &runtime::make_ops<F, simd::avx512vl_vnni>;
  };
  format_list<q4_0, q4_K, iq2_xxs>::for_each(look);
  return found;
}

}  // namespace quantal::test
