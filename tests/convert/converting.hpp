// A test that converts made-up checkpoints and looks at the result, or at the refusal.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "checkpoint_maker.hpp"
#include "hf_convert.hpp"
#include "support/temp_dir.hpp"

namespace quantal::test {

class converting : public ::testing::Test {
 protected:
  result<void> convert(const fake_checkpoint& c, const std::string& out, const std::string& type = "") {
    std::filesystem::remove_all(dir / "hf");
    c.write(dir / "hf");
    hf::convert_options o;
    o.quantize.in = dir / "hf", o.quantize.out = dir / out, o.quantize.type = type;
    o.quantize.threads = 2, o.quantize.quiet = true, o.name = "a model";
    return hf::convert(o);
  }
  void expect_failure(const fake_checkpoint& c, const std::vector<std::string>& parts) {
    const auto done = convert(c, "refused.gguf");
    ASSERT_FALSE(done) << parts[0];
    for (const auto& p : parts)
      EXPECT_NE(done.error().message.find(p), std::string::npos)
          << "got " << done.error().message << "\nwanted " << p;
    EXPECT_FALSE(std::filesystem::exists(dir / "refused.gguf"));
  }

  temp_dir dir;
};

}  // namespace quantal::test
