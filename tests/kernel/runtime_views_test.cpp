// The run-time door's functions of views: the bits of format_ops, and what they refuse.
#include "kernel_case.hpp"
#include "quantal/runtime.hpp"

namespace quantal::test {
namespace {

constexpr std::int64_t cols = 256, rows = 6, n = 3, slots = 2;

std::vector<std::byte> random_weights(std::uint32_t id, std::int64_t count) {
  rng g(id);
  std::vector<std::byte> w;
  visit_format(id, [&]<class F>() { w = random_rows<F>(g, count, cols, row_bytes<F>(cols)); });
  return w;
}

TEST(RuntimeViews, SameBitsAsOperations) {
  for (const auto id : {q4_K::gguf_id, iq1_bn::gguf_id, f16::gguf_id}) {
    const auto weights = random_weights(id, 2 * rows);
    rng g(1);
    const auto x = gaussian(g, n * cols);
    std::vector<float> want(n * slots * rows, NAN), got = want;
    const auto& ops = *runtime::best_variant().find(id);
    const std::int64_t row = find_format(id)->row_bytes(cols);
    const mul_mat_args a{weights.data(), rows, cols, row, x.data(), n, cols, want.data(), rows};
    const runtime::weight_view w(id, weights, rows, cols);
    const matrix_view<const float> in(x, n, cols);
    std::vector<std::byte> workspace(runtime::mul_mat_workspace(w, in, activation::q8));
    EXPECT_EQ(workspace.size(), ops.mul_mat_workspace(a, activation::q8));
    ASSERT_EQ(ops.mul_mat(a, activation::q8, calling_thread, workspace), status::ok);
    ASSERT_EQ(runtime::mul_mat(w, in, {got, n, rows}, {.workspace = workspace}), status::ok);
    for (int i = 0; i < n * rows; ++i) EXPECT_EQ(got[i], want[i]);

    const std::vector<std::int32_t> ids{0, 1, 1, 0, 1, 1};
    const mul_mat_id_args b{weights.data(), 2, rows,       cols,  row,   rows * row,  x.data(),     n,
                            cols,           0, ids.data(), slots, slots, want.data(), slots * rows, rows};
    const runtime::weight_stack_view stack(id, weights, 2, rows, cols);
    workspace.resize(runtime::mul_mat_id_workspace(stack, in, slots, activation::q8));
    ASSERT_EQ(ops.mul_mat_id(b, activation::q8, calling_thread, workspace), status::ok);
    ASSERT_EQ(
        runtime::mul_mat_id(stack, in, {ids, n, slots}, {got, n, slots, rows}, {.workspace = workspace}),
        status::ok);
    EXPECT_EQ(got, want);
  }
}

TEST(RuntimeViews, TypedViewsConvert) {
  const auto weights = random_weights(q4_K::gguf_id, rows);
  const weight_view<q4_K> typed(weights, rows, cols);
  const runtime::weight_view w = typed;
  EXPECT_EQ(w.gguf_id, q4_K::gguf_id);
  EXPECT_EQ(w.stride, typed.stride);
  EXPECT_EQ(w.data.data(), weights.data());
}

TEST(RuntimeViews, QuantizedAndDecoded) {
  rng g(2);
  const auto x = gaussian(g, rows * cols);
  const std::vector<float> importance(cols, 2.0f);
  const std::int64_t row = row_bytes<q6_K>(cols);
  std::vector<std::byte> bytes(rows * row), one(row);
  ASSERT_EQ(runtime::quantize(q6_K::gguf_id, {x, rows, cols}, importance, bytes), status::ok);
  for (int r = 0; r < rows; ++r) {
    ASSERT_EQ(runtime::quantize_row(q6_K::gguf_id, x.data() + r * cols, importance.data(), one.data(), cols),
              status::ok);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), bytes.begin() + r * row)) << r;
  }
  std::vector<float> decoded(rows * cols), want(cols);
  const runtime::weight_view w(q6_K::gguf_id, bytes, rows, cols);
  ASSERT_EQ(runtime::dequantize(w, {decoded, rows, cols}), status::ok);
  for (int r = 0; r < rows; ++r) {
    ASSERT_EQ(dequantize_row(q6_K::gguf_id, bytes.data() + r * row, want.data(), cols), status::ok);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), decoded.begin() + r * cols)) << r;
  }
  EXPECT_EQ(runtime::dequantize(w, {std::span(decoded).first(rows * cols - 1), rows, cols}),
            status::short_buffer);
  EXPECT_EQ(runtime::dequantize(w, {decoded, rows - 1, cols}), status::bad_shape);
  EXPECT_EQ(
      runtime::quantize(q6_K::gguf_id, {x, rows, cols}, importance, std::span(bytes).first(rows * row - 1)),
      status::short_buffer);
  EXPECT_EQ(runtime::quantize(q6_K::gguf_id, {x, rows, cols}, std::span(importance).first(3), bytes),
            status::bad_shape);
  EXPECT_EQ(runtime::quantize(q6_K::gguf_id, {x, rows, -1}, {}, bytes), status::bad_shape);
  EXPECT_EQ(runtime::quantize(9999, {x, rows, cols}, {}, bytes), status::unknown_format);
}

TEST(RuntimeViews, Packed) {
  const auto weights = random_weights(q4_K::gguf_id, rows);
  rng g(3);
  const auto x = gaussian(g, n * cols);
  std::vector<float> want(n * rows, NAN), got = want;
  const runtime::weight_view w(q4_K::gguf_id, weights, rows, cols);
  const auto& ops = *runtime::best_variant().find(q4_K::gguf_id);
  std::vector<std::byte> memory(ops.packed_bytes(rows, cols));
  runtime::packed_matrix packed;
  const matrix_view<const float> in(x, n, cols);
  EXPECT_EQ(runtime::mul_mat(packed, in, {got, n, rows}, {}), status::null_pointer);
  ASSERT_EQ(runtime::pack(w, memory, calling_thread, packed), status::ok);
  std::vector<std::byte> workspace(runtime::mul_mat_workspace(packed, in));
  ASSERT_EQ(runtime::mul_mat(packed, in, {got, n, rows}, {.workspace = workspace}), status::ok);
  const mul_mat_args a{nullptr, rows, cols, 0, x.data(), n, cols, want.data(), rows};
  ASSERT_EQ(ops.packed_mul_mat(packed.weights, a, calling_thread, workspace), status::ok);
  EXPECT_EQ(got, want);
  EXPECT_EQ(
      runtime::mul_mat(packed, {std::span(x).first(1), n, cols}, {got, n, rows}, {.workspace = workspace}),
      status::short_buffer);
}

TEST(RuntimeViews, RefusesWhatIsNoProduct) {
  const auto weights = random_weights(q4_K::gguf_id, rows);
  std::vector<float> x(n * cols), out(n * rows);
  const matrix_view<const float> in(x, n, cols);
  const auto run = [&](const runtime::weight_view& w) { return runtime::mul_mat(w, in, {out, n, rows}, {}); };
  EXPECT_EQ(run({9999, weights, rows, cols}), status::unknown_format);
  EXPECT_EQ(run({q8_0::gguf_id, weights, rows, cols}), status::short_buffer);
  EXPECT_EQ(run({q4_K::gguf_id, weights, rows + 1, cols}), status::short_buffer);
  EXPECT_EQ(run({q4_K::gguf_id, weights, rows, std::int64_t{1} << 62}), status::bad_shape);
  EXPECT_EQ(run({q4_K::gguf_id, weights, rows, cols}), status::small_workspace);
  EXPECT_EQ(runtime::mul_mat_workspace({9999, weights, rows, cols}, in, activation::q8), 0u);
}

}  // namespace
}  // namespace quantal::test
