// refused: the block divides 256 weights
#define BLOCK_WEIGHTS 96
#include "format.hpp"
static_assert(quantal::check_format<my_format>());
