// Files through the C interface: importance matrices and GGUF.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "quantal/c.h"
#include "quantal/formats.hpp"
#include "quantal/imatrix.hpp"
#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace quantal;
const std::string fixture = test::data_file("/fixtures/fixture-v2lite-ik-bf16.gguf");

bool error_names(const std::string& what) {
  return std::string(quantal_last_error()).find(what) != std::string::npos;
}

class CFiles : public testing::Test {
 protected:
  test::temp_dir folder;
  std::string path(const char* name) const { return (folder / name).string(); }
};

TEST_F(CFiles, ImatrixIsCollectedSavedMergedAndLookedUp) {
  quantal_imatrix* im = nullptr;
  ASSERT_EQ(quantal_imatrix_create(&im), QUANTAL_OK);
  std::vector<float> x(3 * 32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) / 10.0f;
  const quantal_matrix m{x.data(), x.size(), 3, 32, 0};
  const char* const experts = "blk.0.ffn_down_exps.weight";
  ASSERT_EQ(quantal_imatrix_collect(im, "blk.0.ffn_up.weight", 1, 0, &m), QUANTAL_OK) << quantal_last_error();
  ASSERT_EQ(quantal_imatrix_collect(im, experts, 2, 1, &m), QUANTAL_OK);
  ASSERT_EQ(quantal_imatrix_collect(im, experts, 2, 1, &m), QUANTAL_OK);
  ASSERT_EQ(quantal_imatrix_add_dataset(im, "text.txt"), QUANTAL_OK);
  ASSERT_EQ(quantal_imatrix_set_chunk_size(im, 128), QUANTAL_OK);
  quantal_imatrix_entry e;
  ASSERT_EQ(quantal_imatrix_find(im, experts, &e), QUANTAL_OK);
  EXPECT_EQ(e.cols, 32);
  EXPECT_EQ(e.slices, 2);
  EXPECT_EQ(e.counts[0], 0);
  EXPECT_EQ(e.counts[1], 6);
  EXPECT_EQ(e.sums[0], 0.0);
  const double first = double{x[0]} * x[0] + double{x[32]} * x[32] + double{x[64]} * x[64];
  EXPECT_DOUBLE_EQ(e.sums[32], 2 * first);

  for (const char* name : {"i.gguf", "i.dat"}) {
    ASSERT_EQ(quantal_imatrix_save(im, path(name).c_str()), QUANTAL_OK) << quantal_last_error();
    quantal_imatrix* again = nullptr;
    ASSERT_EQ(quantal_imatrix_load(path(name).c_str(), &again), QUANTAL_OK) << quantal_last_error();
    EXPECT_EQ(quantal_imatrix_count(again), 2u);
    if (std::string(name) == "i.gguf") {
      ASSERT_EQ(quantal_imatrix_merge(again, im), QUANTAL_OK);
      ASSERT_EQ(quantal_imatrix_find(again, experts, &e), QUANTAL_OK);
      EXPECT_EQ(e.counts[1], 12);
    }
    quantal_imatrix_free(again);
  }
  const auto store = imatrix::load(path("i.gguf"));
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_EQ(store->chunk_size, 128);
  EXPECT_EQ(store->datasets, std::vector<std::string>{"text.txt"});

  // The gate has no entry of its own; up has the same input.
  const quantal_tensor_shape gate{"blk.0.ffn_gate.weight", 32, 64, 1, 0, 0};
  quantal_importance* found = nullptr;
  ASSERT_EQ(quantal_imatrix_lookup(im, &gate, &found), QUANTAL_OK) << quantal_last_error();
  quantal_importance_view view;
  ASSERT_EQ(quantal_importance_get(found, &view), QUANTAL_OK);
  EXPECT_STREQ(view.source, "same-input alias");
  EXPECT_EQ(view.cols, 32);
  EXPECT_NEAR(view.weights[0], first / 3, 1e-6);
  quantal_importance_free(found);
  const quantal_tensor_shape other{"output.weight", 32, 64, 1, 0, 0};
  ASSERT_EQ(quantal_imatrix_lookup(im, &other, &found), QUANTAL_OK);
  ASSERT_EQ(quantal_importance_get(found, &view), QUANTAL_OK);
  EXPECT_STREQ(view.source, "none");
  EXPECT_EQ(view.weights, nullptr);
  quantal_importance_free(found);
  const quantal_tensor_shape wrong{"blk.0.ffn_up.weight", 48, 64, 1, 0, 0};
  EXPECT_EQ(quantal_imatrix_lookup(im, &wrong, &found), QUANTAL_BAD_SHAPE);
  EXPECT_EQ(found, nullptr);
  EXPECT_TRUE(error_names("blk.0.ffn_up.weight")) << quantal_last_error();
  quantal_imatrix_free(im);
}

TEST_F(CFiles, ImatrixRefusesWhatDoesNotFit) {
  quantal_imatrix* im = nullptr;
  ASSERT_EQ(quantal_imatrix_create(&im), QUANTAL_OK);
  std::vector<float> x(64, 1.0f);
  quantal_matrix m{x.data(), x.size(), 2, 32, 0};
  EXPECT_EQ(quantal_imatrix_collect(im, "a", 2, 2, &m), QUANTAL_BAD_ARGUMENT);
  EXPECT_EQ(quantal_imatrix_collect(im, "", 1, 0, &m), QUANTAL_BAD_ARGUMENT);
  ASSERT_EQ(quantal_imatrix_collect(im, "a", 1, 0, &m), QUANTAL_OK);
  m.cols = 16;
  EXPECT_EQ(quantal_imatrix_collect(im, "a", 1, 0, &m), QUANTAL_BAD_SHAPE);
  m.cols = 32, m.size = 63;
  EXPECT_EQ(quantal_imatrix_collect(im, "a", 1, 0, &m), QUANTAL_SHORT_BUFFER);
  m.size = 64, x[40] = NAN;
  EXPECT_EQ(quantal_imatrix_collect(im, "a", 1, 0, &m), QUANTAL_NOT_FINITE);
  EXPECT_EQ(quantal_imatrix_collect(im, "b", 1, 0, &m), QUANTAL_NOT_FINITE);
  EXPECT_EQ(quantal_imatrix_count(im), 1u);
  quantal_imatrix_entry e;
  ASSERT_EQ(quantal_imatrix_at(im, 0, &e), QUANTAL_OK);
  EXPECT_EQ(e.counts[0], 2);
  EXPECT_EQ(e.sums[8], 2.0);
  EXPECT_EQ(quantal_imatrix_at(im, 1, &e), QUANTAL_NOT_FOUND);
  EXPECT_EQ(quantal_imatrix_save(im, (path("no_folder") + "/i.gguf").c_str()), QUANTAL_FILE_ERROR);
  quantal_imatrix* none = nullptr;
  EXPECT_EQ(quantal_imatrix_load(fixture.c_str(), &none), QUANTAL_FILE_ERROR);
  EXPECT_TRUE(error_names("imatrix")) << quantal_last_error();
  EXPECT_EQ(none, nullptr);
  quantal_imatrix_free(im);
}

TEST_F(CFiles, GgufIsReadAsTheReaderReadsIt) {
  quantal_gguf* file = nullptr;
  ASSERT_EQ(quantal_gguf_open(fixture.c_str(), &file), QUANTAL_OK) << quantal_last_error();
  const auto reader = gguf::reader::open(fixture);
  ASSERT_TRUE(reader);
  ASSERT_EQ(quantal_gguf_tensor_count(file), reader->tensors().size());
  for (std::size_t i = 0; i < reader->tensors().size(); ++i) {
    const auto& t = reader->tensors()[i];
    quantal_gguf_tensor got, named;
    ASSERT_EQ(quantal_gguf_tensor_at(file, i, &got), QUANTAL_OK);
    ASSERT_EQ(quantal_gguf_tensor_find(file, t.name.c_str(), &named), QUANTAL_OK);
    EXPECT_EQ(got.name, t.name);
    EXPECT_EQ(got.type, t.type);
    EXPECT_EQ(got.size, t.nbytes);
    EXPECT_EQ(named.data, got.data);
    EXPECT_EQ(std::memcmp(got.data, reader->data(t)->data(), got.size), 0);
  }
  ASSERT_EQ(quantal_gguf_key_count(file), reader->meta().size());
  for (std::size_t i = 0; i < reader->meta().size(); ++i) {
    const auto& [key, v] = reader->meta().items()[i];
    EXPECT_EQ(quantal_gguf_key_at(file, i), key);
    quantal_gguf_value value;
    ASSERT_EQ(quantal_gguf_get(file, key.c_str(), &value), QUANTAL_OK);
    EXPECT_EQ(static_cast<int>(value.type), static_cast<int>(v.index()));
  }
  quantal_gguf_value value;
  ASSERT_EQ(quantal_gguf_get(file, "general.architecture", &value), QUANTAL_OK);
  EXPECT_STREQ(static_cast<const char*>(value.data), "deepseek2");
  ASSERT_EQ(quantal_gguf_element(file, "tokenizer.ggml.tokens", 3, &value), QUANTAL_OK)
      << quantal_last_error();
  EXPECT_EQ(static_cast<const char*>(value.data), (**reader->meta().strings("tokenizer.ggml.tokens"))[3]);
  std::int64_t blocks = 0;
  ASSERT_EQ(quantal_gguf_get_int64(file, "deepseek2.block_count", &blocks), QUANTAL_OK);
  EXPECT_EQ(blocks, *reader->meta().integer("deepseek2.block_count"));
  EXPECT_EQ(quantal_gguf_get_int64(file, "general.architecture", &blocks), QUANTAL_BAD_ARGUMENT);
  EXPECT_EQ(quantal_gguf_get_int64(file, "no.such.key", &blocks), QUANTAL_NOT_FOUND);
  EXPECT_EQ(quantal_gguf_element(file, "general.architecture", 0, &value), QUANTAL_BAD_ARGUMENT);
  EXPECT_EQ(quantal_gguf_element(file, "tokenizer.ggml.tokens", 1u << 30, &value), QUANTAL_NOT_FOUND);
  EXPECT_EQ(quantal_gguf_element(file, "tokenizer.ggml.tokens", 0, nullptr), QUANTAL_NULL_POINTER);
  quantal_weights w;
  ASSERT_EQ(quantal_gguf_weights(file, "blk.0.attn_output.weight", &w), QUANTAL_OK);
  EXPECT_EQ(w.format, bf16::gguf_id);
  EXPECT_EQ(quantal_gguf_weights(file, "blk.9.nothing", &w), QUANTAL_NOT_FOUND);
  EXPECT_TRUE(error_names("blk.9.nothing"));
  quantal_gguf_close(file);
  EXPECT_EQ(quantal_gguf_open(path("none.gguf").c_str(), &file), QUANTAL_FILE_ERROR);
  EXPECT_TRUE(error_names("none.gguf"));
}

TEST_F(CFiles, GgufIsWrittenWholeOrNotAtAll) {
  const std::string to = path("new.gguf");
  quantal_gguf_writer* w = nullptr;
  ASSERT_EQ(quantal_gguf_writer_create(&w), QUANTAL_OK);
  const std::uint32_t n = 7;
  const char* const words[] = {"a", "bc"};
  const bool flags[] = {true, false, true};
  const double numbers[] = {0.5, -2};
  ASSERT_EQ(quantal_gguf_writer_set(w, "general.name", QUANTAL_GGUF_STRING, "tiny"), QUANTAL_OK);
  ASSERT_EQ(quantal_gguf_writer_set(w, "n", QUANTAL_GGUF_UINT32, &n), QUANTAL_OK);
  ASSERT_EQ(quantal_gguf_writer_set_array(w, "words", QUANTAL_GGUF_STRING, words, 2), QUANTAL_OK);
  ASSERT_EQ(quantal_gguf_writer_set_array(w, "flags", QUANTAL_GGUF_BOOL, flags, 3), QUANTAL_OK);
  ASSERT_EQ(quantal_gguf_writer_set_array(w, "numbers", QUANTAL_GGUF_FLOAT64, numbers, 2), QUANTAL_OK);
  ASSERT_EQ(quantal_gguf_writer_set_array(w, "nothing", QUANTAL_GGUF_INT32, nullptr, 0), QUANTAL_OK);
  EXPECT_EQ(quantal_gguf_writer_set(w, "x", QUANTAL_GGUF_ARRAY, &n), QUANTAL_BAD_ARGUMENT);
  EXPECT_EQ(quantal_gguf_writer_set(w, "", QUANTAL_GGUF_UINT32, &n), QUANTAL_BAD_ARGUMENT);
  const std::int64_t ne[] = {64, 2};
  EXPECT_EQ(quantal_gguf_writer_add_tensor(w, "t", q4_K::gguf_id, 2, ne), QUANTAL_BAD_SHAPE);
  EXPECT_EQ(quantal_gguf_writer_add_tensor(w, "t", 4711, 2, ne), QUANTAL_UNKNOWN_FORMAT);
  EXPECT_EQ(quantal_gguf_writer_add_tensor(w, "t", q8_0::gguf_id, 5, ne), QUANTAL_BAD_SHAPE);
  ASSERT_EQ(quantal_gguf_writer_add_tensor(w, "t", q8_0::gguf_id, 2, ne), QUANTAL_OK) << quantal_last_error();
  EXPECT_EQ(quantal_gguf_writer_append(w, ne, 4), QUANTAL_BAD_ARGUMENT);
  ASSERT_EQ(quantal_gguf_writer_open(w, to.c_str()), QUANTAL_OK) << quantal_last_error();
  EXPECT_EQ(quantal_gguf_writer_set(w, "late", QUANTAL_GGUF_UINT32, &n), QUANTAL_BAD_ARGUMENT);
  const std::vector<std::byte> bytes(2 * 2 * 34, std::byte{1});
  ASSERT_EQ(quantal_gguf_writer_append(w, bytes.data(), 100), QUANTAL_OK);
  EXPECT_EQ(quantal_gguf_writer_finish(w), QUANTAL_FILE_ERROR);
  EXPECT_TRUE(error_names("'t'")) << quantal_last_error();
  EXPECT_FALSE(std::filesystem::exists(to));
  ASSERT_EQ(quantal_gguf_writer_append(w, bytes.data() + 100, bytes.size() - 100), QUANTAL_OK);
  EXPECT_EQ(quantal_gguf_writer_append(w, bytes.data(), 1), QUANTAL_FILE_ERROR);
  ASSERT_EQ(quantal_gguf_writer_finish(w), QUANTAL_OK) << quantal_last_error();
  EXPECT_EQ(quantal_gguf_writer_finish(w), QUANTAL_BAD_ARGUMENT);
  quantal_gguf_writer_free(w);

  quantal_gguf* file = nullptr;
  ASSERT_EQ(quantal_gguf_open(to.c_str(), &file), QUANTAL_OK) << quantal_last_error();
  quantal_gguf_value v;
  ASSERT_EQ(quantal_gguf_element(file, "flags", 1, &v), QUANTAL_OK);
  EXPECT_FALSE(*static_cast<const bool*>(v.data));
  ASSERT_EQ(quantal_gguf_element(file, "words", 1, &v), QUANTAL_OK);
  EXPECT_STREQ(static_cast<const char*>(v.data), "bc");
  EXPECT_EQ(v.count, 2u);
  ASSERT_EQ(quantal_gguf_get(file, "numbers", &v), QUANTAL_OK);
  EXPECT_EQ(v.element, QUANTAL_GGUF_FLOAT64);
  EXPECT_EQ(std::memcmp(v.data, numbers, sizeof numbers), 0);
  ASSERT_EQ(quantal_gguf_writer_create(&w), QUANTAL_OK);
  ASSERT_EQ(quantal_gguf_writer_copy_keys(w, file), QUANTAL_OK);
  ASSERT_EQ(quantal_gguf_writer_open(w, path("copy.gguf").c_str()), QUANTAL_OK);
  quantal_gguf_writer_free(w);  // given up: nothing stays
  EXPECT_FALSE(std::filesystem::exists(path("copy.gguf")));
  quantal_gguf_close(file);
}

}  // namespace
