// What quantal-inspect --lattice finds, and what quantizing makes of it.
#include "lattices.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "quantal/gguf/reader.hpp"
#include "quantal/quantize/error.hpp"
#include "run.hpp"
#include "synthetic.hpp"
#include "weight_rows.hpp"

namespace quantal::plan {
namespace {

constexpr std::int64_t cols = 512, rows = 64;

float to_bf16(float v) {
  const std::uint32_t u = detail::bits_from_float(v);
  return detail::float_from_bits((u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u);
}

/// Matrices of every kind of lattice, as bf16.
class Lattices : public ::testing::Test {
 protected:
  using draw = std::function<float()>;

  void SetUp() override {
    const draw bf16_scale = [&] { return to_bf16(0.003f * std::exp(0.3f * normal(random))); };
    const auto integer = [&](float spread, float top) {
      return std::clamp(std::nearbyint(spread * normal(random)), -top, top);
    };
    const auto e2m1 = [&] { return detail::e2m1_levels.nearest(5 * normal(random)); };
    add(
        "int4", 32, [=] { return integer(2.6f, 7); }, bf16_scale);
    add(
        "rows", cols, [=] { return integer(2.6f, 7); }, bf16_scale);
    add(
        "zeros", 32, [&] { return static_cast<float>(static_cast<int>(random() % 16) - zero); },
        [&, bf16_scale] { return zero = 1 + static_cast<int>(random() % 14), bf16_scale(); });
    add(
        "int8", cols, [=] { return integer(40, 127); }, bf16_scale);
    add(
        "repacked", cols, [=] { return integer(40, 127); }, bf16_scale, false);
    add("mxfp4", 32, e2m1, [&] { return std::ldexp(1.0f, static_cast<int>(random() % 4) - 12); });
    add("nvfp4", 16, e2m1,
        [&] { return 1.37e-4f * nvfp4::scale_value(50 + static_cast<int>(random() % 60)); });
    add(
        "iq4_nl", 32, [&] { return detail::iq4_nl_levels.nearest(45 * normal(random)); },
        [=] { return bf16_scale() / 16; });
    add(
        "none", 32, [&] { return normal(random); }, [] { return 0.01f; });
    test::write_model(in(), test::deepseek2_metadata({}), tensors,
                      [&](const gguf::tensor_info& t, std::vector<float>& x) { x = weights.at(t.name); });
  }
  void add(const std::string& name, std::int64_t group, const draw& code, const draw& scale,
           bool rounded = true) {
    const std::string full = "blk.0." + name + ".weight";
    tensors.push_back(test::tensor(full, f32::gguf_id, {cols, rows, 1, 1}));
    auto& x = weights[full];
    float d = 0;
    for (std::int64_t i = 0; i < cols * rows; ++i) {
      if (i % group == 0) d = scale();
      x.push_back(rounded ? to_bf16(d * code()) : d * code());
    }
  }
  std::filesystem::path in() const { return dir / "in.gguf"; }
  /// Writes the tensors anew and looks at one of them.
  lattice_finding examined(const std::string& name, int threads = 2) {
    test::write_model(dir / "examined.gguf", test::deepseek2_metadata({}), tensors,
                      [&](const gguf::tensor_info& t, std::vector<float>& x) { x = weights.at(t.name); });
    const auto r = gguf::reader::open(dir / "examined.gguf");
    thread_pool pool(threads);
    const auto f = examine(*r, *r->find("blk.0." + name + ".weight"), dialect::llama_cpp, pool);
    EXPECT_TRUE(f) << f.error().message;
    return *f;
  }
  run_options options(const std::filesystem::path& from, const std::string& type, const std::string& to) {
    run_options o;
    o.in = from, o.out = dir / to, o.type = type, o.threads = 2, o.quiet = true;
    return o;
  }
  /// Weights of a tensor with the scale beside it.
  static std::vector<float> decoded(const gguf::reader& r, const gguf::tensor_info& t) {
    auto reader = weight_rows::open(r, t);
    std::vector<float> out(static_cast<std::size_t>(t.elements()));
    for (std::int64_t i = 0; i < t.rows() * t.slices(); ++i)
      EXPECT_TRUE(reader->read(i, out.data() + i * t.cols()));
    return out;
  }

  std::mt19937 random{11};
  std::normal_distribution<float> normal;
  int zero = 0;
  std::vector<gguf::tensor_info> tensors;
  std::map<std::string, std::vector<float>> weights;
  test::temporary_folder dir;
};

TEST_F(Lattices, AreDescribedWithTheTypeThatHoldsThem) {
  const auto r = gguf::reader::open(in());
  ASSERT_TRUE(r);
  thread_pool pool(2);
  const std::map<std::string, std::string> expected = {
      {"int4", "int4, groups of 32, codes -7..7, all groups fit, scales: f16; q4_0 holds it, nmse "},
      {"rows", "int4, rows, codes -7..7, all groups fit, scales: f16; q4_0 holds it, nmse "},
      {"zeros",
       "int4 with zero points, groups of 32, codes -14..14, all groups fit, scales: f16; q4_1 holds it, "
       "nmse "},
      {"int8", "int8, rows, codes -127..127, all groups fit, scales: f16; q8_0 holds it, nmse "},
      {"repacked", "int8, rows, codes -127..127, all groups fit, scales: f16; q8_0 holds it"},
      {"mxfp4", "FP4 (e2m1), groups of 32, all groups fit, scales: powers of two; mxfp4 holds it, exact"},
      {"nvfp4", "FP4 (e2m1), groups of 16, all groups fit, scales: "},
      {"iq4_nl", "iq4_nl's table, groups of 32, all groups fit, scales: "},
      {"none", "no lattice"}};
  for (const auto& t : r->tensors()) {
    const auto f = examine(*r, t, dialect::llama_cpp, pool);
    ASSERT_TRUE(f) << f.error().message;
    const auto name = t.name.substr(6, t.name.size() - 13);
    EXPECT_EQ(describe(*f, t).find(expected.at(name)), 0u) << name << ": " << describe(*f, t);
    if (*f) {
      EXPECT_TRUE(f->lossless) << name;
      EXPECT_LT(f->nmse, 6e-6) << name;
    }
    if (name == "nvfp4" || name == "iq4_nl") {
      EXPECT_EQ(f->type->name, name);
    }
  }
}

TEST_F(Lattices, ErrorsDoNotDependOnThreads) {
  constexpr int parts = 8;
  auto& large = weights["blk.0.large.weight"];
  for (int i = 0; i < parts; ++i)
    for (const float v : weights.at("blk.0.int4.weight")) large.push_back(std::ldexp(v, i));
  tensors.push_back(test::tensor("blk.0.large.weight", f32::gguf_id, {cols, parts * rows, 1, 1}));
  EXPECT_EQ(examined("large", 1).nmse, examined("large", 7).nmse);
}

/// Row 3 is not among those that are looked at closely.
TEST_F(Lattices, OneRowBesideTheLatticeIsALoss) {
  for (std::int64_t c = 0; c < cols; ++c)
    weights["blk.0.int4.weight"][static_cast<std::size_t>(3 * cols + c)] = 0.01f * normal(random);
  const auto f = examined("int4");
  EXPECT_LT(f.fit.fitting, f.fit.groups);
  EXPECT_FALSE(f.lossless);
  auto o = options(dir / "examined.gguf", "F32", "out.gguf");
  o.lattice = true;
  ASSERT_TRUE(run(o));
  const auto r = gguf::reader::open(o.out);
  EXPECT_EQ(gguf::type_name(r->find("blk.0.int4.weight")->type), "f32");
  EXPECT_EQ(gguf::type_name(r->find("blk.0.rows.weight")->type), "q4_0");
}

TEST_F(Lattices, TheLastRowIsLookedAt) {
  auto& x = weights["blk.0.mxfp4.weight"];
  for (auto v = x.end() - cols; v != x.end(); ++v) *v *= 1.25f;
  const auto f = examined("mxfp4");
  EXPECT_EQ(f.fit.fitting, f.fit.groups);
  EXPECT_FALSE(f.lossless && f.type->gguf_id == mxfp4::gguf_id);
}

/// Row 3 is not among those that are looked at first. Its scales are no powers of two.
TEST_F(Lattices, AllRowsDecideOfTheType) {
  auto& x = weights["blk.0.mxfp4.weight"];
  for (std::int64_t c = 3 * cols; c < 4 * cols; ++c) x[static_cast<std::size_t>(c)] *= 1.25f;
  const auto f = examined("mxfp4");
  EXPECT_TRUE(f.all_fit());
  ASSERT_TRUE(f.type);
  EXPECT_FALSE(f.lossless && f.type->gguf_id == mxfp4::gguf_id) << describe(f, tensors[5]);
}

/// The error of a type is that of all rows: a hundredth of the weights of one row is beside the lattice.
TEST_F(Lattices, ErrorsAreThoseOfAllRows) {
  auto& x = weights["blk.0.int4.weight"];
  const double before = examined("int4").nmse;
  for (std::int64_t c = 3 * cols; c < 4 * cols; ++c) x[static_cast<std::size_t>(c)] = 0.01f * normal(random);
  const auto f = examined("int4");
  EXPECT_EQ(f.type->name, "q4_0");
  EXPECT_FALSE(f.lossless);
  EXPECT_GT(f.nmse, 20 * before);
}

/// q8_0 has no offsets: its steps lie beside those of such lattices.
TEST_F(Lattices, StepsBesideThoseOfTheLatticeAreALoss) {
  // Numbers of f16.
  add(
      "offsets", 32, [&] { return static_cast<float>(random() % 64) + 64.3125f; }, [] { return 0x1p-10f; },
      false);
  add(
      "skewed", 32, [&] { return static_cast<float>(random() % 256) - 201; }, [] { return 0x1.4p-10f; },
      false);
  for (const char* name : {"offsets", "skewed"}) {
    const auto f = examined(name);
    ASSERT_TRUE(f) << name;
    EXPECT_EQ(f.fit.fitting, f.fit.groups) << name;
    ASSERT_TRUE(f.type) << name;
    EXPECT_EQ(f.type->name, "q8_0") << name;
    EXPECT_FALSE(f.lossless) << name << ": " << describe(f, tensors.back());
  }
}

/// Every tensor gets its type, and every weight is what bf16 rounded, but for the rounding of scales.
TEST_F(Lattices, AreQuantizedWithoutLoss) {
  auto o = options(in(), "F32", "out.gguf");
  o.lattice = true;
  const auto done = run(o);
  ASSERT_TRUE(done) << done.error().message;
  const auto r = gguf::reader::open(o.out);
  ASSERT_TRUE(r);
  const std::map<std::string, std::string> types = {
      {"int4", "q4_0"},   {"rows", "q4_0"},   {"zeros", "q4_1"},    {"int8", "q8_0"},
      {"mxfp4", "mxfp4"}, {"nvfp4", "nvfp4"}, {"iq4_nl", "iq4_nl"}, {"none", "f32"}};
  for (const auto& [name, type] : types) {
    const auto* t = r->find("blk.0." + name + ".weight");
    ASSERT_TRUE(t) << name;
    EXPECT_EQ(gguf::type_name(t->type), type) << name;
    const auto& x = weights.at(t->name);
    const auto y = decoded(*r, *t);
    quantization_error e;
    e.add(x.data(), y.data(), nullptr, static_cast<std::int64_t>(x.size()));
    EXPECT_LE(e.nmse_plain(), name == "mxfp4" || name == "none" ? 0.0 : 6e-6) << name;
  }
}

TEST_F(Lattices, RulesOfTheUserWin) {
  auto o = options(in(), "F32", "out.gguf");
  o.lattice = true, o.rules = {"int4=q8_0"};
  ASSERT_TRUE(run(o));
  const auto r = gguf::reader::open(o.out);
  EXPECT_EQ(gguf::type_name(r->find("blk.0.int4.weight")->type), "q8_0");
  EXPECT_EQ(gguf::type_name(r->find("blk.0.rows.weight")->type), "q4_0");
  o.type = "COPY", o.rules.clear();
  const auto refused = run(o);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("--lattice has no effect with type COPY"), std::string::npos);
}

/// What is printed can be given to a shell, whatever tensors are called.
TEST_F(Lattices, RulesAreQuotedForAShell) {
  add(
      "it's", 32, [&] { return static_cast<float>(random() % 15) - 7; }, [] { return 0x1p-9f; });
  examined("it's");
  auto o = options(dir / "examined.gguf", "F32", "out.gguf");
  o.lattice = true, o.dry_run = true, o.quiet = false;
  ::testing::internal::CaptureStdout();
  const auto done = run(o);
  const auto printed = ::testing::internal::GetCapturedStdout();
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_NE(printed.find(",^blk\\.0\\.it'\\''s\\.weight$=q4_0'\n"), std::string::npos) << printed;
}

/// What was released in few bits may be quantized from; what a quantizer made of better weights may not.
TEST_F(Lattices, ReleasedTensorsAreASource) {
  auto o = options(in(), "F32", "released.gguf");
  o.rules = {"(int4|rows)=q4_0", "repacked=q8_0", "mxfp4=mxfp4", "nvfp4=nvfp4"};
  ASSERT_TRUE(run(o));
  auto again = options(o.out, "Q6_K", "again.gguf");
  const auto done = run(again);
  ASSERT_TRUE(done) << done.error().message;
  const auto r = gguf::reader::open(again.out);
  for (const auto& t : r->tensors())
    if (t.n_dims > 1) {
      EXPECT_EQ(gguf::type_name(t.type), "q6_K") << t.name;
    }
  for (const char* rule : {"none=q4_0", "none=q8_0", "none=q4_K", "zeros=q4_1"}) {
    auto p = options(in(), "F32", "quantized.gguf");
    p.rules = {rule};
    ASSERT_TRUE(run(p));
    const auto refused = run(options(p.out, "Q6_K", "no.gguf"));
    ASSERT_FALSE(refused) << rule;
    EXPECT_NE(refused.error().message.find("requantizing from type"), std::string::npos);
  }
}

/// Where anything was quantized, or a quantizer says so, nothing was released.
TEST_F(Lattices, OneQuantizedTensorTellsOfAll) {
  for (const char* rules : {"int4=q4_0,none=q8_0", "int4=q4_0,none=q4_0", "mxfp4=mxfp4,none=q4_K"}) {
    auto o = options(in(), "F32", "quantized.gguf");
    o.rules = {rules};
    ASSERT_TRUE(run(o));
    const auto refused = run(options(o.out, "Q6_K", "no.gguf"));
    ASSERT_FALSE(refused) << rules;
    EXPECT_NE(refused.error().message.find("requantizing from type"), std::string::npos);
  }
  auto meta = test::deepseek2_metadata({});
  meta.set("quantize.hessian.file", std::string("moments.gguf"));
  test::write_model(dir / "marked.gguf", meta, tensors,
                    [&](const gguf::tensor_info& t, std::vector<float>& x) { x = weights.at(t.name); });
  auto o = options(dir / "marked.gguf", "F32", "quantized.gguf");
  o.rules = {"int4=q4_0"};
  ASSERT_TRUE(run(o));
  EXPECT_FALSE(run(options(o.out, "Q6_K", "no.gguf")));
}

/// gpt-oss: experts in mxfp4 and everything else in q8_0 is how its GGUF files come.
TEST_F(Lattices, CopiesBesideReleasedExpertsAreTaken) {
  const std::string experts = "blk.0.ffn_up_exps.weight", other = "blk.0.none.weight";
  tensors = {test::tensor(experts, f32::gguf_id, {cols, rows / 4, 4, 1}),
             test::tensor(other, f32::gguf_id, {cols, rows, 1, 1})};
  weights[experts] = weights.at("blk.0.mxfp4.weight");
  for (const std::string architecture : {"gpt-oss", "qwen3moe"})
    for (const std::string beside : {"q8_0", "q4_0"}) {
      auto meta = test::deepseek2_metadata({});
      meta.set("general.architecture", architecture);
      test::write_model(dir / "floats.gguf", meta, tensors,
                        [&](const gguf::tensor_info& t, std::vector<float>& x) { x = weights.at(t.name); });
      auto o = options(dir / "floats.gguf", "F32", "released.gguf");
      o.rules = {"exps=mxfp4,none=" + beside};
      ASSERT_TRUE(run(o));
      auto again = options(o.out, "Q6_K", "again.gguf");
      again.quiet = false;
      ::testing::internal::CaptureStdout();
      const auto done = run(again);
      const auto text = ::testing::internal::GetCapturedStdout();
      EXPECT_EQ(static_cast<bool>(done), architecture == "gpt-oss" && beside == "q8_0")
          << architecture << beside;
      if (!done) continue;
      EXPECT_NE(text.find("1 tensor of mxfp4 are quantized from: the checkpoint was released so"), text.npos)
          << text;
      EXPECT_NE(text.find("1 tensor of q8_0 are quantized from: the checkpoint has them in bf16"), text.npos)
          << text;
    }
}

/// 4 rows of 16 blocks tell nothing; 16 tensors of that kind do.
TEST_F(Lattices, FewBlocksTellNothing) {
  const auto whole = weights.at("blk.0.int4.weight");
  for (const int count : {15, 16}) {
    tensors.clear();
    for (int i = 0; i < count; ++i) {
      const std::string name = "blk." + std::to_string(i) + ".int4.weight";
      tensors.push_back(test::tensor(name, f32::gguf_id, {cols, 4, 1, 1}));
      weights[name].assign(whole.begin() + i * 4 * cols, whole.begin() + (i + 1) * 4 * cols);
    }
    test::write_model(dir / "small.gguf", test::deepseek2_metadata({}), tensors,
                      [&](const gguf::tensor_info& t, std::vector<float>& x) { x = weights.at(t.name); });
    auto o = options(dir / "small.gguf", "F32", "released.gguf");
    o.rules = {"int4=q4_0"};
    ASSERT_TRUE(run(o));
    EXPECT_EQ(static_cast<bool>(run(options(o.out, "Q6_K", "again.gguf"))), count == 16) << count;
  }
}

/// No weights: they stay where they are, whatever becomes of their matrix.
TEST_F(Lattices, InputScalesPassThrough) {
  tensors.push_back(test::tensor("blk.0.int4.input_scale", f32::gguf_id, {1, 1, 1, 1}));
  weights["blk.0.int4.input_scale"] = {0.25f};
  test::write_model(dir / "scaled.gguf", test::deepseek2_metadata({}), tensors,
                    [&](const gguf::tensor_info& t, std::vector<float>& x) { x = weights.at(t.name); });
  std::filesystem::path from = dir / "scaled.gguf";
  for (const char* type : {"NVFP4", "Q4_K_M"}) {
    auto o = options(from, type, std::string(type) + ".gguf");
    const auto done = run(o);
    ASSERT_TRUE(done) << done.error().message;
    const auto r = gguf::reader::open(o.out);
    const auto* t = r->find("blk.0.int4.input_scale");
    ASSERT_TRUE(t);
    EXPECT_EQ(t->type, f32::gguf_id);
    EXPECT_EQ(decoded(*r, *t), std::vector<float>{0.25f});
    from = o.out;
  }
}

}  // namespace
}  // namespace quantal::plan
