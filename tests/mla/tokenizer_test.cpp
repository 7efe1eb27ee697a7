#include "tokenizer.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "pretokenizer.hpp"
#include "quantal/gguf/reader.hpp"
#include "safetensors.hpp"
#include "support/paths.hpp"

namespace quantal::mla {
namespace {

const std::string test_data = test::data_file(""), models = test::model_file("");

tokenizer open(const std::string& path) {
  const auto file = gguf::reader::open(path);
  if (!file) throw std::runtime_error(file.error().message);
  auto t = tokenizer::from_gguf(file->meta());
  if (!t) throw std::runtime_error(t.error().message);
  return std::move(*t);
}

std::string read(const std::string& path) {
  std::ifstream f(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(f), {}};
}

void check_goldens(const tokenizer& t, const std::string& path) {
  for (const auto& c : nlohmann::json::parse(read(path))) {
    const std::string text = c.at("text");
    const auto ids = t.encode(text);
    EXPECT_EQ(ids, c.at("ids").get<std::vector<std::int32_t>>()) << text;
    EXPECT_EQ(t.decode(ids), text);
  }
}

TEST(Tokenizer, Goldens) {
  check_goldens(open(models + "/tiny-mla-moe-bf16.gguf"), test_data + "/goldens/tiny.tokenizer_golden.json");
  check_goldens(open(test_data + "/fixtures/fixture-v3-ik-bf16.gguf"),
                test_data + "/goldens/fixture.tokenizer_golden.json");
}

TEST(Tokenizer, ValidationTextStartsWithTheGoldenWindows) {
  const auto t = open(models + "/tiny-mla-moe-bf16.gguf");
  const auto ids = t.encode(read(models + "/validation.txt").substr(0, 60000));
  const auto want =
      test::safetensors(test_data + "/goldens/tiny.golden.safetensors").get<std::int32_t>("nll512.tokens");
  ASSERT_GT(ids.size(), want.size());
  EXPECT_TRUE(std::equal(want.begin(), want.end(), ids.begin()));
}

TEST(Tokenizer, InvalidUtf8RoundTrips) {
  const auto t = open(models + "/tiny-mla-moe-bf16.gguf");
  const std::vector<std::string> texts{
      "\xff\xfe", "a\xc3", "\xe2\x82 x", std::string("\0a", 2), "\xed\xa0\x80", "ok \xf0\x9f\x98\x80 \x80"};
  for (const auto& text : texts) EXPECT_EQ(t.decode(t.encode(text)), text);
  EXPECT_TRUE(t.encode("").empty());
}

TEST(Tokenizer, SpecialTokensOnlyWhenAsked) {
  const auto t = open(models + "/tiny-mla-moe-bf16.gguf");
  EXPECT_EQ(t.encode("a<|endoftext|>b", false, true)[1], 0);
  EXPECT_GT(t.encode("a<|endoftext|>b").size(), 3u);
}

std::vector<std::string> split(const char* name, std::string_view text) {
  const auto p = pretokenizer::named(name);
  EXPECT_TRUE(p);
  std::vector<std::string> out;
  for (const auto s : p->split(text)) out.emplace_back(s);
  return out;
}

using words = std::vector<std::string>;

TEST(Pretokenizer, SplitsAsEachModelDoes) {
  EXPECT_EQ(split("gpt-2", "Hello world's 123  x\n"),
            (words{"Hello", " world", "'s", " 123", " ", " x", "\n"}));
  EXPECT_EQ(split("deepseek-v3", "abc12345 .foo(x)\n\n你好"),
            (words{"abc", "123", "45", " .", "foo", "(x", ")\n\n", "你好"}));
  EXPECT_EQ(split("deepseek-llm", "Hi there\n2024!"), (words{"Hi", " there", "\n", "2024", "!"}));
  EXPECT_EQ(split("llama-bpe", "I'LL pay $12345.\n\n x  y"),
            (words{"I", "'LL", " pay", " $", "123", "45", ".\n\n", " x", " ", " y"}));
  EXPECT_EQ(split("glm4", "It's 2024"), (words{"It", "'s", " ", "202", "4"}));
  EXPECT_EQ(split("qwen2", "It's 2024"), (words{"It", "'s", " ", "2", "0", "2", "4"}));
  EXPECT_EQ(split("tekken", "HelloWorld 12 a/b//\n"),
            (words{"Hello", "World", " ", "1", "2", " a", "/b", "//\n"}));
  EXPECT_EQ(split("kimi-k2", "It's 12345 你好World"),
            (words{"It's", " ", "123", "45", " ", "你好", "World"}));
}

TEST(Pretokenizer, LongWordsStayWords) {
  const std::string word(300'000, 'a');
  for (const char* name : {"gpt-2", "deepseek-v3", "kimi-k2"})
    EXPECT_TRUE(split(name, word + " b") == (words{word, " b"})) << name;
}

TEST(Tokenizer, WholeWordsOfLlama) {
  gguf::metadata meta;
  meta.set("tokenizer.ggml.model", std::string("gpt2"));
  meta.set("tokenizer.ggml.tokens", gguf::array(std::vector<std::string>{"<s>", "a", "b", "ab"}));
  meta.set("tokenizer.ggml.merges", gguf::array(std::vector<std::string>{}));
  const auto ids = [&](const char* pre) {
    meta.set("tokenizer.ggml.pre", std::string(pre));
    return tokenizer::from_gguf(meta)->encode("ab");
  };
  EXPECT_EQ(ids("llama-bpe"), (std::vector<std::int32_t>{3}));  // no merge leads to "ab"
  EXPECT_EQ(ids("glm4"), (std::vector<std::int32_t>{1, 2}));
}

TEST(Pretokenizer, UnknownNameListsTheKnownOnes) {
  const auto p = pretokenizer::named("nonsense");
  ASSERT_FALSE(p);
  EXPECT_NE(p.error().message.find("deepseek-v3"), std::string::npos);
}

}  // namespace
}  // namespace quantal::mla
