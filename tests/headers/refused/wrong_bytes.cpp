// refused: layout.bytes is the size of the block
#define BLOCK_BYTES 32
#include "format.hpp"
static_assert(quantal::check_format<my_format>());
