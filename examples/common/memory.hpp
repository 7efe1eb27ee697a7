// How much memory a program may use.
#pragma once

#include <cstdint>

namespace quantal {

/// Bytes that are available now, within the limits of the control group; 0 where nobody says.
std::uint64_t available_memory();

/// Bytes that a run may take: `ram` GiB (--ram), or what is available where that is 0.
std::uint64_t memory_for(std::int64_t ram);

}  // namespace quantal
