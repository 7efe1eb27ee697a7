// The forward pass against golden logits of an independent float32 implementation, in every mode and layout.
#include <gtest/gtest.h>

#include <cmath>

#include "safetensors.hpp"
#include "session.hpp"
#include "support/paths.hpp"

namespace quantal::mla {
namespace {

const std::string data = test::data_file("");
const std::string demo_model = test::model_file("/tiny-mla-moe-bf16.gguf");

struct mode {
  int mla;
  bool flash;
};
constexpr mode modes[] = {{0, false}, {0, true}, {1, false}, {1, true},
                          {2, false}, {2, true}, {3, false}, {3, true}};

double relative_error(std::span<const float> a, std::span<const float> b) {
  double diff = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i)
    diff += std::pow(double{a[i]} - b[i], 2), norm += std::pow(double{b[i]}, 2);
  return std::sqrt(diff / norm);
}

/// Logits of all tokens, evaluated `batch` at a time.
std::vector<float> run(const model& m, const std::vector<std::int32_t>& tokens, mode how,
                       std::size_t batch = 4096) {
  thread_pool pool(2);
  session s(m, runtime::dispatcher::best(), pool, static_cast<std::int64_t>(tokens.size()),
            {how.mla, how.flash});
  std::vector<float> logits(tokens.size() * static_cast<std::size_t>(m.hyper.vocabulary));
  for (std::size_t at = 0; at < tokens.size(); at += batch) {
    const auto part = std::span(tokens).subspan(at, std::min(batch, tokens.size() - at));
    const auto r =
        s.evaluate(part, std::span(logits).subspan(at * static_cast<std::size_t>(m.hyper.vocabulary)));
    EXPECT_TRUE(r) << r.error().message;
  }
  return logits;
}

std::vector<float> rows_of(const std::vector<float>& logits, const std::vector<std::int32_t>& positions,
                           std::size_t width) {
  std::vector<float> out;
  for (const auto p : positions)
    out.insert(out.end(), logits.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(p) * width),
               logits.begin() + static_cast<std::ptrdiff_t>((static_cast<std::size_t>(p) + 1) * width));
  return out;
}

void check_modes(const std::string& path, const std::vector<std::int32_t>& tokens,
                 const std::vector<std::int32_t>& positions, const std::vector<float>& want) {
  const auto m = load_model(path);
  ASSERT_TRUE(m) << m.error().message;
  std::vector<float> first;
  for (const mode how : modes) {
    const auto got = rows_of(run(*m, tokens, how), positions, static_cast<std::size_t>(m->hyper.vocabulary));
    EXPECT_LT(relative_error(got, want), 1e-3) << path << " -mla " << how.mla << (how.flash ? " -fa" : "");
    if (first.empty()) first = got;
    EXPECT_LT(relative_error(got, first), 1e-4) << path << " -mla " << how.mla << (how.flash ? " -fa" : "");
  }
}

TEST(Forward, FixturesShort) {
  for (const std::string name : {"v3", "v2lite"}) {
    const test::safetensors golden(data + "/goldens/fixture-" + name + ".golden.safetensors");
    for (const std::string layout : {"mainline", "ik"})
      check_modes(data + "/fixtures/fixture-" + name + "-" + layout + "-bf16.gguf",
                  golden.get<std::int32_t>("short.tokens"), golden.get<std::int32_t>("short.positions"),
                  golden.get<float>("short.logits"));
  }
}

TEST(Forward, FixturesLong) {
  for (const std::string name : {"v3", "v2lite"}) {
    const test::safetensors golden(data + "/goldens/fixture-" + name + ".golden_long.safetensors");
    check_modes(data + "/fixtures/fixture-" + name + "-mainline-bf16.gguf",
                golden.get<std::int32_t>("tokens"), golden.get<std::int32_t>("positions"),
                golden.get<float>("logits"));
  }
}

TEST(Forward, DemoModelShort) {
  const test::safetensors golden(data + "/goldens/tiny.golden.safetensors");
  check_modes(demo_model, golden.get<std::int32_t>("short.tokens"),
              golden.get<std::int32_t>("short.positions"), golden.get<float>("short.logits"));
}

TEST(Forward, DemoModelLong) {
  const test::safetensors golden(data + "/goldens/tiny.golden.safetensors");
  const auto m = load_model(demo_model);
  ASSERT_TRUE(m) << m.error().message;
  const auto tokens = golden.get<std::int32_t>("long.tokens");
  for (const mode how : {mode{0, false}, mode{1, true}, mode{3, true}}) {
    const auto got = rows_of(run(*m, tokens, how, 512), golden.get<std::int32_t>("long.positions"), 2048);
    EXPECT_LT(relative_error(got, golden.get<float>("long.logits")), 1e-3) << how.mla;
  }
}

TEST(Forward, BatchesAndSingleTokensAgree) {
  const test::safetensors golden(data + "/goldens/fixture-v3.golden_long.safetensors");
  auto tokens = golden.get<std::int32_t>("tokens");
  tokens.resize(200);
  const auto m = load_model(data + "/fixtures/fixture-v3-ik-bf16.gguf");
  ASSERT_TRUE(m) << m.error().message;
  for (const mode how : modes) {
    const auto whole = run(*m, tokens, how);
    for (const std::size_t batch : {1u, 7u, 130u})
      EXPECT_LT(relative_error(run(*m, tokens, how, batch), whole), 1e-4)
          << how.mla << how.flash << " batch " << batch;
  }
}

TEST(Forward, ChoosesTheGoldenExperts) {
  for (const std::string name : {"v3", "v2lite"}) {
    const test::safetensors golden(data + "/goldens/fixture-" + name + ".golden.safetensors");
    const auto m = load_model(data + "/fixtures/fixture-" + name + "-mainline-bf16.gguf");
    ASSERT_TRUE(m) << m.error().message;
    const auto tokens = golden.get<std::int32_t>("short.tokens");
    serial_executor serial;
    session s(*m, runtime::dispatcher::best(), serial, 512, {});
    ASSERT_TRUE(s.evaluate(tokens, {}));
    for (std::int64_t b = m->hyper.dense_layers; b < m->hyper.layers; ++b) {
      const auto ids = s.chosen_experts(b);
      std::vector<std::int32_t> got(ids.begin(), ids.end());
      for (std::size_t t = 0; t < tokens.size(); ++t)
        std::sort(got.begin() + static_cast<std::ptrdiff_t>(3 * t),
                  got.begin() + static_cast<std::ptrdiff_t>(3 * t + 3));
      EXPECT_EQ(got, golden.get<std::int32_t>("short.experts." + std::to_string(b)))
          << name << " block " << b;
    }
  }
}

TEST(Forward, PerplexityOfTheDocumentedStretch) {
  const test::safetensors golden(data + "/goldens/tiny.golden.safetensors");
  const auto tokens = golden.get<std::int32_t>("nll512.tokens");
  const auto m = load_model(demo_model);
  ASSERT_TRUE(m) << m.error().message;
  thread_pool pool(2);
  session s(*m, runtime::dispatcher::best(), pool, 512, {});
  std::vector<float> logits(512 * 2048);
  double nll = 0;
  int scored = 0;
  for (std::size_t w = 0; w < 16; ++w) {
    const auto window = std::span(tokens).subspan(w * 512, 512);
    s.clear();
    ASSERT_TRUE(s.evaluate(window, logits));
    for (std::size_t t = 256; t < 511; ++t, ++scored) {
      const float* row = logits.data() + t * 2048;
      const double top = *std::max_element(row, row + 2048);
      double sum = 0;
      for (int i = 0; i < 2048; ++i) sum += std::exp(row[i] - top);
      nll += std::log(sum) + top - row[window[t + 1]];
    }
  }
  EXPECT_NEAR(std::exp(nll / scored), 9.4458, 9.4458e-3);
}

TEST(Forward, RefusesBadInput) {
  const auto m = load_model(data + "/fixtures/fixture-v3-ik-bf16.gguf");
  ASSERT_TRUE(m);
  serial_executor serial;
  session s(*m, runtime::dispatcher::best(), serial, 4, {});
  EXPECT_FALSE(s.evaluate(std::vector<std::int32_t>{512}, {}));
  EXPECT_FALSE(s.evaluate(std::vector<std::int32_t>{-1}, {}));
  EXPECT_FALSE(s.evaluate(std::vector<std::int32_t>{1, 2, 3, 4, 5}, {}));
  EXPECT_FALSE(load_model("/nonexistent/model.gguf"));
}

}  // namespace
}  // namespace quantal::mla
