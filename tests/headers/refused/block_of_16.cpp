// refused: the block is a multiple of 32 weights
#define BLOCK_WEIGHTS 16
#define GROUP_WEIGHTS 16
#include "format.hpp"
static_assert(quantal::check_format<my_format>());
