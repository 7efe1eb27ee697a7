// Files that tests read. The paths are compiled in one unit only: no other unit differs between two clones.
#pragma once

#include <string>
#include <string_view>

namespace quantal::test {

std::string data_file(std::string_view path);   ///< "/fixtures/x" of tests/data
std::string model_file(std::string_view path);  ///< "/validation.txt" of examples/model

}  // namespace quantal::test
