// Compiled for AVX-512 VNNI, and therefore without GoogleTest, whose inline functions the test shares.
#include "avx2_vnni_ops.hpp"

#include "quantal/runtime/variant.hpp"

namespace quantal::test {

const runtime::format_ops* avx2_vnni_ops(std::string_view format) noexcept {
  const runtime::format_ops* found = nullptr;
  const auto look = [&]<class F>() {
    if (format == F::name) found = &runtime::make_ops<F, simd::avx2_vnni>;
  };
  format_list<q4_0, q8_0, q4_K, q2_K, q6_K, iq2_xxs, iq2_bn>::for_each(look);
  return found;
}

}  // namespace quantal::test
