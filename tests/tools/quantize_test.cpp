// quantal-quantize end to end, below its command line: fixtures and synthetic models.
#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "convert.hpp"
#include "coverage.hpp"
#include "file.hpp"
#include "json.hpp"
#include "output.hpp"
#include "quantal/dequantize.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/imatrix/io.hpp"
#include "run.hpp"
#include "support/paths.hpp"
#include "synthetic.hpp"

namespace quantal::plan {
namespace {

namespace fs = std::filesystem;

const fs::path fixtures = fs::path(test::data_file("/fixtures"));

std::vector<float> values(const gguf::reader& r, const gguf::tensor_info& t) {
  const auto bytes = r.data(t);
  EXPECT_TRUE(bytes);
  std::vector<float> out(static_cast<std::size_t>(t.elements()));
  const auto row = find_format(t.type)->row_bytes(t.cols());
  for (std::int64_t i = 0; i < t.rows() * t.slices(); ++i)
    EXPECT_EQ(dequantize_row(t.type, bytes->data() + i * row, out.data() + i * t.cols(), t.cols()),
              status::ok);
  return out;
}

double nmse(const std::vector<float>& a, const std::vector<float>& b) {
  quantization_error e;
  e.add(a.data(), b.data(), nullptr, static_cast<std::int64_t>(a.size()));
  return e.nmse_plain();
}

std::string bytes_of(const fs::path& p) {
  auto t = file::read_text(p);
  EXPECT_TRUE(t) << p;
  return t ? *t : std::string();
}

/// Statistics for every matrix of a model: per slice for experts and 3-D projections.
imatrix::store statistics_for(const std::vector<gguf::tensor_info>& tensors,
                              const std::string& without = "\n") {
  imatrix::store s;
  s.datasets = {"text.txt"};
  for (const auto& t : tensors) {
    if (!is_quantized(t) || t.name.find("blk.") != 0 || t.name.find(without) != std::string::npos) continue;
    imatrix::entry e(t.cols(), t.slices());
    for (std::size_t i = 0; i < e.sums.size(); ++i)
      e.sums[i] = 512.0 * (1.0 + static_cast<double>(i * 7 % 31));
    for (auto& c : e.counts) c = 512;
    s.entries[t.name] = e;
  }
  return s;
}

class quantizing : public ::testing::Test {
 protected:
  run_options options(const fs::path& in, const char* type, const char* out = "out.gguf") {
    run_options o;
    o.in = in, o.out = dir / out, o.type = type, o.threads = 2, o.json = true;
    return o;
  }
  /// Runs with stdout captured; empty or the message.
  std::string failure(const run_options& o) {
    ::testing::internal::CaptureStdout();
    const auto r = run(o);
    printed = ::testing::internal::GetCapturedStdout();
    return r ? "" : r.error().message;
  }
  void expect_failure(const run_options& o, const std::string& part) {
    const auto before = dir.names();
    const auto message = failure(o);
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_EQ(dir.names(), before) << "nothing may stay behind";
  }
  fs::path synthetic(const test::shape& s = {},
                     const std::function<void(const gguf::tensor_info&, std::vector<float>&)>& edit = {}) {
    test::write_model(dir / "in.gguf", test::deepseek2_metadata(s), test::deepseek2(s), edit);
    return dir / "in.gguf";
  }
  std::string importance(const imatrix::store& s, const char* name = "imatrix.gguf") {
    const auto saved = imatrix::save_gguf(s, dir / name);
    EXPECT_TRUE(saved) << saved.error().message;
    return dir / name;
  }
  test::temporary_folder dir;
  std::string printed;
};

TEST_F(quantizing, fixtures_stay_close_and_keep_their_metadata) {
  for (const char* name : {"fixture-v2lite-ik-bf16.gguf", "fixture-v3-mainline-bf16.gguf"}) {
    ASSERT_EQ(failure(options(fixtures / name, "Q4_K_M")), "");
    const auto in = gguf::reader::open(fixtures / name), out = gguf::reader::open(dir / "out.gguf");
    ASSERT_TRUE(in && out);
    ASSERT_EQ(in->tensors().size(), out->tensors().size());
    for (std::size_t i = 0; i < in->tensors().size(); ++i) {
      const auto &a = in->tensors()[i], &b = out->tensors()[i];
      EXPECT_EQ(a.name, b.name);
      EXPECT_EQ(a.ne, b.ne);
      EXPECT_LT(nmse(values(*in, a), values(*out, b)), 0.01) << a.name;
      if (!is_quantized(a)) {
        EXPECT_EQ(a.type, b.type) << a.name;
      }
    }
    EXPECT_EQ(*out->meta().integer("general.file_type"), 15);
    EXPECT_EQ(*out->meta().integer("general.quantization_version"), 2);
    EXPECT_EQ(*out->meta().string("general.architecture"), "deepseek2");
    EXPECT_EQ((*out->meta().strings("tokenizer.ggml.tokens"))->size(),
              (*in->meta().strings("tokenizer.ggml.tokens"))->size());
  }
}

TEST_F(quantizing, copy_is_byte_identical) {
  const auto in = fixtures / "fixture-v2lite-mainline-bf16.gguf";
  ASSERT_EQ(failure(options(in, "COPY")), "");
  const auto a = gguf::reader::open(in), b = gguf::reader::open(dir / "out.gguf");
  for (const auto& t : a->tensors()) {
    const auto x = *a->data(t), y = *b->data(*b->find(t.name));
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin(), y.end())) << t.name;
  }
  EXPECT_EQ(*b->meta().integer("general.file_type"), 32);
}

TEST_F(quantizing, same_bytes_for_any_number_of_threads) {
  const auto in = synthetic({.blocks = 2});
  const auto data = importance(statistics_for(test::deepseek2({.blocks = 2})));
  std::string first;
  for (int threads : {1, 2, 3}) {
    auto o = options(in, "IQ4_XS");
    o.threads = threads, o.imatrix = data;
    ASSERT_EQ(failure(o), "");
    const auto bytes = bytes_of(o.out);
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first) << threads << " threads";
  }
}

TEST_F(quantizing, importance_is_used_and_noted) {
  const auto in = synthetic({.blocks = 2});
  auto o = options(in, "Q4_0", "plain.gguf");
  ASSERT_EQ(failure(o), "");
  o.out = dir / "weighted.gguf";
  o.imatrix = importance(statistics_for(test::deepseek2({.blocks = 2})));
  ASSERT_EQ(failure(o), "");
  const auto plain = gguf::reader::open(dir / "plain.gguf"),
             weighted = gguf::reader::open(dir / "weighted.gguf");
  for (const char* name : {"blk.0.attn_v_b.weight", "blk.1.ffn_up_exps.weight", "blk.0.attn_k_b.weight"}) {
    const auto x = *plain->data(*plain->find(name)), y = *weighted->data(*weighted->find(name));
    EXPECT_FALSE(std::equal(x.begin(), x.end(), y.begin(), y.end())) << name;
  }
  EXPECT_EQ(*weighted->meta().string("quantize.imatrix.file"), o.imatrix.substr(0, 127));
  EXPECT_EQ(*weighted->meta().string("quantize.imatrix.dataset"), "text.txt");
  EXPECT_GT(*weighted->meta().integer("quantize.imatrix.entries_count"), 10);
  EXPECT_EQ(*weighted->meta().integer("quantize.imatrix.chunks_count"), 1);
  EXPECT_FALSE(plain->meta().contains("quantize.imatrix.file"));
}

TEST_F(quantizing, statistics_of_one_layout_serve_the_other) {
  const test::shape three{.blocks = 2}, two{.blocks = 2, .three_dimensional = false};
  auto s = statistics_for(test::deepseek2(three));
  for (int i = 0; i < 2; ++i) {  // what a collector adds for the 2-D layout
    imatrix::entry e(256, 1);
    for (auto& v : e.sums) v = 512.0;
    e.counts[0] = 512;
    s.entries["blk." + std::to_string(i) + ".attn_kv_b.weight"] = e;
  }
  for (const auto& shape : {three, two}) {
    auto o = options(synthetic(shape), "IQ4_XS");
    o.imatrix = importance(s), o.required = "all", o.dry_run = true;
    EXPECT_EQ(failure(o), "");
    const auto plan = json::parse(printed);
    EXPECT_TRUE(plan["missing_importance"].empty());
    int projections = 0;
    for (const auto& t : plan["tensors"])
      if (t["name"] == "blk.1.attn_k_b.weight" || t["name"] == "blk.1.attn_v_b.weight") {
        ++projections;
        EXPECT_NE(t["importance"]["source"], "none");
        EXPECT_EQ(t["importance"]["vectors"], 2) << "one per head";
      }
    EXPECT_EQ(projections, 2);
  }
}

TEST_F(quantizing, missing_importance_is_refused_up_front) {
  const auto in = synthetic();
  expect_failure(options(in, "IQ2_XXS"),
                 "need importance data that only an imatrix has: blk.0.attn_q_a.weight (iq2_xxs)");
  auto o = options(in, "IQ2_XXS");
  o.imatrix = importance(statistics_for(test::deepseek2({}), "blk.2.attn_v_b"));
  // attn_v_b has no stand-in among the statistics of the 3-D layout.
  expect_failure(o, "1 tensor(s) need importance data that the imatrix does not have: blk.2.attn_v_b.weight");
  o.required = "none", o.dry_run = true;
  EXPECT_EQ(failure(o), "");
  const auto doc = json::parse(printed);
  EXPECT_EQ(doc["missing_importance"], json::array({"blk.2.attn_v_b.weight"}));
}

TEST_F(quantizing, blocks_that_no_pass_runs_get_a_safe_type_and_check_agrees) {
  const test::shape s{.next_token = 1};
  const auto in = synthetic(s);
  const auto statistics = statistics_for(test::deepseek2(s), "blk.2.");
  const auto model = gguf::reader::open(in);
  ASSERT_TRUE(model);
  for (const char* type : {"IQ2_XXS", "IQ1_S", "IQ3_XXS", "Q4_K_M"})
    for (const char* required : {"lowbit", "all"}) {
      auto o = options(in, type);
      o.imatrix = importance(statistics), o.required = required, o.dry_run = true;
      ASSERT_EQ(failure(o), "") << type << " " << required;
      const auto plan = json::parse(printed);
      EXPECT_TRUE(plan["missing_importance"].empty());
      int safe = 0;
      for (const auto& t : plan["tensors"]) {
        if (t["decided_by"] != "no data") continue;
        ++safe;
        EXPECT_EQ(t["name"].get<std::string>().find("blk.2."), 0u);
        EXPECT_EQ(t["type"], t["name"] == "blk.2.attn_k_b.weight" ? "q5_0" : "q4_K") << t;
      }
      EXPECT_EQ(safe > 0, std::string(type) != "Q4_K_M");
      EXPECT_EQ(plan["notes"].empty(), safe == 0);
    }
  // What --check reports: no gap where quantizing needs nothing, a gap where it does.
  const auto gaps = [&](const imatrix::store& data) {
    const auto rows = mla::check_coverage(data, *model);
    EXPECT_TRUE(rows);
    return std::count_if(rows->begin(), rows->end(), [](const auto& r) { return r.gap(); });
  };
  EXPECT_EQ(gaps(statistics), 0);
  const auto less = statistics_for(test::deepseek2(s), "blk.1.attn_v_b");
  EXPECT_EQ(gaps(less), 1);
  auto o = options(in, "IQ2_XXS");
  o.imatrix = importance(less), o.required = "all";
  expect_failure(o, "1 tensor(s) need importance data that the imatrix does not have: blk.1.attn_v_b.weight");
}

/// A run of the model knows the inputs of what it runs, and no more.
TEST_F(quantizing, types_that_need_importance_where_a_run_knows_the_inputs) {
  const auto in = synthetic({.next_token = 1});
  const auto model = gguf::reader::open(in);
  ASSERT_TRUE(model);
  auto types = read_type_options(options(in, "IQ2_XXS"));
  ASSERT_TRUE(types);
  EXPECT_FALSE(make_plan(*model, *types, nullptr, requirement::lowbit));
  types->run_knows_inputs = [](std::string_view name) { return !name.starts_with("blk.2."); };
  const auto plan = make_plan(*model, *types, nullptr, requirement::lowbit);
  ASSERT_TRUE(plan) << plan.error().message;
  int safe = 0, chosen = 0;
  for (const auto& s : plan->steps) {
    safe += s.to.decided == reason::no_data;
    chosen += s.to.type == iq2_xxs::gguf_id;
    EXPECT_EQ(s.to.decided == reason::no_data && !s.tensor->name.starts_with("blk.2."), false)
        << s.tensor->name;
    EXPECT_FALSE(s.to.type == iq2_xxs::gguf_id && s.tensor->name.starts_with("blk.2.")) << s.tensor->name;
  }
  EXPECT_GT(safe, 0);
  EXPECT_GT(chosen, 0);
}

TEST_F(quantizing, whose_types) {
  const auto in = synthetic();
  const auto type_of = [&](const char* type, const char* types, const char* tensor) {
    auto o = options(in, type);
    o.types = types, o.dry_run = true;
    const auto message = failure(o);
    if (!message.empty()) return message;
    const auto plan = json::parse(printed);
    for (const auto& t : plan["tensors"])
      if (t["name"] == tensor) return t["type"].get<std::string>();
    return std::string("no such tensor");
  };
  EXPECT_EQ(type_of("Q4_K_M", "auto", "blk.1.attn_kv_a_mqa.weight"), "q4_K");
  EXPECT_EQ(type_of("Q4_K_M", "llama.cpp", "blk.1.attn_kv_a_mqa.weight"), "q4_K");
  EXPECT_EQ(type_of("IQ4_K", "auto", "blk.1.attn_kv_a_mqa.weight"), "iq4_k");
  EXPECT_NE(type_of("IQ4_K", "llama.cpp", "").find("--types llama.cpp: llama.cpp has no type IQ4_K"),
            std::string::npos);
  EXPECT_NE(type_of("TQ2_0", "ik", "").find("--types ik: ik_llama.cpp has no type TQ2_0"), std::string::npos);
  auto o = options(in, "Q4_K_M");
  o.rules = {"attn_q_a=iq4_k"}, o.dry_run = true;
  EXPECT_NE(failure(o).find("does not read iq4_k"), std::string::npos);
  o.types = "all";
  EXPECT_EQ(failure(o), "");
  o.types = "ik";
  EXPECT_EQ(failure(o), "");
}

TEST_F(quantizing, rules_for_kept_tensors_are_reported) {
  auto o = options(synthetic(), "Q4_0");
  o.json = false, o.dry_run = true, o.rules = {"ffn_gate_inp=q8_0,ffn_norm=f16,blk=q5_0"};
  ASSERT_EQ(failure(o), "");
  for (const char* part : {"note: rule 'ffn_gate_inp' changes 2 tensors that otherwise stay as they are",
                           "note: rule 'ffn_norm' changes 3 tensors", "note: rule 'blk' also matches"})
    EXPECT_NE(printed.find(part), std::string::npos) << part << "\n" << printed;
}

TEST_F(quantizing, every_type_can_require_importance) {
  const auto in = synthetic();
  auto o = options(in, "Q8_0");
  o.required = "all";
  expect_failure(o, "need importance data");
  o.imatrix = importance(statistics_for(test::deepseek2({})));
  EXPECT_EQ(failure(o), "");
}

TEST_F(quantizing, importance_that_does_not_fit) {
  auto s = statistics_for(test::deepseek2({}));
  s.entries["blk.1.ffn_up.weight"] = imatrix::entry(256, 1);
  s.entries["blk.0.ffn_up.weight"] = imatrix::entry(200, 1);
  for (auto& v : s.entries["blk.0.ffn_up.weight"].sums) v = 1;
  auto o = options(synthetic(), "Q4_0");
  o.imatrix = importance(s);
  expect_failure(o, "'blk.0.ffn_up.weight'");
}

TEST_F(quantizing, tiny_windows_give_the_same_bytes) {
  const auto t = test::tensor("blk.0.x.weight", f32::gguf_id, {256, 300, 2, 1});
  std::vector<float> x(static_cast<std::size_t>(t.elements()));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  const gguf::row_source in_memory(std::as_bytes(std::span(x)), 256 * sizeof(float));
  const gguf::row_source made([&](std::int64_t r, std::byte* scratch) {
    std::memcpy(scratch, x.data() + 256 * r, 256 * sizeof(float));
    return scratch;
  });
  const auto convert_to = [&](std::uint32_t type, const gguf::row_source& source, std::size_t window,
                              int threads) {
    std::vector<std::byte> out;
    thread_pool pool(threads);
    const auto e = convert(
        t, source, type, nullptr, {}, pool,
        [&](std::span<const std::byte> b) {
          return out.insert(out.end(), b.begin(), b.end()), result<void>{};
        },
        window);
    EXPECT_TRUE(e);
    return std::pair(out, e ? e->error.nmse_plain() : -1.0);
  };
  const auto whole = convert_to(q4_K::gguf_id, in_memory, default_window, 1);
  EXPECT_EQ(whole.first.size(), static_cast<std::size_t>(600 * 144));
  EXPECT_GT(whole.second, 0.0);
  for (const auto* source : {&in_memory, &made}) {
    EXPECT_TRUE(convert_to(q4_K::gguf_id, *source, 1, 3) == whole);
    EXPECT_TRUE(convert_to(q4_K::gguf_id, *source, 64 * 144 * 2, 2) == whole);
  }
  const auto copied = convert_to(f32::gguf_id, made, 1, 2);  // its own type: unchanged
  EXPECT_EQ(copied.first.size(), x.size() * sizeof(float));
  EXPECT_EQ(std::memcmp(copied.first.data(), x.data(), copied.first.size()), 0);
  x[77] = std::numeric_limits<float>::quiet_NaN();
  thread_pool pool(2);
  const auto refused = convert(t, made, f32::gguf_id, nullptr, {}, pool,
                               [](std::span<const std::byte>) { return result<void>{}; });
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("column 77 is NaN"), std::string::npos);
}

TEST_F(quantizing, weights_that_are_not_finite) {
  const std::pair<float, const char*> cases[] = {{std::numeric_limits<float>::quiet_NaN(), "NaN"},
                                                 {-std::numeric_limits<float>::infinity(), "infinite"}};
  for (const auto& [bad, word] : cases) {
    const float v = bad;
    const auto in = synthetic({}, [v](const gguf::tensor_info& t, std::vector<float>& x) {
      if (t.name == "blk.1.ffn_up_exps.weight")
        x[static_cast<std::size_t>((t.rows() + 5) * t.cols() + 7)] = v;
    });
    expect_failure(options(in, "Q8_0"),
                   std::string("tensor 'blk.1.ffn_up_exps.weight', row 5 of slice 1: column 7 is ") + word);
  }
}

TEST_F(quantizing, weights_too_large_for_the_type) {
  const auto in = synthetic({}, [](const gguf::tensor_info& t, std::vector<float>& x) {
    if (t.name == "blk.0.ffn_up.weight") x[3] = 1e30f;
  });
  expect_failure(options(in, "F16"), "tensor 'blk.0.ffn_up.weight', row 0: quantized data validation failed");
}

/// Weights that the scales of a type cannot express are named, and an error if the user says so.
TEST_F(quantizing, weights_beyond_the_range_of_the_scales) {
  const auto in = synthetic({}, [](const gguf::tensor_info& t, std::vector<float>& x) {
    if (t.name == "blk.0.ffn_up.weight") x[3] = 1e30f;
    if (t.name == "blk.0.ffn_gate.weight")
      for (auto& v : x) v *= 1e-12f;
  });
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(failure(options(in, "Q4_0")), "");
  const auto told = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(
      told.find("WARNING: tensor 'blk.0.ffn_up.weight': 1 of 65536 weights (0.00153 %) are too large for the "
                "scales of q4_0 and were cut"),
      std::string::npos)
      << told;
  EXPECT_NE(told.find("tensor 'blk.0.ffn_gate.weight': 65536 of 65536 weights (100 %) are too small"),
            std::string::npos)
      << told;
  auto o = options(in, "Q4_0", "strict.gguf");
  o.strict = true;
  expect_failure(o, "weights (100 %) are too small for the scales of q4_0 and became zero (--strict)");
}

/// nvfp4 has a scale beside each tensor: one for each expert. It is read, folded in and left out again.
TEST_F(quantizing, nvfp4_has_its_scale_beside_it) {
  const auto in = synthetic({}, [](const gguf::tensor_info& t, std::vector<float>& x) {
    const float size = t.name.starts_with("blk.0") ? 1e-2f : 1e4f;
    if (t.name.starts_with("blk.") && t.ne[1] > 1)
      for (auto& v : x) v *= size;
  });
  ASSERT_EQ(failure(options(in, "NVFP4", "nvfp4.gguf")), "");
  const auto a = gguf::reader::open(in), b = gguf::reader::open(dir / "nvfp4.gguf");
  ASSERT_TRUE(b);
  int scaled = 0;
  for (const auto& t : a->tensors()) {
    const auto* made = b->find(t.name);
    ASSERT_TRUE(made) << t.name;
    const auto scale = gguf::read_scale(*b, *made);
    ASSERT_TRUE(scale);
    EXPECT_EQ(scale->is_one(), made->type != nvfp4::gguf_id) << t.name;
    if (scale->is_one()) continue;
    ++scaled;
    EXPECT_EQ(scale->values().size(),
              t.name.find("_exps.") == std::string::npos ? 1u : static_cast<std::size_t>(t.slices()));
    auto y = values(*b, *made);
    for (std::int64_t s = 0; s < t.slices(); ++s)
      scale->apply(s, y.data() + s * t.rows() * t.cols(), t.rows() * t.cols());
    EXPECT_LT(nmse(values(*a, t), y), 0.012) << t.name;
  }
  EXPECT_GT(scaled, 10);
  auto back = options(dir / "nvfp4.gguf", "Q8_0", "back.gguf");
  back.allow_requantize = true;
  ASSERT_EQ(failure(back), "");
  const auto c = gguf::reader::open(back.out);
  ASSERT_EQ(c->tensors().size(), a->tensors().size());
  for (const auto& t : a->tensors())
    EXPECT_LT(nmse(values(*a, t), values(*c, *c->find(t.name))), 0.012) << t.name;
}

TEST_F(quantizing, requantizing_needs_permission) {
  const auto in = synthetic();
  ASSERT_EQ(failure(options(in, "Q8_0", "q8.gguf")), "");
  expect_failure(options(dir / "q8.gguf", "Q4_K_M"), "requantizing from type q8_0 is disabled");
  auto o = options(dir / "q8.gguf", "Q4_0");
  o.allow_requantize = true;
  ASSERT_EQ(failure(o), "");
  const auto a = gguf::reader::open(in), b = gguf::reader::open(o.out);
  for (const auto& t : a->tensors())
    EXPECT_LT(nmse(values(*a, t), values(*b, *b->find(t.name))), 0.01) << t.name;
}

TEST_F(quantizing, dry_run_writes_nothing_and_tells_the_size) {
  auto o = options(synthetic(), "Q4_K_M");
  o.dry_run = true;
  ASSERT_EQ(failure(o), "");
  EXPECT_FALSE(fs::exists(o.out));
  const auto planned = json::parse(printed);
  o.dry_run = false;
  ASSERT_EQ(failure(o), "");
  const auto done = json::parse(printed);
  EXPECT_EQ(planned["bytes"], done["bytes"]);
  std::uint64_t bytes = 0;
  const auto written = gguf::reader::open(o.out);
  for (const auto& t : written->tensors()) bytes += t.nbytes;
  EXPECT_EQ(done["bytes"], bytes);
  EXPECT_EQ(done["fallbacks"], 3) << "attn_k_b has 128 columns";
  for (const auto& t : done["tensors"]) EXPECT_EQ(t.contains("nmse"), !t["copied"].get<bool>()) << t;
}

TEST_F(quantizing, text_report_has_the_familiar_lines) {
  auto o = options(synthetic(), "IQ4_XS");
  o.json = false, o.dry_run = true;
  o.rules = {"attn_k_b=q6_K"};
  ASSERT_EQ(failure(o), "");
  for (const char* part : {"[   1/  ",
                           "token_embd.weight - [  256,    32,     1,     1], type =    f32, converting to "
                           "iq4_xs .. size = 0.03 MiB -> 0.00 MiB",
                           "instead of q6_K", "rule 'attn_k_b' -> q6_K: 3 tensors", "WARNING: 3 of ", "BPW",
                           "- type  iq4_xs:", "total time"})
    EXPECT_NE(printed.find(part), std::string::npos) << part << "\n" << printed;
}

TEST_F(quantizing, rules_from_files) {
  ASSERT_TRUE(file::write(dir / "rules", "# layers\nblk\\.0\\.=q8_0, attn\\\nattn_v_b=q6_K\n"));
  auto o = options(synthetic(), "Q4_0");
  o.rule_files = {dir / "rules"};
  EXPECT_NE(failure(o).find("rules:2: rule 'attn\\': expected REGEX=TYPE"), std::string::npos);
  ASSERT_TRUE(file::write(dir / "rules", "# layers\nblk\\.0\\.=q8_0,\n\nattn_v_b=q6_K # all others\n"));
  ASSERT_EQ(failure(o), "");
  const auto out = gguf::reader::open(o.out);
  EXPECT_EQ(gguf::type_name(out->find("blk.0.attn_v_b.weight")->type), "q8_0");
  EXPECT_EQ(gguf::type_name(out->find("blk.1.attn_v_b.weight")->type), "q6_K");
  o.rule_files = {dir / "none"};
  EXPECT_NE(failure(o).find("cannot open"), std::string::npos);
}

TEST_F(quantizing, the_input_is_never_overwritten) {
  const auto in = synthetic();
  const auto before = bytes_of(in);
  auto o = options(in, "Q8_0", "in.gguf");
  expect_failure(o, "is the input");
  fs::create_symlink(in, dir / "link.gguf");
  o.out = dir / "link.gguf";
  expect_failure(o, "is the input");
  o.out = dir.path();
  expect_failure(o, "is a folder");
  o.out = dir / "no/such/out.gguf";
  expect_failure(o, "cannot create");
  EXPECT_EQ(bytes_of(in), before);
}

TEST_F(quantizing, damaged_and_missing_inputs) {
  const auto in = synthetic();
  expect_failure(options(dir / "none.gguf", "Q8_0"), "none.gguf: cannot open");
  const auto whole = bytes_of(in);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{10}, std::size_t{700}, whole.size() / 2, whole.size() - 4096}) {
    ASSERT_TRUE(file::write(dir / "cut.gguf", std::string_view(whole).substr(0, size)));
    expect_failure(options(dir / "cut.gguf", "Q8_0"), "cut.gguf");
  }
  auto o = options(in, "Q8_0");
  o.imatrix = dir / "none.dat";
  expect_failure(o, "none.dat: cannot open");
  o.imatrix.clear();
  o.type = "Q9_X";
  expect_failure(o, "unknown type 'Q9_X'; known: COPY, F32");
  o.type = "Q8_0", o.token_embedding_type = "zzz";
  expect_failure(o, "--token-embedding-type: unknown type 'zzz'; known: f32");
}

class split_models : public quantizing {
 protected:
  /// The synthetic model in three shards, the first without tensors.
  void SetUp() override {
    const auto tensors = test::deepseek2(shape);
    const std::size_t half = tensors.size() / 2;
    const std::vector<std::vector<gguf::tensor_info>> parts{
        {},
        {tensors.begin(), tensors.begin() + static_cast<std::ptrdiff_t>(half)},
        {tensors.begin() + static_cast<std::ptrdiff_t>(half), tensors.end()}};
    for (std::size_t i = 0; i < 3; ++i) {
      gguf::metadata meta = i == 0 ? test::deepseek2_metadata(shape) : gguf::metadata{};
      meta.set("split.no", static_cast<std::uint16_t>(i));
      meta.set("split.count", std::uint16_t{3});
      meta.set("split.tensors.count", static_cast<std::int32_t>(tensors.size()));
      test::write_model(dir / ("in-0000" + std::to_string(i + 1) + "-of-00003.gguf"), meta, parts[i]);
    }
  }
  test::shape shape{.blocks = 2};
};

TEST_F(split_models, merge_by_default) {
  ASSERT_EQ(failure(options(dir / "in-00001-of-00003.gguf", "Q8_0")), "");
  const auto out = gguf::reader::open(dir / "out.gguf");
  ASSERT_TRUE(out) << out.error().message;
  EXPECT_EQ(out->shards(), 1);
  EXPECT_EQ(out->tensors().size(), test::deepseek2(shape).size());
  EXPECT_FALSE(out->meta().contains("split.count"));
}

TEST_F(split_models, keep_their_shards) {
  auto o = options(dir / "in-00001-of-00003.gguf", "Q8_0");
  ASSERT_EQ(failure(o), "");
  o.keep_split = true, o.out = dir / "kept.gguf";
  ASSERT_EQ(failure(o), "");
  const auto merged = gguf::reader::open(dir / "out.gguf"),
             kept = gguf::reader::open(dir / "kept-00001-of-00003.gguf");
  ASSERT_TRUE(kept) << kept.error().message;
  EXPECT_EQ(kept->shards(), 3);
  for (const auto& t : merged->tensors()) {
    const auto x = *merged->data(t), y = *kept->data(*kept->find(t.name));
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin(), y.end())) << t.name;
  }
  o.out = dir / "in-00001-of-00003.gguf";
  expect_failure(o, "is the input");
}

}  // namespace
}  // namespace quantal::plan
