// Operations of the made-up formats on every arch of the runtime: compiled as the runtime's own units are.
#pragma once

#include "quantal/runtime/ops.hpp"

namespace quantal::test {

/// Null where the arch is not compiled in or the machine lacks it.
const runtime::format_ops* made_up_ops(std::uint32_t gguf_id, std::string_view arch) noexcept;

}  // namespace quantal::test
