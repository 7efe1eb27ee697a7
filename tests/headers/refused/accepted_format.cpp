// accepted
#include "format.hpp"
static_assert(quantal::check_format<my_format>() && quantal::kernel_format<my_format>);
