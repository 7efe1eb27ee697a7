// Rows of f32, f16 and bf16: conversions, checked on the way through.
#pragma once

#include "quantal/formats.hpp"
#include "quantal/quantize/lanes.hpp"
#include "quantal/quantize/row.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::quantize {

namespace detail {

/// A register of finite weights as binary16. Fallback.
template <class A>
QUANTAL_INLINE void store_halves_on(xsimd::batch<float, A> v, std::byte* out, const simd::base&) noexcept {
  constexpr int n = static_cast<int>(xsimd::batch<float, A>::size);
  alignas(64) float x[std::size_t{n}];
  v.store_aligned(x);
  for (int i = 0; i < n; ++i) {
    const std::uint16_t h = quantal::detail::float_to_half(x[i]);
    __builtin_memcpy(out + 2 * i, &h, 2);
  }
}
#if XSIMD_WITH_AVX2 && defined(__F16C__)
template <class A>
QUANTAL_INLINE void store_halves_on(xsimd::batch<float, A> v, std::byte* out, const xsimd::avx2&) noexcept {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
#endif
#if XSIMD_WITH_AVX512F
template <class A>
QUANTAL_INLINE void store_halves_on(xsimd::batch<float, A> v, std::byte* out,
                                    const xsimd::avx512f&) noexcept {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
#endif
#if XSIMD_WITH_NEON64
template <class A>
QUANTAL_INLINE void store_halves_on(xsimd::batch<float, A> v, std::byte* out, const xsimd::neon64&) noexcept {
  vst1_u8(reinterpret_cast<std::uint8_t*>(out), vreinterpret_u8_f16(vcvt_f16_f32(v)));
}
#endif

/// Finite weights in `count` registers.
template <class F, class A, int count>
QUANTAL_INLINE void convert(const xsimd::batch<float, A>* v, std::byte* out) noexcept {
  constexpr int width = static_cast<int>(xsimd::batch<float, A>::size), n = count * width;
  if constexpr (std::is_same_v<F, f16>) {
    simd::unroll<count>([&](int r)
                            QUANTAL_LAMBDA { store_halves_on<A>(v[r], out + 2 * width * r, simd::on<A>{}); });
  } else {
    alignas(64) float x[std::size_t{n}];
    simd::unroll<count>([&](int r) QUANTAL_LAMBDA { v[r].store_aligned(x + width * r); });
    if constexpr (std::is_same_v<F, bf16>)
      for (int i = 0; i < n; ++i) {
        const std::uint32_t u = quantal::detail::bits_from_float(x[i]);
        const auto h = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
        __builtin_memcpy(out + 2 * i, &h, 2);
      }
    else
      for (int i = 0; i < n; ++i) reinterpret_cast<typename F::block*>(out)[i] = F::from_float(x[i]);
  }
}

}  // namespace detail

/// Converts a row; errors as those of the checks. Weights and importances are read side by side, which the
/// caches like better than one after the other.
template <class F, class A>
status encode_floats(const row_view& row, std::byte* out) noexcept {
  using batch = lanes<on_arch<F, A>>;
  using arch = typename batch::arch_type;
  using integers = xsimd::batch<std::uint32_t, arch>;
  constexpr int chunk = 32, width = static_cast<int>(batch::size), size = F::layout.bytes;
  constexpr std::uint32_t infinity = 0x7f800000u;
  const float *x = row.x, *w = row.importance;
  const std::int64_t whole = row.cols - row.cols % chunk;
  integers most(0u), heaviest(0u);
  const auto chunks = [&](auto weighted) QUANTAL_LAMBDA {
    for (std::int64_t i = 0; i < whole; i += chunk) {
      batch v[std::size_t{chunk / width}];
      simd::unroll<chunk / width>([&](int r) QUANTAL_LAMBDA {
        const std::int64_t at = i + r * width;
        v[r] = batch::load_unaligned(x + at);
        most = xsimd::max(most, xsimd::bitwise_cast<std::uint32_t>(v[r]) & 0x7fffffffu);
        if constexpr (weighted)
          heaviest = xsimd::max(
              heaviest, xsimd::bitwise_cast<std::uint32_t>(batch::load_unaligned(w + at) + batch(0.0f)));
      });
      detail::convert<F, arch, chunk / width>(v, out + i * size);
    }
  };
  if (w)
    chunks(std::true_type{});
  else
    chunks(std::false_type{});
  row_view rest{x + whole, w ? w + whole : nullptr, row.cols - whole};
  if (xsimd::reduce_max(most) >= infinity || check_weights(rest) != status::ok) return status::not_finite;
  for (std::int64_t i = whole; i < row.cols; ++i)
    reinterpret_cast<typename F::block*>(out)[i] = F::from_float(x[i]);
  return xsimd::reduce_max(heaviest) >= infinity ? status::bad_importance : check_importance(rest);
}

}  // namespace quantal::quantize
