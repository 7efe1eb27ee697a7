// Texts as chunks: where BOS goes, and what is odd about a text.
#include "corpus.hpp"

#include <gtest/gtest.h>

#include "quantal/gguf/reader.hpp"
#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace quantal::mla {
namespace {

using tokens = std::vector<std::int32_t>;

gguf::metadata special_keys(std::optional<bool> add_bos, std::optional<bool> add_eos,
                            std::optional<std::int32_t> bos) {
  gguf::metadata m;
  if (add_bos) m.set("tokenizer.ggml.add_bos_token", *add_bos);
  if (add_eos) m.set("tokenizer.ggml.add_eos_token", *add_eos);
  if (bos) m.set("tokenizer.ggml.bos_token_id", *bos);
  m.set("tokenizer.ggml.eos_token_id", std::uint32_t{8});
  return m;
}

TEST(Corpus, BosTakesThePlaceOfTheFirstToken) {
  const tokens chunk{5, 6, 7};
  const auto on = read_special_tokens(special_keys(true, true, 3), 10);
  ASSERT_TRUE(on);
  EXPECT_EQ(evaluated_tokens(chunk, *on), (tokens{3, 6, 7}));
  EXPECT_TRUE(on->warnings.empty());
  const auto off = read_special_tokens(special_keys(false, true, 3), 10);
  ASSERT_TRUE(off);
  EXPECT_EQ(evaluated_tokens(chunk, *off), chunk);
  EXPECT_TRUE(evaluated_tokens({}, *on).empty());
}

TEST(Corpus, GapsInSpecialTokensAreSaid) {
  const auto absent = read_special_tokens(special_keys({}, {}, 3), 10);
  ASSERT_TRUE(absent);
  EXPECT_EQ(absent->chunk_start(), -1);
  ASSERT_EQ(absent->warnings.size(), 1u);
  EXPECT_NE(absent->warnings[0].find("'tokenizer.ggml.add_bos_token' is missing"), std::string::npos);
  const auto no_id = read_special_tokens(special_keys(true, {}, {}), 10);
  ASSERT_TRUE(no_id);
  EXPECT_EQ(no_id->chunk_start(), -1);
  ASSERT_EQ(no_id->warnings.size(), 1u);
  EXPECT_NE(no_id->warnings[0].find("'tokenizer.ggml.bos_token_id' is missing"), std::string::npos);
  EXPECT_FALSE(read_special_tokens(special_keys(true, {}, 10), 10));
  const auto unused = read_special_tokens(special_keys(false, {}, 10), 10);
  ASSERT_TRUE(unused);
  EXPECT_EQ(unused->warnings.size(), 1u);
  auto wrong = special_keys(true, {}, 3);
  wrong.set("tokenizer.ggml.add_bos_token", std::string("true"));
  const auto refused = read_special_tokens(wrong, 10);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("add_bos_token"), std::string::npos);
}

TEST(Corpus, ChunksKeepTheTextAndStartWithBos) {
  const auto file = gguf::reader::open(test::data_file("/fixtures/fixture-v3-ik-bf16.gguf"));
  ASSERT_TRUE(file);
  test::temp_dir dir;
  std::string text;
  for (int i = 0; i < 200; ++i) text += "word " + std::to_string(i) + ", ";
  test::write_file(dir / "t.txt", text);
  for (const bool eos : {false, true}) {
    auto meta = file->meta();
    meta.set("tokenizer.ggml.add_bos_token", true);
    meta.set("tokenizer.ggml.add_eos_token", eos);
    const auto t = tokenizer::from_gguf(meta);
    ASSERT_TRUE(t);
    const auto c = load_corpus(dir / "t.txt", *t, 32, 1, 2);
    ASSERT_TRUE(c) << c.error().message;
    EXPECT_EQ(c->chunks, 2);
    for (std::int64_t i = 0; i < 2; ++i) {
      auto want = tokens(c->text_of(i).begin(), c->text_of(i).end());
      EXPECT_NE(want[0], t->bos());
      want[0] = t->bos();
      EXPECT_EQ(c->chunk(i), want);
    }
    EXPECT_FALSE(load_corpus(dir / "t.txt", *t, 32, 10000));
    EXPECT_FALSE(load_corpus(dir / "t.txt", *t, 32, std::int64_t{1} << 62));
    EXPECT_FALSE(load_corpus(dir / "", *t, 32));
  }
}

TEST(Corpus, OddTextsAreSaid) {
  const auto note = [](const std::string& text) {
    const auto n = text_notes(text);
    return n.empty() ? std::string() : n[0];
  };
  EXPECT_EQ(note("plain \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), "");
  EXPECT_EQ(note(""), "");
  EXPECT_NE(note("\xff\xfeh").find("UTF-16, little-endian"), std::string::npos);
  EXPECT_NE(note("\xfe\xffh").find("UTF-16, big-endian"), std::string::npos);
  EXPECT_NE(note("\xef\xbb\xbfh").find("byte order mark (UTF-8)"), std::string::npos);
  EXPECT_NE(note(std::string("a\0b\0", 4)).find("2 zero bytes"), std::string::npos);
  EXPECT_NE(note("ab\xff\xc3").find("2 bytes that are not UTF-8, the first at offset 2"), std::string::npos);
}

}  // namespace
}  // namespace quantal::mla
