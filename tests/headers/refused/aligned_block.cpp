// refused: a block is made of bytes
#define SCALE_TYPE std::uint16_t
#define BLOCK_BYTES 34
#include "format.hpp"
static_assert(quantal::check_format<my_format>());
