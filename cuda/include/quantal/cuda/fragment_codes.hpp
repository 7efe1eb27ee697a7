// The codes and scales of a format as tensor-core fragments want them (fragments/basics.hpp).
//
//   fragment_reader<F>   the codes. Formats that only select bits are read by their bit_plan
//   (fragments/planes.hpp);
//                        grids, trellises, digits of base 3 and other codes have readers of their own; what
//                        is left goes through F::code().
//   scale_reader<F>      the scales (fragments/scales.hpp), by the format's plan or F::scale().
//
// All of it compiles for the host too, where tests compare it with F::code() and F::scale().
#pragma once

#include "quantal/cuda/fragments/base3.hpp"
#include "quantal/cuda/fragments/gray.hpp"
#include "quantal/cuda/fragments/grids.hpp"
#include "quantal/cuda/fragments/pairs.hpp"
#include "quantal/cuda/fragments/planes.hpp"
#include "quantal/cuda/fragments/scales.hpp"
#include "quantal/cuda/fragments/trellis.hpp"
#include "quantal/formats.hpp"

namespace quantal::cuda {

/// Whether the two words of a lane's codes have scales of their own.
template <block_format F>
inline constexpr bool split_fragments =
    F::layout.group < 32 && fragment_reader<F>::order == fragment_order::halves;

}  // namespace quantal::cuda
