// tokenizer.json and tiktoken.model: what they become, and what is refused.
#include <gtest/gtest.h>

#include "checkpoint_maker.hpp"
#include "pretokenizer.hpp"
#include "tiktoken.hpp"
#include "tokenizer.hpp"
#include "tokenizer_json.hpp"

namespace quantal::test {
namespace {

using hf::token_type;

json split(const std::string& regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}
json sequence(const std::vector<json>& steps) { return {{"type", "Sequence"}, {"pretokenizers", steps}}; }
const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};

const json digits = {{"type", "Digits"}, {"individual_digits", true}};
/// The letters as tokenizer files have them, which spell them out.
const std::string deepseek_llm_words =
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-Ჺ)"
    R"(Ჽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝ)"
    R"(ℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀)"
    R"(-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";

json tiny() {
  return {{"added_tokens",
           {{{"id", 0}, {"content", "<s>"}, {"special", true}},
            {{"id", 5}, {"content", "<tool>"}, {"special", false}}}},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", json::array()}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 1}, {"b", 2}, {"ab", 3}, {"aba", 4}}},
            {"merges", {"a b", {"ab", "a"}}}}}};
}

class TokenizerJson : public ::testing::Test {
 protected:
  result<hf::vocabulary> read(const json& j, std::int64_t size = 8) {
    write_file(dir / "tokenizer.json", j.dump());
    return hf::read_tokenizer_json(dir / "tokenizer.json", size);
  }
  void expect_error(const json& j, const std::string& part, std::int64_t size = 8) {
    const auto v = read(j, size);
    ASSERT_FALSE(v) << part;
    EXPECT_NE(v.error().message.find(part), std::string::npos) << v.error().message;
    EXPECT_NE(v.error().message.find("tokenizer.json"), std::string::npos);
  }
  std::string pre(const json& pre_tokenizer) {
    auto j = tiny();
    j["pre_tokenizer"] = pre_tokenizer;
    const auto v = read(j);
    return v ? v->pre : v.error().message;
  }

  temp_dir dir;
};

TEST_F(TokenizerJson, TokensTypesAndBothSpellingsOfMerges) {
  const auto v = read(tiny());
  ASSERT_TRUE(v) << v.error().message;
  EXPECT_EQ(v->tokens,
            (std::vector<std::string>{"<s>", "a", "b", "ab", "aba", "<tool>", "[PAD6]", "[PAD7]"}));
  EXPECT_EQ(v->types, (std::vector<std::int32_t>{3, 1, 1, 1, 1, 4, 5, 5}));
  EXPECT_EQ(v->merges, (std::vector<std::string>{"a b", "ab a"}));
  EXPECT_EQ(v->pre, "gpt-2");
}

TEST_F(TokenizerJson, RecognisesPreTokenizersByTheirExpressions) {
  EXPECT_EQ(pre({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}), "gpt-2");
  EXPECT_EQ(
      pre(sequence(
          {split(R"(\p{N}{1,3})"), split("[一-龥぀-ゟ゠-ヿ]+"),
           split(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
                 R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"),
           byte_level})),
      "deepseek-v3");
  EXPECT_EQ(
      pre(sequence({split(R"([\r\n])"), split(deepseek_llm_words), split(R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)"),
                    split(R"(\s+$)"), split("[一-龥ࠀ-一가-퟿]+"), digits, byte_level})),
      "deepseek-llm");
  const std::string rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
                    contractions = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)";
  EXPECT_EQ(pre(sequence({split(contractions + R"(\p{N}{1,3})" + rest), byte_level})), "llama-bpe");
  EXPECT_EQ(pre(sequence({split(contractions + R"(\p{N})" + rest), byte_level})), "qwen2");
  const std::string kimi =
      R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
      R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
      R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(pre(sequence({split(R"([\p{Han}]+)" + kimi), byte_level})), "kimi-k2");
  EXPECT_EQ(pre(sequence({split(R"(\p{Han}+)" + kimi), byte_level})), "kimi-k2");
}

TEST_F(TokenizerJson, UnknownPreTokenizersArePrinted) {
  for (const auto& [j, part] : std::vector<std::pair<json, std::string>>{
           {sequence({split(R"(\w+ of my own)"), byte_level}), R"(\\w+ of my own)"},
           {sequence({split(R"(\p{N}{1,3})")}), "Split"},
           {{{"type", "Whitespace"}}, "Whitespace"},
           {{{"type", "ByteLevel"}, {"add_prefix_space", true}}, "add_prefix_space"},
           {json(7), "7"}}) {
    const auto message = pre(j);
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_NE(message.find("gpt-2, deepseek-llm, deepseek-v3, llama-bpe, qwen2, tekken, kimi-k2"),
              std::string::npos)
        << message;
  }
}

TEST_F(TokenizerJson, WhatAGgufCannotDo) {
  const auto with = [](const char* where, const json& value) {
    auto j = tiny();
    j[json::json_pointer(where)] = value;
    return j;
  };
  expect_error(with("/model/type", "Unigram"), "Unigram");
  expect_error(with("/model/byte_fallback", true), "byte_fallback");
  expect_error(with("/model/end_of_word_suffix", "</w>"), "</w>");
  expect_error(with("/normalizer", {{"type", "NFC"}}), "NFC");
  expect_error(with("/model/vocab/c", 3), "number 3");
  expect_error(with("/model/vocab/c", 8), "number 8");
  expect_error(with("/model/vocab/c", -1), "number -1");
  expect_error(with("/model/vocab", json::array()), "'vocab'");
  expect_error(with("/model/merges/0", "ab"), "merge 0");
  expect_error(with("/model/merges/0", "a b a"), "merge 0");
  expect_error(with("/model/merges/0", "b a"), "gives no token");
  expect_error(with("/model/merges/0", {"a", "b", "a"}), "merge 0");
  expect_error(with("/added_tokens/0/id", 1), "'<s>'");
  expect_error(tiny(), "outside the 4", 4);
  write_file(dir / "tokenizer.json", R"({"model": {"vocab": {"a": 1, "a": 2}}})");
  EXPECT_FALSE(hf::read_tokenizer_json(dir / "tokenizer.json", 8));
}

class Tiktoken : public ::testing::Test {
 protected:
  Tiktoken() {
    for (int b = 0; b < 256; ++b) tokens.push_back(std::string(1, static_cast<char>(255 - b)));
    for (const char* t : {"th", "he", " t", "the", " the", "an", "then"}) tokens.push_back(t);
  }
  std::string lines() const {
    std::string out;
    for (std::size_t i = 0; i < tokens.size(); ++i) out += base64(tokens[i]) + " " + std::to_string(i) + "\n";
    return out;
  }
  void expect_error(const std::string& text, const std::string& part, std::int64_t most = 1000) {
    write_file(dir / "tiktoken.model", text);
    const auto t = hf::read_tiktoken(dir / "tiktoken.model", most);
    ASSERT_FALSE(t) << part;
    EXPECT_NE(t.error().message.find(part), std::string::npos) << t.error().message;
  }

  temp_dir dir;
  std::vector<std::string> tokens;
};

TEST_F(Tiktoken, MergesFollowFromRanks) {
  write_file(dir / "tiktoken.model", lines());
  const auto read = hf::read_tiktoken(dir / "tiktoken.model", 1000);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, tokens);
  std::size_t unreachable = 0;
  using pairs = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(hf::merges_of(tokens, unreachable),
            (pairs{{"t", "h"}, {"h", "e"}, {" ", "t"}, {"th", "e"}, {" ", "the"}, {"a", "n"}, {"the", "n"}}));
  EXPECT_EQ(unreachable, 0u);
  tokens.push_back("xyz");
  hf::merges_of(tokens, unreachable);
  EXPECT_EQ(unreachable, 1u);
}

TEST_F(Tiktoken, BecomesAVocabularyThatTokenizes) {
  write_file(dir / "tiktoken.model", lines());
  const json config = {{"tokenizer_class", "TikTokenTokenizer"},
                       {"added_tokens_decoder", {{"264", {{"content", "[BOS]"}, {"special", true}}}}},
                       {"bos_token", "[BOS]"}};
  std::vector<std::string> notices;
  const auto v = hf::read_kimi_vocabulary(dir / "", config, 268, notices);
  ASSERT_TRUE(v) << v.error().message;
  EXPECT_EQ(v->tokens[264], "[BOS]");
  EXPECT_EQ(v->tokens[263], "<|reserved_token_263|>");
  EXPECT_EQ(v->types[267], static_cast<std::int32_t>(token_type::control));
  gguf::metadata meta;
  meta.set("tokenizer.ggml.model", std::string("gpt2"));
  meta.set("tokenizer.ggml.pre", v->pre);
  meta.set("tokenizer.ggml.tokens", gguf::array(v->tokens));
  meta.set("tokenizer.ggml.token_type", gguf::array(v->types));
  meta.set("tokenizer.ggml.merges", gguf::array(v->merges));
  const auto t = mla::tokenizer::from_gguf(meta);
  ASSERT_TRUE(t) << t.error().message;
  const std::string text = "then the \xe4\xb8\x80";
  const auto ids = t->encode(text);
  EXPECT_EQ(t->decode(ids), text);
  EXPECT_EQ(ids.front(), 262);
  EXPECT_EQ(ids[1], 260);
  json other = config;
  other["tokenizer_class"] = "SomethingElse";
  EXPECT_FALSE(hf::read_kimi_vocabulary(dir / "", other, 268, notices));
  other = config;
  other["added_tokens_decoder"] = {{"3", {{"content", "[BOS]"}}}};
  EXPECT_FALSE(hf::read_kimi_vocabulary(dir / "", other, 268, notices));
}

TEST_F(Tiktoken, DamageNamesTheLine) {
  expect_error("AA== 0\nAQ== 2\n", "line 2");
  expect_error("AA== 0\nAA== 1\n", "came before");
  expect_error("AA=! 0\n", "line 1");
  expect_error("AA=\n", "line 1");
  expect_error("AA== x\n", "rank 'x'");
  expect_error("AA== 0\n", "byte 1 has no token");
  expect_error("", "byte 0 has no token");
  expect_error(lines(), "vocab_size 100", 100);
}

}  // namespace
}  // namespace quantal::test
