// Weights of any size: no format does worse than all zeros or than plain rounding where its scales reach, and what
// they do not reach is counted.
#include "quantal/quantize/range.hpp"

#include "quantal/quantize/quantize.hpp"
#include "quantize/inputs.hpp"

namespace quantal {
namespace {

constexpr std::int64_t range_cols = 512;

struct outcome {
  quantization_error error;
  range_loss range;
};

outcome round_trip(std::uint32_t id, const std::vector<float>& x, const float* importance) {
  const auto& f = *find_format(id);
  std::vector<std::byte> row(static_cast<std::size_t>(f.row_bytes(range_cols)));
  std::vector<float> y(range_cols);
  outcome o;
  for (std::size_t at = 0; at < x.size(); at += range_cols) {
    EXPECT_EQ(runtime::quantize_row(id, &x[at], importance, row.data(), range_cols), status::ok);
    EXPECT_EQ(dequantize_row(id, row.data(), y.data(), range_cols), status::ok);
    o.error.add(&x[at], y.data(), importance, range_cols);
    o.range += range_loss_of(f, &x[at], y.data(), range_cols);
  }
  return o;
}

std::vector<float> times(const std::vector<float>& x, int exponent) {
  std::vector<float> out;
  for (const float v : x) out.push_back(std::ldexp(v, exponent));
  return out;
}

class Range : public testing::TestWithParam<std::uint32_t> {
 protected:
  Range() {
    test::rng g(5);
    std::student_t_distribution<float> student(3);
    auto tails = test::gaussian(g, 2 * range_cols);
    for (auto& v : tails) v = student(g);
    auto levels = test::gaussian(g, 2 * range_cols);
    for (auto& v : levels) v = std::nearbyint(2.5f * v);
    inputs_ = {{"gaussian", test::gaussian(g, 2 * range_cols)}, {"student", tails}, {"lattice", levels}};
  }
  std::vector<test::named_input> inputs_;
  std::vector<float> w_ = test::importances(range_cols);
};

TEST_P(Range, NeverWorseThanZeros) {
  for (const auto& [name, x] : inputs_)
    for (int e = -99; e <= 99; e += 3)
      for (const float* importance :
           {static_cast<const float*>(nullptr), static_cast<const float*>(w_.data())})
        EXPECT_LE(round_trip(GetParam(), times(x, e), importance).error.nmse_weighted(), 1.0 + 1e-6)
            << name << " 2^" << e;
}

/// Where the scale of the largest weight / the largest code is a half of some places, the error is about the usual.
TEST_P(Range, SmallRowsAreNoWorseThanPlainRounding) {
  const auto& f = *find_format(GetParam());
  int code = 0;
  visit_format(f.gguf_id, [&]<class F>() {
    if constexpr (block_format<F> && requires(typename F::block & b) { F::set_code(b, 0, 0); })
      code = F::max_code;
  });
  if (code == 0) return;  // the smallest steps of tables and grids are not those of the scale
  const double usual = round_trip(GetParam(), inputs_[0].x, nullptr).error.nmse_plain();
  if (f.gguf_id == nvfp4::gguf_id) return;  // has its scale beside it
  for (int e = -14; e > -24; --e) {
    // Plain rounding in units of the smallest half.
    const double unit = std::ldexp(1.0, -24 - e), plain = unit * unit / 12;
    if (4.0 / code > unit * 64) continue;
    const double got = round_trip(GetParam(), times(inputs_[0].x, e), nullptr).error.nmse_plain();
    EXPECT_LE(got, 3 * usual + 12 * std::max(1.0, code / 32.0) * plain) << e;
  }
}

TEST_P(Range, RowsOfAnySizeWhereScalesAreFloats) {
  const auto& f = *find_format(GetParam());
  if (f.layout.row_meta != 4 && f.gguf_id != q8_K::gguf_id && f.gguf_id != mxfp4::gguf_id) return;
  for (const auto& [name, x] : inputs_) {
    const double usual = round_trip(GetParam(), x, nullptr).error.nmse_plain();
    for (const int e : {-100, -70, -30, 30, 70, 100}) {
      const auto got = round_trip(GetParam(), times(x, e), nullptr);
      EXPECT_LE(got.error.nmse_plain(), usual * 1.05 + 1e-9) << name << " 2^" << e;
      EXPECT_FALSE(got.range.any()) << name << " 2^" << e;
    }
  }
}

TEST_P(Range, CountsWhatIsCutAndLost) {
  const auto& f = *find_format(GetParam());
  const auto ordinary = round_trip(GetParam(), times(inputs_[0].x, -5), nullptr);
  EXPECT_EQ(ordinary.range.weights, 2 * range_cols);
  EXPECT_FALSE(ordinary.range.any());
  if (f.layout.row_meta == 4 || f.gguf_id == q8_K::gguf_id || f.gguf_id == mxfp4::gguf_id) return;
  const auto large = round_trip(GetParam(), times(inputs_[0].x, 40), nullptr);
  EXPECT_GT(large.range.cut, 2 * range_cols - 20);
  EXPECT_EQ(large.range.lost, 0);
  const auto small = round_trip(GetParam(), times(inputs_[0].x, -40), nullptr);
  EXPECT_EQ(small.range.cut, 0);
  EXPECT_EQ(small.range.lost, 2 * range_cols);
  // Zeros are not lost, nor are tiny weights beside larger ones.
  EXPECT_EQ(round_trip(GetParam(), std::vector<float>(2 * range_cols), nullptr).range.lost, 0);
}

std::vector<std::uint32_t> ranged_ids() {
  std::vector<std::uint32_t> ids;
  for (const auto& f : format_table)
    if (can_quantize(f.gguf_id) && !f.is_float) ids.push_back(f.gguf_id);
  return ids;
}
INSTANTIATE_TEST_SUITE_P(Format, Range, testing::ValuesIn(ranged_ids()),
                         [](const auto& info) { return std::string(find_format(info.param)->name); });

TEST(TensorScale, MakesTheErrorOfNvfp4IndependentOfTheSize) {
  test::rng g(3);
  const auto x = test::gaussian(g, 2 * range_cols);
  double first = 0;
  for (const float deviation : {1e3f, 0.02f, 0.005f, 0.001f, 1e-6f}) {
    std::vector<float> y;
    float largest = 0;
    for (const float v : x) largest = std::max(largest, std::fabs(v * deviation));
    const float scale = tensor_scale_for(nvfp4::gguf_id, largest);
    for (const float v : x) y.push_back(v * deviation / scale);
    const auto got = round_trip(nvfp4::gguf_id, y, nullptr);
    EXPECT_FALSE(got.range.any());
    if (first == 0) first = got.error.nmse_plain();
    EXPECT_NEAR(got.error.nmse_plain(), first, 1e-4 * first) << deviation;
  }
  EXPECT_EQ(tensor_scale_for(nvfp4::gguf_id, 0.0f), 1.0f);
}

}  // namespace
}  // namespace quantal
