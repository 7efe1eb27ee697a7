// Quantized checkpoints: what they convert to in bf16 and as they are (--type auto), and what is refused.
#include <gtest/gtest.h>

#include "converting.hpp"
#include "quantized_checkpoint.hpp"
#include "support/paths.hpp"

namespace quantal::test {
namespace {

const std::string fixture = test::data_file("/fixtures/fixture-v3-mainline-bf16.gguf");

class QuantizedCheckpoint : public converting {
 protected:
  static fake_checkpoint small() {
    const auto model = gguf::reader::open(fixture);
    EXPECT_TRUE(model) << model.error().message;
    return checkpoint_maker(*model).make();
  }
  std::string converted(const fake_checkpoint& c, const std::string& out) {
    const auto done = convert(c, out);
    EXPECT_TRUE(done) << done.error().message;
    return read_file(dir / out);
  }
};

struct expectation {
  stored_as how;
  const char* type;    ///< of matrices whose columns the type divides, with --type auto
  std::int64_t block;  ///< columns that the type needs
  double tolerance;    ///< of a value, relative to the largest of the tensor
};

std::vector<float> decoded(const gguf::reader& r, const std::string& name) {
  const auto* t = r.find(name);
  EXPECT_TRUE(t) << name;
  if (!t) return {};
  const auto bytes = r.data(*t);
  const auto row = bytes->size() / static_cast<std::size_t>(t->rows() * t->slices());
  std::vector<float> out(static_cast<std::size_t>(t->elements()));
  for (std::int64_t i = 0; i < t->rows() * t->slices(); ++i)
    EXPECT_EQ(dequantize_row(t->type, bytes->data() + static_cast<std::size_t>(i) * row,
                             out.data() + i * t->cols(), t->cols()),
              status::ok);
  return out;
}

class EveryCoding : public QuantizedCheckpoint, public ::testing::WithParamInterface<expectation> {};

TEST_P(EveryCoding, BecomesTheBf16ThatItStandsFor) {
  const quantized_checkpoint q(small(), GetParam().how);
  const auto want = converted(q.plain, "want.gguf"), got = converted(q.stored, "got.gguf");
  EXPECT_TRUE(got == want);
}

TEST_P(EveryCoding, IsKeptWithTypeAuto) {
  const auto& p = GetParam();
  const quantized_checkpoint q(small(), p.how);
  const auto done = convert(q.stored, "auto.gguf", "auto");
  ASSERT_TRUE(done) << done.error().message;
  const auto r = gguf::reader::open(dir / "auto.gguf");
  ASSERT_TRUE(r) << r.error().message;
  const std::vector<std::pair<std::string, std::string>> names = {
      {"blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight"},
      {"blk.1.attn_q_a.weight", "model.layers.1.self_attn.q_a_proj.weight"},
      {"blk.2.ffn_down_exps.weight", "model.layers.2.mlp.experts.0.down_proj.weight"}};
  for (const auto& [to, from] : names) {
    const auto* t = r->find(to);
    ASSERT_TRUE(t) << to;
    EXPECT_EQ(gguf::type_name(t->type), t->cols() % p.block ? "bf16" : p.type) << to;
    auto got = decoded(*r, to);
    if (const auto* s = r->find(to.substr(0, to.size() - 6) + "scale")) {
      EXPECT_EQ(s->elements(), t->slices());
      const float scale = decoded(*r, s->name)[0];
      for (auto& v : got) v *= scale;
      const auto* inputs = r->find(to.substr(0, to.size() - 6) + "input_scale");
      ASSERT_TRUE(inputs) << to;
      EXPECT_EQ(inputs->elements(), t->slices());
      for (const float v : decoded(*r, inputs->name)) EXPECT_EQ(v, 0.5f) << to;
    } else {
      EXPECT_NE(gguf::type_name(t->type), "nvfp4") << to;
    }
    const auto& want = q.exact.at(from);
    float largest = 0, worst = 0;
    for (std::size_t i = 0; i < want.size(); ++i)
      largest = std::max(largest, std::abs(want[i])), worst = std::max(worst, std::abs(want[i] - got[i]));
    EXPECT_LE(static_cast<double>(worst), p.tolerance * static_cast<double>(largest)) << to;
  }
}

/// f16 has eleven bits: minimums of q4_1 are rounded by half a unit of them. bf16 has eight.
constexpr double half_rounding = 1.0 / 2048, bf16_rounding = 1.0 / 256;

INSTANTIATE_TEST_SUITE_P(Codings, EveryCoding,
                         ::testing::Values(expectation{stored_as::int4, "q4_0", 32, 0},
                                           expectation{stored_as::int4_zeros, "q4_1", 32, half_rounding},
                                           expectation{stored_as::int4_channel, "q4_0", 32, 0},
                                           expectation{stored_as::int8, "q8_0", 32, 0},
                                           expectation{stored_as::int8_plain, "q8_0", 32, 0},
                                           expectation{stored_as::gptq, "q4_1", 32, half_rounding},
                                           expectation{stored_as::gptq_symmetric, "q4_0", 32, 0},
                                           expectation{stored_as::awq, "q4_1", 32, half_rounding},
                                           expectation{stored_as::mxfp4, "mxfp4", 32, 0},
                                           expectation{stored_as::nvfp4, "nvfp4", 64, 0},
                                           expectation{stored_as::nvfp4_modelopt, "nvfp4", 64, 0},
                                           expectation{stored_as::fp8_tensor, "bf16", 1, bf16_rounding},
                                           expectation{stored_as::fp8_channel, "bf16", 1, bf16_rounding},
                                           expectation{stored_as::fp8_powers, "bf16", 1, 0}));

const std::string o_proj = "model.layers.1.self_attn.o_proj";

TEST_F(QuantizedCheckpoint, SeveralGroupsAndIgnoredModules) {
  const auto base = small();
  quantized_checkpoint four(base, stored_as::int4), eight(base, stored_as::fp8_channel);
  // Experts of four bits, the attention's output of eight, everything else as it was.
  auto mixed = base, plain = base;
  const auto take = [&](const quantized_checkpoint& from, const std::string& part) {
    std::erase_if(mixed.tensors, [&](const raw_tensor& t) { return t.name.find(part) != std::string::npos; });
    for (const auto& t : from.stored.tensors)
      if (t.name.find(part) != std::string::npos) mixed.tensors.push_back(t);
    for (auto& t : plain.tensors)
      if (t.name.find(part) != std::string::npos)
        t.bytes = const_cast<fake_checkpoint&>(from.plain).at(t.name).bytes;
  };
  take(four, "mlp.experts."), take(eight, "o_proj");
  auto q = four.stored.config["quantization_config"];
  q["format"] = "mixed-precision";
  q["config_groups"]["group_0"]["targets"] = {"re:.*mlp[.]experts[.].*"};
  q["config_groups"]["group_0"]["format"] = "pack-quantized";
  q["config_groups"]["group_1"] = eight.stored.config["quantization_config"]["config_groups"]["group_0"];
  q["config_groups"]["group_1"]["format"] = "float-quantized";
  q["ignore"] = {"lm_head", "re:.*self_attn[.](q|kv).*", "re:.*shared_experts.*", "re:.*layers[.]0[.]mlp.*"};
  mixed.config["quantization_config"] = q;
  EXPECT_TRUE(converted(mixed, "got.gguf") == converted(plain, "want.gguf"));
  q["ignore"] = {"lm_head"};
  mixed.config["quantization_config"] = q;
  expect_failure(mixed, {"config_groups.group_1", "BF16", "ignored"});
  q["ignore"] = {"lm_head", "re:.*experts.*", "re:.*self_attn[.](q|kv).*", "re:.*layers[.]0[.]mlp.*"};
  mixed.config["quantization_config"] = q;
  expect_failure(mixed, {"mlp.experts.0", "weight_packed", "ignored"});
}

/// Experts of 4-bit floats beside fp8, as DeepSeek packs them: bytes with a sign, and exponents named
/// "scale".
TEST_F(QuantizedCheckpoint, PackedExpertsWithoutASchemeOfTheirOwn) {
  quantized_checkpoint q(small(), stored_as::mxfp4);
  for (auto& t : q.stored.tensors) {
    if (t.name.ends_with(".weight_packed")) t.name.erase(t.name.size() - 7), t.dtype = "I8";
    if (t.name.ends_with(".weight_scale"))
      t.name.replace(t.name.size() - 12, 12, "scale"), t.dtype = "F8_E8M0";
  }
  q.stored.config["quantization_config"] = {
      {"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 128}}};
  EXPECT_TRUE(converted(q.stored, "got.gguf") == converted(q.plain, "want.gguf"));
}

/// The same as torch stores numbers of four bits, and under the name that transformers gives the exponents.
TEST_F(QuantizedCheckpoint, PackedExpertsAsOthersNameThem) {
  const quantized_checkpoint q(small(), stored_as::mxfp4);
  const json fp8 = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 128}}};
  for (const bool own_type : {false, true}) {
    auto c = q.stored;
    for (auto& t : c.tensors) {
      if (t.name.ends_with(".weight_packed")) {
        t.name.erase(t.name.size() - 7), t.dtype = own_type ? "F4" : "I8";
        if (own_type) t.shape[1] *= 2;
      }
      if (t.name.ends_with(".weight_scale")) t.name += "_inv", t.dtype = "F8_E8M0";
    }
    c.config["quantization_config"] = fp8;
    EXPECT_TRUE(converted(c, "got.gguf") == converted(q.plain, "want.gguf")) << own_type;
    auto& t = c.at(o_proj + ".weight");
    const auto needed = (own_type ? "need F4 [" : "need U8 [") + std::to_string(t.shape[0]) + ", " +
                        std::to_string(t.shape[1]) + "]";
    t.shape[1] -= 2;
    t.bytes.resize(static_cast<std::size_t>(t.shape[0] * t.shape[1] / (own_type ? 2 : 1)));
    expect_failure(c, {t.name, own_type ? "F4" : "I8", needed});
  }
}

/// A damage, and what the message must name.
struct damage {
  const char* what;
  stored_as how;
  void (*apply)(fake_checkpoint&);
  std::vector<std::string> parts;
};

json& weights_of(fake_checkpoint& c) {
  return c.config["quantization_config"]["config_groups"]["group_0"]["weights"];
}
void reshape(raw_tensor& t, std::vector<std::int64_t> shape) {
  const auto n = t.dtype == "I32" || t.dtype == "F32"    ? 4
                 : t.dtype == "I64"                      ? 8
                 : t.dtype == "BF16" || t.dtype == "F16" ? 2
                                                         : 1;
  std::int64_t all = n;
  for (const auto d : shape) all *= d;
  t.shape = std::move(shape), t.bytes.resize(static_cast<std::size_t>(all));
}

TEST_F(QuantizedCheckpoint, DamageNamesTensorAndCause) {
  using c = fake_checkpoint;
  const std::vector<damage> all = {
      {"packed shape",
       stored_as::int4,
       [](c& x) {
         reshape(x.at(o_proj + ".weight_packed"), {3, 5});
       },
       {o_proj + ".weight_packed", "[3, 5]"}},
      {"packed type",
       stored_as::int4,
       [](c& x) {
         auto& t = x.at(o_proj + ".weight_packed");
         t.dtype = "F32";
       },
       {o_proj + ".weight_packed", "F32", "I32"}},
      {"scale shape",
       stored_as::int4,
       [](c& x) {
         reshape(x.at(o_proj + ".weight_scale"), {1, 1});
       },
       {o_proj + ".weight_scale", "[1, 1]"}},
      {"no scale",
       stored_as::int4,
       [](c& x) { x.erase(o_proj + ".weight_scale"); },
       {o_proj + ".weight_scale", "is missing"}},
      {"shape says otherwise",
       stored_as::int4,
       [](c& x) { x.at(o_proj + ".weight_shape").bytes[0] = 7; },
       {o_proj + ".weight_shape", "says [7"}},
      {"shape of three",
       stored_as::int4,
       [](c& x) { reshape(x.at(o_proj + ".weight_shape"), {3}); },
       {o_proj + ".weight_shape", "[3]"}},
      {"twice",
       stored_as::int4,
       [](c& x) {
         x.tensors.push_back({o_proj + ".weight", "BF16", {1}, "xx"});
       },
       {o_proj, "also stored"}},
      {"order",
       stored_as::int4,
       [](c& x) {
         x.tensors.push_back({o_proj + ".weight_g_idx", "I32", {4}, std::string(16, '\1')});
       },
       {o_proj + ".weight_g_idx"}},
      {"zeros of symmetric",
       stored_as::int4_zeros,
       [](c& x) { weights_of(x)["symmetric"] = true; },
       {".weight_zero_point", "symmetric"}},
      {"zeros missing",
       stored_as::int4,
       [](c& x) { weights_of(x)["symmetric"] = false; },
       {"no zero points", "asymmetric"}},
      {"bits", stored_as::int4, [](c& x) { weights_of(x)["num_bits"] = 8; }, {".weight_packed", "is needed"}},
      {"odd bits",
       stored_as::int4,
       [](c& x) { weights_of(x)["num_bits"] = 3; },
       {"config.json", "num_bits", "3"}},
      {"group",
       stored_as::int4,
       [](c& x) { weights_of(x)["group_size"] = 64; },
       {".weight_scale", "is needed"}},
      {"group that does not divide",
       stored_as::int4,
       [](c& x) { weights_of(x)["group_size"] = 7; },
       {"groups of 7", "columns"}},
      {"no group",
       stored_as::int4,
       [](c& x) { weights_of(x)["group_size"] = nullptr; },
       {"group_size", "config_groups.group_0"}},
      {"format",
       stored_as::int4,
       [](c& x) { x.config["quantization_config"]["format"] = "float-quantized"; },
       {"num_bits", "float-quantized"}},
      {"unknown format",
       stored_as::int4,
       [](c& x) { x.config["quantization_config"]["format"] = "marlin-24"; },
       {"marlin-24"}},
      {"expression",
       stored_as::int4,
       [](c& x) { x.config["quantization_config"]["ignore"] = {"re:("}; },
       {"config.json", "ignore", "re:("}},
      {"ignored and packed",
       stored_as::int4,
       [](c& x) { x.config["quantization_config"]["ignore"] = {o_proj}; },
       {o_proj + ".weight_packed", "ignored"}},
      {"no config",
       stored_as::int4,
       [](c& x) { x.config.erase("quantization_config"); },
       {".weight_packed", "no quantization_config"}},
      {"groups no object",
       stored_as::int4,
       [](c& x) { x.config["quantization_config"]["config_groups"] = 3; },
       {"config_groups"}},
      {"not quantized",
       stored_as::int4,
       [](c& x) {
         const auto q = x.config["quantization_config"];
         x = small();
         x.config["quantization_config"] = q;
       },
       {"_proj.weight", "type BF16", "packed integers", "config_groups.group_0"}},
      {"integers of four bits",
       stored_as::int8_plain,
       [](c& x) { weights_of(x)["num_bits"] = 4; },
       {"type I8", "4 bits"}},
      {"gptq order",
       stored_as::gptq,
       [](c& x) { x.at(o_proj + ".g_idx").bytes[0] = 1; },
       {o_proj + ".g_idx", "order of activations"}},
      {"gptq order shape",
       stored_as::gptq,
       [](c& x) { reshape(x.at(o_proj + ".g_idx"), {1}); },
       {o_proj + ".g_idx", "[1]"}},
      {"gptq zeros",
       stored_as::gptq,
       [](c& x) { x.config["quantization_config"]["sym"] = true; },
       {".qzeros", "symmetric"}},
      {"gptq bits",
       stored_as::gptq,
       [](c& x) { x.config["quantization_config"]["bits"] = 3; },
       {"bits", "3"}},
      {"gptq scales",
       stored_as::gptq,
       [](c& x) { x.erase(o_proj + ".scales"); },
       {o_proj + ".scales", "is missing"}},
      {"gptq without config",
       stored_as::gptq,
       [](c& x) { x.config.erase("quantization_config"); },
       {".qweight", "GPTQ or AWQ"}},
      {"gptq as awq",
       stored_as::gptq,
       [](c& x) {
         x.config["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}};
       },
       {".qweight", "is needed"}},
      {"awq version",
       stored_as::awq,
       [](c& x) { x.config["quantization_config"]["version"] = "gemv"; },
       {"version", "gemv"}},
      {"awq zeros",
       stored_as::awq,
       [](c& x) {
         reshape(x.at(o_proj + ".qzeros"), {1, 1});
       },
       {o_proj + ".qzeros", "[1, 1]"}},
      {"mxfp4 scale",
       stored_as::mxfp4,
       [](c& x) { x.at(o_proj + ".weight_scale").bytes[0] = '\xff'; },
       {"blk.1.attn_output.weight", "NaN"}},
      {"mxfp4 scale type",
       stored_as::mxfp4,
       [](c& x) {
         auto& t = x.at(o_proj + ".weight_scale");
         t.dtype = "F8_E4M3";
       },
       {o_proj + ".weight_scale", "F8_E4M3"}},
      {"nvfp4 scale",
       stored_as::nvfp4,
       [](c& x) { x.at(o_proj + ".weight_scale").bytes[0] = '\x7f'; },
       {"blk.1.attn_output.weight", "NaN"}},
      {"nvfp4 global",
       stored_as::nvfp4,
       [](c& x) { x.erase(o_proj + ".weight_global_scale"); },
       {o_proj + ".weight_global_scale", "is missing"}},
      {"nvfp4 global of zero",
       stored_as::nvfp4,
       [](c& x) { x.at(o_proj + ".weight_global_scale").bytes = std::string(4, '\0'); },
       {o_proj + ".weight_global_scale", "not positive"}},
      {"nvfp4 as mxfp4",
       stored_as::nvfp4,
       [](c& x) {
         weights_of(x)["group_size"] = 32, x.config["quantization_config"]["format"] = "mxfp4-pack-quantized";
       },
       {".weight_scale", "F8_E4M3"}},
      {"modelopt",
       stored_as::nvfp4_modelopt,
       [](c& x) { x.config["quantization_config"]["quant_algo"] = "W4A8"; },
       {"quant_algo", "W4A8"}},
      {"modelopt global",
       stored_as::nvfp4_modelopt,
       [](c& x) { x.erase(o_proj + ".weight_scale_2"); },
       {o_proj + ".weight_scale_2", "is missing"}},
      {"fp8 per tensor",
       stored_as::fp8_channel,
       [](c& x) { weights_of(x)["strategy"] = "tensor"; },
       {".weight_scale", "per tensor"}},
      {"fp8 block",
       stored_as::fp8_channel,
       [](c& x) { weights_of(x)["strategy"] = "block"; },
       {"block_structure", "is missing"}},
      {"fp8 scale of NaN",
       stored_as::fp8_powers,
       [](c& x) { x.at(o_proj + ".weight_scale_inv").bytes[0] = '\xff'; },
       {o_proj + ".weight_scale_inv", "NaN"}},
      {"two scales",
       stored_as::fp8_powers,
       [](c& x) {
         x.tensors.push_back({o_proj + ".weight_scale", "F32", {1}, "xxxx"});
       },
       {o_proj, "second set of scales"}},
      {"method",
       stored_as::int4,
       [](c& x) { x.config["quantization_config"]["quant_method"] = "bitsandbytes"; },
       {"bitsandbytes"}},
  };
  std::map<stored_as, fake_checkpoint> good;
  for (const auto& d : all) {
    SCOPED_TRACE(d.what);
    if (!good.contains(d.how)) good.emplace(d.how, quantized_checkpoint(small(), d.how).stored);
    auto c2 = good.at(d.how);
    d.apply(c2);
    expect_failure(c2, d.parts);
  }
}

fake_checkpoint renamed(fake_checkpoint c, const std::string& body, const std::string& head) {
  for (auto& t : c.tensors) {
    if (t.name.starts_with("model."))
      t.name = body + t.name.substr(6);
    else if (t.name.starts_with("lm_head."))
      t.name = head + t.name.substr(7);
  }
  return c;
}

TEST_F(QuantizedCheckpoint, OtherModelsOfTheFamily) {
  const auto base = small();
  const auto want = converted(base, "want.gguf");
  auto glm = base;
  glm.config["architectures"] = {"Glm4MoeLiteForCausalLM"}, glm.config["model_type"] = "glm4_moe_lite";
  for (const char* key : {"scoring_func", "topk_method", "first_k_dense_replace"}) glm.config.erase(key);
  glm.config["mlp_layer_types"] = {"dense", "sparse", "sparse"};
  EXPECT_TRUE(converted(glm, "got.gguf") == want);
  glm.config["eos_token_id"] = {1, 2, 3};
  converted(glm, "glm.gguf");
  const auto keys = gguf::reader::open(dir / "glm.gguf");
  EXPECT_EQ(*keys->meta().integer("tokenizer.ggml.eot_token_id"), 2);
  EXPECT_EQ(*keys->meta().integer("tokenizer.ggml.eom_token_id"), 3);
  glm.config["mlp_layer_types"] = {"sparse", "dense", "sparse"};
  expect_failure(glm, {"mlp_layer_types"});

  auto sparse = base;
  sparse.config["architectures"] = {"DeepseekV32ForCausalLM"};
  sparse.config["index_topk"] = 2048, sparse.config["index_head_dim"] = 128,
  sparse.config["index_n_heads"] = 64;
  sparse.tensors.push_back({"model.layers.0.self_attn.indexer.wk.weight", "BF16", {1}, "xx"});
  EXPECT_TRUE(converted(sparse, "got.gguf") == want);
  sparse.config["architectures"] = {"GlmMoeDsaForCausalLM"};
  EXPECT_TRUE(converted(sparse, "got.gguf") == want);
  sparse.config["architectures"] = {"DeepseekV3ForCausalLM"};
  expect_failure(sparse, {"indexer.wk.weight", "no place"});
}

TEST_F(QuantizedCheckpoint, TheLanguageModelInAWrapper) {
  const auto base = small();
  const auto want = converted(base, "want.gguf");
  const std::vector<std::pair<std::string, std::string>> layouts = {
      {"language_model.model.", "language_model.lm_head"}, {"model.language_model.", "lm_head"}};
  for (const auto& [body, head] : layouts) {
    auto c = renamed(base, body, head);
    c.config = {{"architectures", {"KimiK25ForConditionalGeneration"}},
                {"model_type", "kimi_k25"},
                {"text_config", base.config},
                {"vision_config", {{"depth", 2}}}};
    c.tensors.push_back({"vision_tower.patch_embed.weight", "BF16", {1}, "xx"});
    c.tensors.push_back({"mm_projector.linear.bias", "BF16", {1}, "xx"});
    EXPECT_TRUE(converted(c, "got.gguf") == want) << body;
    c.tensors.push_back({"surprise.weight", "BF16", {1}, "xx"});
    expect_failure(c, {"surprise.weight", "no place"});
  }
  // Lists of modules name the language model's part with or without the wrapper's prefix.
  const quantized_checkpoint q(base, stored_as::int4);
  auto c = renamed(q.stored, "language_model.model.", "language_model.lm_head");
  c.config = {{"architectures", {"KimiK25ForConditionalGeneration"}}, {"text_config", q.stored.config}};
  c.config["text_config"]["quantization_config"]["config_groups"]["group_0"]["targets"] = {
      "re:model[.]layers.*_proj.*"};
  EXPECT_TRUE(converted(c, "got.gguf") == converted(q.plain, "want.gguf"));
}

TEST_F(QuantizedCheckpoint, PointersAndPagesInPlaceOfFiles) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4302350272\n",
                    page = "\n<!DOCTYPE html>\n<html><head>";
  small().write(dir / "hf");
  hf::convert_options o;
  o.quantize.in = dir / "hf", o.quantize.out = dir / "out.gguf", o.quantize.quiet = true;
  for (const char* file : {"model-00002-of-00002.safetensors", "config.json", "tokenizer.json",
                           "tokenizer_config.json", "model.safetensors.index.json"})
    for (const auto& [content, what] :
         {std::pair(pointer, "Git LFS pointer"), std::pair(page, "HTML page")}) {
      const auto before = read_file(dir / "hf" / file);
      write_file(dir / "hf" / file, content);
      const auto done = hf::convert(o);
      ASSERT_FALSE(done) << file;
      EXPECT_NE(done.error().message.find(file), std::string::npos) << done.error().message;
      EXPECT_NE(done.error().message.find(what), std::string::npos) << done.error().message;
      write_file(dir / "hf" / file, before);
    }
}

}  // namespace
}  // namespace quantal::test
