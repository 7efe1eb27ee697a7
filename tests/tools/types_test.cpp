// ik_llama.cpp's mixes against a table of their description, stand-ins, and rules. plans_test.cpp has llama.cpp's mixes.
#include "types.hpp"

#include <gtest/gtest.h>

#include "fallback.hpp"
#include "quantal/quantize/quantize.hpp"
#include "synthetic.hpp"

namespace quantal::plan {
namespace {

/// A row of the table, for deepseek2 with many experts. `down` and `gate`: "base", a type, or CONDITION:TYPE[:OTHERWISE].
struct row {
  const char *type, *base, *k, *q, *out, *down, *gate, *embd, *output, *tied;
};
constexpr row rows[] = {
    {"Q8_0", "q8_0", "q8_0", "base", "base", "base", "base", "base", "q8_0", "q8_0"},
    {"Q6_K", "q6_K", "q8_0", "base", "base", "base", "base", "base", "q6_K", "q6_K"},
    {"Q5_K_M", "q5_K", "q8_0", "base", "base", "more:q6_K", "base", "base", "q6_K", "q6_K"},
    {"Q5_K_S", "q5_K", "q8_0", "base", "base", "base", "base", "base", "q6_K", "q6_K"},
    {"Q4_K_M", "q4_K", "q8_0", "base", "q5_K", "more:q6_K", "base", "base", "q6_K", "q6_K"},
    {"Q4_K_S", "q4_K", "q8_0", "base", "q5_K", "first8:q5_K", "base", "base", "q6_K", "q6_K"},
    {"Q4_0", "q4_0", "q8_0", "base", "base", "first8+data:q4_1", "base", "base", "q6_K", "q6_K"},
    {"Q5_0", "q5_0", "q8_0", "base", "base", "first8+data:q5_1", "base", "base", "q6_K", "q6_K"},
    {"IQ4_XS", "iq4_xs", "q8_0", "base", "q5_K", "first8-data:q5_K", "base", "base", "q6_K", "iq5_k"},
    {"IQ4_NL", "iq4_nl", "q8_0", "base", "q5_K", "first8-data:q5_K", "base", "base", "q6_K", "q6_K"},
    {"IQ4_KS", "iq4_ks", "q8_0", "base", "q5_K", "first8-data:q5_K", "base", "base", "q6_K", "iq5_k"},
    {"IQ4_KSS", "iq4_kss", "q8_0", "base", "q5_K", "first8-data:q5_K", "base", "base", "q6_K", "iq5_k"},
    {"IQ4_K", "iq4_k", "q8_0", "base", "q5_K", "base", "base", "base", "q6_K", "q6_K"},
    {"IQ5_KS", "iq5_ks", "q8_0", "base", "q5_K", "base", "base", "base", "q6_K", "q6_K"},
    {"IQ5_K", "iq5_k", "q8_0", "base", "base", "base", "base", "base", "q6_K", "q6_K"},
    {"IQ6_K", "iq6_k", "q8_0", "base", "base", "base", "base", "base", "iq6_k", "iq6_k"},
    {"Q3_K_S", "q3_K", "q8_0", "base", "q5_K", "base", "base", "base", "q6_K", "q6_K"},
    {"Q3_K_M", "q3_K", "q8_0", "base", "q5_K", "first16:q5_K:q4_K", "base", "base", "q6_K", "q6_K"},
    {"Q3_K_L", "q3_K", "q8_0", "base", "base", "q5_K", "base", "base", "q6_K", "q6_K"},
    {"IQ3_S", "iq3_s", "q8_0", "base", "q5_K", "base", "base", "base", "q6_K", "iq5_k"},
    {"IQ3_M", "iq3_s", "q8_0", "base", "q5_K", "more:iq4_k", "base", "base", "q6_K", "iq5_k"},
    {"IQ3_XS", "iq3_s", "q8_0", "iq3_xxs", "q5_K", "base", "middle:iq3_xxs", "base", "q6_K", "q6_K"},
    {"IQ3_XXS", "iq3_xxs", "q8_0", "iq2_s", "q5_K", "nodata:q4_K:q3_K", "base", "iq3_s", "q5_K", "iq4_k"},
    {"IQ3_K", "iq3_k", "q8_0", "base", "q5_K", "base", "base", "base", "q5_K", "iq4_k"},
    {"IQ3_KS", "iq3_ks", "q8_0", "base", "q5_K", "base", "base", "base", "q5_K", "iq4_k"},
    {"IQ2_KL", "iq2_kl", "q8_0", "base", "iq4_ks", "base", "base", "base", "q5_K", "iq4_k"},
    {"IQ2_K", "iq2_k", "q8_0", "base", "q5_K", "base", "base", "base", "q5_K", "iq4_k"},
    {"Q2_K", "q2_K", "q8_0", "base", "q5_K", "q3_K", "base", "base", "q6_K", "q6_K"},
    {"Q2_K_S", "q2_K", "q8_0", "base", "base", "first8:q4_K", "base", "base", "q6_K", "q6_K"},
    {"IQ2_M", "iq2_s", "q4_K", "q4_K", "q5_K", "count8:iq3_s", "base", "iq3_s", "q5_K", "iq4_k"},
    {"IQ2_S", "iq2_xs", "q4_K", "q4_K", "q5_K", "count8:iq3_s", "base", "iq3_s", "q5_K", "iq4_k"},
    {"IQ2_XS", "iq2_xs", "q4_K", "q4_K", "q5_K", "count8:q2_K", "base", "q2_K", "q5_K", "iq4_k"},
    {"IQ2_XXS", "iq2_xxs", "q4_K", "q4_K", "q5_K", "count8:q2_K", "base", "q2_K", "q5_K", "iq4_k"},
    {"IQ2_KS", "iq2_ks", "q4_K", "q4_K", "q5_K", "count8:q2_K", "base", "base", "q5_K", "iq4_k"},
    {"IQ1_S", "iq1_s", "q4_K", "q4_K", "q5_K", "count8:q2_K", "base", "q2_K", "q5_K", "iq4_k"},
    {"IQ1_M", "iq1_m", "q4_K", "q4_K", "q5_K", "count8:q2_K", "base", "q2_K", "q5_K", "iq4_k"},
    {"IQ4_KT", "iq4_kt", "q8_0", "base", "base", "base", "base", "base", "q6_K", "q6_K"},
    {"IQ3_KT", "iq3_kt", "q8_0", "base", "q5_K", "nodata:iq4_k:iq3_k", "base", "iq3_s", "q5_K", "iq4_k"},
    {"IQ2_KT", "iq2_kt", "q4_K", "q4_K", "q5_K", "count8:iq3_k", "first:iq3_k", "base", "q5_K", "iq4_k"},
    {"IQ1_KT", "iq1_kt", "q8_0", "base", "base", "base", "base", "base", "q5_K", "iq4_k"},
    {"MXFP4", "mxfp4", "q8_0", "base", "base", "base", "base", "base", "q6_K", "q6_K"},
};

/// The cell's type for block i of n, with `seen` ffn_down tensors before.
std::string evaluate(const std::string& cell, const std::string& base, int i, int n, int seen, bool data) {
  const auto colon = cell.find(':');
  if (colon == std::string::npos) return cell == "base" ? base : cell;
  const std::string condition = cell.substr(0, colon), rest = cell.substr(colon + 1);
  const auto second = rest.find(':');
  const std::string yes = rest.substr(0, second);
  const std::string no = second == std::string::npos ? base : rest.substr(second + 1);
  const bool first = i < n / 8;
  if (condition == "more") return first || i >= 7 * n / 8 || (i - n / 8) % 3 == 2 ? yes : no;
  if (condition == "first8") return first ? yes : no;
  if (condition == "first8+data") return first && data ? yes : no;
  if (condition == "first8-data") return first && !data ? yes : no;
  if (condition == "first") return i == 0 ? yes : no;
  if (condition == "first16") return i < n / 16 ? yes : no;
  if (condition == "middle") return i >= n / 8 && i < 7 * n / 8 ? yes : no;
  if (condition == "count8") return seen < n / 8 ? yes : no;
  if (condition == "nodata") return data ? base : first ? yes : no;
  ADD_FAILURE() << "unknown condition " << condition;
  return {};
}

std::string expected(const row& r, const std::string& name, int i, int n, int seen, bool data, bool tied) {
  const auto is = [&](const char* part) { return name.find(part) != std::string::npos; };
  const auto cell = [&](const char* c) { return evaluate(c, r.base, i, n, seen, data); };
  if (name == "output.weight") return cell(r.output);
  if (name == "token_embd.weight") return cell(tied ? r.tied : r.embd);
  if (is("attn_k")) return cell(r.k);
  if (is("attn_q")) return cell(r.q);
  if (is("attn_v_b")) return r.base;
  if (is("attn_output")) return cell(r.out);
  if (is("ffn_down")) return cell(r.down);
  if (is("ffn_gate") || is("ffn_up")) return cell(r.gate);
  ADD_FAILURE() << "no class for " << name;
  return {};
}

model_traits traits(std::int64_t blocks, std::int64_t experts, bool tied) {
  model_traits m;
  m.architecture = "deepseek2", m.blocks = blocks, m.heads = m.kv_heads = 16, m.experts = experts,
  m.tied_embeddings = tied;
  return m;
}

class every_mix : public ::testing::TestWithParam<row> {};

TEST_P(every_mix, follows_the_table) {
  const row& r = GetParam();
  const auto* type = find_file_type(r.type);
  ASSERT_NE(type, nullptr);
  for (const int n : {3, 16, 27, 61})
    for (const bool data : {false, true})
      for (const bool tied : {false, true}) {
        const auto tensors =
            test::deepseek2({.blocks = n, .lite = n == 27, .three_dimensional = n != 16, .tied = tied});
        const auto model = traits(n, 64, tied);
        mixer mix(*type, dialect::ik, model, data, tensors);
        int seen = 0;
        for (const auto& t : tensors) {
          if (!is_quantized(t)) continue;
          const int i = static_cast<int>(block_index(t.name).value_or(-1));
          const auto want = expected(r, t.name, i, n, seen, data, tied);
          seen += t.name.find("ffn_down") != std::string::npos ? 1 : 0;
          ASSERT_EQ(mix.choose(t), want) << t.name << " n=" << n << " data=" << data << " tied=" << tied;
        }
      }
}
INSTANTIATE_TEST_SUITE_P(table, every_mix, ::testing::ValuesIn(rows),
                         [](const auto& info) { return std::string(info.param.type); });

TEST(mixes, large_models_by_hand) {
  const auto v3 = traits(61, 256, false);
  mixer mix(*find_file_type("Q4_K_M"), dialect::llama_cpp, v3, false, {});
  const auto down = [&](int i) {
    return mix.choose(test::tensor("blk." + std::to_string(i) + ".ffn_down_exps.weight", 0, {2048, 8, 4, 1}));
  };
  EXPECT_EQ(down(6), "q6_K");  // below 61/8 = 7
  EXPECT_EQ(down(7), "q4_K");
  EXPECT_EQ(down(9), "q6_K");  // (9 - 7) mod 3 == 2
  EXPECT_EQ(down(10), "q4_K");
  EXPECT_EQ(down(52), "q4_K");
  EXPECT_EQ(down(53), "q6_K");  // from 7 * 61 / 8 = 53
}

TEST(mixes, output_of_odd_width_is_q8_0) {
  const auto model = traits(3, 0, false);
  for (const auto d : {dialect::llama_cpp, dialect::ik}) {
    mixer mix(*find_file_type("IQ2_XXS"), d, model, false, {});
    EXPECT_EQ(mix.choose(test::tensor("output.weight", 0, {128, 8, 1, 1})), "q8_0");
    EXPECT_EQ(mix.choose(test::tensor("output.weight", 0, {512, 8, 1, 1})), "q5_K");
  }
}

TEST(mixes, traits_come_from_the_metadata_or_the_names) {
  gguf::metadata meta;
  meta.set("general.architecture", std::string("jamba"));
  const std::vector<gguf::tensor_info> tensors{test::tensor("blk.7.attn_q.weight", 0, {256, 8, 1, 1})};
  EXPECT_EQ(traits_of(meta, tensors).blocks, 8);
  EXPECT_TRUE(traits_of(meta, tensors).tied_embeddings);
  meta.set("jamba.block_count", std::uint32_t{32});
  meta.set("jamba.attention.head_count", std::uint32_t{32});
  EXPECT_EQ(traits_of(meta, tensors).kv_heads, 32) << "as many as query heads where nothing is said";
  meta.set("jamba.attention.head_count_kv", std::vector<std::int32_t>{0, 0, 8});
  const auto m = traits_of(meta, tensors);
  EXPECT_EQ(m.blocks, 32);
  EXPECT_EQ(m.kv_heads, 0) << "the first block decides";
}

TEST(file_types, by_name_number_and_short_form) {
  EXPECT_EQ(find_file_type("q4_k_m")->name, "Q4_K_M");
  EXPECT_EQ(find_file_type("Q4_K")->name, "Q4_K_M");
  EXPECT_EQ(find_file_type("15")->name, "Q4_K_M");
  EXPECT_EQ(find_file_type("0")->name, "F32");
  EXPECT_EQ(find_file_type("COPY")->is_copy(), true);
  for (const char* bad : {"", "Q4_X", "15x", "-1", "4"}) EXPECT_EQ(find_file_type(bad), nullptr) << bad;
  EXPECT_NE(known_file_types().find("IQ2_XXS"), std::string::npos);
}

TEST(file_types, names_and_ids_are_unique) {
  for (const auto& a : file_types())
    for (const auto& b : file_types())
      if (&a != &b && !a.is_copy() && !b.is_copy()) {
        EXPECT_NE(a.name, b.name);
        EXPECT_TRUE(a.id != b.id || (a.known_to != b.known_to && a.known_to != owner::both))
            << a.name << " " << b.name;
      }
  EXPECT_EQ(find_file_type("38")->name, "MXFP4_MOE") << "both programs use the number";
}

TEST(file_types, formats_that_a_program_reads) {
  EXPECT_TRUE(reads(dialect::llama_cpp, *find_format("q4_K")));
  EXPECT_TRUE(reads(dialect::ik, *find_format("q4_K")));
  EXPECT_FALSE(reads(dialect::llama_cpp, *find_format("iq4_k")));
  EXPECT_FALSE(reads(dialect::llama_cpp, *find_format("q6_0")));
  EXPECT_FALSE(reads(dialect::ik, *find_format("tq2_0")));
}

TEST(block_numbers, from_names) {
  EXPECT_EQ(block_index("blk.0.ffn_up.weight"), 0);
  EXPECT_EQ(block_index("blk.60.x"), 60);
  for (const char* none : {"output.weight", "blk.x.y", "blk.5", "blk.-1.x", "blk.", "xblk.1.y"})
    EXPECT_EQ(block_index(none), std::nullopt) << none;
}

TEST(quantized_tensors, norms_routers_and_vectors_stay) {
  const auto is = [](const char* name, std::array<std::int64_t, 4> ne, std::uint32_t type = 0) {
    return is_quantized(test::tensor(name, type, ne));
  };
  EXPECT_TRUE(is("blk.1.attn_k_b.weight", {128, 512, 4, 1}));
  EXPECT_TRUE(is("token_embd.weight", {256, 8, 1, 1}));
  EXPECT_FALSE(is("blk.1.attn_k_b.weight", {128, 1, 1, 1}));
  EXPECT_FALSE(is("blk.1.attn_kv_a_norm.weight", {256, 2, 1, 1}));
  EXPECT_FALSE(is("blk.1.ffn_gate_inp.weight", {256, 8, 1, 1}));
  EXPECT_FALSE(is("blk.1.exp_probs_b.bias", {8, 8, 1, 1}));
  EXPECT_FALSE(is("blk.1.ssm_conv1d.weight", {4, 8, 1, 1}));
  EXPECT_FALSE(is("position_embd.weight", {256, 8, 1, 1}));
  EXPECT_FALSE(is("blk.1.ffn_up.weight", {256, 8, 1, 1}, 26)) << "integers stay";
  // Some of what every architecture has of its own; plans_test.cpp has more.
  for (const char* kept :
       {"blk.0.laurel_l.weight", "altup_proj.weight", "per_layer_model_proj.weight", "v.patch_embd.weight",
        "blk.0.time_mix_w1.weight", "blk.0.shortconv.conv.weight", "enc.blk.0.attn_rel_b.weight",
        "token_types.weight", "v.position_embd.weight", "blk.0.indexer.k_proj.weight"})
    EXPECT_FALSE(is(kept, {256, 8, 1, 1})) << kept;
  for (const char* touched :
       {"per_layer_token_embd.weight", "blk.0.ssm_x.weight", "blk.0.time_mix_key.weight", "mm.0.weight"})
    EXPECT_TRUE(is(touched, {256, 8, 1, 1})) << touched;
  EXPECT_FALSE(is_quantized(test::tensor("blk.0.ssm_x.weight", 0, {256, 8, 1, 1}), dialect::ik));
}

TEST(stand_ins, of_256_column_formats) {
  const struct {
    const char *wanted, *instead;
  } table[] = {
      {"iq2_xxs", "iq4_nl"}, {"iq4_xs", "iq4_nl"}, {"q2_K", "iq4_nl"},   {"q3_K", "iq4_nl"},
      {"q4_K", "q5_0"},      {"q5_K", "q6_0"},     {"q6_K", "q8_0"},     {"iq1_s", "iq4_nl"},
      {"iq1_m", "iq4_nl"},   {"iq2_xs", "iq4_nl"}, {"iq2_s", "iq4_nl"},  {"iq3_xxs", "iq4_nl"},
      {"iq3_s", "iq4_nl"},   {"iq2_k", "iq4_nl"},  {"iq2_ks", "iq4_nl"}, {"iq2_kl", "iq4_nl"},
      {"iq3_k", "iq4_nl"},   {"iq3_ks", "iq4_nl"}, {"iq4_ks", "iq4_nl"}, {"iq4_kss", "iq4_nl"},
      {"iq4_k", "q5_0"},     {"iq5_ks", "q5_0"},   {"iq5_k", "q6_0"},    {"iq6_k", "q8_0"},
  };
  int known = 0;
  for (const auto& [wanted, instead] : table) {
    const auto* f = find_format(wanted);
    if (!f) continue;  // formats that the library does not have cannot be wanted
    ++known;
    ASSERT_NE(stand_in(*f, dialect::ik), nullptr) << wanted;
    EXPECT_EQ(stand_in(*f, dialect::ik)->name, instead) << wanted;
  }
  EXPECT_GE(known, 7);
  for (const char* own : {"q8_0", "q4_0", "iq4_nl", "f16"})
    EXPECT_EQ(stand_in(*find_format(own), dialect::ik), nullptr) << own;
  for (const auto& f : format_table)
    if (const auto* s = stand_in(f, dialect::llama_cpp)) {
      EXPECT_TRUE(reads(dialect::llama_cpp, *s)) << f.name;
      EXPECT_LE(s->layout.elements, 32) << f.name;
    }
  EXPECT_EQ(fitting(*find_format("q5_K"), 288, dialect::llama_cpp).name, "q5_1");
  EXPECT_EQ(fitting(*find_format("q5_K"), 288, dialect::ik).name, "q6_0");
  EXPECT_EQ(fitting(*find_format("q5_K"), 48, dialect::llama_cpp).name, "f16");
  EXPECT_EQ(fitting(*find_format("q8_0"), 4, dialect::ik).name, "f16");
}

class choosing : public ::testing::Test {
 protected:
  result<std::vector<target>> choose(const char* type, const std::string& rules = "", bool data = false) {
    options.type = find_file_type(type);
    options.rules.clear();
    if (auto r = parse_rules(rules, "rules", true, options.rules); !r) return r.error();
    return choose_types(tensors, options, traits(3, 2, false), data);
  }
  std::string failure(const char* type, const std::string& rules = "") {
    const auto r = choose(type, rules);
    return r ? "" : r.error().message;
  }
  std::string type_of(const result<std::vector<target>>& r, const std::string& name) {
    for (std::size_t i = 0; r && i < tensors.size(); ++i)
      if (tensors[i].name == name) return gguf::type_name((*r)[i].type);
    return r ? "no such tensor" : r.error().message;
  }
  std::vector<gguf::tensor_info> tensors = test::deepseek2({});
  type_options options;
};

TEST_F(choosing, mix_with_fallback_and_kept_tensors) {
  const auto r = choose("IQ2_XXS");
  EXPECT_EQ(type_of(r, "blk.1.attn_k_b.weight"), "iq4_nl");  // iq2_xxs does not fit 128 columns
  EXPECT_EQ(type_of(r, "blk.1.attn_v_b.weight"), "iq2_xxs");
  EXPECT_EQ(type_of(r, "blk.1.attn_q_b.weight"), "iq2_xxs");
  EXPECT_EQ(type_of(r, "output.weight"), "q5_K");
  EXPECT_EQ(type_of(r, "blk.1.ffn_gate_inp.weight"), "f32");
  EXPECT_EQ(type_of(r, "blk.1.attn_norm.weight"), "f32");
}

TEST_F(choosing, pure_is_the_base_everywhere) {
  options.pure = true;
  const auto r = choose("Q4_K_M");
  EXPECT_EQ(type_of(r, "blk.2.ffn_down_exps.weight"), "q4_K");
  EXPECT_EQ(type_of(r, "output.weight"), "q4_K");
  EXPECT_EQ(type_of(r, "blk.1.attn_k_b.weight"), "q5_0");
}

TEST_F(choosing, floats_ignore_the_mix) {
  const auto r = choose("F16");
  EXPECT_EQ(type_of(r, "output.weight"), "f16");
  EXPECT_EQ(type_of(r, "blk.1.attn_k_b.weight"), "f16");
  EXPECT_EQ(type_of(r, "blk.1.attn_norm.weight"), "f32");
  EXPECT_EQ(type_of(choose("F16", "attn_v_b=q8_0"), "blk.1.attn_v_b.weight"), "q8_0")
      << "rules count all the same";
  EXPECT_NE(failure("COPY", "attn=q8_0").find("no effect with type COPY"), std::string::npos);
}

TEST_F(choosing, a_tied_embedding_is_the_output) {
  tensors = test::deepseek2({.tied = true});
  tensors.push_back(test::tensor("per_layer_token_embd.weight", 0, {256, 8, 1, 1}));
  options.type = find_file_type("Q4_K_M");
  const auto named = [&](const char* name) {
    const auto r = choose_types(tensors, options, traits(3, 2, true), false);
    return type_of(r, name);
  };
  EXPECT_EQ(named("token_embd.weight"), "q6_K");
  options.output = find_format("q8_0");
  EXPECT_EQ(named("token_embd.weight"), "q8_0");
  EXPECT_EQ(named("per_layer_token_embd.weight"), "q8_0");
  options.token_embedding = find_format("q5_0");
  EXPECT_EQ(named("token_embd.weight"), "q5_0");
  EXPECT_EQ(named("per_layer_token_embd.weight"), "q5_0");
}

TEST_F(choosing, formats_of_the_other_program_need_permission) {
  EXPECT_NE(failure("Q4_K_M", "attn_q=iq4_k")
                .find("llama.cpp does not read iq4_k; --types ik or --types all allows it"),
            std::string::npos);
  EXPECT_NE(failure("TQ2_0", "attn_q=q6_0").find("llama.cpp does not read q6_0; --types all allows it"),
            std::string::npos);
  options.output = find_format("iq5_k");
  EXPECT_NE(failure("Q4_K_M").find("--output-tensor-type: llama.cpp does not read iq5_k"), std::string::npos);
  options.any_format = true;
  EXPECT_EQ(type_of(choose("Q4_K_M", "attn_q_a=iq4_k"), "blk.1.attn_q_a.weight"), "iq4_k");
  options = {};
  options.family = dialect::ik;
  EXPECT_EQ(type_of(choose("Q4_K_M", "attn_q_a=iq4_k"), "blk.1.attn_q_a.weight"), "iq4_k");
  EXPECT_NE(failure("Q4_K_M", "attn_q=tq1_0").find("ik_llama.cpp does not read tq1_0"), std::string::npos);
}

TEST_F(choosing, no_name_of_llama_cpp_makes_a_format_it_cannot_read) {
  tensors.push_back(test::tensor("blk.2.odd.weight", 0, {288, 4, 1, 1}));
  for (const auto& t : file_types()) {
    const auto* base = find_format(t.base);
    if (t.known_to == owner::ik || !base || !can_quantize(base->gguf_id)) continue;
    const auto r = choose(std::string(t.name).c_str());
    ASSERT_TRUE(r) << r.error().message;
    for (const auto& c : *r) EXPECT_TRUE(reads(dialect::llama_cpp, *find_format(c.type))) << t.name;
  }
}

TEST_F(choosing, rules_for_kept_tensors_alone_reach_them) {
  const auto r = choose("Q4_0", "_norm=f16\nffn_gate_inp=q8_0\n^blk=q5_0\n");
  EXPECT_EQ(type_of(r, "blk.1.attn_norm.weight"), "f16");
  EXPECT_EQ(type_of(r, "output_norm.weight"), "f16");
  EXPECT_EQ(type_of(r, "blk.1.ffn_gate_inp.weight"), "q8_0");
  EXPECT_EQ(type_of(r, "blk.1.exp_probs_b.bias"), "f32") << "the last rule matches others too";
  EXPECT_TRUE(options.rules[0].reaches_kept());
  EXPECT_FALSE(options.rules[2].reaches_kept());
  EXPECT_GT(options.rules[2].kept, 0);
  EXPECT_EQ(type_of(choose("Q4_0", "exp_probs_b=f16"), "blk.1.exp_probs_b.bias"), "f16");
  EXPECT_NE(failure("Q4_0", "ffn_norm=q9").find("unknown type"), std::string::npos);
}

TEST_F(choosing, rule_files_of_other_systems) {
  const auto r =
      choose("Q4_0", "\xef\xbb\xbf# a mark before the first line\r\nattn_v_b=q8_0\r\n\r\nffn_down=q6_K\r\n");
  EXPECT_EQ(type_of(r, "blk.0.attn_v_b.weight"), "q8_0");
  EXPECT_EQ(type_of(r, "blk.1.ffn_down_exps.weight"), "q6_K");
}

TEST_F(choosing, copy_keeps_everything) {
  const auto r = choose("COPY");
  ASSERT_TRUE(r);
  for (const auto& t : *r) EXPECT_TRUE(t.copy);
}

TEST_F(choosing, first_rule_wins_and_hits_are_counted) {
  const auto r = choose(
      "Q4_0", "blk\\.1\\.ffn_down=q6_K, ffn_down=Q5_k\n# comment, with=commas\nattn_v_b=8 # and one here\n");
  EXPECT_EQ(type_of(r, "blk.1.ffn_down_exps.weight"), "q6_K");
  EXPECT_EQ(type_of(r, "blk.2.ffn_down_exps.weight"), "q5_K");
  EXPECT_EQ(type_of(r, "blk.0.attn_v_b.weight"), "q8_0");
  ASSERT_EQ(options.rules.size(), 3u);
  EXPECT_EQ(options.rules[0].hits, 2);
  EXPECT_EQ(options.rules[1].hits, 3);
  EXPECT_EQ(options.rules[1].matched, 5);
  EXPECT_EQ(options.rules[2].hits, 3);
  EXPECT_EQ(options.rules[2].origin, "rules:3");
}

TEST_F(choosing, rules_take_fallbacks_too) {
  EXPECT_EQ(type_of(choose("Q4_0", "attn_k_b=q6_K"), "blk.0.attn_k_b.weight"), "q8_0");
}

TEST_F(choosing, options_win_over_rules_and_mix) {
  options.token_embedding = find_format("q8_0");
  options.output = find_format("bf16");
  const auto r = choose("Q4_K_M", "token_embd|attn_v_b=q5_K");
  EXPECT_EQ(type_of(r, "token_embd.weight"), "q8_0");
  EXPECT_EQ(type_of(r, "output.weight"), "bf16");
  EXPECT_EQ(type_of(r, "blk.1.attn_v_b.weight"), "q5_K");
  EXPECT_NE(failure("Q4_K_M", "token_embd=q5_K").find("decides nothing"), std::string::npos);
}

TEST_F(choosing, useless_rules_are_errors) {
  EXPECT_NE(failure("Q4_0", "attn_x=q8_0").find("rules:1: rule 'attn_x' matches no tensor"),
            std::string::npos);
  EXPECT_NE(failure("Q4_0", "attn=q8_0\nattn_k_b=q5_0").find("rules:2: rule 'attn_k_b' decides nothing"),
            std::string::npos);
}

TEST_F(choosing, malformed_rules_are_errors) {
  EXPECT_NE(failure("Q4_0", "attn_k_b").find("expected REGEX=TYPE"), std::string::npos);
  EXPECT_NE(failure("Q4_0", "=q8_0").find("the pattern is empty"), std::string::npos);
  EXPECT_NE(failure("Q4_0", "a\n\nattn(=q8_0").find("rules:1"), std::string::npos);
  EXPECT_NE(failure("Q4_0", "attn(=q8_0").find("bad regular expression"), std::string::npos);
  const auto unknown = failure("Q4_0", "attn=q9_9");
  EXPECT_NE(unknown.find("unknown type 'q9_9'; known: f32, f16"), std::string::npos) << unknown;
}

TEST_F(choosing, quantized_sources_need_permission) {
  for (auto& t : tensors)
    if (t.name == "output.weight") t.type = q8_0::gguf_id;
  EXPECT_NE(failure("Q4_0").find("tensor 'output.weight': requantizing from type q8_0 is disabled"),
            std::string::npos);
  options.allow_requantize = true;
  EXPECT_EQ(type_of(choose("Q4_0"), "output.weight"), "q6_K");
  options.allow_requantize = false;
  EXPECT_TRUE(choose("Q8_0")) << "the same type is a copy";
}

TEST_F(choosing, columns_that_fit_no_block_get_f16) {
  tensors.push_back(test::tensor("blk.2.odd.weight", 0, {48, 4, 1, 1}));
  for (const char* type : {"Q4_K_M", "Q8_0", "IQ2_XXS", "Q4_0"})
    EXPECT_EQ(type_of(choose(type), "blk.2.odd.weight"), "f16") << type;
  const auto r = choose("Q4_K_M");
  ASSERT_NE(r->back().fallback_from, nullptr);
  EXPECT_EQ(r->back().fallback_from->name, "q4_K");
  EXPECT_EQ(type_of(choose("Q4_K_M", "odd=f32"), "blk.2.odd.weight"), "f32");
}

TEST_F(choosing, unknown_source_type) {
  tensors.push_back(test::tensor("blk.2.odd.weight", 77, {256, 4, 1, 1}));
  EXPECT_NE(failure("Q8_0").find(": type 77 cannot be converted"), std::string::npos);
}

}  // namespace
}  // namespace quantal::plan
