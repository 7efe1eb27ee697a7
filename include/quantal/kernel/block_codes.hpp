// The block decoders of every family, see decode/codes.hpp.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/slices.hpp"
#include "quantal/kernel/decode/grids.hpp"
#include "quantal/kernel/decode/planes.hpp"
#include "quantal/kernel/decode/scales.hpp"
#include "quantal/kernel/decode/tables.hpp"
#include "quantal/kernel/decode/ternary.hpp"
#include "quantal/kernel/decode/trellis.hpp"
