// The programs as a user runs them: exit codes and messages.
#include <gtest/gtest.h>

#include <cmath>

#include "file.hpp"
#include "json.hpp"
#include "shell.hpp"
#include "support/paths.hpp"
#include "synthetic.hpp"

namespace quantal {
namespace {

class programs : public ::testing::Test {
 protected:
  std::string path(const char* name) { return (dir / name).string(); }
  test::temporary_folder dir;
  const std::string quantize = QUANTAL_QUANTIZE, blocks = QUANTAL_BLOCKS;
  const std::string data = test::data_file("");
  const std::string model = data + "/fixtures/fixture-v2lite-ik-bf16.gguf";
};

TEST_F(programs, help) {
  test::expect(quantize + " --help", 0, "IN [OUT] TYPE [THREADS]");
  test::expect(quantize + " --help", 0, "types: COPY, F32, F16");
  test::expect(blocks + " --help", 0, "usage: quantal-blocks COMMAND");
  for (const char* c : {" list", " dequantize", " quantize", " error"})
    test::expect(blocks + c + " --help", 0, "usage: quantal-blocks" + std::string(c));
}

TEST_F(programs, wrong_usage_is_exit_2) {
  test::expect(quantize, 2, "missing argument");
  test::expect(quantize + " --nope a b Q8_0", 2, "unknown option '--nope'");
  test::expect(quantize + " a b", 2, "the type is missing or unknown");
  test::expect(quantize + " a b Q8_0 x", 2, "THREADS: 'x' is not an integer");
  test::expect(quantize + " --explain '' a Q8_0", 2, "--explain: the recipe is empty");
  test::expect(quantize + " a b Q8_0 1 2", 2, "unexpected argument '2'");
  test::expect(quantize + " --require-imatrix some a b Q8_0", 2, "is not one of all, lowbit, none");
  test::expect(blocks, 2, "usage: quantal-blocks");
  test::expect(blocks + " frob", 2, "unknown command 'frob'");
  test::expect(blocks + " quantize --format q8_0 a b", 2, "missing option --cols");
  test::expect(blocks + " quantize --format q8_0 --cols 0 a b", 2, "outside [1,");
}

TEST_F(programs, quantize_writes_a_model) {
  test::expect(quantize + " " + model + " " + path("out.gguf") + " Q4_K_M 2", 0, "BPW");
  EXPECT_EQ(dir.names(), std::vector<std::string>{"out.gguf"});
  const auto planned = test::shell(quantize + " --json --dry-run " + model + " " + path("x.gguf") + " q8_0");
  ASSERT_EQ(planned.code, 0);
  const auto doc = json::parse(planned.text);
  EXPECT_EQ(doc["type"], "Q8_0");
  EXPECT_FALSE(std::filesystem::exists(path("x.gguf")));
}

TEST_F(programs, quantize_names_the_output_when_only_a_type_is_given) {
  std::filesystem::copy_file(model, path("m.gguf"));
  test::expect(quantize + " " + path("m.gguf") + " q8_0 1", 0, "ggml-model-Q8_0.gguf");
  EXPECT_TRUE(std::filesystem::exists(path("ggml-model-Q8_0.gguf")));
}

TEST_F(programs, quantize_failures_are_exit_1_without_output) {
  const std::string out = " " + path("out.gguf") + " ";
  test::expect(quantize + " " + path("none.gguf") + out + "Q8_0", 1, "none.gguf: cannot open");
  const auto whole = file::read_text(model);
  ASSERT_TRUE(file::write(dir / "cut.gguf", std::string_view(*whole).substr(0, whole->size() / 3)));
  test::expect(quantize + " " + path("cut.gguf") + out + "Q8_0", 1, "cut.gguf");
  test::expect(quantize + " " + model + out + "Q9_9", 1, "unknown type 'Q9_9'; known: COPY");
  test::expect(quantize + " --custom-q 'nothing=q8_0' " + model + out + "Q8_0", 1, "matches no tensor");
  test::expect(quantize + " " + model + " " + model + " Q8_0", 1, "is the input");
  EXPECT_EQ(dir.names(), std::vector<std::string>{"cut.gguf"});
}

TEST_F(programs, blocks_list) {
  test::expect(blocks + " list", 0, "q4_K");
  const auto o = test::shell(blocks + " list --json");
  const auto all = json::parse(o.text);
  bool found = false;
  for (const auto& f : all)
    if (f["name"] == "iq2_xxs")
      found = f["gguf_id"] == 16 && f["bytes"] == 66 && f["block"] == 256 && f["quantizer"] == true;
  EXPECT_TRUE(found);
}

TEST_F(programs, blocks_reproduce_golden_vectors) {
  for (const char* f : {"q4_K", "q8_0", "iq2_xxs", "bf16"}) {
    const std::string golden = data + "/conformance/" + f + ".random";
    test::expect(
        blocks + " dequantize --format " + f + " --cols 256 " + golden + ".blocks " + path("out.f32"), 0, "");
    EXPECT_TRUE(*file::read_text(dir / "out.f32") == *file::read_text(golden + ".f32")) << f;
  }
}

TEST_F(programs, blocks_round_trip_and_error) {
  const std::string in = data + "/quality/quality_input.f32", w = data + "/quality/quality_importance.f32";
  test::expect(
      blocks + " quantize --format Q6_K --cols 1024 --importance " + w + " " + in + " " + path("q.blocks"), 0,
      "");
  test::expect(blocks + " dequantize --format q6_k --cols 1024 " + path("q.blocks") + " " + path("q.f32"), 0,
               "");
  const auto x = *file::read_raw<float>(in), y = *file::read_raw<float>(path("q.f32"));
  ASSERT_EQ(x.size(), y.size());
  double e = 0, n = 0;
  for (std::size_t i = 0; i < x.size(); ++i) e += (x[i] - y[i]) * (x[i] - y[i]), n += x[i] * x[i];
  const auto o = test::shell(blocks + " error --json --format q6_K --cols 1024 --importance " + w + " " + in);
  ASSERT_EQ(o.code, 0) << o.text;
  const auto doc = json::parse(o.text);
  EXPECT_NEAR(doc["nmse"].get<double>(), e / n, 1e-6 * e / n + 1e-9);
  EXPECT_LT(doc["nmse_weighted"].get<double>(), doc["nmse"].get<double>());
  EXPECT_EQ(doc["rows"], 64);
  test::expect(blocks + " error --format q6_K --cols 1024 " + in, 0, "plain nmse");
}

/// The scale beside an nvfp4 array makes its error independent of the size of the weights.
TEST_F(programs, blocks_scale_nvfp4) {
  auto x = *file::read_raw<float>(data + "/quality/quality_input.f32");
  std::vector<double> errors;
  for (const float size : {1.0f, 0.25f, 0.05f}) {
    auto y = x;
    for (auto& v : y) v *= size;
    ASSERT_TRUE(file::write_raw(dir / "x.f32", y));
    const auto o = test::shell(blocks + " error --json --format nvfp4 --cols 1024 " + path("x.f32"));
    ASSERT_EQ(o.code, 0) << o.text;
    errors.push_back(json::parse(o.text)["nmse"].get<double>());
    EXPECT_NEAR(errors.back(), errors.front(), 1e-3 * errors.front()) << size;
  }
  test::expect(blocks + " quantize --format nvfp4 --cols 1024 --scale " + path("s.f32") + " " +
                   path("x.f32") + " " + path("q"),
               0, "");
  test::expect(blocks + " dequantize --format nvfp4 --cols 1024 --scale " + path("s.f32") + " " + path("q") +
                   " " + path("y.f32"),
               0, "");
  const auto source = *file::read_raw<float>(path("x.f32")), y = *file::read_raw<float>(path("y.f32"));
  double e = 0, n = 0;
  for (std::size_t i = 0; i < y.size(); ++i) e += std::pow(y[i] - source[i], 2), n += std::pow(source[i], 2);
  EXPECT_NEAR(e / n, errors.back(), 1e-3 * errors.back());
}

TEST_F(programs, blocks_failures_are_exit_1) {
  const std::string in = data + "/quality/quality_input.f32", out = " " + path("o");
  test::expect(blocks + " quantize --format q9 --cols 256 " + in + out, 1, "unknown format 'q9'");
  test::expect(blocks + " quantize --format q4_K --cols 100 " + in + out, 1, "not a multiple of the 256");
  test::expect(blocks + " quantize --format q4_K --cols 768 " + in + out, 1, "are not whole rows of 768");
  test::expect(blocks + " quantize --format q4_K --cols 512 --importance " + data +
                   "/quality/quality_importance.f32 " + in + out,
               1, "1024 importances for 512 columns");
  test::expect(blocks + " dequantize --format q4_K --cols 256 " + path("none") + out, 1, "cannot open");
  ASSERT_TRUE(file::write(dir / "short", std::string(100, 'x')));
  test::expect(blocks + " dequantize --format q4_K --cols 256 " + path("short") + out, 1,
               "not whole rows of 144 bytes");
  ASSERT_TRUE(file::write_raw(dir / "nan", std::vector<float>(256, std::nanf(""))));
  test::expect(blocks + " quantize --format q4_K --cols 256 " + path("nan") + out, 1,
               "row 0: weight is not finite");
  EXPECT_FALSE(std::filesystem::exists(path("o")));
}

}  // namespace
}  // namespace quantal
