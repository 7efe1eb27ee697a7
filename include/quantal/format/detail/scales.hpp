// How formats scale their codes. A format derives from its own way, has the fields that this reads, and
// states the formula in its header comment.
#pragma once

#include <cstddef>

#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal::detail {

/// scale = d * sub_scale, with the block's binary16 field d.
template <class F>
struct super_scaled {
  template <class Block>
  QUANTAL_HD static constexpr float scale(const Block& b, float, int g) noexcept {
    return F::super(b) * static_cast<float>(F::sub_scale(b, g));
  }
  template <class Block>
  QUANTAL_HD static constexpr float super(const Block& b) noexcept {
    return b.d.get();
  }
  template <class Block>
  QUANTAL_HD static constexpr void set_super(Block& b, float d) noexcept {
    b.d.set(d);
  }
};

/// scale = d * scale_unit * (2 * sub_scale + 1): the grid formats.
template <class F>
struct odd_super_scaled : super_scaled<F> {
  template <class Block>
  QUANTAL_HD static constexpr float scale(const Block& b, float, int g) noexcept {
    return F::super(b) * (F::scale_unit * static_cast<float>(2 * F::sub_scale(b, g) + 1));
  }
};

/// The row's metadata is one scale: Field is half_bits or float_field.
template <class Field>
struct row_scale_field {
  QUANTAL_HD static float row_scale(const std::byte* row) noexcept {
    return reinterpret_cast<const Field*>(row)->get();
  }
  QUANTAL_HD static void set_row_scale(std::byte* row, float d) noexcept {
    reinterpret_cast<Field*>(row)->set(d);
  }
};

/// scale = row_scale * sub_scale.
template <class F, class Field>
struct row_scaled : row_scale_field<Field> {
  template <class Block>
  QUANTAL_HD static constexpr float scale(const Block& b, float row_scale, int g) noexcept {
    return row_scale * static_cast<float>(F::sub_scale(b, g));
  }
};

/// scale = row_scale * sub_scale, sub-scales being levels of a table of 16: iq1_kt and iq2_kt.
template <class F, class Field>
struct row_scaled_levels : row_scaled<F, Field> {
  static constexpr int scale_levels = 16;
  QUANTAL_HD static constexpr int scale_level(int index) noexcept { return lut4_nl(index); }
  template <class Block>
  QUANTAL_HD static constexpr int sub_scale(const Block& b, int g) noexcept {
    return scale_level(F::scale_index(b, g));
  }
};

}  // namespace quantal::detail
