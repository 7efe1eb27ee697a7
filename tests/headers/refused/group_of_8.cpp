// refused: a group is 16, 32, 64, 128 or 256 weights
#define GROUP_WEIGHTS 8
#include "format.hpp"
static_assert(quantal::check_format<my_format>());
