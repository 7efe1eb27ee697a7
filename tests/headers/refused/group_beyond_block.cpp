// refused: the group divides the block
#define GROUP_WEIGHTS 64
#include "format.hpp"
static_assert(quantal::check_format<my_format>());
