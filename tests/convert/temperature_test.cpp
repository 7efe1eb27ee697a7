// Mistral Small 4's temperature of attention, from config.json to logits far beyond the first context. Golden logits are those of
// transformers (tests/data/make_temperature_golden.py).
#include <gtest/gtest.h>

#include <cmath>

#include "converting.hpp"
#include "mla/safetensors.hpp"
#include "session.hpp"
#include "support/paths.hpp"

namespace quantal::test {
namespace {

class Temperature : public converting {
 protected:
  static constexpr std::size_t vocabulary = 64;

  void SetUp() override {
    hf::convert_options o;
    o.quantize.in = data_file("/mistral4"), o.quantize.out = dir / "m.gguf", o.quantize.quiet = true;
    const auto done = hf::convert(o);
    ASSERT_TRUE(done) << done.error().message;
  }
  /// The largest distance from the golden logits, relative to the largest of these.
  float distance(const mla::model& m, int mode, bool flash, std::size_t batch) const {
    const auto tokens = golden.get<std::int32_t>("tokens"), positions = golden.get<std::int32_t>("positions");
    const auto want = golden.get<float>("logits");
    thread_pool pool(2);
    mla::session s(m, runtime::dispatcher::best(), pool, static_cast<std::int64_t>(tokens.size()),
                   {mode, flash});
    std::vector<float> got(tokens.size() * vocabulary);
    for (std::size_t at = 0; at < tokens.size(); at += batch) {
      const auto part = std::span(tokens).subspan(at, std::min(batch, tokens.size() - at));
      const auto r = s.evaluate(part, std::span(got).subspan(at * vocabulary));
      EXPECT_TRUE(r) << r.error().message;
    }
    float largest = 0, off = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const auto at = static_cast<std::size_t>(positions[i / vocabulary]) * vocabulary + i % vocabulary;
      largest = std::max(largest, std::fabs(want[i])), off = std::max(off, std::fabs(want[i] - got[at]));
    }
    return off / largest;
  }

  const safetensors golden{data_file("/mistral4/golden.safetensors")};
};

TEST_F(Temperature, LogitsBeyondTheFirstContext) {
  auto m = mla::load_model(dir / "m.gguf");
  ASSERT_TRUE(m) << m.error().message;
  EXPECT_NEAR(m->hyper.temperature_scale, 0.4, 1e-7);
  EXPECT_EQ(m->hyper.temperature_length, 32);
  for (const int mode : {0, 1, 2, 3})
    for (const bool flash : {false, true})
      for (const std::size_t batch : {std::size_t{1000}, std::size_t{7}})
        EXPECT_LT(distance(*m, mode, flash, batch), 1e-4f) << mode << flash << batch;
}

TEST_F(Temperature, Shows) {
  auto m = mla::load_model(dir / "m.gguf");
  ASSERT_TRUE(m) << m.error().message;
  m->hyper.temperature_scale = 0;
  EXPECT_GT(distance(*m, 1, false, 1000), 0.1f);
}

}  // namespace
}  // namespace quantal::test
