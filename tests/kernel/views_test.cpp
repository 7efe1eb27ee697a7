// Products of views: the bits of the products of arguments, and what they refuse.
#include <gtest/gtest.h>

#include <array>

#include "quantal/mul_mat.hpp"
#include "quantal/mul_mat_id.hpp"
#include "quantal/mul_mat_many.hpp"
#include "quantal/pack.hpp"
#include "support/random_weights.hpp"

namespace quantal::test {
namespace {

using arch = simd::scalar;
using format = q4_K;
constexpr std::int64_t cols = 512, rows = 6, n = 3, experts = 2, slots = 2;
constexpr std::int64_t row = row_bytes<format>(cols);

struct product {
  rng g{1};
  std::vector<std::byte> weights = random_rows<format>(g, experts* rows, cols, row);
  std::vector<float> x = gaussian(g, n* slots* cols);
  std::vector<std::int32_t> ids{0, 1, 1, 0, 1, 1};
  std::vector<float> want = std::vector<float>(n * slots * rows, NAN), got = want;
  std::vector<std::byte> workspace = std::vector<std::byte>(1 << 20);

  weight_view<format> matrix() const { return {weights, rows, cols}; }
  weight_stack_view<format> stack() const { return {weights, experts, rows, cols}; }
  matrix_view<const float> vectors() const { return {x, n, cols}; }
  matrix_view<const std::int32_t> choices() const { return {ids, n, slots}; }
  matrix_view<float> results() { return {got, n, rows}; }
  slots_view<float> slot_results() { return {got, n, slots, rows}; }
  product_options options(activation policy = activation::q8) {
    return {.policy = policy, .workspace = workspace};
  }

  status run(const weight_view<format>& w, const matrix_view<const float>& a, const matrix_view<float>& out) {
    return mul_mat<arch>(w, a, out, options());
  }
  status route(const weight_stack_view<format>& w, const slots_view<const float>& a,
               const matrix_view<const std::int32_t>& i, const slots_view<float>& out) {
    return mul_mat_id<arch>(w, a, i, out, options());
  }
};

TEST(Views, DenseByDefault) {
  const product p;
  EXPECT_EQ(p.matrix().stride, row);
  EXPECT_EQ(p.stack().expert_stride, rows * row);
  EXPECT_EQ(p.vectors().stride, cols);
  const slots_view<const float> s(p.x, n, slots, cols);
  EXPECT_EQ(s.slot_stride, cols);
  EXPECT_EQ(s.token_stride, slots * cols);
  EXPECT_EQ(weight_stack_view<f32>({}, 2, 3, checks::largest_dimension).expert_stride,
            12 * checks::largest_dimension);
  std::vector<float> memory(6);
  static_assert(std::is_same_v<decltype(matrix_view(memory, 2, 3)), matrix_view<float>>);
  static_assert(std::is_same_v<decltype(matrix_view(std::as_const(memory), 2, 3)), matrix_view<const float>>);
}

TEST(Views, SameBitsAsArguments) {
  for (const auto policy : {activation::q8, activation::exact}) {
    product p;
    const mul_mat_args a{p.weights.data(), rows, cols, row, p.x.data(), n, cols, p.want.data(), rows};
    serial_executor serial;
    ASSERT_EQ((mul_mat<format, arch>(a, policy, serial, p.workspace)), status::ok);
    p.workspace.resize(mul_mat_workspace<arch>(p.matrix(), p.vectors(), policy));
    EXPECT_EQ(p.workspace.size(), (mul_mat_workspace<format, arch>(a, policy)));
    ASSERT_EQ(mul_mat<arch>(p.matrix(), p.vectors(), p.results(), p.options(policy)), status::ok);
    p.got.resize(n * rows), p.want.resize(n * rows);
    EXPECT_EQ(p.got, p.want);
  }
}

TEST(Views, StridesAreKept) {
  product p;
  ASSERT_EQ(p.run(p.matrix(), p.vectors(), p.results()), status::ok);
  const std::vector<float> want(p.got.begin(), p.got.begin() + n * rows);
  std::vector<float> out(n * (rows + 2), -1.0f);
  thread_pool pool(2);
  ASSERT_EQ(mul_mat<arch>(p.matrix(), p.vectors(), {out, n, rows, rows + 2},
                          {.executor = pool, .workspace = p.workspace}),
            status::ok);
  for (int t = 0; t < n; ++t)
    for (int r = 0; r < rows + 2; ++r)
      EXPECT_EQ(out[t * (rows + 2) + r], r < rows ? want[t * rows + r] : -1.0f);
  // Every second row of the weights.
  ASSERT_EQ(p.run({p.weights, rows / 2, cols, 2 * row}, p.vectors(), {p.got, n, rows / 2}), status::ok);
  for (int t = 0; t < n; ++t)
    for (int r = 0; r < rows / 2; ++r) EXPECT_EQ(p.got[t * (rows / 2) + r], want[t * rows + 2 * r]);
}

TEST(Views, RoutedSameBitsAsArguments) {
  for (const bool shared : {false, true}) {
    product p;
    const std::int64_t token = shared ? cols : slots * cols, slot = shared ? 0 : cols;
    const mul_mat_id_args a{
        p.weights.data(), experts, rows,  cols,          row,          rows * row, p.x.data(), n, token, slot,
        p.ids.data(),     slots,   slots, p.want.data(), slots * rows, rows};
    serial_executor serial;
    ASSERT_EQ((mul_mat_id<format, arch>(a, activation::q8, serial, p.workspace)), status::ok);
    const slots_view<const float> x =
        shared ? slots_view<const float>(p.vectors()) : slots_view<const float>(p.x, n, slots, cols);
    p.workspace.resize(mul_mat_id_workspace<arch>(p.stack(), x, slots, activation::q8));
    EXPECT_EQ(p.workspace.size(), (mul_mat_id_workspace<format, arch>(a, activation::q8)));
    ASSERT_EQ(p.route(p.stack(), x, p.choices(), p.slot_results()), status::ok);
    EXPECT_EQ(p.got, p.want);
  }
}

TEST(Views, ManySameBitsAsOneByOne) {
  product p;
  const weight_view<format> first = p.matrix(), second(std::span(p.weights).subspan(rows * row), rows, cols);
  const std::span<float> half = std::span(p.want).subspan(n * rows);
  ASSERT_EQ(p.run(first, p.vectors(), {p.want, n, rows}), status::ok);
  ASSERT_EQ(p.run(second, p.vectors(), {half, n, rows}), status::ok);
  const std::array products{matrix_product{first, matrix_view(p.got, n, rows)},
                            matrix_product{second, matrix_view(std::span(p.got).subspan(n * rows), n, rows)}};
  p.workspace.resize(mul_mat_many_workspace<arch, format>(p.vectors(), activation::q8));
  ASSERT_EQ(mul_mat_many<arch>(products, p.vectors(), p.options()), status::ok);
  EXPECT_EQ(p.got, p.want);
  auto short_one = products;
  short_one[1].out.data = half.first(n * rows - 1);
  EXPECT_EQ(mul_mat_many<arch>(short_one, p.vectors(), p.options()), status::short_buffer);
}

TEST(Views, PackedSameBitsAsArguments) {
  product p;
  std::vector<std::byte> memory(packed_bytes<format, arch>(rows, cols, experts));
  packed_matrix<format, arch> packed;
  serial_executor serial;
  ASSERT_EQ(pack(p.matrix(), memory, calling_thread, packed), status::ok);
  const mul_mat_args a{nullptr, rows, cols, 0, p.x.data(), n, cols, p.want.data(), rows};
  ASSERT_EQ(mul_mat(packed, a, serial, p.workspace), status::ok);
  EXPECT_LE(mul_mat_workspace(packed, p.vectors()), p.workspace.size());
  ASSERT_EQ(mul_mat(packed, p.vectors(), p.results(), p.options()), status::ok);
  for (int i = 0; i < n * rows; ++i) EXPECT_EQ(p.got[i], p.want[i]);
  EXPECT_EQ(mul_mat(packed, p.vectors(), p.results(), p.options(activation::exact)), status::unsupported);
  EXPECT_EQ(mul_mat(packed, p.vectors(), {p.got, n, rows - 1}, p.options()), status::bad_shape);

  ASSERT_EQ(pack(p.stack(), memory, calling_thread, packed), status::ok);
  ASSERT_EQ(mul_mat_id(packed, p.vectors(), p.choices(), p.slot_results(), p.options()), status::ok);
  EXPECT_LE(mul_mat_id_workspace(packed, p.vectors(), slots), p.workspace.size());
  EXPECT_EQ(pack(weight_view<format>(std::span(p.weights).first(rows * row - 1), rows, cols), memory,
                 calling_thread, packed),
            status::short_buffer);
}

TEST(Views, ShortMemoryIsRefused) {
  product p;
  const std::span<const std::byte> w = p.weights;
  const std::span<const float> x = p.x;
  const std::span<float> out = p.got;
  EXPECT_EQ(
      p.run({w.first(rows * row), rows, cols}, {x.first(n * cols), n, cols}, {out.first(n * rows), n, rows}),
      status::ok);
  EXPECT_EQ(p.run({w.first(rows * row - 1), rows, cols}, p.vectors(), p.results()), status::short_buffer);
  EXPECT_EQ(p.run(p.matrix(), {x.first(n * cols - 1), n, cols}, p.results()), status::short_buffer);
  EXPECT_EQ(p.run(p.matrix(), p.vectors(), {out.first(n * rows - 1), n, rows}), status::short_buffer);
  // The last row ends where its values do, not where its stride does.
  EXPECT_EQ(p.run(p.matrix(), p.vectors(), {out.first((n - 1) * (rows + 1) + rows), n, rows, rows + 1}),
            status::ok);
  EXPECT_EQ(p.run(p.matrix(), p.vectors(), {out.first((n - 1) * (rows + 1) + rows - 1), n, rows, rows + 1}),
            status::short_buffer);
  EXPECT_EQ(p.run({}, p.vectors(), p.results()), status::bad_shape);
  EXPECT_EQ(p.run({{}, rows, cols}, p.vectors(), p.results()), status::null_pointer);
  EXPECT_EQ(p.run(p.matrix(), {{}, n, cols}, p.results()), status::null_pointer);

  const slots_view<const float> a(x, n, slots, cols);
  EXPECT_EQ(p.route({w.first(w.size() - 1), experts, rows, cols}, a, p.choices(), p.slot_results()),
            status::short_buffer);
  EXPECT_EQ(p.route(p.stack(), {x.first(x.size() - 1), n, slots, cols}, p.choices(), p.slot_results()),
            status::short_buffer);
  EXPECT_EQ(
      p.route(p.stack(), a, {std::span<const std::int32_t>(p.ids).first(5), n, slots}, p.slot_results()),
      status::short_buffer);
  EXPECT_EQ(p.route(p.stack(), a, p.choices(), {out.first(out.size() - 1), n, slots, rows}),
            status::short_buffer);
}

TEST(Views, ExtentsFitEachOther) {
  product p;
  EXPECT_EQ(p.run(p.matrix(), {p.x, n, cols - 256}, p.results()), status::bad_shape);
  EXPECT_EQ(p.run(p.matrix(), p.vectors(), {p.got, n, rows - 1}), status::bad_shape);
  EXPECT_EQ(p.run(p.matrix(), p.vectors(), {p.got, n - 1, rows}), status::bad_shape);
  EXPECT_EQ(p.run({p.weights, rows, cols - 1}, {p.x, n, cols - 1}, p.results()), status::bad_shape);
  const slots_view<const float> a(p.x, n, slots, cols);
  EXPECT_EQ(p.route(p.stack(), {p.x, n - 1, slots, cols}, p.choices(), p.slot_results()), status::bad_shape);
  EXPECT_EQ(p.route(p.stack(), {p.x, n, 3, 256}, p.choices(), p.slot_results()), status::bad_shape);
  EXPECT_EQ(p.route(p.stack(), a, {p.ids, n, 1}, p.slot_results()), status::bad_shape);
  EXPECT_EQ(p.route(p.stack(), a, p.choices(), {p.got, n, 1, rows}), status::bad_shape);
  EXPECT_EQ(p.route(p.stack(), a, p.choices(), {p.got, n, slots, rows - 1}), status::bad_shape);
}

TEST(Views, NegativeAndHugeExtentsAreRefused) {
  product p;
  for (const std::int64_t bad :
       {std::int64_t{-1}, std::int64_t{1} << 40, std::int64_t{1} << 62,
        std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
    EXPECT_EQ(p.run({p.weights, bad, cols}, p.vectors(), p.results()), status::bad_shape) << bad;
    EXPECT_EQ(p.run({p.weights, rows, bad}, p.vectors(), p.results()), status::bad_shape) << bad;
    EXPECT_EQ(p.run(p.matrix(), {p.x, bad, cols}, p.results()), status::bad_shape) << bad;
    EXPECT_EQ(p.run(p.matrix(), {p.x, n, bad}, p.results()), status::bad_shape) << bad;
    EXPECT_EQ(p.run(p.matrix(), p.vectors(), {p.got, bad, rows}), status::bad_shape) << bad;
    const slots_view<const float> a(p.x, n, slots, cols);
    EXPECT_EQ(p.route({p.weights, bad, rows, cols}, a, p.choices(), p.slot_results()), status::bad_shape)
        << bad;
    EXPECT_EQ(p.route({p.weights, experts, bad, bad}, a, p.choices(), p.slot_results()), status::bad_shape)
        << bad;
    EXPECT_EQ(p.route(p.stack(), {p.x, n, bad, bad}, p.choices(), p.slot_results()), status::bad_shape)
        << bad;
    EXPECT_EQ(p.route(p.stack(), a, p.choices(), {p.got, bad, slots, rows}), status::bad_shape) << bad;
  }
}

TEST(Views, BadStridesAreRefused) {
  product p;
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{0}, std::numeric_limits<std::int64_t>::min(),
                                 std::numeric_limits<std::int64_t>::max()}) {
    EXPECT_EQ(p.run({p.weights, rows, cols, bad}, p.vectors(), p.results()), status::bad_stride) << bad;
    EXPECT_EQ(p.run(p.matrix(), {p.x, n, cols, bad}, p.results()), status::bad_stride) << bad;
    EXPECT_EQ(p.run(p.matrix(), p.vectors(), {p.got, n, rows, bad}), status::bad_stride) << bad;
  }
  // Within what can be counted, but beyond the memory.
  EXPECT_EQ(p.run({p.weights, rows, cols, std::int64_t{1} << 50}, p.vectors(), p.results()),
            status::short_buffer);
  EXPECT_EQ(p.run(p.matrix(), {p.x, n, cols, std::int64_t{1} << 50}, p.results()), status::short_buffer);
  const slots_view<const float> a(p.x, n, slots, cols);
  EXPECT_EQ(p.route(p.stack(), {p.x, n, slots, cols, -1, cols}, p.choices(), p.slot_results()),
            status::bad_stride);
  EXPECT_EQ(p.route(p.stack(), {p.x, n, slots, cols, 0, -1}, p.choices(), p.slot_results()),
            status::bad_stride);
}

TEST(Views, NothingToDoIsFine) {
  product p;
  EXPECT_EQ(p.run(p.matrix(), {p.x, 0, cols}, {p.got, 0, rows}), status::ok);
  EXPECT_EQ(p.run({p.weights, 0, cols}, p.vectors(), {p.got, n, 0}), status::ok);
  EXPECT_EQ(p.run(p.matrix(), {{}, 0, cols}, {{}, 0, rows}), status::ok);
}

TEST(Views, SmallWorkspaceAndOverlapAreRefusedAsWithArguments) {
  product p;
  EXPECT_EQ(p.run(p.matrix(), p.vectors(), {p.x, n, rows}), status::overlap);
  p.workspace.resize(mul_mat_workspace<arch>(p.matrix(), p.vectors(), activation::q8) - 1);
  EXPECT_EQ(p.run(p.matrix(), p.vectors(), p.results()), status::small_workspace);
}

}  // namespace
}  // namespace quantal::test
