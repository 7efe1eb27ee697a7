// y += e * u for a few rows e and a wide u: what output-aware quantization spends its time on. In float for
// rows of weights, in double for the factorization of the metric.
//
// Every element of y adds its terms in the order of k by fused multiply-adds, so the bits are the same on
// every arch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "quantal/quantize/lanes.hpp"
#include "quantal/quantize/output_coder.hpp"
#include "quantal/simd/arch.hpp"

namespace quantal::quantize {

namespace detail {

/// Archs whose fused multiply-add xsimd uses. On others its fma rounds twice.
template <class A>
concept fused_multiply_add = std::is_base_of_v<xsimd::fma3<xsimd::avx2>, A> ||
    std::is_base_of_v<xsimd::avx512f, A> || std::is_base_of_v<xsimd::neon64, A>;

/// A register of T and its fused multiply-add.
template <class A, class T>
struct product_lanes {
  struct type {
    static constexpr std::size_t size = 16 / sizeof(T);
    T v[size];
    type() = default;
    QUANTAL_INLINE explicit type(T x) noexcept {
      for (T& lane : v) lane = x;
    }
    static QUANTAL_INLINE type load_unaligned(const T* p) noexcept {
      type t;
      for (std::size_t i = 0; i < size; ++i) t.v[i] = p[i];
      return t;
    }
    QUANTAL_INLINE void store_unaligned(T* p) const noexcept {
      for (std::size_t i = 0; i < size; ++i) p[i] = v[i];
    }
  };
  static QUANTAL_INLINE type multiply_add(type a, type b, type c) noexcept {
    for (std::size_t i = 0; i < type::size; ++i) c.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
    return c;
  }
};

template <fused_multiply_add A, class T>
struct product_lanes<A, T> {
  using type = xsimd::batch<T, A>;
  static QUANTAL_INLINE type multiply_add(type a, type b, type c) noexcept { return xsimd::fma(a, b, c); }
};

/// R rows by V registers of y, over all of k.
template <class A, int R, int V, class T>
QUANTAL_INLINE void product_tile(const T* e, std::int64_t e_stride, const T* u, std::int64_t u_stride, T* y,
                                 std::int64_t y_stride, std::int64_t k) noexcept {
  using lanes = product_lanes<A, T>;
  using batch = typename lanes::type;
  constexpr int size = static_cast<int>(batch::size);
  batch sum[std::size_t{R}][std::size_t{V}];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = batch::load_unaligned(y + r * y_stride + v * size);
  for (std::int64_t i = 0; i < k; ++i, u += u_stride) {
    batch b[std::size_t{V}];
    for (int v = 0; v < V; ++v) b[v] = batch::load_unaligned(u + v * size);
    for (int r = 0; r < R; ++r) {
      const batch a(e[r * e_stride + i]);
      for (int v = 0; v < V; ++v) sum[r][v] = lanes::multiply_add(a, b[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v].store_unaligned(y + r * y_stride + v * size);
}

template <class A, int R, class T>
QUANTAL_INLINE void product_rows(const T* e, std::int64_t e_stride, const T* u, std::int64_t u_stride, T* y,
                                 std::int64_t y_stride, std::int64_t k, std::int64_t cols) noexcept {
  constexpr int size = static_cast<int>(product_lanes<A, T>::type::size),
                wide = size * sizeof(T) >= 32 ? 2 : 4;
  std::int64_t c = 0;
  for (; c + wide * size <= cols; c += wide * size)
    product_tile<A, R, wide>(e, e_stride, u + c, u_stride, y + c, y_stride, k);
  for (; c < cols; c += size) product_tile<A, R, 1>(e, e_stride, u + c, u_stride, y + c, y_stride, k);
}

}  // namespace detail

/// `u` goes through the nearest cache in pieces that all rows meet.
template <class A, class T>
void add_row_product(const T* e, std::int64_t e_stride, const T* u, std::int64_t u_stride, T* y,
                     std::int64_t y_stride, int rows, std::int64_t k, std::int64_t cols) noexcept {
  constexpr std::int64_t wide = 64, step = 8192 / sizeof(T) / wide;
  for (std::int64_t c = 0; c < cols; c += wide) {
    const std::int64_t width = std::min(wide, cols - c);
    for (std::int64_t i = 0; i < k; i += step) {
      const std::int64_t n = std::min(step, k - i);
      const T* piece = u + i * u_stride + c;
      int r = 0;
      for (; r + 6 <= rows; r += 6)
        detail::product_rows<A, 6>(e + r * e_stride + i, e_stride, piece, u_stride, y + r * y_stride + c,
                                   y_stride, n, width);
      for (; r < rows; ++r)
        detail::product_rows<A, 1>(e + r * e_stride + i, e_stride, piece, u_stride, y + r * y_stride + c,
                                   y_stride, n, width);
    }
  }
}

}  // namespace quantal::quantize
