// refused: a format has name, gguf_id, layout, usage, code
#define CODE_NAME code_of
#include "format.hpp"
static_assert(quantal::check_format<my_format>());
