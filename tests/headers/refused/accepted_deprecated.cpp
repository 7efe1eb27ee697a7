// accepted
#include <quantal/quantize/policy.hpp>

// Deprecated names keep their meaning until they go.
static_assert(quantal::quantize_policy{.exact = true}.searches_longer());
static_assert(!quantal::quantize_policy{}.searches_longer());
