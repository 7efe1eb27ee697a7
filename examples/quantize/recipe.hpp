// Recipes: rules as quantal, ik_llama.cpp and llama.cpp write them.
#pragma once

#include <string>
#include <vector>

#include "file_types.hpp"
#include "rules.hpp"

namespace quantal::plan {

/// A recipe in one program's syntax.
struct written_recipe {
  std::string program;               ///< "quantal", "ik_llama.cpp", "llama.cpp"
  std::string arguments;             ///< for a command line, quoted for a shell
  std::vector<std::string> caveats;  ///< where that program would do something else, or nothing
};

/// One word for a shell, in single quotes.
std::string shell_quoted(const std::string& s);

/// The same rules for each of the three programs.
std::vector<written_recipe> write_recipes(const std::vector<rule>& rules);

}  // namespace quantal::plan
