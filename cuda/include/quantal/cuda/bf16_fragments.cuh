// Weights as bf16: those of a lane, scaled, in the register order of tensor-core fragments.
#pragma once

#include "quantal/cuda/fragment_codes.hpp"
#include "quantal/cuda/ptx.cuh"
#include "quantal/cuda/unrolled.hpp"

namespace quantal::cuda {

/// Eight bf16 weights; word j holds those of codes 2 * j and 2 * j + 1.
struct bf16_fragment {
  std::uint32_t pairs[4];
};

/// Formats whose reader offers their levels as bf16, exactly.
template <class F>
concept has_bf16_levels = requires(const group_bytes<16>& bytes, std::uint32_t (&pairs)[4]) {
  fragment_reader<F>::template levels<0>(bytes, 0, pairs);
};

/// Formats whose codes become bf16 without going through float32.
template <any_format F>
constexpr bool widens_narrowly() noexcept {
  if constexpr (block_format<F>)
    return fragment_reader<F>::narrow || has_bf16_levels<F>;
  else
    return true;
}

/// The scales of one row's group of 256 weights, shared by the four lanes of the row: lane t works out scales
/// t, t + 4, ... once and hands them out.
///
/// Codes of up to 7 bits are widened in bf16 pairs: 0x4300 | u is 128 + u, exactly, and one fma turns it into
/// the centred code; a second one applies scale and offset, rounded to bf16. Wider codes go through float32:
/// 0x47000000 | u << 8 is 32768 + u. Where the reader looks levels up as bf16, only the scale is left to
/// apply.
template <block_format F>
class bf16_scales {
  static constexpr bool narrow = widens_narrowly<F>();
  static constexpr int count = group_weights / F::layout.group;
  static constexpr int own = (count + 3) / 4;
  /// What is subtracted from codes first, so that scale * code and offset are both small.
  QUANTAL_HD static constexpr int centre() {
    if constexpr (F::layout.has_offset) return (F::min_code + F::max_code + 1) / 2;
    return 0;
  }

 public:
  template <class Bytes>
  __device__ bf16_scales(const Bytes& bytes, float row_scale, int t) noexcept {
    unrolled<own>([&]<int I>() {
      const affine a = scale_reader<F>::template get<I>(bytes, row_scale, count >= 4 ? t : t % count);
      if constexpr (narrow) {
        scale_[I] = ptx::pack_bf16(a.scale, a.scale);
        if constexpr (F::layout.has_offset) {
          const float o = a.offset + centre() * a.scale;
          offset_[I] = ptx::pack_bf16(o, o);
        }
      } else {
        scale_[I] = __float_as_uint(a.scale);
        if constexpr (F::layout.has_offset) offset_[I] = __float_as_uint(a.offset + wide_offset(a.scale));
      }
    });
  }

  /// Weights of chunk C from their levels; all lanes of the warp take part.
  template <int C>
  __device__ bf16_fragment apply(const std::uint32_t (&levels)[4], int lane) const noexcept {
    static_assert(!split_fragments<F> && !F::layout.has_offset);
    const pair s =
        F::layout.group < 32 ? at<2 * C>(lane, (lane & 3) >> 1) : at<32 * C / F::layout.group>(lane, 0);
    bf16_fragment out;
#pragma unroll
    for (int j = 0; j < 4; ++j) out.pairs[j] = ptx::fma_bf16(levels[j], s.scale, 0x80008000u);
    return out;
  }
  /// The same from their codes.
  template <int C>
  __device__ bf16_fragment apply(const fragment_codes& o, int lane) const noexcept {
    bf16_fragment out;
    if constexpr (split_fragments<F>) {
      convert(o.low, out.pairs, at<2 * C>(lane, 0));
      convert(o.high, out.pairs + 2, at<2 * C + 1>(lane, 0));
    } else {
      const pair s =
          F::layout.group < 32 ? at<2 * C>(lane, (lane & 3) >> 1) : at<32 * C / F::layout.group>(lane, 0);
      convert(o.low, out.pairs, s);
      convert(o.high, out.pairs + 2, s);
    }
    return out;
  }

 private:
  struct pair {
    std::uint32_t scale, offset;
  };

  /// Scale G + plus of the group, plus being 0 or 1 and G even where it may be 1.
  template <int G>
  __device__ pair at(int lane, int plus) const noexcept {
    const int from = (lane & ~3) + G % 4 + plus;
    const auto of = [&](std::uint32_t v) { return count == 1 ? v : __shfl_sync(0xffffffffu, v, from); };
    pair p{of(scale_[G / 4]), 0};
    if constexpr (F::layout.has_offset)
      p.offset = of(offset_[G / 4]);
    else if constexpr (!narrow)
      p.offset = __float_as_uint(wide_offset(__uint_as_float(p.scale)));
    return p;
  }
  /// What takes the 32768 and the bias of a wide code off again.
  __device__ static float wide_offset(float scale) noexcept {
    return -(32768 + fragment_reader<F>::bias) * scale;
  }

  __device__ static void convert(std::uint32_t codes, std::uint32_t* pairs, const pair& s) noexcept {
    if constexpr (narrow) {
      constexpr std::uint32_t one = 0x3f803f80u;
      // -(128 + bias + centre), an integer below 256 and so a bf16.
      constexpr std::uint32_t shift =
          __builtin_bit_cast(std::uint32_t, -static_cast<float>(128 + fragment_reader<F>::bias + centre())) >>
          16;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const std::uint32_t wide = __byte_perm(codes, 0x43434343u, j ? 0x4342 : 0x4140);
        const std::uint32_t code = ptx::fma_bf16(wide, one, shift << 16 | shift);
        pairs[j] = ptx::fma_bf16(code, s.scale, F::layout.has_offset ? s.offset : 0x80008000u);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 2; ++j) pairs[j] = ptx::pack_bf16(wide(codes, 2 * j, s), wide(codes, 2 * j + 1, s));
    }
  }
  __device__ static float wide(std::uint32_t codes, int i, const pair& s) noexcept {
    return fmaf(__uint_as_float(__byte_perm(codes, 0x47000000u, 0x7404 | i << 4)), __uint_as_float(s.scale),
                __uint_as_float(s.offset));
  }

  std::uint32_t scale_[own];
  std::uint32_t offset_[F::layout.has_offset ? own : 1];
};

/// One row's group of 256 weights, as bf16.
template <any_format F, class Bytes>
class row_group {
 public:
  static constexpr fragment_order order = fragment_reader<F>::order;

  __device__ row_group(const Bytes& bytes, float row_scale, int t) noexcept
      : bytes_(bytes), scales_(bytes, row_scale, t), t_(t) {}
  /// The fragment_codes of chunk C; all lanes of the warp take part.
  template <int C>
  __device__ bf16_fragment get(int lane) const noexcept {
    if constexpr (has_bf16_levels<F>) {
      std::uint32_t levels[4];
      fragment_reader<F>::template levels<C>(bytes_, t_, levels);
      return scales_.template apply<C>(levels, lane);
    } else {
      return scales_.template apply<C>(fragment_reader<F>::template codes<C>(bytes_, t_), lane);
    }
  }

 private:
  Bytes bytes_;
  bf16_scales<F> scales_;
  int t_;
};

template <float_format F, class Bytes>
class row_group<F, Bytes> {
 public:
  static constexpr fragment_order order = fragment_order::consecutive;

  __device__ row_group(const Bytes& bytes, float, int t) noexcept : bytes_(bytes), t_(t) {}
  template <int C>
  __device__ bf16_fragment get(int) const noexcept {
    static_assert(F::layout.bytes == 2, "16-bit formats only");
    const word_pair a = bytes_.template u64<64 * C>(16 * t_), b = bytes_.template u64<64 * C + 8>(16 * t_);
    return {{pair(a.low), pair(a.high), pair(b.low), pair(b.high)}};
  }

 private:
  __device__ static std::uint32_t pair(std::uint32_t w) noexcept {
    // w * 1 - 0: what comes straight from shared memory ptxas moves between registers while wgmma still reads
    // them.
    if constexpr (std::is_same_v<F, bf16>) return ptx::fma_bf16(w, 0x3f803f80u, 0x80008000u);
    return ptx::pack_bf16(quantal::detail::half_to_float(static_cast<std::uint16_t>(w)),
                          quantal::detail::half_to_float(static_cast<std::uint16_t>(w >> 16)));
  }
  Bytes bytes_;
  int t_;
};

/// The order in which fragments of a format want the activations.
template <any_format F>
inline constexpr fragment_order order_of = row_group<F, group_bytes<1>>::order;

}  // namespace quantal::cuda
