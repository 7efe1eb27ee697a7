// tokenizer.json and tiktoken.model: what they become, and what is refused.
#include <gtest/gtest.h>

#include "checkpoint_maker.hpp"
#include "hf_config.hpp"
#include "pretokenizer.hpp"
#include "sentencepiece.hpp"
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
    const auto read = hf::parse_json(j.dump(), "tokenizer.json");
    EXPECT_TRUE(read);
    return hf::read_tokenizer_json(*read, "tokenizer.json", size);
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
  const std::string end = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)",
                    upper = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])",
                    lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])",
                    o200k = upper + "*" + lower + "+" + end + upper + "+" + lower + "*" + end +
                            R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(pre(sequence({split(o200k), byte_level})), "gpt-4o");
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
  auto metaspace = with("/model/byte_fallback", true);
  metaspace["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}};
  expect_error(metaspace, "pre_tokenizer");
  expect_error(with("/model/end_of_word_suffix", "</w>"), "</w>");
  expect_error(with("/normalizer", {{"type", "NFKC"}}), "NFKC");
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
  hf::model_config c;
  c.sizes[hf::size::vocabulary] = 8;
  gguf::metadata meta;
  std::vector<std::string> notices;
  EXPECT_FALSE(hf::add_vocabulary(dir / "", c, meta, notices));
}

TEST_F(TokenizerJson, NfcIsLeftOutWithANotice) {
  auto j = tiny();
  j["normalizer"] = {{"type", "NFC"}};
  const auto v = read(j);
  ASSERT_TRUE(v) << v.error().message;
  ASSERT_EQ(v->notices.size(), 1u);
  EXPECT_NE(v->notices[0].find("NFC"), std::string::npos);
}

TEST_F(TokenizerJson, TemplatesSayWhatStandsAroundAText) {
  auto j = tiny();
  const json special = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
             text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  j["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}}, {{"type", "TemplateProcessing"}, {"single", {special, text}}}}}};
  const auto v = read(j);
  ASSERT_TRUE(v) << v.error().message;
  EXPECT_EQ(v->first, "<s>");
  EXPECT_EQ(v->last, "");
}

/// SentencePiece as tokenizer.json has it: Llama's way and Gemma's.
json pieces(bool gemma) {
  auto j = tiny();
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  j["normalizer"] = gemma ? replace
                          : json{{"type", "Sequence"},
                                 {"normalizers", {{{"type", "Prepend"}, {"prepend", "\u2581"}}, replace}}};
  j["pre_tokenizer"] =
      gemma ? json{{"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "MergedWithPrevious"}}
            : json();
  j["model"]["byte_fallback"] = true;
  j["model"]["unk_token"] = "<unk>";
  j["model"]["vocab"]["<unk>"] = 6;
  j["model"]["vocab"]["<0x0A>"] = 7;
  return j;
}

TEST_F(TokenizerJson, ByteFallbackBecomesSentencePiece) {
  for (const bool gemma : {false, true}) {
    const auto v = read(pieces(gemma), 9);
    ASSERT_TRUE(v) << v.error().message;
    EXPECT_EQ(v->model, "llama");
    EXPECT_EQ(v->add_space_prefix, !gemma);
    EXPECT_EQ(v->types, (std::vector<std::int32_t>{3, 1, 1, 1, 1, 4, 2, 6, 5}));
    // The first merge makes the best token; "a" and "b" come out of none.
    EXPECT_EQ(v->scores, (std::vector<float>{-1000, -2, -2, 0, -1, -1000, 0, 0, -10000}));
    EXPECT_TRUE(v->merges.empty());
  }
  auto j = pieces(false);
  j["normalizer"] = nullptr;
  j["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}, {"split", false}};
  const auto v = read(j, 9);
  ASSERT_TRUE(v) << v.error().message;
  EXPECT_EQ(v->add_space_prefix, true);
  j["pre_tokenizer"]["split"] = true;
  expect_error(j, "pre_tokenizer", 9);
  j["pre_tokenizer"] = nullptr;
  expect_error(j, "U+2581", 9);
}

TEST_F(TokenizerJson, UserDefinedPiecesAreSpelledWithSpaces) {
  auto j = pieces(true);
  j["added_tokens"][1]["content"] = "\u2581\u2581tool\u2581";
  j["model"]["vocab"]["\u2581"] = 8;
  write_file(dir / "tokenizer.json", j.dump());
  hf::model_config c;
  c.sizes[hf::size::vocabulary] = 9;
  gguf::metadata meta;
  std::vector<std::string> notices;
  const auto done = hf::add_vocabulary(dir / "", c, meta, notices);
  ASSERT_TRUE(done) << done.error().message;
  const auto& tokens = **meta.strings("tokenizer.ggml.tokens");
  EXPECT_EQ(tokens[5], "  tool ");
  EXPECT_EQ(tokens[8], "\u2581");
}

/// A protobuf message out of its fields.
std::string proto_varint(std::uint64_t v) {
  std::string out;
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  return out + static_cast<char>(v);
}
std::string proto_number(unsigned field, std::uint64_t v) {
  return proto_varint(field << 3) + proto_varint(v);
}
std::string proto_bytes(unsigned field, const std::string& bytes) {
  return proto_varint(field << 3 | 2) + proto_varint(bytes.size()) + bytes;
}
std::string proto_float(unsigned field, float v) {
  std::string raw(4, '\0');
  std::memcpy(raw.data(), &v, 4);
  return proto_varint(field << 3 | 5) + raw;
}
std::string proto_piece(const std::string& text, float score, std::uint64_t type = 1) {
  return proto_bytes(1,
                     proto_bytes(1, text) + proto_float(2, score) + (type == 1 ? "" : proto_number(3, type)));
}

class SentencePiece : public ::testing::Test {
 protected:
  static std::string settings(std::uint64_t kind = 2, bool prefix = true,
                              const std::string& name = "identity") {
    return proto_bytes(2, proto_number(3, kind) + proto_bytes(1, "text.txt")) +
           proto_bytes(3, proto_bytes(1, name) + proto_number(3, prefix));
  }
  static std::string model() {
    return proto_piece("<unk>", 0, 2) + proto_piece("<s>", 0, 3) + proto_piece("<0x0A>", 0, 6) +
           proto_piece("\u2581a", -1.5f) + proto_piece("b", -2) + settings();
  }
  result<hf::vocabulary> read(const std::string& bytes, std::int64_t size = 8) {
    write_file(dir / "tokenizer.model", bytes);
    return hf::read_sentencepiece(dir / "tokenizer.model", size);
  }
  void expect_error(const std::string& bytes, const std::string& part) {
    const auto v = read(bytes);
    ASSERT_FALSE(v) << part;
    EXPECT_NE(v.error().message.find(part), std::string::npos) << v.error().message;
    EXPECT_NE(v.error().message.find("tokenizer.model"), std::string::npos);
  }
  /// Of the files that are there.
  result<gguf::metadata> vocabulary_here() {
    hf::model_config c;
    c.sizes[hf::size::vocabulary] = 8;
    gguf::metadata meta;
    std::vector<std::string> notices;
    if (const auto done = hf::add_vocabulary(dir / "", c, meta, notices); !done) return done.error();
    return meta;
  }
  gguf::metadata vocabulary_of(const json& tokenizer_config, const std::string& bytes = model()) {
    write_file(dir / "tokenizer.model", bytes);
    write_file(dir / "tokenizer_config.json", tokenizer_config.dump());
    auto meta = vocabulary_here();
    EXPECT_TRUE(meta) << meta.error().message;
    return meta ? std::move(*meta) : gguf::metadata{};
  }

  temp_dir dir;
};

TEST_F(SentencePiece, PiecesScoresAndTypes) {
  const auto v = read(model());
  ASSERT_TRUE(v) << v.error().message;
  EXPECT_EQ(v->model, "llama");
  EXPECT_EQ(std::vector(v->tokens.begin(), v->tokens.begin() + 5),
            (std::vector<std::string>{"<unk>", "<s>", "<0x0A>", "\u2581a", "b"}));
  EXPECT_EQ(v->scores, (std::vector<float>{0, 0, 0, -1.5f, -2, -10000, -10000, -10000}));
  EXPECT_EQ(std::vector(v->types.begin(), v->types.begin() + 5), (std::vector<std::int32_t>{2, 3, 6, 1, 1}));
  EXPECT_EQ(v->add_space_prefix, true);
  EXPECT_TRUE(v->notices.empty());
  EXPECT_EQ(read(proto_piece("a", 0) + settings(2, false))->add_space_prefix, false);
  EXPECT_NE(read(proto_piece("a", 0) + settings(1))->notices.at(0).find("unigram"), std::string::npos);
  EXPECT_NE(read(proto_piece("a", 0) + settings(2, true, "nmt_nfkc"))->notices.at(0).find("nmt_nfkc"),
            std::string::npos);
}

TEST_F(SentencePiece, AddedTokensAndKeys) {
  const auto meta = vocabulary_of({{"tokenizer_class", "LlamaTokenizer"},
                                   {"bos_token", "<s>"},
                                   {"unk_token", "<unk>"},
                                   {"added_tokens_decoder",
                                    {{"0", {{"content", "<unk>"}, {"special", true}}},
                                     {"5", {{"content", "<end>"}, {"special", true}}},
                                     {"6", {{"content", "<tool>"}, {"special", false}}}}}});
  EXPECT_EQ(*meta.string("tokenizer.ggml.model"), "llama");
  EXPECT_EQ(
      **meta.strings("tokenizer.ggml.tokens"),
      (std::vector<std::string>{"<unk>", "<s>", "<0x0A>", "\u2581a", "b", "<end>", "<tool>", "[PAD7]"}));
  EXPECT_EQ(*meta.integers("tokenizer.ggml.token_type"), (std::vector<std::int64_t>{2, 3, 6, 1, 1, 3, 4, 5}));
  EXPECT_FALSE(meta.contains("tokenizer.ggml.merges"));
  EXPECT_EQ(*meta.integer("tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(*meta.integer("tokenizer.ggml.unknown_token_id"), 0);
  EXPECT_EQ(*meta.boolean("tokenizer.ggml.add_bos_token"), true);
  EXPECT_EQ(*meta.boolean("tokenizer.ggml.add_space_prefix"), true);
}

TEST_F(SentencePiece, UserDefinedPiecesAreSpelledWithSpaces) {
  const json config = {{"pad_token", "\u2581\u2581"},
                       {"added_tokens_decoder", {{"5", {{"content", "\u2581\u2581"}, {"special", false}}}}}};
  const auto meta =
      vocabulary_of(config, model() + proto_piece("\u2581\u2581", -3, 4) + proto_piece("\u2581\u2581b", -4));
  const auto& tokens = **meta.strings("tokenizer.ggml.tokens");
  EXPECT_EQ(tokens[3], "\u2581a");
  EXPECT_EQ(tokens[5], "  ");
  EXPECT_EQ(tokens[6], "\u2581\u2581b");
  EXPECT_EQ((*meta.integers("tokenizer.ggml.token_type"))[5], 4);
  EXPECT_EQ(*meta.integer("tokenizer.ggml.padding_token_id"), 5);
}

/// tokenizer.json beside the pieces of the model above, with two tokens that no other file has.
json beside_pieces(const json& model) {
  const json bos = {{"SpecialToken", {{"id", "<s>"}}}}, text = {{"Sequence", {{"id", "A"}}}};
  return {{"model", model},
          {"normalizer", {{"type", "NFKC"}}},
          {"added_tokens",
           {{{"id", 1}, {"content", "<s>"}, {"special", true}},
            {{"id", 5}, {"content", "<end>"}, {"special", true}},
            {{"id", 6}, {"content", "\u2581\u2581"}, {"special", false}}}},
          {"post_processor", {{"type", "TemplateProcessing"}, {"single", {bos, text}}}}};
}

TEST_F(SentencePiece, TokensThatOnlyTokenizerJsonHasComeAlong) {
  for (const json& kind : {json{{"type", "Unigram"}, {"vocab", json::array()}},
                           json{{"type", "BPE"}, {"byte_fallback", true}, {"vocab", json::object()}}}) {
    write_file(dir / "tokenizer.json", beside_pieces(kind).dump());
    const auto meta = vocabulary_of({{"bos_token", "<s>"}});
    EXPECT_EQ(*meta.string("tokenizer.ggml.model"), "llama");
    EXPECT_EQ(**meta.strings("tokenizer.ggml.tokens"),
              (std::vector<std::string>{"<unk>", "<s>", "<0x0A>", "\u2581a", "b", "<end>", "  ", "[PAD7]"}));
    EXPECT_EQ(*meta.integers("tokenizer.ggml.token_type"),
              (std::vector<std::int64_t>{2, 3, 6, 1, 1, 3, 4, 5}));
    EXPECT_EQ(*meta.boolean("tokenizer.ggml.add_bos_token"), true);
    EXPECT_FALSE(meta.contains("tokenizer.ggml.add_eos_token"));
  }
}

TEST_F(SentencePiece, TokenizerJsonThatContradictsThePieces) {
  write_file(dir / "tokenizer.model", model());
  auto j = beside_pieces({{"type", "Unigram"}});
  j["added_tokens"][1]["id"] = 4;
  write_file(dir / "tokenizer.json", j.dump());
  const auto meta = vocabulary_here();
  ASSERT_FALSE(meta);
  EXPECT_NE(meta.error().message.find("tokenizer.json: token '<end>': number 4 belongs"), std::string::npos)
      << meta.error().message;
}

TEST_F(SentencePiece, PiecesDoNotHideErrorsOfByteLevelFiles) {
  write_file(dir / "tokenizer.model", model());
  auto j = tiny();
  write_file(dir / "tokenizer.json", j.dump());
  auto meta = vocabulary_here();
  ASSERT_TRUE(meta) << meta.error().message;
  EXPECT_EQ(*meta->string("tokenizer.ggml.model"), "gpt2");
  j["normalizer"] = {{"type", "NFKC"}};
  write_file(dir / "tokenizer.json", j.dump());
  meta = vocabulary_here();
  ASSERT_FALSE(meta);
  EXPECT_NE(meta.error().message.find("NFKC"), std::string::npos) << meta.error().message;
}

TEST_F(SentencePiece, AddedTokensThatDoNotFit) {
  write_file(dir / "tokenizer.model", model());
  hf::model_config c;
  c.sizes[hf::size::vocabulary] = 8;
  gguf::metadata meta;
  std::vector<std::string> notices;
  for (const auto& [number, content] : {std::pair{"3", "<end>"}, {"x", "<end>"}}) {
    write_file(dir / "tokenizer_config.json",
               json{{"added_tokens_decoder", {{number, {{"content", content}}}}}}.dump());
    const auto done = hf::add_vocabulary(dir / "", c, meta, notices);
    ASSERT_FALSE(done) << number;
    EXPECT_NE(done.error().message.find("tokenizer_config.json: added token"), std::string::npos);
  }
  std::filesystem::remove(dir / "tokenizer_config.json");
  write_file(dir / "added_tokens.json", R"({"<image>": 8})");
  EXPECT_TRUE(hf::add_vocabulary(dir / "", c, meta, notices));
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_NE(notices[0].find("'<image>' is left out"), std::string::npos) << notices[0];
  write_file(dir / "added_tokens.json", R"({"<end>": "five"})");
  EXPECT_FALSE(hf::add_vocabulary(dir / "", c, meta, notices));
  write_file(dir / "added_tokens.json", R"({"<end>": 5})");
  EXPECT_TRUE(hf::add_vocabulary(dir / "", c, meta, notices));
}

TEST_F(SentencePiece, DamageNamesThePiece) {
  expect_error("", "no pieces");
  expect_error(proto_piece("a", 0) + proto_piece("a", 1), "piece 1: 'a' came before");
  expect_error(proto_piece("", 0), "piece 0: is empty");
  expect_error(proto_piece("a", 0, 9), "piece 0: type 9");
  expect_error(proto_piece("a", 0, 6), "is no byte");
  expect_error(proto_piece("a", std::numeric_limits<float>::quiet_NaN()), "no finite score");
  expect_error(proto_bytes(1, "\x0a\x7f"), "piece 0: is cut off");
  expect_error(proto_piece("a", 0) + settings(3), "model type 3");
  expect_error(proto_piece("a", 0) + proto_bytes(3, proto_number(5, 0)), "spaces are not escaped");
  expect_error("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer");
  std::string many;
  for (int i = 0; i < 9; ++i) many += proto_piece(std::string(1, static_cast<char>('a' + i)), 0);
  expect_error(many, "vocab_size 8");
  expect_error(std::string(20, '\xff'), "cut off or no SentencePiece model");
  expect_error(proto_varint(1 << 3 | 3) + "x", "cut off or no SentencePiece model");
}

TEST_F(SentencePiece, EveryCutIsAnErrorOrBetweenFields) {
  const auto whole = model();
  std::vector<std::size_t> between;
  std::string so_far;
  for (const auto& part : {proto_piece("<unk>", 0, 2), proto_piece("<s>", 0, 3), proto_piece("<0x0A>", 0, 6),
                           proto_piece("\u2581a", -1.5f), proto_piece("b", -2), settings()})
    between.push_back((so_far += part).size());
  const std::size_t trainer =
      between[4] + proto_bytes(2, proto_number(3, 2) + proto_bytes(1, "text.txt")).size();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const bool whole_fields = n == trainer || std::find(between.begin(), between.end(), n) != between.end();
    EXPECT_EQ(static_cast<bool>(read(whole.substr(0, n))), whole_fields && n > 0) << n;
  }
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
