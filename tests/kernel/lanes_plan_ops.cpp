// Compiled for AVX-512 VNNI, and therefore without GoogleTest, whose inline functions the test shares.
#include "lanes_plan_ops.hpp"

#include "quantal/kernel/q8_rows.hpp"

namespace quantal::test {
namespace {

#if QUANTAL_WITH_AVX512_VNNI
using A = simd::avx512_vnni;

int weight_at(const kernel::lane_map& map, int at) {
  if (map.weight) return (*map.weight)[static_cast<std::size_t>(at)];
  return 4 * map.word[static_cast<std::size_t>(at / 4)] + at % 4;
}

template <block_format F>
void decode_lanes(const std::byte* row, int count, lane_weights& out) {
  using decoder = kernel::lane_decoder<F, A>;
  constexpr int depth = decoder::depth;
  decoder d;
  if (count == kernel::slice_weights)
    d.decode(row, row_scale<F>(row), 0);
  else if constexpr (F::layout.elements < kernel::slice_weights)  // rows of the others end with a slice
    d.decode_tail(row, row_scale<F>(row), 0, count);
  out.by_plan = kernel::avx512_vnni::planar_slices<F>;
  simd::unroll<decoder::sums>([&](auto u) QUANTAL_LAMBDA {
    const kernel::lane_group<A, depth> g = d.template group<u>();
    float scale[16], offset[16] = {};
    g.scale.store_unaligned(scale);
    if constexpr (F::layout.has_offset) g.offset.store_unaligned(offset);
    for (int i = 0; i < depth; ++i) {
      std::uint8_t codes[64];
      g.codes[i].store_unaligned(codes);
      for (int k = 0; k < 64; ++k) {
        const int at = 64 * (u * depth + i) + k;
        out.code[at] = codes[k];
        out.weight[at] = weight_at(decoder::map, at);
        out.scale[at] = scale[k / 4];
        out.offset[at] = offset[k / 4];
      }
    }
  });
}

template <block_format F>
void decode_natural(const std::byte* row, int, lane_weights& out) {
  kernel::coded_slice s;
  kernel::slice_codes(F{}, row_blocks<F>(row), row_scale<F>(row), s.codes, s.scales, s.offsets,
                      simd::on<A>{});
  for (int i = 0; i < 256; ++i) {
    out.code[i] = s.codes[i];
    out.weight[i] = i;
    out.scale[i] = s.scales[i / kernel::sub_group<F>];
    out.offset[i] = F::layout.has_offset ? s.offsets[i / kernel::sub_group<F>] : 0.0f;
  }
  out.by_plan = true;
}
#endif

}  // namespace

lane_decode find_lane_decode([[maybe_unused]] std::string_view format) noexcept {
  lane_decode found = nullptr;
#if QUANTAL_WITH_AVX512_VNNI
  for_each_lane_format([&]<class F>() {
    if (format == F::name) found = &decode_lanes<F>;
  });
#endif
  return found;
}
lane_decode find_slice_decode([[maybe_unused]] std::string_view format) noexcept {
  lane_decode found = nullptr;
#if QUANTAL_WITH_AVX512_VNNI
  for_each_lane_format([&]<class F>() {
    if constexpr (kernel::has_slice_codes<F, A>)
      if (format == F::name) found = &decode_natural<F>;
  });
#endif
  return found;
}

}  // namespace quantal::test
