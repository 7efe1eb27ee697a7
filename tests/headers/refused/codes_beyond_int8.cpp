// refused: codes lie within int8
#define MOST_CODE 128
#include "format.hpp"
static_assert(quantal::check_format<my_format>());
