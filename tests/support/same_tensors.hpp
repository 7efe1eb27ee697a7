// Two models hold the same tensors.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "quantal/gguf/reader.hpp"

namespace quantal::test {

inline void expect_same_tensors(const gguf::reader& a, const gguf::reader& b) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const auto& t : a.tensors()) {
    const auto* u = b.find(t.name);
    ASSERT_TRUE(u) << t.name;
    EXPECT_EQ(t.type, u->type) << t.name;
    EXPECT_EQ(t.ne, u->ne) << t.name;
    const auto x = a.data(t), y = b.data(*u);
    ASSERT_TRUE(x && y) << t.name;
    EXPECT_TRUE(std::ranges::equal(*x, *y)) << t.name;
  }
}

}  // namespace quantal::test
