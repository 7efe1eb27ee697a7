#include "kernel_case.hpp"

namespace quantal::test {
namespace {

class MulMatId : public testing::TestWithParam<kernel_case> {};

/// `pick(t, j)` routes; experts without tokens stay empty.
template <class Pick>
void check(const kernel_case& c, const runtime::format_ops& ops, std::int64_t tokens, std::int64_t used,
           bool shared, Pick pick) {
  const auto& info = *find_format(c.format);
  rng g(static_cast<unsigned>(c.format + tokens));
  const std::int64_t experts = 5, rows = 19,
                     cols = info.layout.elements * (info.layout.elements < 64 ? 3 : 1) +
                            (info.is_float ? 30 : 0);
  const std::int64_t stride = info.row_bytes(cols), expert_stride = stride * rows + 7;
  std::vector<std::byte> weights;
  visit_format(c.format, [&]<class F>() {
    for (std::int64_t e = 0; e < experts; ++e) {
      auto one = random_rows<F>(g, rows, cols, stride);
      one.resize(static_cast<std::size_t>(expert_stride));
      weights.insert(weights.end(), one.begin(), one.end());
    }
  });
  const std::int64_t slot_stride = shared ? 0 : cols + 1,
                     token_stride = shared ? cols + 2 : used * slot_stride;
  const auto x = gaussian(g, static_cast<std::size_t>(tokens * token_stride));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens * (used + 1)), -7);
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < used; ++j) ids[static_cast<std::size_t>(t * (used + 1) + j)] = pick(t, j);
  std::vector<float> out(static_cast<std::size_t>(tokens * used * rows), NAN);
  const mul_mat_id_args a{weights.data(), experts,    rows,         cols,        stride,     expert_stride,
                          x.data(),       tokens,     token_stride, slot_stride, ids.data(), used,
                          used + 1,       out.data(), used * rows,  rows};
  std::vector<std::byte> workspace(ops.mul_mat_id_workspace(a, c.policy));
  thread_pool pool(2);
  ASSERT_EQ(ops.mul_mat_id(a, c.policy, pool, workspace), status::ok);
  const auto seen =
      shared ? seen_by(c, x, tokens, token_stride, cols) : seen_by(c, x, tokens * used, slot_stride, cols);
  auto exact = a;
  exact.activations = seen.data();
  // Some experts may have enough columns to be rounded to bfloat16 and others not.
  const double tolerance = rounds_to_bf16(c, tokens * used) ? 3e-3 : arithmetic_tolerance;
  EXPECT_LT(relative_error(out, reference::mul_mat_id(c.format, exact)),
            tolerance * (out.size() < 100 ? 4 : 1))
      << tokens << " tokens, " << used << " used";
}

TEST_P(MulMatId, MatchesFloat64Reference) {
  QUANTAL_REQUIRE_ARCH(arch, GetParam().arch);
  const auto& ops = *arch->find(GetParam().format);
  const auto spread = [](std::int64_t t, std::int64_t j) {
    return static_cast<std::int32_t>((t * 3 + j * 2) % 5);
  };
  for (const bool shared : {true, false}) {
    for (const std::int64_t tokens : {1, 2, 3, 5, 17, 64}) check(GetParam(), ops, tokens, 2, shared, spread);
    check(GetParam(), ops, 23, 3, shared, [](auto, auto) { return 4; });  // skewed, repeated, empty
    check(GetParam(), ops, 9, 1, shared, [](auto t, auto) { return t == 4 ? 1 : 3; });
  }
}

INSTANTIATE_TEST_SUITE_P(Kernel, MulMatId, testing::ValuesIn(all_kernel_cases()), name_of);

}  // namespace
}  // namespace quantal::test
