// Programs as a user runs them.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>

namespace quantal::test {

struct outcome {
  int code = -1;
  std::string text;  ///< stdout and stderr
};

/// Runs a shell command; paths of the tests have no characters that a shell would read.
inline outcome shell(const std::string& command) {
  outcome o;
  std::FILE* pipe = ::popen(("(" + command + ") 2>&1").c_str(), "r");
  if (!pipe) return o;
  char buffer[4096];
  for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) o.text.append(buffer, n);
  const int s = ::pclose(pipe);
  o.code = WIFEXITED(s) ? WEXITSTATUS(s) : -1;
  return o;
}

/// The command ends with `code` and prints `part`.
inline void expect(const std::string& command, int code, const std::string& part) {
  const auto o = shell(command);
  EXPECT_EQ(o.code, code) << command << "\n" << o.text;
  EXPECT_NE(o.text.find(part), std::string::npos) << command << "\n" << o.text;
}

}  // namespace quantal::test
