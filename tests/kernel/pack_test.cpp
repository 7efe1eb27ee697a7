// Packed weights give the bits of the products that decode as many columns need, whatever the number of
// columns, and those agree with float64.
#include "packed_problem.hpp"

namespace quantal::test {
namespace {

struct packed_case {
  std::uint32_t format;
  std::string_view arch;
};

std::vector<packed_case> all_packed_cases() {
  std::vector<packed_case> cases;
  for (const auto& c : all_kernel_cases())
    if (c.policy == activation::q8 && !find_format(c.format)->is_float) cases.push_back({c.format, c.arch});
  return cases;
}

class Packed : public testing::TestWithParam<packed_case> {
 protected:
  const runtime::format_ops& ops() const {
    return *runtime::dispatcher::named(GetParam().arch)->find(GetParam().format);
  }
};

TEST_P(Packed, SameBitsAsPlainPanels) { check_packed(GetParam().format, ops()); }

TEST_P(Packed, MatchesFloat64Reference) {
  for (const std::int64_t n : {1, 3, 17}) {
    const packed_problem p(GetParam().format, ops(), 1, 35, 3);
    const auto got = p.packed(0, n, 2);
    const kernel_case c{GetParam().format, GetParam().arch, activation::q8};
    const auto seen = seen_by(c, p.x, n, p.act_stride, p.cols);
    auto exact = p.args(n, nullptr, p.rows);
    exact.activations = seen.data();
    EXPECT_LT(error_of(c.format, got, exact), arithmetic_tolerance) << n << " columns";
  }
}

/// Every (token, slot) pair has the bits of the dense product with its expert; experts 1 and 4 stay empty.
TEST_P(Packed, RoutedProductsAreThoseOfEveryExpert) {
  const packed_problem p(GetParam().format, ops(), 5, 35, 2);
  const std::int64_t used = 2, picks[] = {3, 0, 2, 3, 3, 2, 0};
  std::vector<std::vector<float>> want;
  for (std::int64_t e = 0; e < p.experts; ++e) want.push_back(p.packed(e, packed_problem::most, 1));
  for (const std::int64_t tokens : {1, 3, 23}) {
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < tokens * used; ++i) ids.push_back(static_cast<std::int32_t>(picks[i % 7]));
    thread_pool pool(static_cast<int>(tokens % 3) + 1);
    poisoned_memory memory(ops().packed_bytes(p.rows, p.cols, p.experts));
    packed_weights w;
    ASSERT_EQ(ops().pack({p.expert(0), p.experts, p.rows, p.cols, p.stride, p.expert_stride}, memory.span(),
                         pool, w),
              status::ok);
    EXPECT_TRUE(memory.guard_is_whole());
    std::vector<float> out(static_cast<std::size_t>(tokens * used * p.rows), NAN);
    const mul_mat_id_args a{nullptr,    p.experts,  p.rows,        p.cols, 0,          0,
                            p.x.data(), tokens,     p.act_stride,  0,      ids.data(), used,
                            used,       out.data(), used * p.rows, p.rows};
    poisoned_memory workspace(ops().packed_mul_mat_id_workspace(w, a));
    ASSERT_EQ(ops().packed_mul_mat_id(w, a, pool, workspace.span()), status::ok);
    EXPECT_TRUE(workspace.guard_is_whole());
    for (std::int64_t i = 0; i < tokens * used; ++i) {
      const auto& expert = want[static_cast<std::size_t>(ids[static_cast<std::size_t>(i)])];
      EXPECT_EQ(0, std::memcmp(out.data() + i * p.rows, expert.data() + i / used * p.rows,
                               static_cast<std::size_t>(p.rows) * sizeof(float)))
          << "token " << i / used << " of " << tokens << ", slot " << i % used;
    }
  }
}

/// What the documentation says of the memory: a byte per weight and 32 bits per group, twice with offsets.
TEST_P(Packed, TakesTheMemoryItSays) {
  const auto bytes = static_cast<double>(ops().packed_bytes(320, 1024) - 64);
  const auto of_rows = [&](std::int64_t rows) { return ops().packed_bytes(rows, 256); };
  EXPECT_GE(8 * bytes / (320 * 1024), 8.25);
  EXPECT_LE(8 * bytes / (320 * 1024), 12.0);
  EXPECT_EQ(of_rows(1), of_rows(32));
  EXPECT_LT(of_rows(32), of_rows(33));
  if (const auto name = find_format(GetParam().format)->name; name == "q4_0" || name == "iq2_xxs") {
    EXPECT_EQ(8 * bytes / (320 * 1024), 9.0);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernel, Packed, testing::ValuesIn(all_packed_cases()), [](const auto& param) {
  return std::string(find_format(param.param.format)->name) + "_" + std::string(param.param.arch);
});

/// Two experts of q4_0 on the best arch.
struct api_problem {
  const runtime::format_ops& ops = *runtime::dispatcher::best().find(q4_0::gguf_id);
  std::vector<std::byte> weights = std::vector<std::byte>(2 * 4 * 36);
  std::vector<std::byte> memory = std::vector<std::byte>(ops.packed_bytes(4, 64, 2));
  std::vector<float> x = std::vector<float>(2 * 64), out = std::vector<float>(2 * 4);
  std::vector<std::int32_t> ids = {0, 1};
  serial_executor serial;

  pack_args args() { return {weights.data(), 2, 4, 64, 36, 144}; }
  status pack(const pack_args& a, packed_weights& w, std::size_t missing = 0) {
    return ops.pack(a, std::span(memory).first(ops.packed_bytes(a.rows, a.cols, a.experts) - missing), serial,
                    w);
  }
  mul_mat_args product() { return {nullptr, 4, 64, 0, x.data(), 2, 64, out.data(), 4}; }
  mul_mat_id_args routed() {
    return {nullptr, 2, 4, 64, 0, 0, x.data(), 2, 64, 0, ids.data(), 1, 1, out.data(), 4, 4};
  }
  status run(const packed_weights& w, const mul_mat_args& a, std::size_t missing = 0) {
    std::vector<std::byte> workspace(ops.packed_mul_mat_workspace(w, a));
    return ops.packed_mul_mat(
        w, a, serial, std::span(workspace).first(workspace.size() - std::min(missing, workspace.size())));
  }
  status run(const packed_weights& w, const mul_mat_id_args& a, std::size_t missing = 0) {
    std::vector<std::byte> workspace(ops.packed_mul_mat_id_workspace(w, a));
    return ops.packed_mul_mat_id(
        w, a, serial, std::span(workspace).first(workspace.size() - std::min(missing, workspace.size())));
  }
};

TEST(PackApi, RefusesBadArguments) {
  api_problem p;
  packed_weights w;
  const auto with = [&](auto change) {
    auto a = p.args();
    change(a);
    return p.ops.pack(a, p.memory, p.serial, w);
  };
  EXPECT_EQ(with([](auto& a) { a.cols = 63; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.cols = 0; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.rows = -1; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.experts = 0; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.weights = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.weight_row_stride = 35; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.expert_stride = 143; }), status::bad_stride);
  EXPECT_EQ(p.pack(p.args(), w, 1), status::small_workspace);
  EXPECT_EQ(w.data, nullptr) << "a refused pack() left something behind";
  EXPECT_EQ(p.pack(p.args(), w), status::ok);
  EXPECT_EQ(with([](auto& a) { a.rows = 0; }), status::ok);
}

TEST(PackApi, FloatFormatsAreNotPacked) {
  api_problem p;
  packed_weights w;
  for (const auto& info : format_table) {
    if (!info.is_float) continue;
    const auto& ops = *runtime::dispatcher::best().find(info.gguf_id);
    EXPECT_EQ(ops.packed_bytes(4, 64), 0u);
    EXPECT_EQ(ops.pack(p.args(), p.memory, p.serial, w), status::unsupported);
  }
}

TEST(PackApi, ProductsRefuseBadArguments) {
  api_problem p;
  packed_weights stack, one;
  EXPECT_NE(p.run(one, p.product()), status::ok) << "nothing was packed";
  ASSERT_EQ(p.pack(p.args(), stack), status::ok);
  auto single = p.args();
  single.experts = 1;
  ASSERT_EQ(p.pack(single, one), status::ok);
  EXPECT_EQ(p.run(one, p.product()), status::ok);
  EXPECT_EQ(p.run(stack, p.product()), status::bad_shape);
  const auto with = [&](auto change) {
    auto a = p.product();
    change(a);
    return p.run(one, a);
  };
  EXPECT_EQ(with([](auto& a) { a.cols = 32; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.rows = 5; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.n = -1; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.n = 0; }), status::ok);
  EXPECT_EQ(with([](auto& a) { a.activation_stride = 63; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.out_stride = 3; }), status::bad_stride);
  EXPECT_EQ(with([](auto& a) { a.activations = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.out = nullptr; }), status::null_pointer);
  EXPECT_EQ(p.run(one, p.product(), 1), status::small_workspace);
  const auto& other = *runtime::dispatcher::best().find(q4_K::gguf_id);
  EXPECT_EQ(other.packed_mul_mat(one, p.product(), p.serial, {}), status::unsupported);
}

TEST(PackApi, RoutedProductsRefuseBadArguments) {
  api_problem p;
  packed_weights w;
  ASSERT_EQ(p.pack(p.args(), w), status::ok);
  EXPECT_EQ(p.run(w, p.routed()), status::ok);
  const auto with = [&](auto change) {
    auto a = p.routed();
    change(a);
    return p.run(w, a);
  };
  EXPECT_EQ(with([](auto& a) { a.experts = 3; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.cols = 32; }), status::bad_shape);
  EXPECT_EQ(with([](auto& a) { a.tokens = 0; }), status::ok);
  EXPECT_EQ(with([](auto& a) { a.ids = nullptr; }), status::null_pointer);
  EXPECT_EQ(with([](auto& a) { a.slot_stride = 3; }), status::bad_stride);
  EXPECT_EQ(p.run(w, p.routed(), 1), status::small_workspace);
  p.ids[1] = 2;
  EXPECT_EQ(p.run(w, p.routed()), status::bad_expert_id);
  const auto& other = *runtime::dispatcher::best().find(q4_K::gguf_id);
  EXPECT_EQ(other.packed_mul_mat_id(w, p.routed(), p.serial, {}), status::unsupported);
}

}  // namespace
}  // namespace quantal::test
