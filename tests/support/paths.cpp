#include "support/paths.hpp"

namespace quantal::test {

std::string data_file(std::string_view path) { return std::string(QUANTAL_TEST_DATA).append(path); }
std::string model_file(std::string_view path) { return std::string(QUANTAL_MODEL_DIR).append(path); }

}  // namespace quantal::test
