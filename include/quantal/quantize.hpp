// Rows of float32 weights to any format, compiled into the unit that includes this; runtime.hpp has the same
// without xsimd. With it: codes chosen by what they do to outputs (quantize_rows).
#pragma once

#include "quantal/quantize/output_aware.hpp"
#include "quantal/quantize/quantize.hpp"
