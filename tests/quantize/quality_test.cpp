// No format may be worse than the baseline on its input, with or without importance, and no search may be
// worse than plain rounding on any input.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "quantal/quantize/quantize.hpp"
#include "quantize/inputs.hpp"
#include "support/paths.hpp"

namespace quantal {
namespace {

const std::string data = test::data_file("/quality/");

std::vector<float> read_floats(const std::string& path) {
  std::ifstream f(path, std::ios::binary);
  const std::vector<char> b{std::istreambuf_iterator<char>(f), {}};
  std::vector<float> v(b.size() / 4);
  std::memcpy(v.data(), b.data(), v.size() * 4);
  return v;
}

using test::error_of;

class Quality : public testing::TestWithParam<std::uint32_t> {};

TEST_P(Quality, NoWorseThanTheBaseline) {
  const auto x = read_floats(data + "quality_input.f32"), w = read_floats(data + "quality_importance.f32");
  ASSERT_EQ(x.size(), 65536u);
  std::ifstream json(data + "quality_baseline.json");
  const auto base = nlohmann::json::parse(json).at("formats").at(std::string(find_format(GetParam())->name));
  const double with = error_of(GetParam(), x, 1024, w.data(), w.data()).nmse_weighted();
  const double without = error_of(GetParam(), x, 1024, nullptr, w.data()).nmse_plain();
  EXPECT_LE(with, base.at("with_importance").at("nmse_weighted").get<double>() * (1 + 1e-6));
  EXPECT_LE(without, base.at("without_importance").at("nmse_plain").get<double>() * (1 + 1e-6));
}

/// Round to nearest with the scale that maps the largest weight to the end of the table.
template <class F>
double plain_rounding(const std::vector<float>& x, const std::vector<float>& w) {
  using C = quantize::codebook<F>;
  constexpr int n = F::layout.elements;
  double error = 0, norm = 0;
  for (std::size_t at = 0; at < x.size(); at += n) {
    float extreme = 0;
    for (int i = 0; i < n; ++i) extreme = std::fabs(x[at + i]) > std::fabs(extreme) ? x[at + i] : extreme;
    const float d = quantize::stored_half(extreme / static_cast<float>(C::level(0)));
    error += quantize::error_at<C>(&x[at], &w[at % w.size()], n, d);
    for (int i = 0; i < n; ++i) norm += w[(at + i) % w.size()] * x[at + i] * x[at + i];
  }
  return error / norm;
}

TEST(Quality, SearchBeatsPlainRoundingOnEveryInput) {
  test::rng g(9);
  std::vector<float> w(512);
  for (auto& v : w) v = std::exp(std::normal_distribution<float>(0, 1)(g));
  const auto draw = [&](auto d) {
    std::vector<float> x(8 * 512);
    for (auto& v : x) v = static_cast<float>(d(g));
    return x;
  };
  auto outliers = draw(std::normal_distribution<double>(0, 1));
  for (std::size_t i = 0; i < outliers.size(); i += 64) outliers[i] *= 20;
  for (const auto& x :
       {draw(std::normal_distribution<double>(0, 1)), draw(std::student_t_distribution<double>(3)),
        draw(std::uniform_real_distribution<double>(-1, 1)), outliers}) {
    const auto check = [&]<class F>() {
      if constexpr (quantize::simple_format<F> && !F::layout.has_offset) {
        EXPECT_LE(error_of(F::gguf_id, x, 512, w.data(), w.data()).nmse_weighted(),
                  plain_rounding<F>(x, w) * (1 + 1e-5))
            << F::name;
      }
    };
    all_formats::for_each(check);
  }
}

template <class F>
void check_exact_policy(const std::vector<float>& x, const std::vector<float>& w) {
  const auto error = [&]<quantize_policy P>() {
    constexpr std::int64_t cols = 4096;
    std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<F>(cols)));
    std::vector<float> y(cols);
    EXPECT_EQ((quantize_row<F, P>(x.data(), w.data(), row.data(), cols)), status::ok);
    dequantize_row<F>(row.data(), y.data(), cols);
    quantization_error e;
    e.add(x.data(), y.data(), w.data(), cols);
    return e.nmse_weighted();
  };
  // Rounding the scale to what the block stores may cost a little either way.
  EXPECT_LE(error.template operator()<quantize_policy{.thorough = true}>(),
            error.template operator()<quantize_policy{}>() * 1.0005)
      << F::name;
}

TEST(Quality, ExactSearchIsNeverWorseThanFast) {
  test::rng g(4);
  const auto x = test::gaussian(g, 4096);
  auto w = test::gaussian(g, 4096);
  for (auto& v : w) v = std::exp(v);
  check_exact_policy<q4_0>(x, w);
  check_exact_policy<q2_K>(x, w);
  check_exact_policy<q3_K>(x, w);
  check_exact_policy<iq4_k>(x, w);
  check_exact_policy<iq4_ks>(x, w);
}

/// Every stored code is the nearest level to its weight under the scale and table of its group.
TEST(Quality, CodesAreNearest) {
  test::rng g(12);
  const auto x = test::gaussian(g, 1024);
  const auto check = [&]<class F>() {
    if constexpr (block_format<F>)
      if constexpr (quantize::single_codes<F> && !F::layout.has_offset) {
        using C = quantize::codebook<F>;
        std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<F>(1024)));
        ASSERT_EQ(runtime::quantize_row(F::gguf_id, x.data(), nullptr, row.data(), 1024), status::ok);
        for (int i = 0; i < 1024; ++i) {
          const auto& b = row_blocks<F>(row.data())[i / F::layout.elements];
          const int e = i % F::layout.elements, group = e / F::layout.group;
          const float d = F::scale(b, row_scale<F>(row.data()), group);
          const float got = std::fabs(x[static_cast<std::size_t>(i)] - d * static_cast<float>(F::code(b, e)));
          int shift = 0;
          if constexpr (C::tables > 1) shift = C::shift * F::table(b, group);
          for (int k = 0; k < C::size; ++k)
            EXPECT_LE(
                got, std::fabs(x[static_cast<std::size_t>(i)] - d * static_cast<float>(C::level(k) + shift)) +
                         1e-5f)
                << F::name;
        }
      }
  };
  all_formats::for_each(check);
}

std::vector<std::uint32_t> quantizable_ids() {
  std::vector<std::uint32_t> ids;
  for (const auto& f : format_table)
    if (can_quantize(f.gguf_id)) ids.push_back(f.gguf_id);
  return ids;
}

INSTANTIATE_TEST_SUITE_P(Format, Quality, testing::ValuesIn(quantizable_ids()),
                         [](const auto& info) { return std::string(find_format(info.param)->name); });

}  // namespace
}  // namespace quantal
