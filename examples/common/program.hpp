// What main() of every program does around its work.
#pragma once

#include "cli.hpp"

namespace quantal {

/// Runs the body of a program called `name` and answers its exit code:
/// - descriptors 0 to 2 are taken first, so that no file becomes a standard stream that the caller closed;
/// - temporary files go when a signal ends the program;
/// - nothing that is thrown escapes: `failure` is the exit code then, and the message names the cause;
/// - text that standard output or standard error lost is a `failure`, too.
int run_program(const char* name, int argc, char** argv, int (*body)(int argc, char** argv),
                int failure = cli::exit_failure);

}  // namespace quantal
