// How much memory a program may use.
#pragma once

#include <cstdint>

namespace quantal {

/// Bytes that are available now, within the limits of the control group; 0 where nobody says.
std::uint64_t available_memory();

}  // namespace quantal
