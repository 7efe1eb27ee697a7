#include "avx2_vnni_ops.hpp"
#include "packed_problem.hpp"
#include "quantal/runtime/cpu.hpp"

namespace quantal::test {
namespace {

class Avx2Vnni : public testing::TestWithParam<std::string_view> {};

TEST_P(Avx2Vnni, MatchesFloat64Reference) {
  if (!__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512vnni"))
    GTEST_SKIP() << "this machine does not run AVX-512 VNNI";
  const runtime::format_ops* const ops = avx2_vnni_ops(GetParam());
  ASSERT_NE(ops, nullptr);
  for (const activation policy : {activation::exact, activation::q8})
    for (const product_shape& s : ragged_shapes)
      check_mul_mat({find_format(GetParam())->gguf_id, "avx2_vnni", policy}, *ops, s);
}

TEST_P(Avx2Vnni, PackedWeightsGiveTheSameBits) {
  if (!__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512vnni"))
    GTEST_SKIP() << "this machine does not run AVX-512 VNNI";
  check_packed(find_format(GetParam())->gguf_id, *avx2_vnni_ops(GetParam()));
}

class Avx512VlVnni : public testing::TestWithParam<std::string_view> {};

TEST_P(Avx512VlVnni, MatchesFloat64Reference) {
  if (!runtime::cpu_supports<simd::avx512vl_vnni>()) GTEST_SKIP() << "this machine does not run AVX-512 VNNI";
  const runtime::format_ops* const ops = avx512vl_vnni_ops(GetParam());
  ASSERT_NE(ops, nullptr);
  for (const activation policy : {activation::exact, activation::q8})
    for (const product_shape& s : ragged_shapes)
      check_mul_mat({find_format(GetParam())->gguf_id, "avx512vl_vnni", policy}, *ops, s);
}

TEST_P(Avx512VlVnni, PackedWeightsGiveTheSameBits) {
  if (!runtime::cpu_supports<simd::avx512vl_vnni>()) GTEST_SKIP() << "this machine does not run AVX-512 VNNI";
  check_packed(find_format(GetParam())->gguf_id, *avx512vl_vnni_ops(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Kernel, Avx512VlVnni, testing::Values("q4_0", "q4_K", "iq2_xxs"),
                         [](const auto& param) { return std::string(param.param); });

INSTANTIATE_TEST_SUITE_P(Kernel, Avx2Vnni, testing::ValuesIn(avx2_vnni_formats),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace quantal::test
