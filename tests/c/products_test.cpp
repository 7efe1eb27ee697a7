// The C interface gives what the C++ library gives, and refuses what it refuses.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <thread>

#include "quantal/c.h"
#include "quantal/runtime.hpp"
#include "support/random_weights.hpp"

namespace {

using namespace quantal;
using test::gaussian;
using test::rng;

constexpr std::int64_t cols = 512;

quantal_matrix matrix(std::vector<float>& v, std::int64_t rows, std::int64_t width) {
  return {v.data(), v.size(), rows, width, 0};
}
bool says(const char* what) { return std::string(quantal_last_error()).find(what) != std::string::npos; }

TEST(CFormats, AreTheLibrarys) {
  ASSERT_EQ(quantal_format_count(), format_table.size());
  for (std::size_t i = 0; i < format_table.size(); ++i) {
    quantal_format f, again;
    ASSERT_EQ(quantal_format_at(i, &f), QUANTAL_OK);
    EXPECT_EQ(f.name, format_table[i].name);
    EXPECT_EQ(f.id, format_table[i].gguf_id);
    EXPECT_EQ(quantal_row_bytes(f.id, 2048), format_table[i].row_bytes(2048));
    ASSERT_EQ(quantal_format_by_name(f.name, &again), QUANTAL_OK);
    EXPECT_EQ(again.id, f.id);
    ASSERT_EQ(quantal_format_by_id(f.id, &again), QUANTAL_OK);
    EXPECT_STREQ(again.name, f.name);
  }
  quantal_format f;
  EXPECT_EQ(quantal_format_by_name("q4_k", &f), QUANTAL_OK);
  EXPECT_EQ(quantal_format_by_name("q9_Z", &f), QUANTAL_UNKNOWN_FORMAT);
  EXPECT_EQ(quantal_format_at(1000, &f), QUANTAL_NOT_FOUND);
  EXPECT_EQ(quantal_format_by_name(nullptr, &f), QUANTAL_NULL_POINTER);
  EXPECT_EQ(quantal_row_bytes(q4_K::gguf_id, 100), 0);
  EXPECT_EQ(quantal_row_bytes(q4_K::gguf_id, -256), 0);
  EXPECT_EQ(quantal_row_bytes(12345, 256), 0);
}

TEST(CArchs, TheBestOneRuns) {
  EXPECT_TRUE(quantal_arch_runs(quantal_arch()));
  EXPECT_FALSE(quantal_arch_runs("pdp11"));
  EXPECT_FALSE(quantal_arch_runs(nullptr));
  ASSERT_GT(quantal_arch_count(), 0u);
  EXPECT_EQ(quantal_arch_at(quantal_arch_count()), nullptr);
  // The last one is what every machine runs; on AArch64 that may be NEON.
  const std::string last = quantal_arch_at(quantal_arch_count() - 1);
  EXPECT_TRUE(last == "scalar" || last == "neon64") << last;
}

class CProducts : public testing::Test {
 protected:
  static constexpr std::int64_t rows = 40, n = 5;
  rng random{7};
  std::vector<float> trained = gaussian(random, rows*cols, 0.05f), x = gaussian(random, n*cols);
  std::vector<float> importance = std::vector<float>(cols, 1.0f);

  void SetUp() override {
    for (std::size_t i = 0; i < importance.size(); ++i) importance[i] = 0.5f + static_cast<float>(i % 7);
  }
  std::vector<std::byte> quantized(std::uint32_t id) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(rows * quantal_row_bytes(id, cols)));
    const quantal_matrix m = matrix(trained, rows, cols);
    EXPECT_EQ(quantal_quantize(id, &m, importance.data(), bytes.data(), bytes.size(), nullptr), QUANTAL_OK)
        << quantal_last_error();
    return bytes;
  }
};

TEST_F(CProducts, BytesWeightsAndProductsOfEveryFormatAreTheLibrarys) {
  quantal_pool* pool = nullptr;
  ASSERT_EQ(quantal_pool_create(3, &pool), QUANTAL_OK);
  for (const format_info& f : format_table) {
    SCOPED_TRACE(std::string(f.name));
    quantal_format info;
    ASSERT_EQ(quantal_format_by_id(f.gguf_id, &info), QUANTAL_OK);
    std::vector<std::byte> bytes(static_cast<std::size_t>(rows * f.row_bytes(cols))), expected(bytes.size());
    const quantal_matrix m = matrix(trained, rows, cols);
    const auto done = quantal_quantize(f.gguf_id, &m, importance.data(), bytes.data(), bytes.size(),
                                       quantal_pool_executor(pool));
    if (!info.has_quantizer) {
      EXPECT_EQ(done, QUANTAL_UNSUPPORTED);
      continue;
    }
    ASSERT_EQ(done, QUANTAL_OK) << quantal_last_error();
    ASSERT_EQ(runtime::quantize(f.gguf_id, {trained, rows, cols}, importance, expected), status::ok);
    EXPECT_EQ(bytes, expected);

    const quantal_weights w{f.gguf_id, bytes.data(), bytes.size(), rows, cols, 0, 0, 0};
    std::vector<float> decoded(rows * cols), decoded_expected(rows * cols);
    const quantal_matrix to = matrix(decoded, rows, cols);
    ASSERT_EQ(quantal_dequantize(&w, &to, nullptr), QUANTAL_OK) << quantal_last_error();
    const runtime::weight_view view(f.gguf_id, expected, rows, cols);
    ASSERT_EQ(runtime::dequantize(view, {decoded_expected, rows, cols}), status::ok);
    EXPECT_EQ(decoded, decoded_expected);

    for (const auto& [c_policy, policy] : {std::pair{QUANTAL_ACTIVATION_Q8, activation::q8},
                                           std::pair{QUANTAL_ACTIVATION_EXACT, activation::exact}}) {
      if (f.usage == role::activation) continue;
      std::vector<float> out(n * rows), want(n * rows);
      const quantal_matrix from = matrix(x, n, cols), result = matrix(out, n, rows);
      const quantal_product_options o{c_policy, quantal_pool_executor(pool), nullptr, 0, nullptr};
      ASSERT_EQ(quantal_mul_mat(&w, &from, &result, &o), QUANTAL_OK) << quantal_last_error();
      std::vector<std::byte> workspace(runtime::mul_mat_workspace(view, {x, n, cols}, policy));
      EXPECT_EQ(quantal_mul_mat_workspace(&w, &from, &o), workspace.size());
      ASSERT_EQ(
          runtime::mul_mat(view, {x, n, cols}, {want, n, rows}, {.policy = policy, .workspace = workspace}),
          status::ok);
      EXPECT_EQ(out, want);
    }
    quantal_error e{};
    ASSERT_EQ(quantal_measure_error(&w, &m, importance.data(), &e), QUANTAL_OK);
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < trained.size(); ++i)
      error += std::pow(double{trained[i]} - decoded[i], 2), norm += double{trained[i]} * trained[i];
    EXPECT_NEAR(quantal_nmse(&e), error / norm, 1e-9);
    EXPECT_GT(e.weighted_norm, e.plain_norm / 2);
  }
  quantal_pool_free(pool);
}

TEST_F(CProducts, ExpertsAreTheLibrarys) {
  constexpr std::int64_t experts = 4, tokens = 3, used = 2, each = rows / experts;
  auto bytes = quantized(q4_K::gguf_id);
  std::vector<float> out(tokens * used * each), want(out.size());
  const std::vector<std::int32_t> ids{0, 3, 1, 1, 2, 0};
  const quantal_weights w{q4_K::gguf_id, bytes.data(), bytes.size(), each, cols, 0, experts, 0};
  const quantal_slots from{x.data(), x.size(), tokens, 1, cols, 0, 0},
      to{out.data(), out.size(), tokens, used, each, 0, 0};
  ASSERT_EQ(quantal_mul_mat_id(&w, &from, ids.data(), 0, &to, nullptr), QUANTAL_OK) << quantal_last_error();
  const runtime::weight_stack_view stack(q4_K::gguf_id, bytes, experts, each, cols);
  const slots_view<const float> in(x, tokens, 1, cols);
  std::vector<std::byte> workspace(runtime::mul_mat_id_workspace(stack, in, used, activation::q8));
  EXPECT_EQ(quantal_mul_mat_id_workspace(&w, &from, used, nullptr), workspace.size());
  ASSERT_EQ(runtime::mul_mat_id(stack, in, {ids, tokens, used}, {want, tokens, used, each},
                                {.workspace = workspace}),
            status::ok);
  EXPECT_EQ(out, want);
  std::vector<std::int32_t> bad = ids;
  bad[3] = experts;
  EXPECT_EQ(quantal_mul_mat_id(&w, &from, bad.data(), 0, &to, nullptr), QUANTAL_BAD_EXPERT_ID);
  EXPECT_EQ(quantal_mul_mat_id(&w, &from, ids.data(), 1, &to, nullptr), QUANTAL_BAD_STRIDE);
  EXPECT_EQ(quantal_mul_mat_id(&w, &from, nullptr, 0, &to, nullptr), QUANTAL_NULL_POINTER);
}

TEST_F(CProducts, PackedWeightsMultiplyAsPlainOnes) {
  constexpr std::int64_t many = 20;
  std::vector<float> wide = gaussian(random, many * cols), out(many * rows), want(many * rows);
  const auto bytes = quantized(iq4_xs::gguf_id);
  const quantal_weights w{iq4_xs::gguf_id, bytes.data(), bytes.size(), rows, cols, 0, 0, 0};
  quantal_packed* packed = nullptr;
  ASSERT_EQ(quantal_pack(&w, nullptr, &packed), QUANTAL_OK) << quantal_last_error();
  EXPECT_GT(quantal_packed_bytes(packed), bytes.size());
  const quantal_matrix from = matrix(wide, many, cols), to = matrix(out, many, rows),
                       expected = matrix(want, many, rows);
  ASSERT_EQ(quantal_packed_mul_mat(packed, &from, &to, nullptr), QUANTAL_OK) << quantal_last_error();
  ASSERT_EQ(quantal_mul_mat(&w, &from, &expected, nullptr), QUANTAL_OK);
  EXPECT_EQ(out, want);
  quantal_product_options exact{};
  exact.activation = QUANTAL_ACTIVATION_EXACT;
  EXPECT_EQ(quantal_packed_mul_mat(packed, &from, &to, &exact), QUANTAL_UNSUPPORTED);
  quantal_packed_free(packed);
  std::vector<float> floats = trained;
  const quantal_weights f{f32::gguf_id, floats.data(), 4 * floats.size(), rows, cols, 0, 0, 0};
  EXPECT_EQ(quantal_pack(&f, nullptr, &packed), QUANTAL_UNSUPPORTED);
  EXPECT_EQ(packed, nullptr);
}

TEST_F(CProducts, RefusalsNameTheOperands) {
  auto bytes = quantized(q4_K::gguf_id);
  std::vector<float> out(n * rows, -1.0f);
  quantal_weights w{q4_K::gguf_id, bytes.data(), bytes.size(), rows, cols, 0, 0, 0};
  quantal_matrix from = matrix(x, n, cols), to = matrix(out, n, rows);
  w.size -= 1;
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, nullptr), QUANTAL_SHORT_BUFFER);
  EXPECT_TRUE(says("q4_K 40 x 512")) << quantal_last_error();
  w.size += 1, from.cols = 256;
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, nullptr), QUANTAL_BAD_SHAPE);
  from.cols = cols, to.size = 7;
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, nullptr), QUANTAL_SHORT_BUFFER);
  to.size = out.size(), w.format = 4711;
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, nullptr), QUANTAL_UNKNOWN_FORMAT);
  w.format = q4_K::gguf_id;
  quantal_product_options o{};
  std::byte small[8];
  o.workspace = small, o.workspace_size = sizeof small;
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, &o), QUANTAL_SMALL_WORKSPACE);
  o = {};
  o.arch = "pdp11";
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, &o), QUANTAL_BAD_ARGUMENT);
  EXPECT_TRUE(says("pdp11"));
  o = {};
  o.activation = 9;
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, &o), QUANTAL_BAD_ARGUMENT);
  EXPECT_EQ(quantal_mul_mat(nullptr, &from, &to, nullptr), QUANTAL_NULL_POINTER);
  for (const float v : out) EXPECT_EQ(v, -1.0f);
}

TEST_F(CProducts, TheFirstRowThatIsNotFiniteIsNamedWhateverTheThreads) {
  trained[37 * cols + 5] = INFINITY, trained[21 * cols] = NAN;
  quantal_pool* pool = nullptr;
  ASSERT_EQ(quantal_pool_create(4, &pool), QUANTAL_OK);
  const quantal_matrix m = matrix(trained, rows, cols);
  std::vector<std::byte> bytes(static_cast<std::size_t>(rows * quantal_row_bytes(q5_K::gguf_id, cols)));
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(
        quantal_quantize(q5_K::gguf_id, &m, nullptr, bytes.data(), bytes.size(), quantal_pool_executor(pool)),
        QUANTAL_NOT_FINITE);
    EXPECT_TRUE(says("row 21")) << quantal_last_error();
  }
  EXPECT_EQ(quantal_quantize(q5_K::gguf_id, &m, nullptr, bytes.data(), bytes.size() - 1, nullptr),
            QUANTAL_SHORT_BUFFER);
  EXPECT_EQ(quantal_quantize(q5_K::gguf_id, &m, nullptr, nullptr, bytes.size(), nullptr),
            QUANTAL_NULL_POINTER);
  quantal_pool_free(pool);
  EXPECT_EQ(quantal_pool_create(0, &pool), QUANTAL_BAD_ARGUMENT);
  EXPECT_EQ(pool, nullptr);
}

TEST_F(CProducts, AnExecutorOfTheCallersRunsEveryTask) {
  struct counter {
    int calls = 0;
    static int run(void* self, int tasks, quantal_task body, void* context) {
      for (int t = tasks - 1; t >= 0; --t) body(context, t, 0), ++static_cast<counter*>(self)->calls;
      return 0;
    }
    static int refuse(void*, int, quantal_task, void*) { return 1; }
  } count;
  const auto bytes = quantized(q4_0::gguf_id);
  const quantal_weights w{q4_0::gguf_id, bytes.data(), bytes.size(), rows, cols, 0, 0, 0};
  std::vector<float> out(n * rows), want(n * rows);
  const quantal_matrix from = matrix(x, n, cols), to = matrix(out, n, rows), expected = matrix(want, n, rows);
  quantal_executor e{1, &counter::run, &count};
  quantal_product_options o{};
  o.executor = &e;
  ASSERT_EQ(quantal_mul_mat(&w, &from, &to, &o), QUANTAL_OK);
  ASSERT_EQ(quantal_mul_mat(&w, &from, &expected, nullptr), QUANTAL_OK);
  EXPECT_EQ(out, want);
  EXPECT_GT(count.calls, 0);
  e.run = &counter::refuse;
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, &o), QUANTAL_EXECUTOR_FAILED);
  e.run = nullptr;
  EXPECT_EQ(quantal_mul_mat(&w, &from, &to, &o), QUANTAL_BAD_ARGUMENT);
}

TEST(CErrors, BelongToTheirThreadAndAreCut) {
  quantal_format f;
  EXPECT_EQ(quantal_format_by_name("q9_Z", &f), QUANTAL_UNKNOWN_FORMAT);
  EXPECT_TRUE(says("quantal_format_by_name"));
  std::thread([] { EXPECT_STREQ(quantal_last_error(), ""); }).join();
  quantal_set_last_error(std::string(5000, 'x').c_str());
  EXPECT_EQ(std::string(quantal_last_error()).size(), 1023u);
  EXPECT_STREQ(quantal_status_text(static_cast<quantal_status>(77)), "unknown status");
  EXPECT_STREQ(quantal_status_text(QUANTAL_OK), "ok");
}

TEST(CErrors, HandlesMayBeNull) {
  quantal_pool_free(nullptr), quantal_packed_free(nullptr), quantal_imatrix_free(nullptr);
  quantal_importance_free(nullptr), quantal_gguf_close(nullptr), quantal_gguf_writer_free(nullptr);
  EXPECT_EQ(quantal_pool_executor(nullptr), nullptr);
  EXPECT_EQ(quantal_imatrix_count(nullptr), 0u);
  EXPECT_EQ(quantal_gguf_tensor_count(nullptr), 0u);
  EXPECT_EQ(quantal_gguf_key_at(nullptr, 0), nullptr);
  EXPECT_EQ(quantal_imatrix_load(nullptr, nullptr), QUANTAL_NULL_POINTER);
  EXPECT_EQ(quantal_imatrix_load("x", nullptr), QUANTAL_NULL_POINTER);
  EXPECT_EQ(quantal_gguf_open("x", nullptr), QUANTAL_NULL_POINTER);
  EXPECT_EQ(quantal_gguf_writer_finish(nullptr), QUANTAL_NULL_POINTER);
  EXPECT_TRUE(std::isnan(quantal_nmse(nullptr)));
}

}  // namespace
