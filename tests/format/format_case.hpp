// Tests that run once per format of the list, named after it.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "quantal/formats.hpp"

namespace quantal::test {

inline std::vector<std::uint32_t> all_format_ids() {
  std::vector<std::uint32_t> ids;
  for (const format_info& f : format_table) ids.push_back(f.gguf_id);
  return ids;
}

inline std::string format_name(const testing::TestParamInfo<std::uint32_t>& info) {
  return std::string(find_format(info.param)->name);
}

}  // namespace quantal::test
