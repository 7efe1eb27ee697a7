// Checkpoints made from GGUF files must convert back to those files, bit for bit, and quantizing on the way
// must give what quantizing the bf16 file gives.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

#include "checkpoint_maker.hpp"
#include "hf_convert.hpp"
#include "mla/safetensors.hpp"
#include "quantal/imatrix/moments.hpp"
#include "scoring.hpp"
#include "session.hpp"
#include "support/paths.hpp"
#include "tokenizer.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define QUANTAL_TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QUANTAL_TEST_ASAN 1
#endif
#endif

namespace quantal::test {
namespace {

#if defined(QUANTAL_TEST_ASAN)
constexpr bool address_sanitizer = true;
#else
constexpr bool address_sanitizer = false;
#endif

const std::string fixtures = test::data_file("/fixtures/");

class Convert : public ::testing::Test {
 protected:
  static fake_checkpoint from(const std::string& gguf) {
    const auto model = gguf::reader::open(gguf);
    EXPECT_TRUE(model) << model.error().message;
    return checkpoint_maker(*model).make();
  }
  fake_checkpoint small() { return from(fixtures + "fixture-v3-mainline-bf16.gguf"); }

  hf::convert_options options(const std::string& out = "out.gguf") {
    hf::convert_options o;
    o.quantize.in = dir / "hf", o.quantize.out = dir / out, o.quantize.threads = 2, o.quantize.quiet = true;
    o.name = name;
    return o;
  }
  void convert(const hf::convert_options& o) {
    const auto done = hf::convert(o);
    ASSERT_TRUE(done) << done.error().message;
  }
  std::string converted(const fake_checkpoint& c, const std::string& out = "out.gguf") {
    std::filesystem::remove_all(dir / "hf");
    c.write(dir / "hf");
    convert(options(out));
    return read_file(dir / out);
  }
  /// Converting fails with a message that has all the parts, and leaves nothing behind.
  void expect_failure(const hf::convert_options& o, const std::vector<std::string>& parts) {
    const auto before = dir.files();
    const auto done = hf::convert(o);
    ASSERT_FALSE(done) << parts[0];
    for (const auto& p : parts)
      EXPECT_NE(done.error().message.find(p), std::string::npos)
          << "got " << done.error().message << "\nwanted " << p;
    EXPECT_EQ(dir.files(), before);
  }
  void expect_failure(const fake_checkpoint& c, const std::vector<std::string>& parts) {
    std::filesystem::remove_all(dir / "hf");
    c.write(dir / "hf");
    expect_failure(options(), parts);
  }

  temp_dir dir;
  std::string name = "a model";
};

struct round_trip {
  std::string file, layout;
};

class ConvertBack : public Convert, public ::testing::WithParamInterface<round_trip> {};

TEST_P(ConvertBack, GivesTheSameFile) {
  const auto& p = GetParam();
  const auto model = gguf::reader::open(p.file);
  ASSERT_TRUE(model) << model.error().message;
  checkpoint_maker(*model).make().write(dir / "hf");
  name = *model->meta().string("general.name");
  auto o = options();
  o.layout = p.layout;
  convert(o);
  const auto got = gguf::reader::open(o.quantize.out);
  ASSERT_TRUE(got) << got.error().message;
  for (const auto& [key, value] : model->meta().items()) {
    ASSERT_TRUE(got->meta().contains(key)) << key;
    EXPECT_TRUE(*got->meta().find(key) == value) << key;
  }
  EXPECT_EQ(got->meta().size(), model->meta().size());
  for (const auto& t : model->tensors()) {
    const auto* g = got->find(t.name);
    ASSERT_TRUE(g) << t.name;
    EXPECT_EQ(g->ne, t.ne) << t.name;
    EXPECT_EQ(g->type, t.type) << t.name;
    const auto a = model->data(t), b = got->data(*g);
    EXPECT_TRUE(std::equal(a->begin(), a->end(), b->begin(), b->end())) << t.name;
  }
  EXPECT_EQ(got->tensors().size(), model->tensors().size());
  EXPECT_TRUE(read_file(o.quantize.out) == read_file(p.file)) << "whole file";
}

INSTANTIATE_TEST_SUITE_P(Files, ConvertBack,
                         ::testing::Values(round_trip{test::model_file("/tiny-mla-moe-bf16.gguf"), "3d"},
                                           round_trip{fixtures + "fixture-v3-mainline-bf16.gguf", "3d"},
                                           round_trip{fixtures + "fixture-v3-ik-bf16.gguf", "2d+kv_b"},
                                           round_trip{fixtures + "fixture-v2lite-mainline-bf16.gguf", "3d"},
                                           round_trip{fixtures + "fixture-v2lite-ik-bf16.gguf", "2d+kv_b"}));

TEST_F(Convert, Fp8IsExact) {
  for (const std::int64_t block : {128, 48}) {
    auto eight = small();
    const auto plain = to_fp8(eight, block);
    const auto want = converted(plain, "want.gguf"), got = converted(eight, "got.gguf");
    EXPECT_TRUE(got == want) << "blocks of " << block;
  }
  EXPECT_TRUE(mla::load_model(dir / "got.gguf"));
}

/// Perplexity over windows of 512 tokens, second halves scored.
double perplexity(const std::filesystem::path& gguf, std::size_t windows) {
  const safetensors golden(test::data_file("/goldens/tiny.golden.safetensors"));
  const auto tokens = golden.get<std::int32_t>("nll512.tokens");
  const auto m = mla::load_model(gguf);
  EXPECT_TRUE(m) << m.error().message;
  const auto vocabulary = static_cast<std::size_t>(m->hyper.vocabulary);
  thread_pool pool(2);
  mla::session s(*m, runtime::dispatcher::best(), pool, 512, {});
  std::vector<float> logits(512 * vocabulary);
  mla::running_mean nll;
  for (std::size_t w = 0; w < windows; ++w) {
    const auto window = std::span(tokens).subspan(w * 512, 512);
    s.clear();
    EXPECT_TRUE(s.evaluate(window, logits));
    for (std::size_t t = 256; t < 511; ++t) {
      const float* row = logits.data() + t * vocabulary;
      nll.add(mla::log_sum_exp(row, m->hyper.vocabulary) - row[window[t + 1]]);
    }
  }
  return std::exp(nll.mean());
}

TEST_F(Convert, Fp8OfTheTrainedModelKeepsItsPerplexity) {
  const std::string model = test::model_file("/tiny-mla-moe-bf16.gguf");
  auto eight = from(model);
  const auto plain = to_fp8(eight, 128, fp8_codes::nearest);
  const auto got = converted(eight, "got.gguf");
  EXPECT_TRUE(got == converted(plain, "want.gguf"));
  EXPECT_FALSE(got == read_file(model));
  const double before = perplexity(model, 4), after = perplexity(dir / "got.gguf", 4);
  EXPECT_NEAR(after / before, 1, 0.01) << before << " " << after;
}

/// Makes the experts fp8 matrices of `hidden` rows or columns, of zeros, and writes one file that takes no
/// space on the disk for them. Answers the bytes of all experts of one kind in a layer.
std::int64_t write_with_large_experts(fake_checkpoint c, std::int64_t hidden,
                                      const std::filesystem::path& dir) {
  const std::int64_t old = c.config["moe_intermediate_size"], experts = c.config["n_routed_experts"];
  c.config["moe_intermediate_size"] = hidden;
  c.config["quantization_config"] = {
      {"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 128}}};
  std::vector<raw_tensor> zeros;
  std::int64_t bytes = 0;
  for (auto& t : c.tensors) {
    if (t.name.find("experts.") == std::string::npos) continue;
    auto shape = t.shape;
    std::replace(shape.begin(), shape.end(), old, hidden);
    bytes = std::max(bytes, experts * shape[0] * shape[1]);
    zeros.push_back({t.name, "F8_E4M3", shape, {}});
    zeros.push_back({t.name + "_scale_inv", "F32", {(shape[0] + 127) / 128, (shape[1] + 127) / 128}, {}});
  }
  std::erase_if(c.tensors, [](const raw_tensor& t) { return t.name.find("experts.") != std::string::npos; });
  c.write(dir, false);
  std::string header = "{\"__metadata__\":{}", data;
  for (const auto& t : c.tensors) {
    header += "," + header_entry(t, data.size(), t.bytes.size());
    data += t.bytes;
  }
  std::size_t at = data.size();
  for (const auto& t : zeros) {
    const auto size = static_cast<std::size_t>(t.shape[0] * t.shape[1] * (t.dtype == "F32" ? 4 : 1));
    header += "," + header_entry(t, at, size);
    at += size;
  }
  const auto file = dir / "model.safetensors";
  const auto start = safetensors_bytes(header + "}", data);
  write_file(file, start);
  std::filesystem::resize_file(file, start.size() + at - data.size());
  return bytes;
}

std::int64_t resident_kib() {
  std::ifstream f("/proc/self/statm");
  std::int64_t all = 0, resident = 0;
  f >> all >> resident;
  return resident * ::sysconf(_SC_PAGESIZE) / 1024;
}

TEST_F(Convert, MemoryStaysBelowAFewTensors) {
  if (address_sanitizer) GTEST_SKIP() << "it keeps memory of its own";
  const std::int64_t largest = write_with_large_experts(small(), 32768, dir / "hf");
  ASSERT_GT(static_cast<std::int64_t>(std::filesystem::file_size(dir / "hf" / "model.safetensors")),
            5 * largest);
  auto o = options();
  o.quantize.type = "Q4_0";
  const auto before = resident_kib();
  const auto child = ::fork();
  if (child == 0) ::_exit(hf::convert(o) ? 0 : 1);
  int exit_code = -1;
  rusage used{};
  ASSERT_EQ(::wait4(child, &exit_code, 0, &used), child);
  EXPECT_EQ(exit_code, 0);
  EXPECT_LT((used.ru_maxrss - before) * 1024, 3 * largest);
}

TEST_F(Convert, OneFileAndOtherFloatTypesGiveTheSame) {
  const auto c = small();
  const auto want = converted(c, "want.gguf");
  auto wide = c;
  for (auto& t : wide.tensors)
    if (t.dtype == "BF16") {
      std::string out;
      for (std::size_t i = 0; i < t.bytes.size(); i += 2) out += std::string(2, '\0') + t.bytes.substr(i, 2);
      t.dtype = "F32", t.bytes = out;
    }
  std::filesystem::remove_all(dir / "hf");
  wide.write(dir / "hf", false);
  convert(options());
  EXPECT_TRUE(read_file(dir / "out.gguf") == want);
}

/// Every BF16 tensor as f16, which holds the fixture's weights exactly.
fake_checkpoint as_f16(fake_checkpoint c) {
  for (auto& t : c.tensors)
    if (t.dtype == "BF16") {
      for (std::size_t i = 0; i < t.bytes.size(); i += 2) {
        std::uint16_t b;
        std::memcpy(&b, t.bytes.data() + i, 2);
        b = detail::float_to_half(detail::bfloat16_to_float(b));
        std::memcpy(t.bytes.data() + i, &b, 2);
      }
      t.dtype = "F16";
    }
  c.config["torch_dtype"] = "float16";
  return c;
}

TEST_F(Convert, HalfPrecisionIsRoundedToBf16OrKept) {
  const auto half = as_f16(small());
  // What the halves stand for, in bf16.
  auto rounded = half;
  for (auto& t : rounded.tensors)
    if (t.dtype == "F16") {
      for (std::size_t i = 0; i < t.bytes.size(); i += 2) {
        std::uint16_t b;
        std::memcpy(&b, t.bytes.data() + i, 2);
        b = to_bf16(detail::half_to_float(b));
        std::memcpy(t.bytes.data() + i, &b, 2);
      }
      t.dtype = "BF16";
    }
  const auto want = converted(rounded, "want.gguf");
  EXPECT_TRUE(converted(half) == want);
  auto o = options("half.gguf");
  o.quantize.type = "F16";
  convert(o);
  const auto kept = gguf::reader::open(dir / "half.gguf");
  ASSERT_TRUE(kept) << kept.error().message;
  const auto* t = kept->find("output.weight");
  ASSERT_EQ(t->type, f16::gguf_id);
  const auto bytes = kept->data(*t);
  const auto& stored = const_cast<fake_checkpoint&>(half).at("lm_head.weight").bytes;
  ASSERT_EQ(bytes->size(), stored.size());
  EXPECT_EQ(std::memcmp(bytes->data(), stored.data(), stored.size()), 0);
}

TEST_F(Convert, FullPrecisionTypesKeepWhatBf16CannotHold) {
  auto c = small();
  auto& t = c.at("lm_head.weight");
  std::string floats(t.bytes.size() * 2, '\0');
  for (std::size_t i = 0; i < floats.size() / 4; ++i) {
    const float x = 1.0f + static_cast<float>(i) * 1e-7f;
    std::memcpy(floats.data() + 4 * i, &x, 4);
  }
  t.dtype = "F32", t.bytes = floats;
  c.write(dir / "hf");
  auto o = options();
  o.quantize.type = "F32";
  convert(o);
  const auto got = gguf::reader::open(o.quantize.out);
  ASSERT_TRUE(got) << got.error().message;
  const auto b = got->data(*got->find("output.weight"));
  ASSERT_EQ(b->size(), floats.size());
  EXPECT_EQ(std::memcmp(b->data(), floats.data(), floats.size()), 0);
}

TEST_F(Convert, QuantizingOnTheWayIsQuantizingTheBf16File) {
  auto c = small();
  to_fp8(c);
  converted(c, "bf16.gguf");
  for (const std::string layout : {"3d", "2d", "2d+kv_b"}) {
    auto o = options("bf16.gguf");
    o.layout = layout;
    convert(o);
    o.quantize.out = dir / "direct.gguf", o.quantize.type = "Q4_0";
    o.quantize.rules = {"ffn_down=q5_1,attn_output=q5_0"};
    convert(o);
    auto q = o.quantize;
    q.in = dir / "bf16.gguf", q.out = dir / "via.gguf";
    const auto done = plan::run(q);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_TRUE(read_file(dir / "direct.gguf") == read_file(dir / "via.gguf")) << layout;
  }
}

TEST_F(Convert, CollectsImportanceFromATextAndUsesIt) {
  const auto c = small();
  converted(c, "bf16.gguf");
  std::string text;
  for (int i = 0; i < 300; ++i) text += "line " + std::to_string(i * 37 % 101) + " of a text\n";
  write_file(dir / "text.txt", text);
  auto o = options("direct.gguf");
  o.quantize.type = "Q4_0";
  o.imatrix_text = dir / "text.txt", o.imatrix_context = 64, o.imatrix_chunks = 3;
  const auto before = dir.files();
  convert(o);
  EXPECT_EQ(dir.files(), before + 2);  // the model and the importance matrix, no q8_0
  auto q = o.quantize;
  q.in = dir / "bf16.gguf", q.out = dir / "via.gguf", q.imatrix = dir / "direct.gguf.imatrix.gguf";
  ASSERT_TRUE(plan::run(q));
  EXPECT_TRUE(read_file(dir / "direct.gguf") == read_file(dir / "via.gguf"));
  q.imatrix.clear(), q.out = dir / "without.gguf";
  ASSERT_TRUE(plan::run(q));
  EXPECT_FALSE(read_file(dir / "direct.gguf") == read_file(dir / "without.gguf"));
}

/// Moments for every matrix of the blocks, of inputs whose neighbours are correlated.
void write_moments(const gguf::reader& model, const std::filesystem::path& path) {
  imatrix::moments_store s;
  for (const auto& t : model.tensors()) {
    if (!t.name.starts_with("blk.") || t.rows() == 1) continue;
    imatrix::moments m(t.cols(), 1);
    for (auto* part : {&m.sums, &m.held_out})
      for (std::int64_t i = 0, at = 0; i < m.cols; ++i)
        for (std::int64_t j = 0; j <= i; ++j, ++at)
          (*part)[static_cast<std::size_t>(at)] =
              static_cast<float>(1000 * std::pow(0.8, static_cast<double>(i - j)));
    m.counts = m.held_counts = {1000};
    s.entries[t.name] = std::move(m);
  }
  const auto saved = imatrix::save_moments(s, path);
  ASSERT_TRUE(saved) << saved.error().message;
}

TEST_F(Convert, ChoosesCodesBySecondMomentsAsQuantizingDoes) {
  converted(small(), "bf16.gguf");
  const auto model = gguf::reader::open(dir / "bf16.gguf");
  ASSERT_TRUE(model);
  write_moments(*model, dir / "moments.gguf");
  auto o = options("direct.gguf");
  o.quantize.type = "Q4_0", o.quantize.hessian = dir / "moments.gguf";
  convert(o);
  auto q = o.quantize;
  q.in = dir / "bf16.gguf", q.out = dir / "via.gguf";
  ASSERT_TRUE(plan::run(q));
  EXPECT_TRUE(read_file(dir / "direct.gguf") == read_file(dir / "via.gguf"));
  q.hessian.clear(), q.out = dir / "without.gguf";
  ASSERT_TRUE(plan::run(q));
  EXPECT_FALSE(read_file(dir / "direct.gguf") == read_file(dir / "without.gguf"));
  o.quantize.hessian = dir / "none.gguf", o.quantize.out = dir / "no.gguf";
  const auto files = dir.files();
  const auto r = hf::convert(o);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("none.gguf"), std::string::npos);
  EXPECT_EQ(dir.files(), files);
}

TEST_F(Convert, SplitsBySize) {
  const auto whole_file = converted(small(), "whole.gguf");
  auto o = options("part.gguf");
  o.split_max_size = 300'000;
  convert(o);
  const auto whole = gguf::reader::open(dir / "whole.gguf");
  std::filesystem::path first;
  for (const auto& e : std::filesystem::directory_iterator(dir / ""))
    if (e.path().filename().string().starts_with("part-00001-of-")) first = e.path();
  const auto parts = gguf::reader::open(first);
  ASSERT_TRUE(parts) << parts.error().message;
  EXPECT_GT(parts->shards(), 3);
  ASSERT_EQ(parts->tensors().size(), whole->tensors().size());
  std::map<int, std::uint64_t> sizes;
  for (const auto& t : parts->tensors()) {
    const auto a = parts->data(t), b = whole->data(*whole->find(t.name));
    EXPECT_TRUE(std::equal(a->begin(), a->end(), b->begin(), b->end())) << t.name;
    sizes[t.shard] += t.nbytes;
  }
  for (const auto& [shard, size] : sizes) EXPECT_LE(size, 300'000u) << shard;
}

TEST_F(Convert, DryRunWritesNothing) {
  small().write(dir / "hf");
  const auto before = dir.files();
  auto o = options();
  o.quantize.dry_run = true;
  convert(o);
  EXPECT_EQ(dir.files(), before);
}

TEST_F(Convert, NextTokenLayersAndTiedOutputsAreLeftOut) {
  auto c = small();
  const auto want = converted(c, "want.gguf");
  c.tensors.push_back({"model.layers.3.eh_proj.weight", "BF16", {1}, "xx"});
  c.tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, "xxxx"});
  EXPECT_TRUE(converted(c) == want);
  c.config["tie_word_embeddings"] = true;
  converted(c);
  const auto tied = gguf::reader::open(dir / "out.gguf");
  EXPECT_EQ(tied->find("output.weight"), nullptr);
}

TEST_F(Convert, DamagedCheckpointsNameFileAndTensor) {
  const std::string q = "model.layers.1.self_attn.q_b_proj.weight";
  auto good = small();
  to_fp8(good);
  auto c = good;
  c.erase(q + "_scale_inv");
  expect_failure(c, {"model-0000", q, "no scales"});
  c = good;
  c.at(q + "_scale_inv").shape = {1, 2};
  c.at(q + "_scale_inv").bytes.resize(8);
  expect_failure(c, {q + "_scale_inv", "[1, 2]"});
  c = good;
  const float infinite = std::numeric_limits<float>::infinity();
  std::memcpy(c.at(q + "_scale_inv").bytes.data(), &infinite, 4);
  expect_failure(c, {q + "_scale_inv", "NaN or infinite"});
  c = good;
  c.erase(q);
  expect_failure(c, {q, "is missing"});
  c = good;
  c.at(q).bytes[70] = '\x7f';  // NaN
  expect_failure(c, {"blk.1.attn_q_b.weight", "is NaN"});
  c = good;
  std::swap(c.at(q).shape[0], c.at(q).shape[1]);
  expect_failure(c, {q, "config.json implies"});
  c = good;
  c.at(q).dtype = "I8";
  expect_failure(c, {q, "no weight type"});
  c = good;
  c.tensors.push_back({"model.layers.1.self_attn.q_proj.bias", "BF16", {1}, "xx"});
  expect_failure(c, {"q_proj.bias", "no place"});
  c = good;
  c.erase("model.layers.2.mlp.experts.5.up_proj.weight");
  expect_failure(c, {"experts.5.up_proj", "is missing"});
}

TEST_F(Convert, TruncatedShardsLeaveNoOutput) {
  const auto c = small();
  c.write(dir / "hf");
  const auto shard = dir / "hf" / "model-00002-of-00002.safetensors";
  const auto whole = read_file(shard);
  for (const std::size_t n :
       {std::size_t{0}, std::size_t{5}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
    write_file(shard, whole.substr(0, n));
    expect_failure(options(), {"model-00002-of-00002.safetensors"});
  }
  std::filesystem::remove(shard);
  expect_failure(options(), {"model-00002-of-00002.safetensors"});
}

TEST_F(Convert, ConfigurationsThatAreNotSupported) {
  const auto good = small();
  const auto with = [&](const char* key, const json& value) {
    auto c = good;
    c.config[key] = value;
    return c;
  };
  expect_failure(with("architectures", {"GPT2LMHeadModel"}), {"config.json", "GPT2LMHeadModel"});
  expect_failure(with("attention_bias", true), {"attention_bias"});
  expect_failure(with("moe_layer_freq", 2), {"moe_layer_freq"});
  expect_failure(with("hidden_size", nullptr), {"hidden_size", "is missing"});
  expect_failure(with("hidden_size", -1), {"hidden_size", "outside"});
  expect_failure(with("hidden_size", 1e9), {"hidden_size"});
  expect_failure(with("hidden_size", 128), {"config.json implies"});
  expect_failure(with("n_group", 3), {"n_group"});
  expect_failure(with("num_experts_per_tok", 99), {"num_experts_per_tok"});
  expect_failure(with("rope_scaling", {{"type", "linear"}, {"factor", 2}}), {"linear"});
  auto yarn = good.config["rope_scaling"];
  yarn["mscale"] = 0.5;
  expect_failure(with("rope_scaling", yarn), {"mscale"});
  expect_failure(with("quantization_config", {{"quant_method", "bitsandbytes"}}), {"bitsandbytes"});
  expect_failure(with("rms_norm_eps", "small"), {"rms_norm_eps"});
  auto o = options();
  o.layout = "4d";
  expect_failure(o, {"4d"});
  o = options();
  o.quantize.type = "Q9";
  expect_failure(o, {"Q9"});
  o = options();
  good.write(dir / "hf");
  o.quantize.out = dir / "hf";
  expect_failure(o, {"is a folder"});
  o.quantize.out = dir / "hf" / "model-00001-of-00002.safetensors";
  expect_failure(o, {"is the input"});
}

TEST_F(Convert, GroupsOfExperts) {
  auto c = small();
  const auto groups = [&](const char* method) {
    c.config["topk_method"] = method, c.config["n_group"] = 4, c.config["topk_group"] = 2;
    converted(c);
    const auto m = gguf::reader::open(dir / "out.gguf");
    return std::pair(*m->meta().integer("deepseek2.expert_group_count"),
                     *m->meta().integer("deepseek2.expert_group_used_count"));
  };
  EXPECT_EQ(groups("noaux_tc"), std::pair(std::int64_t{4}, std::int64_t{2}));
  EXPECT_TRUE(mla::load_model(dir / "out.gguf"));
  for (std::int64_t i = 1; i < c.config["num_hidden_layers"]; ++i)
    c.erase("model.layers." + std::to_string(i) + ".mlp.gate.e_score_correction_bias");
  EXPECT_EQ(groups("group_limited_greedy"), std::pair(std::int64_t{4}, std::int64_t{2}));
  EXPECT_EQ(groups("greedy"), std::pair(std::int64_t{1}, std::int64_t{1}));  // the keys mean nothing then
}

TEST_F(Convert, ChatTemplates) {
  auto c = small();
  const auto chat = [&] {
    const auto m = gguf::reader::open(dir / "out.gguf");
    const auto t = m->meta().string("tokenizer.chat_template");
    return t ? std::string(*t) : "none";
  };
  converted(c);
  EXPECT_EQ(chat(), "none");
  c.tokenizer_config["chat_template"] = "{{ messages }}\n";
  converted(c);
  EXPECT_EQ(chat(), "{{ messages }}\n");
  c.tokenizer_config["chat_template"] = {{{"name", "tool_use"}, {"template", "tools"}},
                                         {{"name", "default"}, {"template", "plain"}}};
  converted(c);
  EXPECT_EQ(chat(), "plain");
  write_file(dir / "hf" / "chat_template.json", R"({"chat_template": "of models that see"})");
  convert(options());
  EXPECT_EQ(chat(), "of models that see");
  write_file(dir / "hf" / "chat_template.json", R"({"chat_template": )");
  expect_failure(options("refused.gguf"), {"chat_template.json"});
  write_file(dir / "hf" / "chat_template.jinja", "of its own file");
  convert(options());
  EXPECT_EQ(chat(), "of its own file");
}

TEST_F(Convert, TiktokenInPlaceOfTokenizerJson) {
  auto c = small();
  c.write(dir / "hf");
  std::filesystem::remove(dir / "hf" / "tokenizer.json");
  const std::int64_t size = c.config["vocab_size"];
  std::string lines;
  std::int64_t rank = 0;
  for (int b = 0; b < 256; ++b)
    lines += base64(std::string(1, static_cast<char>(b))) + " " + std::to_string(rank++) + "\n";
  for (const char* t : {"th", "he", "the", " the"}) lines += base64(t) + " " + std::to_string(rank++) + "\n";
  write_file(dir / "hf" / "tiktoken.model", lines);
  const json special = {{"content", "[EOS]"}, {"special", true}};
  write_file(dir / "hf" / "tokenizer_config.json",
             json{{"tokenizer_class", "TikTokenTokenizer"},
                  {"eos_token", "[EOS]"},
                  {"added_tokens_decoder", {{std::to_string(rank), special}}}}
                 .dump());
  convert(options());
  const auto m = gguf::reader::open(dir / "out.gguf");
  ASSERT_TRUE(m) << m.error().message;
  EXPECT_EQ(*m->meta().string("tokenizer.ggml.pre"), "kimi-k2");
  EXPECT_EQ(*m->meta().integer("tokenizer.ggml.eos_token_id"), rank);
  EXPECT_EQ(static_cast<std::int64_t>((*m->meta().strings("tokenizer.ggml.tokens"))->size()), size);
  const auto t = mla::tokenizer::from_gguf(m->meta());
  ASSERT_TRUE(t) << t.error().message;
  EXPECT_EQ(t->decode(t->encode("the other")), "the other");
  EXPECT_EQ(t->encode("the other").front(), 258);
}

TEST_F(Convert, NewerSpellingsOfTheConfiguration) {
  auto c = small();
  const auto want = converted(c, "want.gguf");
  auto rope = c.config["rope_scaling"];
  rope["rope_type"] = rope["type"], rope.erase("type");
  rope["rope_theta"] = c.config["rope_theta"];
  c.config["rope_parameters"] = rope;
  c.config.erase("rope_scaling"), c.config.erase("rope_theta");
  c.config["model_type"] = "kimi_k2";
  EXPECT_TRUE(converted(c) == want);
}

TEST(ParseSize, ThousandsAndNothingElse) {
  EXPECT_EQ(*hf::parse_size("50G"), 50'000'000'000u);
  EXPECT_EQ(*hf::parse_size("8M"), 8'000'000u);
  EXPECT_EQ(*hf::parse_size("123"), 123u);
  for (const char* bad : {"", "G", "0", "-1", "1T", "1GB", "99999999999999G", "1.5G"})
    EXPECT_FALSE(hf::parse_size(bad)) << bad;
}

}  // namespace
}  // namespace quantal::test
