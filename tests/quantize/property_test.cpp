// What must hold of any weights: searches beat plain rounding, importance helps where it points, the exact
// policy is no worse than the fast one.
#include "quantal/quantize/quantize.hpp"
#include "quantize/inputs.hpp"

namespace quantal {
namespace {

constexpr std::int64_t cols = 1024;
const auto& all_inputs() {
  static const auto list = test::inputs(4 * cols);
  return list;
}
const auto& weights_of_columns() {
  static const auto list = test::importances(cols);
  return list;
}

class EveryInput : public testing::TestWithParam<std::uint32_t> {};

/// Of the rows quantized with and without importance each is the better one in its own measure.
TEST_P(EveryInput, ImportanceCountsWhereItIsGiven) {
  const float* w = weights_of_columns().data();
  for (const auto& [name, x] : all_inputs()) {
    const auto with = test::error_of(GetParam(), x, cols, w, w),
               without = test::error_of(GetParam(), x, cols, nullptr, w);
    EXPECT_LE(with.nmse_weighted(), without.nmse_weighted() * 1.01) << name;
    EXPECT_LE(without.nmse_plain(), with.nmse_plain() * 1.01) << name;
  }
}

std::vector<std::uint32_t> block_ids() {
  std::vector<std::uint32_t> ids;
  for (const auto& f : format_table)
    if (can_quantize(f.gguf_id) && !f.is_float) ids.push_back(f.gguf_id);
  return ids;
}
INSTANTIATE_TEST_SUITE_P(Format, EveryInput, testing::ValuesIn(block_ids()),
                         [](const auto& info) { return std::string(find_format(info.param)->name); });

/// The scale that maps the largest weight to the end of the table, by groups, and the nearest codes.
template <class F>
void round_plainly(const float* x, std::byte* out) {
  using C = quantize::codebook<F>;
  constexpr int n = F::layout.elements, size = F::layout.group, groups = F::layout.groups();
  std::vector<float> wish(static_cast<std::size_t>(cols / size));
  float widest = 0;
  for (std::size_t g = 0; g < wish.size(); ++g) {
    float extreme = 0;
    for (int i = 0; i < size; ++i) {
      const float v = x[static_cast<std::ptrdiff_t>(g) * size + i];
      if (std::fabs(v) > std::fabs(extreme)) extreme = v;
    }
    wish[g] = extreme / static_cast<float>(C::level(0));
    if (std::fabs(wish[g]) > std::fabs(widest)) widest = wish[g];
  }
  auto* blocks = row_blocks<F>(out);
  if constexpr (quantize::scaled_by_row<F>) F::set_row_scale(out, widest / F::min_sub_scale);
  for (int b = 0; b < cols / n; ++b) {
    blocks[b] = {};
    if constexpr (quantize::scaled_by_block<F>) {
      float top = 0;
      for (int g = 0; g < groups; ++g)
        if (const float v = wish[static_cast<std::size_t>(b * groups + g)]; std::fabs(v) > std::fabs(top))
          top = v;
      F::set_super(blocks[b], top / F::min_sub_scale);
    }
    for (int g = 0; g < groups; ++g) {
      F::set_sub_scale(blocks[b], g, 1);
      const float unit = F::scale(blocks[b], row_scale<F>(out), g);
      const int sub = unit != 0 ? quantize::rounded(wish[static_cast<std::size_t>(b * groups + g)] / unit,
                                                    F::min_sub_scale, F::max_sub_scale)
                                : 0;
      F::set_sub_scale(blocks[b], g, sub);
      const float d = F::scale(blocks[b], row_scale<F>(out), g);
      for (int i = 0; i < size; ++i)
        C::store(blocks[b], g * size + i, C::nearest(x[b * n + g * size + i] * quantize::safe_inverse(d)));
    }
  }
}

TEST(EveryInput, GroupsUnderASharedScaleBeatPlainRounding) {
  const float* w = weights_of_columns().data();
  int formats = 0;
  const auto check = [&]<class F>() {
    if constexpr (quantize::scaled_groups<F>)
      if constexpr (quantize::single_codes<F>) {
        ++formats;
        for (const auto& [name, x] : all_inputs()) {
          std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<F>(cols)));
          std::vector<float> y(cols);
          quantization_error plain;
          for (std::size_t at = 0; at < x.size(); at += cols) {
            round_plainly<F>(&x[at], row.data());
            dequantize_row<F>(row.data(), y.data(), cols);
            plain.add(&x[at], y.data(), w, cols);
          }
          EXPECT_LE(test::error_of(F::gguf_id, x, cols, w, w).nmse_weighted(), plain.nmse_weighted())
              << F::name << name;
        }
      }
  };
  all_formats::for_each(check);
  EXPECT_GE(formats, 8);
}

template <class F>
void check_exact() {
  const float* w = weights_of_columns().data();
  const auto error = [&]<quantize_policy P>(const std::vector<float>& x) {
    std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<F>(cols)));
    std::vector<float> y(cols);
    quantization_error e;
    for (std::size_t at = 0; at < x.size(); at += cols) {
      EXPECT_EQ((quantize_row<F, P>(&x[at], w, row.data(), cols)), status::ok);
      dequantize_row<F>(row.data(), y.data(), cols);
      e.add(&x[at], y.data(), w, cols);
    }
    return e.nmse_weighted();
  };
  // What is stored of scales may round a little either way.
  for (const auto& [name, x] : all_inputs())
    EXPECT_LE(error.template operator()<quantize_policy{.thorough = true}>(x),
              error.template operator()<quantize_policy{}>(x) * 1.001)
        << F::name << name;
}

TEST(EveryInput, ExactIsNoWorseThanFast) {
  check_exact<q4_0>();
  check_exact<q8_0>();
  check_exact<q3_K>();
  check_exact<q4_K>();
  check_exact<iq4_xs>();
  check_exact<iq3_xxs>();
  check_exact<iq2_bn>();
}

}  // namespace
}  // namespace quantal
