// Conversion between the layouts of the up-projections: the fixtures exist in two of them, from another
// converter.
#include "layout.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "quantal/gguf/writer.hpp"
#include "session.hpp"
#include "support/paths.hpp"
#include "support/same_tensors.hpp"

namespace quantal::mla {
namespace {

const std::string fixtures = test::data_file("/fixtures/");

class layout_files : public ::testing::Test {
 protected:
  layout_files()
      : dir_(std::filesystem::temp_directory_path() / ("quantal-layout-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(dir_);
  }
  ~layout_files() override { std::filesystem::remove_all(dir_); }

  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  void convert(const std::string& from, layout to, const std::string& out) {
    const auto model = gguf::reader::open(from);
    ASSERT_TRUE(model) << model.error().message;
    const auto r = relayout(*model, to, out);
    ASSERT_TRUE(r) << r.error().message;
  }
  std::filesystem::path dir_;
};

void expect_same_keys(const gguf::metadata& a, const gguf::metadata& b) {
  EXPECT_EQ(a.size(), b.size());
  for (const auto& [key, v] : a.items()) {
    ASSERT_TRUE(b.contains(key)) << key;
    EXPECT_TRUE(*b.find(key) == v) << key;
  }
}

TEST_F(layout_files, fixtures_turn_into_each_other) {
  for (const std::string model : {"v3", "v2lite"}) {
    const std::string heads = fixtures + "fixture-" + model + "-mainline-bf16.gguf";
    const std::string rows = fixtures + "fixture-" + model + "-ik-bf16.gguf";
    convert(heads, layout::rows_kv_b, path("rows.gguf"));
    convert(rows, layout::heads, path("heads.gguf"));
    for (const auto& [got, want] :
         {std::pair{path("rows.gguf"), rows}, std::pair{path("heads.gguf"), heads}}) {
      const auto a = gguf::reader::open(got), b = gguf::reader::open(want);
      ASSERT_TRUE(a && b);
      test::expect_same_tensors(*a, *b);
      expect_same_keys(a->meta(), b->meta());
    }
  }
}

TEST_F(layout_files, rows_without_kv_b) {
  const std::string rows = fixtures + "fixture-v3-ik-bf16.gguf";
  convert(rows, layout::rows, path("out.gguf"));
  const auto in = gguf::reader::open(rows), out = gguf::reader::open(path("out.gguf"));
  ASSERT_TRUE(in && out);
  EXPECT_FALSE(out->find("blk.0.attn_kv_b.weight"));
  EXPECT_EQ(out->tensors().size() + 3, in->tensors().size());
  EXPECT_EQ(out->find("blk.1.attn_k_b.weight")->n_dims, 2);
}

/// A file with attn_kv_b alone, as converters wrote before the absorbed form was used.
std::string without_parts(const std::string& from, const std::string& to, std::uint32_t kv_b_type) {
  const auto in = gguf::reader::open(from);
  std::vector<gguf::tensor_info> tensors;
  for (const auto& t : in->tensors())
    if (!t.name.ends_with("attn_k_b.weight") && !t.name.ends_with("attn_v_b.weight")) {
      tensors.push_back(t);
      if (t.name.ends_with("attn_kv_b.weight")) tensors.back().type = kv_b_type;
    }
  auto out = gguf::writer::create(to, in->meta(), tensors);
  for (const auto& t : tensors) {
    const auto bytes = *in->data(*in->find(t.name));
    if (t.type == in->find(t.name)->type) {
      EXPECT_TRUE(out->append(bytes));
    } else {  // zeros: the scale of every q8_0 block is 0
      EXPECT_TRUE(out->append(std::vector<std::byte>(*gguf::tensor_bytes(t.type, t.ne))));
    }
  }
  EXPECT_TRUE(out->finish());
  return to;
}

TEST_F(layout_files, parts_are_derived_from_kv_b) {
  const std::string rows = fixtures + "fixture-v3-ik-bf16.gguf";
  convert(without_parts(rows, path("old.gguf"), bf16::gguf_id), layout::rows_kv_b, path("out.gguf"));
  const auto want = gguf::reader::open(rows), got = gguf::reader::open(path("out.gguf"));
  ASSERT_TRUE(want && got);
  test::expect_same_tensors(*got, *want);
}

TEST_F(layout_files, transposed_parts_of_quantized_models_are_q8_0) {
  const std::string old =
      without_parts(fixtures + "fixture-v3-ik-bf16.gguf", path("old.gguf"), q4_0::gguf_id);
  convert(old, layout::heads, path("out.gguf"));
  const auto got = gguf::reader::open(path("out.gguf"));
  ASSERT_TRUE(got);
  EXPECT_EQ(got->find("blk.0.attn_k_b.weight")->type, static_cast<std::uint32_t>(q8_0::gguf_id));
  EXPECT_EQ(got->find("blk.0.attn_v_b.weight")->type, static_cast<std::uint32_t>(q4_0::gguf_id));
}

TEST_F(layout_files, models_without_parts_give_the_same_logits) {
  const std::string rows = fixtures + "fixture-v3-ik-bf16.gguf";
  const auto whole = load_model(rows), old = load_model(without_parts(rows, path("old.gguf"), bf16::gguf_id));
  ASSERT_TRUE(whole && old);
  const std::vector<std::int32_t> tokens{5, 17, 300, 2, 44, 101, 7};
  serial_executor serial;
  for (const int mla : {0, 1}) {
    std::vector<float> a(tokens.size() * static_cast<std::size_t>(whole->hyper.vocabulary)), b(a.size());
    session x(*whole, runtime::dispatcher::best(), serial, 16, {mla, false});
    session y(*old, runtime::dispatcher::best(), serial, 16, {mla, false});
    ASSERT_TRUE(x.evaluate(tokens, a) && y.evaluate(tokens, b));
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-4) << i;
  }
}

TEST_F(layout_files, wrong_shapes_are_named) {
  const auto in = gguf::reader::open(fixtures + "fixture-v3-mainline-bf16.gguf");
  ASSERT_TRUE(in);
  auto tensors = in->tensors();
  for (auto& t : tensors)
    if (t.name == "blk.1.attn_v_b.weight") t.ne[1] += 1;
  auto out = gguf::writer::create(path("bad.gguf"), in->meta(), tensors);
  ASSERT_TRUE(out);
  for (const auto& t : out->tensors()) ASSERT_TRUE(out->append(std::vector<std::byte>(t.nbytes)));
  ASSERT_TRUE(out->finish());
  const auto bad = gguf::reader::open(path("bad.gguf"));
  ASSERT_TRUE(bad);
  const auto r = relayout(*bad, layout::rows, path("out.gguf"));
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("bad.gguf: tensor 'blk.1.attn_v_b.weight'"), std::string::npos)
      << r.error().message;
  EXPECT_FALSE(std::filesystem::exists(path("out.gguf")));
}

TEST_F(layout_files, the_input_is_not_overwritten) {
  std::filesystem::copy_file(fixtures + "fixture-v3-mainline-bf16.gguf", path("m.gguf"));
  const auto model = gguf::reader::open(path("m.gguf"));
  EXPECT_FALSE(relayout(*model, layout::rows, path("m.gguf")));
}

}  // namespace
}  // namespace quantal::mla
