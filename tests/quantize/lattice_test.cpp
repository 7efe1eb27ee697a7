// Weights of few levels: their errors must not add up, and formats that hold their levels must find them.
#include "quantal/quantize/quantize.hpp"
#include "quantize/inputs.hpp"

namespace quantal {
namespace {

using test::rng;

/// Rows of groups of 32 weights `draw()` under scales of their own, or under one for all.
template <class Draw>
std::vector<float> lattice(rng& g, std::int64_t count, bool one_scale, Draw draw) {
  std::vector<float> x;
  std::normal_distribution<float> normal;
  float scale = 0.0123f;
  for (std::int64_t i = 0; i < count; ++i) {
    if (!one_scale && i % 32 == 0) scale = 0.01f * std::exp(0.3f * normal(g));
    x.push_back(scale * draw());
  }
  return x;
}

struct draws {
  rng g{7};
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform;

  float int4() { return std::clamp(std::nearbyint(2.6f * normal(g)), -7.0f, 7.0f); }
  float even_int4() {
    if (uniform(g) < 0.15f) return 0.0f;
    const float v = std::floor(14 * uniform(g)) - 7;
    return v >= 0 ? v + 1 : v;
  }
  float fp4() {
    static constexpr float levels[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const float v = 2.2f * normal(g);
    float best = 0;
    for (const float l : levels)
      if (std::fabs(l - std::fabs(v)) < std::fabs(best - std::fabs(v))) best = l;
    return std::copysign(best, v);
  }
  float ternary() { return static_cast<float>(static_cast<int>(3 * uniform(g)) - 1); }
  float pruned() { return uniform(g) < 0.5f ? 0.0f : normal(g); }
};

/// How much the mean of the inputs adds to the relative error of products: with mean 0.1 and deviation 1 over
/// that with mean 0. 1 where the weights come back but for the rounding of halves, which has no choices.
double share_of_mean(std::uint32_t id, const std::vector<float>& x, std::int64_t cols,
                     const float* importance) {
  const auto& f = *find_format(id);
  std::vector<std::byte> row(static_cast<std::size_t>(f.row_bytes(cols)));
  std::vector<float> y(static_cast<std::size_t>(cols));
  double ee = 0, xx = 0, e_sums = 0, x_sums = 0;
  for (std::size_t at = 0; at < x.size(); at += y.size()) {
    EXPECT_EQ(runtime::quantize_row(id, &x[at], importance, row.data(), cols), status::ok);
    EXPECT_EQ(dequantize_row(id, row.data(), y.data(), cols), status::ok);
    double e_sum = 0, x_sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double e = static_cast<double>(y[i]) - x[at + i];
      ee += e * e, xx += static_cast<double>(x[at + i]) * x[at + i];
      e_sum += e, x_sum += x[at + i];
    }
    e_sums += e_sum * e_sum, x_sums += x_sum * x_sum;
  }
  if (ee < 1e-6 * xx) return 1;
  return std::sqrt((ee + 0.01 * e_sums) / (xx + 0.01 * x_sums) / (ee / xx));
}

class Lattice : public testing::TestWithParam<std::uint32_t> {};

TEST_P(Lattice, ErrorsDoNotAddUp) {
  const auto w = test::importances(4096);
  for (const std::int64_t cols : {1024, 4096}) {
    draws d;
    const std::int64_t count = 16384;
    const std::vector<test::named_input> inputs = {
        {"int4", lattice(d.g, count, false, [&] { return d.int4(); })},
        {"even int4", lattice(d.g, count, false, [&] { return d.even_int4(); })},
        {"fp4", lattice(d.g, count, false, [&] { return d.fp4(); })},
        {"ternary", lattice(d.g, count, true, [&] { return d.ternary(); })},
        {"pruned", lattice(d.g, count, false, [&] { return d.pruned(); })},
        {"gaussian", lattice(d.g, count, false, [&] { return d.normal(d.g); })}};
    for (const auto& [name, x] : inputs)
      for (const float* importance : {static_cast<const float*>(nullptr), w.data()})
        EXPECT_LE(share_of_mean(GetParam(), x, cols, importance), 1.03)
            << name << " " << cols << (importance ? " with importance" : "");
  }
}

std::vector<std::uint32_t> lattice_ids() {
  std::vector<std::uint32_t> ids;
  for (const auto& f : format_table)
    if (can_quantize(f.gguf_id) && !f.is_float) ids.push_back(f.gguf_id);
  return ids;
}
INSTANTIATE_TEST_SUITE_P(Format, Lattice, testing::ValuesIn(lattice_ids()),
                         [](const auto& info) { return std::string(find_format(info.param)->name); });

/// Relative error of the largest rounding that a half suffers, and a little for a second half.
constexpr double of_halves = 1.0 / 2048;

double relative_error(std::uint32_t id, const std::vector<float>& x, const float* importance = nullptr) {
  return std::sqrt(test::error_of(id, x, 1024, importance, nullptr).nmse_plain());
}

TEST(Lattices, FormatsThatHoldThemFindThem) {
  const auto w = test::importances(1024);
  for (const float* importance : {static_cast<const float*>(nullptr), w.data()}) {
    const auto check = [&](std::initializer_list<std::uint32_t> ids, bool one_scale, const char* what,
                           auto draw) {
      draws d;
      const auto x = lattice(d.g, 8 * 1024, one_scale, [&] { return draw(d); });
      for (const auto id : ids)
        EXPECT_LE(relative_error(id, x, importance), of_halves) << find_format(id)->name << what;
    };
    const auto bytes = {q5_0::gguf_id, q6_0::gguf_id, q8_0::gguf_id, q8_1::gguf_id};
    for (const bool one : {false, true}) {
      check({q4_0::gguf_id, q4_1::gguf_id, q5_1::gguf_id}, one, " int4", [](draws& d) { return d.int4(); });
      check(bytes, one, " int4", [](draws& d) { return d.int4(); });
      check({q4_0::gguf_id}, one, " half of the levels",
            [](draws& d) { return std::trunc(d.int4() * 0.5f); });
      check({q4_0::gguf_id}, one, " 16 levels",
            [](draws& d) { return d.uniform(d.g) < 0.1f ? -8.0f : d.int4(); });
      check(bytes, one, " fp4", [](draws& d) { return d.fp4(); });
      check(bytes, one, " ternary", [](draws& d) { return d.ternary(); });
    }
    check({q4_K::gguf_id, q5_K::gguf_id, q6_K::gguf_id, q8_K::gguf_id}, true, " int4",
          [](draws& d) { return d.int4(); });
    check({q3_K::gguf_id, q6_K::gguf_id, q2_0::gguf_id, tq1_0::gguf_id, tq2_0::gguf_id}, true, " ternary",
          [](draws& d) { return d.ternary(); });
  }
}

float to_bf16(float v) {
  const std::uint32_t u = detail::bits_from_float(v);
  return detail::float_from_bits((u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u);
}
float to_f16(float v) { return detail::half_to_float(detail::float_to_half(v)); }

/// What was rounded when the weights were stored does not hide the levels: no more is lost than that.
TEST(Lattices, AreFoundInRoundedWeights) {
  const auto w = test::importances(1024);
  const auto check = [&](std::uint32_t id, const char* what, auto draw) {
    for (const bool one : {false, true})
      for (const bool half : {false, true})
        for (const float* importance : {static_cast<const float*>(nullptr), w.data()}) {
          draws d;
          auto x = lattice(d.g, 8 * 1024, one, [&] { return draw(d); });
          for (auto& v : x) v = half ? to_f16(v) : to_bf16(v);
          EXPECT_LE(relative_error(id, x, importance), half ? of_halves : 2e-3)
              << find_format(id)->name << what << (one ? " rows" : " groups") << (half ? " f16" : " bf16");
        }
  };
  for (const auto id :
       {q4_0::gguf_id, q4_1::gguf_id, q5_0::gguf_id, q5_1::gguf_id, q6_0::gguf_id, q8_0::gguf_id})
    check(id, " int4", [](draws& d) { return d.int4(); });
  check(q4_1::gguf_id, " int4 with zero points", [](draws& d) { return d.int4() + 5; });
  check(q8_0::gguf_id, " int8",
        [](draws& d) { return std::clamp(std::nearbyint(42 * d.normal(d.g)), -127.0f, 127.0f); });
}

/// Formats whose groups share a float cannot hold scales that are multiples of nothing. They keep the codes all the same,
/// and of the shared scales take one that is near a multiple for all.
TEST(Lattices, SharedScalesKeepTheCodes) {
  const auto w = test::importances(1024);
  for (const float* importance : {static_cast<const float*>(nullptr), w.data()}) {
    draws d;
    auto four = lattice(d.g, 64 * 1024, false, [&] { return d.int4(); });
    for (auto& v : four) v = to_bf16(v);
    EXPECT_LT(relative_error(q4_K::gguf_id, four, importance), 0.0055);
    EXPECT_LT(relative_error(q5_K::gguf_id, four, importance), 0.0055);
    auto shifted = lattice(d.g, 64 * 1024, false, [&] { return d.int4() + 3; });
    for (auto& v : shifted) v = to_bf16(v);
    EXPECT_LT(relative_error(q4_K::gguf_id, shifted, importance), 0.0055);
  }
}

/// A format's own output comes back; groups that are zero or hold one weight too.
TEST(Lattices, DecodedWeightsComeBack) {
  rng g(5);
  auto x = test::gaussian(g, 4096, 0.02f);
  std::fill_n(x.begin(), 256, 0.0f);
  std::fill_n(x.begin() + 256, 256, 0.0f);
  x[300] = 0.5f;
  const auto check = [&]<class F>() {
    if constexpr (block_format<F>)
      // 63 levels and 7 bits of scale lie on many lattices; groups with offsets may lack the codes at their ends.
      if constexpr (quantize::single_codes<F> && F::gguf_id != iq6_k::gguf_id &&
                    F::gguf_id != q4_K::gguf_id && F::gguf_id != q5_K::gguf_id) {
        std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<F>(4096)));
        std::vector<float> y(4096);
        ASSERT_EQ(runtime::quantize_row(F::gguf_id, x.data(), nullptr, row.data(), 4096), status::ok);
        dequantize_row<F>(row.data(), y.data(), 4096);
        EXPECT_LE(relative_error(F::gguf_id, y), of_halves) << F::name;
      }
  };
  all_formats::for_each(check);
}

}  // namespace
}  // namespace quantal
