// How programs end on errors.
#pragma once

#include <cstdio>

#include "cli.hpp"
#include "text.hpp"

namespace quantal {

/// "program: message" on stderr; answers the exit code.
inline int fail(const char* program, const error& e, int code = cli::exit_failure) {
  std::fprintf(stderr, "%s: %s\n", program, text::printable(e.message).c_str());
  return code;
}

}  // namespace quantal
