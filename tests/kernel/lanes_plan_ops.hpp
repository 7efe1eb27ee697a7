// Lane decoders of avx512_vnni in a unit of their own: it has that arch's instructions, the tests have not.
#pragma once

#include "quantal/formats.hpp"
#include "support/made_up_formats.hpp"

namespace quantal::test {

/// The formats of the list that may be asked for, and made-up ones.
template <class Fn>
void for_each_lane_format(Fn&& fn) {
  all_formats::for_each([&]<class F>() {
    if constexpr (block_format<F>)
      if constexpr (F::usage == role::weight) fn.template operator()<F>();
  });
  made_up_formats::for_each(fn);
}

/// A slice by position: code with its bias, the weight that it belongs to, and scale and offset of its lane.
struct lane_weights {
  int code[256], weight[256];
  float scale[256], offset[256];
  bool by_plan;
};

/// Decodes `count` weights of a row, null where the build lacks the arch.
using lane_decode = void (*)(const std::byte* row, int count, lane_weights&);
lane_decode find_lane_decode(std::string_view format) noexcept;
/// The same in natural order; null also where a format has no slice_codes.
lane_decode find_slice_decode(std::string_view format) noexcept;

}  // namespace quantal::test
