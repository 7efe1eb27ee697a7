// Where the engine's kernels come from: the runtime library, or templates compiled into the engine.
#pragma once

#include <quantal/runtime.hpp>

#include "pool.hpp"

/// out = w x, on the engine's threads. Unsupported: a type that the engine does not carry.
quantal::status multiply(const quantal::runtime::weight_view& w, const quantal::matrix_view<const float>& x,
                         const quantal::matrix_view<float>& out, pool& threads);
