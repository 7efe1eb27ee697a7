// Lattices that weights lie on: code times scale, with few codes and a scale per group of neighbours in a row. Weights that
// were trained so (QAT), or were int4 or FP4 once, do, whatever they are stored as now.
//
// Per group every scale is tried at which its largest weight is a level; if all others are levels too, the group
// fits. What bf16 or f16 rounded when the weights were stored is allowed for, weight by weight: the half of its last
// place, and that of the largest weight. Of all sets of levels and sizes of groups, the first under which nearly all
// groups of some rows fit is the answer: sets of few levels come first, and of these large groups.
//
// Needs nothing but the standard library and the formats.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "quantal/config.hpp"
#include "quantal/formats.hpp"
#include "quantal/quantize/range.hpp"

namespace quantal {

/// What codes of a lattice are.
enum class level_set : std::uint8_t {
  none,
  integers,          ///< of `bits` bits: -8..7, or 8..-7, for 4
  shifted_integers,  ///< 2^bits neighbouring integers: there is a zero point
  offset_integers,   ///< 0..2^bits - 1 steps from an offset that need not be a multiple of the step
  e2m1,              ///< 0, 1, 2, 3, 4, 6, 8, 12 and their negatives, in halves: FP4
  iq4_nl             ///< the table of that format
};

struct lattice {
  level_set levels = level_set::none;
  int bits = 0;
  std::int64_t group = 0;  ///< neighbours that share a scale; the columns if a row has one scale

  explicit operator bool() const noexcept { return levels != level_set::none; }
  bool operator==(const lattice&) const = default;
};

/// "int4", "int4 with zero points", "FP4 (e2m1)", ...
inline std::string to_string(const lattice& l) {
  std::string integer = "int" + std::to_string(l.bits);
  switch (l.levels) {
    case level_set::integers:
      return integer;
    case level_set::shifted_integers:
      return integer + " with zero points";
    case level_set::offset_integers:
      return integer + " with offsets";
    case level_set::e2m1:
      return "FP4 (e2m1)";
    case level_set::iq4_nl:
      return "iq4_nl's table";
    default:
      return "none";
  }
}

/// Half of the last place of 1 in the narrowest float type that holds all these weights: bf16, f16 or f32.
inline float stored_rounding(std::span<const float> x) noexcept {
  std::uint32_t used = 0;
  for (const float v : x) used |= detail::bits_from_float(v);
  return (used & 0xffffu) == 0 ? 0x1p-8f : (used & 0x1fffu) == 0 ? 0x1p-11f : 0x1p-24f;
}

namespace detail {

/// Half of the last place of x in a type where that of 1 is `rounding`.
inline float half_place(float x, float rounding) noexcept {
  return float_from_bits(bits_from_float(x) & 0x7f800000u) * rounding;
}

/// Levels of tables: halves of a step are told apart, which midpoints need.
template <std::size_t count>
struct level_table {
  std::array<int, count> level;
  std::array<std::int8_t, 512> nearest_at{};

  constexpr explicit level_table(std::array<int, count> levels) : level(levels) {
    for (int i = 0; i < 512; ++i) {
      const int twice = i - 256;
      int best = level[0];
      for (const int l : level)
        if (distance(2 * l, twice) < distance(2 * best, twice)) best = l;
      nearest_at[static_cast<std::size_t>(i)] = static_cast<std::int8_t>(best);
    }
  }
  float nearest(float v) const noexcept {
    const float at = std::clamp(2 * v + 256.5f, 0.0f, 511.0f);
    return static_cast<float>(nearest_at[static_cast<std::size_t>(at)]);
  }

 private:
  static constexpr int distance(int a, int b) { return a < b ? b - a : a - b; }
};
inline constexpr level_table<15> e2m1_levels({-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12});
inline constexpr level_table<16> iq4_nl_levels([] {
  std::array<int, 16> a{};
  for (int i = 0; i < 16; ++i) a[static_cast<std::size_t>(i)] = iq4_nl::level(i);
  return a;
}());

}  // namespace detail

/// How one group lies on a lattice.
struct lattice_group {
  float scale = 0;  ///< 0: it does not, or all its weights are zero
  float offset = 0;
  int low = 0, high = 0;  ///< codes that occur
  bool fits = false;
  bool telling = false;       ///< it would hardly do so by chance
  bool power_of_two = false;  ///< a power of two may be the scale
  bool half = false;          ///< a binary16 may be: then code times scale gives back every weight as stored
};

/// Fits groups of one set of levels. `rounding` as of stored_rounding().
class lattice_fitter {
 public:
  lattice_fitter(level_set levels, int bits, float rounding) noexcept
      : levels_(levels), bits_(bits), rounding_(rounding) {}

  lattice_group fit(std::span<const float> x) const noexcept {
    float low = x[0], high = x[0];
    for (const float v : x) low = std::min(low, v), high = std::max(high, v);
    if (low == 0 && high == 0) return zeros();
    if (levels_ == level_set::offset_integers) return fit_offset(x, low, high);
    const float end = high >= -low ? high : low;
    if (levels_ == level_set::e2m1) {
      for (const float k : {1.0f, 2.0f, 3.0f, 4.0f, 6.0f, 8.0f, 12.0f})
        if (auto g = try_end(x, end, std::copysign(k, end), 7, e2m1_nearest); g.fits) return g;
    } else if (levels_ == level_set::iq4_nl) {
      for (const int l : detail::iq4_nl_levels.level)
        if (auto g = try_end(x, end, static_cast<float>(l), 16, iq4_nl_nearest); g.fits) return g;
    } else {
      const int most = levels_ == level_set::integers ? 1 << (bits_ - 1) : (1 << bits_) - 1;
      for (int k = 1; k <= most; ++k)
        if (auto g = try_end(x, end, std::copysign(static_cast<float>(k), end), k, integer_nearest);
            g.fits && g.high - g.low < 1 << bits_)
          return g;
    }
    return {};
  }

 private:
  /// Share of a step that a weight may be off beyond what rounding explains.
  static constexpr float tolerance = 1.0f / 64;

  /// |v| is not much more than 255.
  static float integer_nearest(float v) noexcept {
    return static_cast<float>(static_cast<int>(v + std::copysign(0.5f, v)));
  }
  static float e2m1_nearest(float v) noexcept { return detail::e2m1_levels.nearest(v); }
  static float iq4_nl_nearest(float v) noexcept { return detail::iq4_nl_levels.nearest(v); }

  static lattice_group zeros() noexcept {
    lattice_group g;
    g.fits = g.power_of_two = g.half = true;
    return g;
  }
  /// The distance of levels is not much less than this.
  float narrowest() const noexcept { return levels_ == level_set::iq4_nl ? 10.0f : 1.0f; }

  /// Of a weight that may be off by `off` steps: so many continuous weights are no further from a level, times what others are.
  static float chance(float others, float off) noexcept {
    constexpr float none = 1e-20f;  // no need to become smaller
    return others < none ? others : others * std::min(2 * off, 1.0f);
  }
  static bool is_telling(float chance, int tried) noexcept {
    return chance * static_cast<float>(tried) < 1.0f / 16;
  }

  /// With the level `k` for the largest weight, of `tried` that may be.
  template <class Nearest>
  lattice_group try_end(std::span<const float> x, float end, float k, int tried,
                        Nearest nearest) const noexcept {
    const float inverse = k / end, size = std::fabs(inverse);
    if (!std::isfinite(inverse)) return {};
    const float end_error = detail::half_place(end, rounding_) / std::fabs(end),
                limit = tolerance * narrowest();
    double xq = 0, qq = 0;
    float by_chance = 1;
    for (const float v : x) {
      const float t = v * inverse, q = nearest(t);
      const float off = size * (detail::half_place(v, rounding_) + std::fabs(v) * end_error);
      if (!(std::fabs(t - q) <= limit + off)) return {};
      by_chance = chance(by_chance, (limit + off) / narrowest());
      xq += static_cast<double>(v) * q, qq += static_cast<double>(q) * q;
    }
    if (!(qq > 0)) return {};
    auto g = describe(x, static_cast<float>(xq / qq), nearest);
    g.telling = is_telling(by_chance, tried);
    return g;
  }

  /// The codes under the scale that suits all weights, and the scales that give back every weight as stored.
  template <class Nearest>
  lattice_group describe(std::span<const float> x, float scale, Nearest nearest) const noexcept {
    lattice_group g;
    g.fits = true, g.scale = scale;
    g.low = std::numeric_limits<int>::max(), g.high = std::numeric_limits<int>::min();
    double least = 0, most = std::numeric_limits<double>::infinity();
    for (const float v : x) {
      const float q = nearest(v / scale);
      g.low = std::min(g.low, static_cast<int>(q)), g.high = std::max(g.high, static_cast<int>(q));
      if (q == 0) continue;
      const double at = static_cast<double>(v) / q * (scale < 0 ? -1 : 1);
      const double off =
          static_cast<double>(detail::half_place(v, rounding_)) / std::fabs(static_cast<double>(q));
      least = std::max(least, at - off), most = std::min(most, at + off);
    }
    if (least > most) return g;
    int exponent = 0;
    const double mantissa = std::frexp(least, &exponent);
    g.power_of_two = std::ldexp(mantissa == 0.5 ? 0.5 : 1.0, exponent) <= most;
    const double place = std::ldexp(1.0, std::max(exponent, -13) - 11);
    g.half = std::ceil(least / place) * place <= most && least < 65504;
    return g;
  }

  lattice_group fit_offset(std::span<const float> x, float low, float high) const noexcept {
    const float span = high - low;
    if (!(span > 0) || !std::isfinite(1 / span)) return {};
    const float ends = std::max(detail::half_place(low, rounding_), detail::half_place(high, rounding_));
    const int most = (1 << bits_) - 1;
    for (int k = 1; k <= most; ++k) {
      const float inverse = static_cast<float>(k) / span;
      bool fits = true;
      float by_chance = 1;
      for (std::size_t i = 0; i < x.size() && fits; ++i) {
        const float t = (x[i] - low) * inverse, off = inverse * (detail::half_place(x[i], rounding_) + ends);
        fits = std::fabs(t - integer_nearest(t)) <= tolerance + off;
        by_chance = chance(by_chance, tolerance + off);
      }
      if (!fits) continue;
      lattice_group g;
      g.fits = true, g.scale = span / static_cast<float>(k), g.offset = low, g.high = k;
      g.telling = is_telling(by_chance, k);
      return g;
    }
    return {};
  }

  level_set levels_;
  int bits_;
  float rounding_;
};

/// How rows lie on a lattice. Rows of a matrix may be added in parts; then the parts add up.
struct lattice_fit_count {
  std::int64_t groups = 0;  ///< that are not zero
  std::int64_t fitting = 0, power_of_two = 0, half = 0;
  int low = 0, high = 0;  ///< codes that occur

  void add(const lattice& l, float rounding, const float* row, std::int64_t cols) noexcept {
    if (!l) return;
    const lattice_fitter fitter(l.levels, l.bits, rounding);
    for (std::int64_t i = 0; i + l.group <= cols; i += l.group) {
      const auto g = fitter.fit({row + i, static_cast<std::size_t>(l.group)});
      if (g.fits && g.scale == 0) continue;
      ++groups;
      if (!g.fits) continue;
      ++fitting, power_of_two += g.power_of_two, half += g.half;
      low = std::min(low, g.low), high = std::max(high, g.high);
    }
  }
  lattice_fit_count& operator+=(const lattice_fit_count& o) noexcept {
    groups += o.groups, fitting += o.fitting, power_of_two += o.power_of_two, half += o.half;
    low = std::min(low, o.low), high = std::max(high, o.high);
    return *this;
  }
};

namespace detail {

/// True if all but one in 64 groups of the rows fit, and enough of them would not by chance: where bf16 rounds by whole steps, every
/// weight is a level. Stops as soon as that cannot be.
inline bool lies_on(const lattice& l, std::span<const float> rows, std::int64_t cols,
                    float rounding) noexcept {
  const lattice_fitter fitter(l.levels, l.bits, rounding);
  const auto size = static_cast<std::int64_t>(rows.size());
  const std::int64_t allowed = size / l.group / 64;
  std::int64_t misses = 0, found = 0, telling = 0;
  for (std::int64_t first = 0; first < size; first += cols)
    for (std::int64_t i = 0; i < cols; i += l.group) {
      const auto g =
          fitter.fit(rows.subspan(static_cast<std::size_t>(first + i), static_cast<std::size_t>(l.group)));
      if (!g.fits && ++misses > allowed) return false;
      found += g.fits && g.scale != 0, telling += g.telling;
    }
  return telling > misses && telling * 4 >= found;
}

/// Sets of levels, those of few levels first.
inline std::vector<lattice> known_lattices() {
  std::vector<lattice> out;
  for (int bits = 2; bits <= 8; ++bits) {
    out.push_back({level_set::integers, bits});
    if (bits == 4) out.push_back({level_set::e2m1, bits}), out.push_back({level_set::iq4_nl, bits});
    out.push_back({level_set::shifted_integers, bits});
    // Wider ones fit whatever bf16 rounded to multiples of its last place, and no type would hold them.
    if (bits <= 6) out.push_back({level_set::offset_integers, bits});
  }
  return out;
}

}  // namespace detail

/// The lattice of some rows of a matrix (row-major, finite, whole rows); none if there is none, or of less than 1024
/// weights, which may lie on one by chance. A few dozen rows tell.
inline lattice find_lattice(std::span<const float> rows, std::int64_t cols) {
  constexpr std::size_t least_weights = 1024;
  if (cols <= 0 || rows.size() < least_weights || rows.size() % static_cast<std::size_t>(cols) != 0)
    return {};
  const float rounding = stored_rounding(rows);
  for (lattice l : detail::known_lattices())
    for (const std::int64_t group :
         {cols, std::int64_t{256}, std::int64_t{128}, std::int64_t{64}, std::int64_t{32}, std::int64_t{16}}) {
      if (group > cols || cols % group != 0) continue;
      l.group = group;
      if (detail::lies_on(l, rows, cols, rounding)) return l;
    }
  return {};
}

/// The scale beside a tensor of FP4 elements under e4m3 scales (nvfp4) of which the scales of its groups are e4m3 multiples; 0 if
/// there is none. `largest`: |x| of some groups of 16 weights; `most`: of all weights.
inline float e4m3_unit(std::span<const float> largest, float most) {
  // The largest weight of a group is 1 or 3 times a power of two times an e4m3 number, whose significand is 8..15.
  static constexpr std::array<int, 13> odd{1, 3, 5, 7, 9, 11, 13, 15, 21, 27, 33, 39, 45};
  constexpr double tolerance = 0x1p-7;  // of two weights that were rounded to bf16
  constexpr std::int64_t least_groups = 32;
  /// ratio / (an odd number times a power of two), nearest to 1
  const auto share = [](double ratio) {
    double best = 0;
    for (const int m : odd) {
      int exponent = 0;
      double v = std::frexp(ratio / m, &exponent);  // [0.5, 1)
      if (v < 0.70710678) v *= 2;
      if (best == 0 || std::fabs(v - 1) < std::fabs(best - 1)) best = v;
    }
    return best;
  };
  std::vector<double> x;
  for (const float v : largest)
    if (v > 0 && std::isfinite(v)) x.push_back(static_cast<double>(v));
  const auto count = static_cast<std::int64_t>(x.size());
  if (count < least_groups) return 0;
  for (const int m : odd) {
    double unit = x[0] / m, logs = 0;
    std::int64_t misses = 0;
    for (std::size_t i = 0; i < x.size() && misses * 64 <= count; ++i) {
      const double off = share(x[i] / unit);
      if (std::fabs(off - 1) > tolerance)
        ++misses;
      else
        logs += std::log(off);
    }
    if (misses * 64 > count) continue;
    unit *= std::exp(logs / static_cast<double>(count - misses));
    // The largest weight is 6 times a scale up to 448 if it has a factor of 3, else 4 times one.
    int exponent = 0;
    const double significand = std::frexp(static_cast<double>(most) / unit, &exponent);
    const double whole = std::nearbyint(significand * 64);
    const bool three = std::fmod(whole, 3) == 0 && std::fabs(significand * 64 - whole) < 0.5 * tolerance * 64;
    // What bf16 rounded up may not go beyond the former.
    const double limit = three ? 6 * 448 * (1 - 0x1p-20) : 4 * 448 * (1 + tolerance);
    unit *= std::exp2(std::ceil(std::log2(static_cast<double>(most) / unit / limit)));
    return static_cast<float>(unit);
  }
  return 0;
}

/// The scale beside a tensor of that format (nvfp4): under it the scales of a lattice of FP4 are e4m3 numbers again; of other
/// weights the largest becomes the largest of the format. Arguments as of e4m3_unit().
inline float tensor_scale_of(std::uint32_t gguf_id, std::span<const float> group_largest, float most) {
  const float unit = gguf_id == nvfp4::gguf_id ? e4m3_unit(group_largest, most) : 0.0f;
  return unit > 0 ? unit : tensor_scale_for(gguf_id, most);
}

/// The largest |x| of at most 4096 groups of 16 weights, evenly spread: what e4m3_unit() wants to see.
inline std::vector<float> largest_of_groups(std::span<const float> weights) {
  constexpr std::size_t group = 16, most_groups = 4096;
  const std::size_t groups = weights.size() / group, wanted = std::min(groups, most_groups);
  std::vector<float> out(wanted);
  for (std::size_t i = 0; i < wanted; ++i)
    for (const float v : weights.subspan(i * groups / wanted * group, group))
      out[i] = std::max(out[i], std::fabs(v));
  return out;
}

}  // namespace quantal
