// 64 bytes from anywhere in a slice of weights, in any order: the fewest permutations that bring them
// together, chosen when the program is compiled.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/registers.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel::avx512_vnni {

/// Where 64 bytes lie in a slice.
struct byte_positions {
  std::int16_t at[64]{};
  constexpr bool operator==(const byte_positions&) const = default;
};
template <class Fn>
constexpr byte_positions positions_of(Fn at) {
  byte_positions p;
  for (int k = 0; k < 64; ++k) p.at[k] = static_cast<std::int16_t>(at(k));
  return p;
}

/// One register of 64 bytes, or two that follow each other or overlap, which a permutation takes its bytes
/// from.
struct source {
  int count = 0;  ///< none: the bytes lie too far apart
  int at[2] = {};

  constexpr int index(int byte) const noexcept {
    return byte < at[0] + 64 ? byte - at[0] : byte - at[1] + 64;
  }
};
/// Bytes [first, last] of a slice of `size`. Loads end where the slice does. Where words are permuted, they
/// begin at `step` 4 from `first`.
constexpr source source_of(int first, int last, int step, int size) noexcept {
  const auto start = [&](int from) {
    const int latest = size < 64 ? 0 : size - 64;
    return from <= latest ? from : from - (from - latest + step - 1) / step * step;
  };
  source s{1, {start(first), 0}};
  if (s.at[0] < 0) return {};
  if (last < s.at[0] + 64) return s;
  s.count = 2;
  s.at[1] = start(s.at[0] + 64);
  return last < s.at[1] + 64 ? s : source{};
}

/// Where loads begin best: where those of other registers do.
struct load_starts {
  int words[4] = {-1, -1, -1,
                  -1};  ///< by position modulo 4, the lowest word that a plane's registers take; or none
};
/// The source of fewest registers. Bytes are taken from the slice's beginning, so that all permutations share
/// loads.
constexpr source best_source(int first, int last, int step, int size, const load_starts& starts) noexcept {
  const int shared = step == 1 ? 0 : starts.words[first % 4];
  const source own = source_of(first, last, step, size);
  const source s = shared < 0 ? own : source_of(shared, last, step, size);
  return s.count > 0 && s.count <= own.count ? s : own;
}

/// How 64 bytes come together: the first source's, and where the mask is set the second's.
struct byte_pick {
  enum class how { load, load_half_twice, permute };
  how by = how::permute;
  bool words = false;  ///< index and mask count words
  source from[2];
  alignas(64) std::array<std::uint8_t, 64> index{};
  std::uint64_t mask = 0;
  int cost = 100;  ///< uops of the shuffle port; permutations of bytes from two registers take two
};

constexpr bool in_words(const byte_positions& p) noexcept {
  for (int k = 0; k < 64; ++k)
    if (p.at[k] != p.at[k / 4 * 4] + k % 4) return false;
  return true;
}
/// Byte k is of the second source where second(position) says so.
template <class Second>
constexpr void try_permutation(byte_pick& best, const byte_positions& p, int size, const load_starts& starts,
                               bool words, Second second) noexcept {
  if (best.cost == 1) return;
  byte_pick t;
  t.words = words;
  t.cost = 0;
  const int step = words ? 4 : 1;
  for (int part = 0; part < 2; ++part) {
    int first = size, last = -1;
    for (int k = 0; k < 64; k += step) {
      if (second(p.at[k]) != (part == 1)) continue;
      if (p.at[k] < first) first = p.at[k];
      if (p.at[k] + step - 1 > last) last = p.at[k] + step - 1;
    }
    if (last < 0) continue;
    t.from[part] = best_source(first, last, step, size, starts);
    if (t.from[part].count == 0) return;
    t.cost += words ? 1 : t.from[part].count;
    for (int k = 0; k < 64; k += step) {
      if (second(p.at[k]) != (part == 1)) continue;
      const int index = t.from[part].index(p.at[k]);
      if (index % step != 0) return;
      t.index[static_cast<std::size_t>(k)] = static_cast<std::uint8_t>(index / step);
      if (part == 1) t.mask |= std::uint64_t{1} << k / step;
    }
  }
  if (t.cost < best.cost) best = t;
}

constexpr byte_pick pick_of(const byte_positions& p, int size, const load_starts& starts = {}) noexcept {
  byte_pick best;
  const int first = p.at[0];
  int low = first;
  bool in_order = first + 64 <= size, half_twice = first + 32 <= size;
  for (int k = 0; k < 64; ++k) {
    in_order = in_order && p.at[k] == first + k;
    half_twice = half_twice && p.at[k] == first + k % 32;
    if (p.at[k] < low) low = p.at[k];
  }
  if (in_order || half_twice) {
    best.by = in_order ? byte_pick::how::load : byte_pick::how::load_half_twice;
    best.from[0] = {1, {first, 0}};
    best.cost = 0;
    return best;
  }
  const auto none = [](int) { return false; };
  if (in_words(p)) {
    const int start = starts.words[low % 4] < 0 ? low : starts.words[low % 4];
    try_permutation(best, p, size, starts, true, none);
    try_permutation(best, p, size, starts, true, [&](int at) { return at >= start + 128; });
    // Blocks of an odd number of half-words: every second one is at another place in its words.
    try_permutation(best, p, size, starts, true, [&](int at) { return (at - first) % 4 != 0; });
  }
  try_permutation(best, p, size, starts, false, none);
  try_permutation(best, p, size, starts, false, [](int at) { return at >= 128; });
  try_permutation(best, p, size, starts, false, [&](int at) { return at >= low + 128; });
  return best;
}

/// The bytes of P::pick, of a slice of P::size bytes.
template <class P>
QUANTAL_INLINE __m512i picked(const std::uint8_t* slice) noexcept {
  constexpr const byte_pick& pick = P::pick;
  static_assert(pick.cost < 100, "the slice is too long");
  const auto from = [&](int at) QUANTAL_LAMBDA {
    if constexpr (P::size < 64) return _mm512_maskz_loadu_epi8((std::uint64_t{1} << P::size % 64) - 1, slice);
    return _mm512_loadu_si512(slice + at);
  };
  if constexpr (pick.by == byte_pick::how::load) {
    return from(pick.from[0].at[0]);
  } else if constexpr (pick.by == byte_pick::how::load_half_twice) {
    return _mm512_broadcast_i64x4(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(slice + pick.from[0].at[0])));
  } else {
    constexpr const source &a = pick.from[0], &b = pick.from[1];
    const __m512i index = load(pick.index);
    if constexpr (pick.words) {
      constexpr auto mask = static_cast<__mmask16>(pick.mask);
      if constexpr (b.count == 2) {
        // The indices of the second source pass through the first permutation.
        const __m512i x = _mm512_mask2_permutex2var_epi32(from(a.at[0]), index, static_cast<__mmask16>(~mask),
                                                          from(a.at[a.count - 1]));
        return _mm512_mask2_permutex2var_epi32(from(b.at[0]), x, mask, from(b.at[1]));
      } else {
        const __m512i x = a.count == 2 ? _mm512_permutex2var_epi32(from(a.at[0]), index, from(a.at[1]))
                                       : _mm512_permutexvar_epi32(index, from(a.at[0]));
        if constexpr (b.count == 0) return x;
        return _mm512_mask_permutexvar_epi32(x, mask, index, from(b.at[0]));
      }
    } else {
      if constexpr (b.count == 2) {
        const __m512i x =
            _mm512_mask2_permutex2var_epi8(from(a.at[0]), index, ~pick.mask, from(a.at[a.count - 1]));
        return _mm512_mask2_permutex2var_epi8(from(b.at[0]), x, pick.mask, from(b.at[1]));
      } else {
        const __m512i x = a.count == 2 ? _mm512_permutex2var_epi8(from(a.at[0]), index, from(a.at[1]))
                                       : _mm512_permutexvar_epi8(index, from(a.at[0]));
        if constexpr (b.count == 0) return x;
        return _mm512_mask_permutexvar_epi8(x, pick.mask, index, from(b.at[0]));
      }
    }
  }
}

}  // namespace quantal::kernel::avx512_vnni

#endif
