// Where the engine's kernels come from: the runtime library, or templates compiled into the engine.
#pragma once

#include <cstdint>
#include <quantal/runtime/ops.hpp>

/// Operations of a GGUF tensor type; null for a type that the engine does not carry.
const quantal::runtime::format_ops* kernels_of(std::uint32_t gguf_type);
