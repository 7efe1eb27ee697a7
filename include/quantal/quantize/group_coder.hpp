// How the weights of one group become codes under a given scale, for many scales at once.
//
// group_coder<F>::sums gives, for each candidate k, sum w x q and sum w q q of the codes q that are best at
// the scale 1 / inverse[k]. Two questions are answered by these sums: the free scale that suits the codes
// best, xq / qq, which removes xq * xq / qq of the error; and the error of a given scale d, which is sum w x
// x - 2 d xq + d d qq.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "quantal/quantize/codebook.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::quantize {

/// Weights of a group with their importances w and the products w * x, which every candidate needs.
struct group_view {
  const float* x;
  const float* w;
  const float* wx;
};

template <class F>
concept single_codes = uniform_codes<F> || table_codes<F> ||
    (two_table_codes<F>&& requires(typename F::block& b) { F::set_index(b, 0, 0); });
template <class F>
concept pair_codes = F::vector == 2 && requires(typename F::block& b) {
  F::set_grid(b, 0, 0);
};
template <class F>
concept word_codes = requires(typename F::block& b) {
  F::set_word(b, 0, 0);
};

template <class F>
struct group_coder;

namespace detail {

/// table[index], index 0..7, per lane. Fallback.
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> lookup8_on(const float* table, xsimd::batch<std::int32_t, A> index,
                                                 const simd::base&) noexcept {
  constexpr int n = static_cast<int>(xsimd::batch<float, A>::size);
  alignas(64) std::int32_t at[std::size_t{n}];
  alignas(64) float out[std::size_t{n}];
  index.store_aligned(at);
  for (int i = 0; i < n; ++i) out[i] = table[at[i]];
  return xsimd::batch<float, A>::load_aligned(out);
}
#if XSIMD_WITH_AVX2
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> lookup8_on(const float* table, xsimd::batch<std::int32_t, A> index,
                                                 const xsimd::avx2&) noexcept {
  return _mm256_permutevar8x32_ps(_mm256_load_ps(table), index);
}
#endif
#if XSIMD_WITH_AVX512F
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> lookup8_on(const float* table, xsimd::batch<std::int32_t, A> index,
                                                 const xsimd::avx512f&) noexcept {
  return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_load_ps(table)));
}
#endif

template <class A>
QUANTAL_INLINE xsimd::batch<float, A> lookup8(const float* table,
                                              xsimd::batch<std::int32_t, A> index) noexcept {
  return lookup8_on<A>(table, index, simd::on<A>{});
}

}  // namespace detail

/// Each weight has a code of its own.
template <single_codes F>
struct group_coder<F> {
  using codes = codebook<F>;
  static constexpr int size = F::layout.group, tables = codes::tables, levels = codes::size;
  static constexpr float lowest = codes::level(0), highest = codes::level(codes::size - 1);
  static constexpr float shift = codes::shift;

  template <int K>
  static void sums(const group_view& g, const float* inverse, const float* shifts, float* xq,
                   float* qq) noexcept {
    using batch = lanes<F>;
    for (int k = 0; k < K; k += static_cast<int>(batch::size)) {
      const batch t = batch::load_unaligned(inverse + k);
      batch a(0.0f), b(0.0f), s(0.0f);
      if constexpr (tables > 1) s = batch::load_unaligned(shifts + k);
      for (int i = 0; i < size; ++i) {
        batch v = t * batch(g.x[i]);
        if constexpr (tables > 1) v -= s;
        batch q = codes::nearest_level(v);
        if constexpr (tables > 1) q += s;
        a += batch(g.wx[i]) * q;
        b += batch(g.w[i]) * q * q;
      }
      a.store_unaligned(xq + k);
      b.store_unaligned(qq + k);
    }
  }

  /// sum w (x - d q)^2 itself for scales d[k], without the cancellation of the sums. One table.
  template <int K>
  static void errors(const group_view& g, const float* d, const float* inverse, float* error) noexcept {
    static_assert(tables == 1);
    using batch = lanes<F>;
    for (int k = 0; k < K; k += static_cast<int>(batch::size)) {
      const batch scale = batch::load_unaligned(d + k), t = batch::load_unaligned(inverse + k);
      batch sum(0.0f);
      for (int i = 0; i < size; ++i) {
        const batch x(g.x[i]), e = x - scale * codes::nearest_level(t * x);
        sum += batch(g.w[i]) * e * e;
      }
      sum.store_unaligned(error + k);
    }
  }

  /// The nearest codes.
  template <class T>
  static QUANTAL_INLINE void nearest_codes(const group_view& g, float inverse,
                                           T* out) noexcept requires uniform_codes<F> {
    using batch = lanes<F>;
    const batch magic(12582912.0f), t(inverse);
    alignas(64) std::int32_t code[std::size_t{size}];
    for (int i = 0; i < size; i += static_cast<int>(batch::size)) {
      const batch v = t * batch::load_unaligned(g.x + i);
      const batch in = xsimd::max(xsimd::min(v, batch(highest)), batch(lowest)) + magic;
      // The integer is in the low bits.
      (xsimd::bitwise_cast<std::int32_t>(in) - 0x4b400000).store_aligned(code + i);
    }
    for (int i = 0; i < size; ++i) out[i] = static_cast<T>(code[i]);
  }

  static void store(typename F::block& out, int group, const group_view& g, float inverse,
                    int table) noexcept {
    if constexpr (uniform_codes<F>) {
      std::int32_t code[std::size_t{size}];
      nearest_codes(g, inverse, code);
      for (int i = 0; i < size; ++i) F::set_code(out, group * size + i, code[i]);
    } else {
      const float s = table ? shift : 0.0f;
      for (int i = 0; i < size; ++i)
        codes::store(out, group * size + i,
                     codes::nearest(tables > 1 ? mul(inverse, g.x[i]) - s : inverse * g.x[i]));
    }
  }
};

/// Pairs of neighbouring weights become the nearest vector of a codebook (iq2_kl).
template <pair_codes F>
struct group_coder<F> {
  static constexpr int size = F::layout.group, tables = 1, levels = 8;
  static constexpr float shift = 0;

  template <int K>
  static void sums(const group_view& g, const float* inverse, const float*, float* xq, float* qq) noexcept {
    using batch = lanes<F>;
    for (int k = 0; k < K; k += static_cast<int>(batch::size)) {
      const batch t = batch::load_unaligned(inverse + k);
      batch a(0.0f), b(0.0f);
      for (int i = 0; i < size; i += 2) {
        const batch w0(g.w[i]), w1(g.w[i + 1]);
        const auto q = nearest(t * batch(g.x[i]), t * batch(g.x[i + 1]), w0, w1);
        a += batch(g.wx[i]) * q.first + batch(g.wx[i + 1]) * q.second;
        b += w0 * q.first * q.first + w1 * q.second * q.second;
      }
      a.store_unaligned(xq + k);
      b.store_unaligned(qq + k);
    }
  }

  static void store(typename F::block& out, int group, const group_view& g, float inverse, int) noexcept {
    using batch = lanes<F>;
    alignas(64) float error[F::grid_size];
    for (int i = 0; i < size; i += 2) {
      const batch v0(inverse * g.x[i]), v1(inverse * g.x[i + 1]), w0(g.w[i]), w1(g.w[i + 1]);
      for (int c = 0; c < F::grid_size; c += static_cast<int>(batch::size)) {
        const batch a = v0 - batch::load_aligned(columns.first + c),
                    b = v1 - batch::load_aligned(columns.second + c);
        (w0 * a * a + w1 * b * b).store_aligned(error + c);
      }
      F::set_grid(out, (group * size + i) / 2, smallest<F, F::grid_size>(error));
    }
  }

  static constexpr float end(bool high) noexcept {
    int v = 0;
    for (int c = 0; c < F::grid_size; ++c)
      v = high ? std::max(v, F::grid_value(c, 0)) : std::min(v, F::grid_value(c, 0));
    return static_cast<float>(v);
  }
  static constexpr float lowest = end(false), highest = end(true);

 private:
  struct column_pair {
    alignas(64) float first[F::grid_size], second[F::grid_size];
  };
  static constexpr column_pair columns = [] {
    column_pair p{};
    for (int c = 0; c < F::grid_size; ++c)
      p.first[c] = static_cast<float>(F::grid_value(c, 0)),
      p.second[c] = static_cast<float>(F::grid_value(c, 1));
    return p;
  }();

  /// The values that a weight of a pair can take: eight at most.
  struct value_list {
    int value[8] = {}, count = 0;
    constexpr int find(int v) const noexcept {
      int i = 0;
      while (i < count && value[i] != v) ++i;
      return i;
    }
  };
  static constexpr value_list values = [] {
    value_list list{};
    for (int c = 0; c < F::grid_size; ++c)
      for (int k = 0; k < 2; ++k)
        if (const int v = F::grid_value(c, k); list.find(v) == list.count) list.value[list.count++] = v;
    return list;
  }();
  alignas(32) static constexpr std::array<float, 8> level_of = [] {
    std::array<float, 8> t{};
    for (std::size_t i = 0; i < 8; ++i) t[i] = static_cast<float>(values.value[i]);
    return t;
  }();
  static constexpr bool paired(int first, int second) noexcept {
    for (int c = 0; c < F::grid_size; ++c)
      if (F::grid_value(c, 0) == values.value[first] && F::grid_value(c, 1) == values.value[second])
        return true;
    return false;
  }

  /// Errors of the two weights are tabulated. The lowest bits of an error number the values that it is of, so
  /// that minima carry them along: to every first value the best of its second ones, then the best of all.
  template <class B>
  static QUANTAL_INLINE std::pair<B, B> nearest(B v0, B v1, B w0, B w1) noexcept {
    using integers = xsimd::batch<std::int32_t, typename B::arch_type>;
    constexpr std::int32_t most = 0x7fffffff;
    integers second[8], best(most);
    simd::unroll<values.count>([&](auto i) QUANTAL_LAMBDA {
      const B b = v1 - B(level_of[i]), e = w1 * b * b;
      second[i] = (xsimd::bitwise_cast<std::int32_t>(e) & integers(~7)) | integers(int{i});
    });
    simd::unroll<values.count>([&](auto i) QUANTAL_LAMBDA {
      integers least(most);
      simd::unroll<values.count>([&](auto j) QUANTAL_LAMBDA {
        if constexpr (paired(i, j)) least = xsimd::min(least, second[j]);
      });
      const B a = v0 - B(level_of[i]), e = w0 * a * a + xsimd::bitwise_cast<float>(least);
      const integers number = (least & integers(7)) | integers(8 * i);
      best = xsimd::min(best, (xsimd::bitwise_cast<std::int32_t>(e) & integers(~63)) | number);
    });
    using arch = typename B::arch_type;
    return {detail::lookup8<arch>(level_of.data(), (best >> 3) & integers(7)),
            detail::lookup8<arch>(level_of.data(), best & integers(7))};
  }
};

/// Words of four weights whose indices have an even number of set bits between them (iq4_kss). Each weight
/// knows its nearest level of either parity; where the nearest four are odd together, the cheapest of them
/// changes.
template <word_codes F>
struct group_coder<F> {
  static constexpr int size = F::layout.group, tables = 2, levels = F::levels;
  static constexpr float lowest = F::level(0, 0), highest = F::level(F::levels - 1, 0);
  static constexpr float shift = F::level(0, 1) - F::level(0, 0);

  /// Place in the group of weight j of word m.
  static constexpr int place(int m, int j) noexcept { return 2 * m + 16 * (j % 2) + j / 2; }
  /// The index of this parity whose level is nearest to v, a value of the first table.
  static int nearest(float v, int parity) noexcept {
    return parity ? odd_levels::original(odd_levels::nearest(v))
                  : even_levels::original(even_levels::nearest(v));
  }

  template <int K>
  static void sums(const group_view& g, const float* inverse, const float* shifts, float* xq,
                   float* qq) noexcept {
    using batch = lanes<F>;
    for (int k = 0; k < K; k += static_cast<int>(batch::size)) {
      const batch t = batch::load_unaligned(inverse + k), s = batch::load_unaligned(shifts + k);
      batch a(0.0f), b(0.0f);
      for (int m = 0; m < size / 4; ++m) {
        batch sign(1.0f), cheapest(std::numeric_limits<float>::max()), da(0.0f), db(0.0f);
        for (int j = 0; j < 4; ++j) {
          const int i = place(m, j);
          const batch v = t * batch(g.x[i]) - s, w(g.w[i]), wx(g.wx[i]);
          const batch even = even_levels::nearest_level(v), odd = odd_levels::nearest_level(v);
          const batch e = v - even, o = v - odd, cost = w * (o * o - e * e);
          const auto is_odd = cost < batch(0.0f);
          const batch q = xsimd::select(is_odd, odd, even) + s, other = xsimd::select(is_odd, even, odd) + s;
          sign = xsimd::select(is_odd, -sign, sign);
          const batch flip = xsimd::abs(cost);
          const auto cheaper = flip < cheapest;
          cheapest = xsimd::select(cheaper, flip, cheapest);
          da = xsimd::select(cheaper, wx * (other - q), da);
          db = xsimd::select(cheaper, w * (other * other - q * q), db);
          a += wx * q;
          b += w * q * q;
        }
        const auto wrong = sign < batch(0.0f);
        a += xsimd::select(wrong, da, batch(0.0f));
        b += xsimd::select(wrong, db, batch(0.0f));
      }
      a.store_unaligned(xq + k);
      b.store_unaligned(qq + k);
    }
  }

  static void store(typename F::block& out, int group, const group_view& g, float inverse,
                    int table) noexcept {
    for (int m = 0; m < size / 4; ++m) {
      int index[4], other[4], parity = 0, cheapest = 0;
      float least = std::numeric_limits<float>::max();
      for (int j = 0; j < 4; ++j) {
        const int i = place(m, j);
        const float v = mul(inverse, g.x[i]) - (table ? shift : 0.0f);
        const int even = nearest(v, 0), odd = nearest(v, 1);
        const float e = v - static_cast<float>(F::level(even, 0)),
                    o = v - static_cast<float>(F::level(odd, 0));
        const float cost = mul(g.w[i], mul(o, o) - mul(e, e));
        index[j] = cost < 0 ? odd : even, other[j] = cost < 0 ? even : odd;
        parity ^= cost < 0;
        if (std::fabs(cost) < least) least = std::fabs(cost), cheapest = j;
      }
      if (parity) index[cheapest] = other[cheapest];
      F::set_word(out, group * (size / 4) + m, index[0] | index[1] << 4 | index[2] << 8 | index[3] << 12);
    }
  }

 private:
  /// The levels whose indices have this parity.
  template <int parity>
  struct class_levels {
    static constexpr int size = F::levels / 2;
    static constexpr int original(int index) noexcept {
      return 2 * index + ((__builtin_popcount(static_cast<unsigned>(2 * index)) & 1) != parity);
    }
    static constexpr int level(int index) noexcept { return F::level(original(index), 0); }
  };
  template <int parity>
  struct class_search : class_levels<parity>, detail::table_search<class_levels<parity>> {};
  using even_levels = class_search<0>;
  using odd_levels = class_search<1>;
};

}  // namespace quantal::quantize
